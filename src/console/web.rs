//! The page and the files that it is made of, which refer to nothing else.

/// Path, content type and contents of each.
pub const FILES: [(&str, &str, &str); 6] = [
    ("/", "text/html; charset=utf-8", include_str!("web/index.html")),
    ("/console.css", "text/css; charset=utf-8", include_str!("web/console.css")),
    ("/parts.js", SCRIPT, include_str!("web/parts.js")),
    ("/messages.js", SCRIPT, include_str!("web/messages.js")),
    ("/changes.js", SCRIPT, include_str!("web/changes.js")),
    ("/views.js", SCRIPT, include_str!("web/views.js")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";
