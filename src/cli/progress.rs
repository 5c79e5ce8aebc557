//! How a long command shows that it goes on: a bar on a terminal, else a line a second, or nothing.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

pub(super) enum Progress {
    Quiet,
    Lines,
    Bar { bar: ProgressBar, seconds: u64 },
}

impl Progress {
    /// `length`: how long it will take, where that is known.
    pub fn new(quiet: bool, length: Option<Duration>) -> Progress {
        if quiet {
            return Progress::Quiet;
        }
        if !io::stderr().is_terminal() {
            return Progress::Lines;
        }
        let (seconds, template) = match length {
            Some(length) => (length.as_secs_f64().ceil() as u64, "{bar:20} {pos:>4}/{len} s  {wide_msg}"),
            None => (0, "{spinner} {pos:>4} s  {wide_msg}"),
        };
        let bar = ProgressBar::new(seconds);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.tick();
        Progress::Bar { bar, seconds }
    }

    /// `text`: what happened in the `second`th second.
    pub fn second(&self, second: u64, text: &str) {
        match self {
            Progress::Quiet => {}
            Progress::Lines => drop(writeln!(io::stderr(), "{second:>5} s  {text}")),
            Progress::Bar { bar, seconds } => {
                bar.set_position(if *seconds > 0 { second.min(*seconds) } else { second });
                bar.set_message(text.to_owned());
            }
        }
    }

    /// Clears the bar away: what follows is the result.
    pub fn end(&self) {
        if let Progress::Bar { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}
