def html(d):
    return "<!doctype html>"
