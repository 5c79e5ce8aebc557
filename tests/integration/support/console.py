"""The console in a headless Chromium, as a person sees it, and its answers without one."""

import http.client
import json
import os
import shutil
import time
from contextlib import contextmanager
from urllib.parse import urlencode

import pytest

from . import broker as brokers
from . import clock, metrics

WIDE, NARROW = (1280, 900), (400, 800)
PROGRAMS = ("chromium-headless-shell", "chromium")


@contextmanager
def chromium():
    """A browser that ends with the block."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not path:
        pytest.fail(f"none of {PROGRAMS} is here; run the suites through scripts/test")
    with sync_playwright() as playwright:
        # Its sandbox wants a user other than root.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        try:
            yield browser
        finally:
            browser.close()


class Window:
    """One person's browser on a broker's console. What the page asks for, and its errors, are kept."""

    def __init__(self, browser, b, size=WIDE, scheme="light"):
        self.origin = f"http://{brokers.HOST}:{b.http_port}"
        width, height = size
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, timezone_id="UTC")
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.asked, self.errors = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._note)
        self.page.on("dialog", self._dialog)

    def _note(self, message):
        # An answer that is an error is the page's to show.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.errors.append(message.text)

    def _dialog(self, dialog):
        self.errors.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, view=""):
        self.page.goto(f"{self.origin}/#/{view}")
        return self.page

    def until(self, expression, argument=None, timeout=20):
        """Waits for an expression, or a function of `argument`. Playwright's own way is forbidden by the page's policy."""
        end = clock.running() + timeout
        while not self.page.evaluate(expression, argument):
            assert clock.running() < end, f"not within {timeout} s: {expression}\n{self.page.inner_text('body')[:3000]}"
            self.page.wait_for_timeout(50)

    def rows(self, table):
        """The text of each cell of each row, as it is seen."""
        self.page.wait_for_selector(f"{table} tbody tr")
        return [
            [" ".join(cell.split()) for cell in row]
            for row in self.page.eval_on_selector_all(f"{table} tbody tr", "rows => rows.map(r => [...r.cells].map(c => c.innerText))")
        ]

    def heads(self, table):
        self.page.wait_for_selector(f"{table} thead th")
        return self.page.eval_on_selector_all(f"{table} thead th", "heads => heads.map(h => h.innerText)")

    def fits(self):
        """Nothing reaches beyond the window's right edge."""
        return self.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")

    def cut(self, table):
        """Heads of a table whose cells are not seen as a whole, in any row."""
        self.page.wait_for_selector(f"{table} tbody tr")
        return self.page.evaluate(
            """table => {
              const heads = [...document.querySelectorAll(`${table} thead th`)].map(h => h.textContent);
              const cells = [...document.querySelectorAll(`${table} tbody tr`)].flatMap(row => [...row.cells].map((cell, i) => [heads[i], cell]));
              const seen = cell => {
                const box = cell.getBoundingClientRect();
                return box.width > 0 && box.left >= 0 && box.right <= innerWidth;
              };
              return [...new Set(cells.filter(([, cell]) => cell.childNodes.length && !seen(cell)).map(([head]) => head))];
            }""",
            table,
        )

    def shoot(self, name):
        """A picture, where somebody wants to see one (CORELANE_SCREENSHOTS)."""
        folder = os.environ.get("CORELANE_SCREENSHOTS")
        if folder:
            os.makedirs(folder, exist_ok=True)
            self.page.screenshot(path=f"{folder}/{name}.png", full_page=True)

    def close(self):
        self.context.close()

    def check(self):
        """The page asked for nothing elsewhere, and had no error."""
        strange = [url for url in self.asked if not url.startswith((self.origin + "/", "data:"))]
        assert not strange, strange
        assert not self.errors, self.errors


def start(b):
    """Starts a broker that serves metrics, and waits until it says that it is ready, which is a little after it serves."""
    b.start()
    end = clock.running() + 30
    while metrics.get(b, "/readyz")[0] != 200:
        assert clock.running() < end, b.log_tail()
        time.sleep(0.01)
    return b


def request(b, path, method="GET", host=None, address=brokers.HOST, **headers):
    """(status, headers, body), with a Host header of one's own."""
    connection = http.client.HTTPConnection(address, b.http_port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=host is not None)
        if host:
            connection.putheader("Host", host)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, dict((k.lower(), v) for k, v in response.getheaders()), response.read()
    finally:
        connection.close()


def ask(b, path, status=200, **query):
    """The answer of /api/`path`."""
    got, headers, body = request(b, f"/api/{path}" + ("?" + urlencode(query) if query else ""))
    assert (got, headers["content-type"]) == (status, "application/json"), (got, headers, body[:500])
    return json.loads(body)
