//! Descriptions of the command line for shells and for `man`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;
use serde_json::Value;

use super::command::definition;
use super::connect::Format;
use super::report::{Report, finish, say};

#[derive(Args)]
pub(super) struct CompletionsArguments {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Args)]
pub(super) struct ManArguments {
    /// Write a page for each command into this directory, instead of the first one to stdout
    directory: Option<PathBuf>,
}

pub(super) fn completions(arguments: CompletionsArguments) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition(), "corelane", &mut script);
    tell(script)
}

pub(super) fn man(arguments: ManArguments) -> ExitCode {
    let Some(directory) = arguments.directory else {
        let mut page = Vec::new();
        return match clap_mangen::Man::new(definition()).render(&mut page) {
            Ok(()) => tell(page),
            Err(error) => fail(&format!("the page cannot be made: {error}")),
        };
    };
    match clap_mangen::generate_to(definition(), &directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{}: {error}; is it a directory that may be written to?", directory.display())),
    }
}

fn tell(bytes: Vec<u8>) -> ExitCode {
    let text = String::from_utf8_lossy(&bytes).into_owned();
    finish(Report { text, json: Value::Null, failed: Vec::new() }, Format::Text)
}

fn fail(message: &str) -> ExitCode {
    say(message);
    ExitCode::FAILURE
}
