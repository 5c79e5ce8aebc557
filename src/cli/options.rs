//! `corelane options`: the option table.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crate::config;

pub(super) fn main(markdown: bool) -> ExitCode {
    let text = if markdown { config::markdown() } else { config::plain() };
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
