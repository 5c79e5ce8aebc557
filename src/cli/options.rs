//! `corelane options`, `corelane metrics` and `corelane protocol`: the tables.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crate::config;
use crate::observe::metrics;
use crate::server::reference;

pub(super) fn main(markdown: bool) -> ExitCode {
    print(if markdown { config::markdown() } else { config::plain() })
}

pub(super) fn metrics(markdown: bool) -> ExitCode {
    print(if markdown { metrics::markdown() } else { metrics::plain() })
}

pub(super) fn protocol(markdown: bool) -> ExitCode {
    print(if markdown { reference::markdown() } else { reference::plain() })
}

fn print(text: String) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // The reader (a pager) has seen enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(io::stderr(), "corelane: cannot write to stdout: {e}");
            ExitCode::FAILURE
        }
        Ok(()) => ExitCode::SUCCESS,
    }
}
