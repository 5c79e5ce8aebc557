//! What can be typed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use super::{arena, bench, broker, cluster, config, group, log, options, parse, quota, server, shell, topic, tune};

/// A message broker that speaks the Apache Kafka wire protocol.
#[derive(Parser)]
#[command(name = "corelane", version, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the broker (also without any command, then with the defaults)
    Server(ServerArguments),
    /// Print every option with its default, bounds and meaning
    Options {
        /// As the page docs/CONFIGURATION.md
        #[arg(long)]
        markdown: bool,
    },
    /// Print every metric with its labels and meaning
    Metrics {
        /// As the page docs/METRICS.md
        #[arg(long)]
        markdown: bool,
    },
    /// Load any Kafka broker and tell what it takes
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Make, show, change and delete topics, of any Kafka cluster
    Topic(topic::TopicArguments),
    /// Show groups and how far they have read, move them, delete them, of any Kafka cluster
    Group(group::GroupArguments),
    /// Show, set and explain options of topics and brokers, of any Kafka cluster
    Config(config::ConfigArguments),
    /// Show, set and remove what clients may use, of any Kafka cluster
    Quota(quota::QuotaArguments),
    /// Show brokers and their data directories, of any Kafka cluster
    Broker(broker::BrokerArguments),
    /// Look at the memory that outlives the broker (corelane.acknowledge=held)
    #[command(subcommand)]
    Arena(arena::ArenaCommand),
    /// Print and check the files of a log, without a broker
    Log(log::LogArguments),
    /// Make a cluster of brokers that were alone
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Look at this host and its disk: what is off, and the options that fit
    Tune(tune::TuneArguments),
    /// Print completions for a shell
    #[command(after_help = "Example:
  corelane completions bash > /etc/bash_completion.d/corelane")]
    Completions(shell::CompletionsArguments),
    /// Print the man page
    #[command(after_help = "Example:
  corelane man | man -l -
  corelane man /usr/local/share/man/man1")]
    Man(shell::ManArguments),
}

#[derive(Args, Default)]
pub(super) struct ServerArguments {
    /// Options in the syntax of Kafka's server.properties
    pub file: Option<PathBuf>,
    /// An option that wins over the file; may be given several times
    #[arg(long = "override", value_name = "KEY=VALUE", value_parser = parse::option)]
    pub overrides: Vec<(String, String)>,
}

/// Everything that can be typed.
pub(super) fn definition() -> clap::Command {
    CommandLine::command()
}

/// The whole program.
pub fn main() -> ExitCode {
    match CommandLine::parse().command {
        None => server::main(ServerArguments::default()),
        Some(Command::Server(arguments)) => server::main(arguments),
        Some(Command::Options { markdown }) => options::main(markdown),
        Some(Command::Metrics { markdown }) => options::metrics(markdown),
        Some(Command::Bench(command)) => bench::main(command),
        Some(Command::Topic(arguments)) => topic::main(arguments),
        Some(Command::Group(arguments)) => group::main(arguments),
        Some(Command::Config(arguments)) => config::main(arguments),
        Some(Command::Quota(arguments)) => quota::main(arguments),
        Some(Command::Broker(arguments)) => broker::main(arguments),
        Some(Command::Arena(command)) => arena::main(command),
        Some(Command::Log(arguments)) => log::main(arguments),
        Some(Command::Cluster(command)) => cluster::main(command),
        Some(Command::Tune(arguments)) => tune::main(arguments),
        Some(Command::Completions(arguments)) => shell::completions(arguments),
        Some(Command::Man(arguments)) => shell::man(arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn overrides_are_split_at_the_first_equals_sign() {
        let parsed = CommandLine::try_parse_from([
            "corelane",
            "server",
            "f.properties",
            "--override",
            "a=b=c",
            "--override",
            " x = y ",
            "--override",
            "z=",
        ]);
        let Some(Command::Server(arguments)) = parsed.unwrap().command else { panic!("another command") };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(arguments.overrides, [pair("a", "b=c"), pair("x", "y"), pair("z", "")]);
        assert_eq!(arguments.file, Some("f.properties".into()));
        assert!(CommandLine::try_parse_from(["corelane"]).unwrap().command.is_none());
        for wrong in ["novalue", "=v"] {
            assert!(CommandLine::try_parse_from(["corelane", "server", "--override", wrong]).is_err());
        }
    }
}
