//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use super::{
    arena, bench, broker, cluster, config, consume, group, log, options, parse, produce, quota, server, shell, top,
    topic, tune,
};

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
    /// Print every API with its versions, beside those of Apache Kafka
    Protocol {
        /// As the page docs/PROTOCOL.md, with the differences from Kafka and their reasons
        #[arg(long)]
        markdown: bool,
    },
    /// Load any Kafka broker and tell what it takes
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Send records from standard input to a topic, of any Kafka cluster
    #[command(after_help = r"Examples:
  corelane topic create hello
  seq 5 | corelane produce hello
  printf 'alice:1\nbob:2\n' | corelane produce hello --key-separator :
  corelane produce orders --key-separator '\t' --header source=import < orders.tsv
  corelane consume orders --format json --until-end | corelane produce copy --format json

Makes no topics. Ends with the input, or with Ctrl-C once what was read is acknowledged. Exit code 1: some records were not, and stderr says how many and why.")]
    Produce(produce::ProduceArguments),
    /// Print the records of a topic, of any Kafka cluster
    #[command(after_help = r"Examples:
  corelane consume hello --until-end
  corelane consume hello --tail --format '%p@%o %k: %v\n'
  corelane consume hello --from -10 --count 10
  corelane consume hello --from 2026-01-31T00:00:00 --partition 0 --format json
  corelane consume hello --group mine                          (goes on where the group was)

Ends with Ctrl-C, or when its output is not read any more, and then commits for a group what was printed.")]
    Consume(consume::ConsumeArguments),
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
    /// Show what a cluster is busy with, again and again: shards, topics,
    /// groups, clients, slow requests
    #[command(after_help = "Examples:
  corelane top
  corelane top --bootstrap-server a:9092 --metrics a:9644,b:9644,c:9644
  corelane top --once --format json

Shards, bytes, clients and slow requests are asked at the brokers' HTTP listeners (corelane.http.listener);
slow requests only of this host unless corelane.console.remote is true. Without those, and of Kafka,
the protocol tells the topics' records and the groups' lag. Ends with Ctrl-C.")]
    Top(top::TopArguments),
    /// Look at the memory that outlives the broker (corelane.acknowledge=held)
    #[command(subcommand)]
    Arena(arena::ArenaCommand),
    /// Print and check the files of a log, without a broker
    Log(log::LogArguments),
    /// Make a cluster of brokers that were alone, and spread the work over its brokers
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
        Some(Command::Protocol { markdown }) => options::protocol(markdown),
        Some(Command::Bench(command)) => bench::main(command),
        Some(Command::Produce(arguments)) => produce::main(arguments),
        Some(Command::Consume(arguments)) => consume::main(arguments),
        Some(Command::Topic(arguments)) => topic::main(arguments),
        Some(Command::Group(arguments)) => group::main(arguments),
        Some(Command::Config(arguments)) => config::main(arguments),
        Some(Command::Quota(arguments)) => quota::main(arguments),
        Some(Command::Broker(arguments)) => broker::main(arguments),
        Some(Command::Top(arguments)) => top::main(arguments),
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
