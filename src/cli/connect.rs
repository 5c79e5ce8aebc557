//! Common part of commands that ask a cluster: where it is, how long to wait, how to print.

use std::future::Future;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::report::{Report, print, say};
use crate::client::ClusterClient;
use crate::client::cluster_client::Bootstrap;
use crate::runtime::executor::{ShardSpec, run_shards};

const IO_MEMORY_BYTES: usize = 1 << 20;
const DEFAULT_PORT: u16 = 9092;

/// Where the cluster is.
#[derive(Args, Clone)]
pub(super) struct Reach {
    /// Brokers to begin with; the others are found through them
    #[arg(long, value_name = "HOST:PORT[,HOST:PORT...]", default_value = "127.0.0.1:9092", global = true)]
    #[arg(value_parser = bootstrap)]
    bootstrap_server: Servers,
    /// Give up after so many seconds; until then what passes by itself (a leader
    /// that moves) is tried again
    #[arg(long, value_name = "SECONDS", default_value = "30", global = true, value_parser = seconds)]
    pub timeout: Duration,
}

#[derive(Args, Clone)]
pub(super) struct Connect {
    #[command(flatten)]
    reach: Reach,
    /// Tables for people, or JSON for programs (its fields are in docs/CLI.md)
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    pub format: Format,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    #[default]
    Text,
    Json,
}

/// At least one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Servers(Vec<Bootstrap>);

fn bootstrap(text: &str) -> Result<Servers, String> {
    text.split(',').map(|server| host_port(server.trim())).collect::<Result<_, _>>().map(Servers)
}

fn host_port(text: &str) -> Result<Bootstrap, String> {
    // [::1]:9092 is an IPv6 address with a port; without brackets all of ::1 is the address.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(format!("'{text}' names no host; it must read HOST:PORT"));
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(format!("'{port}' is no port; it must be 1 to 65535")),
        },
    };
    Ok((host.to_owned(), port))
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("it must be a number of seconds, above 0 and up to 86400".into()),
    }
}

impl Reach {
    /// Runs the command with a client, on a shard of its own.
    pub fn ask<C, T, F>(
        &self,
        command: C,
        work: impl Fn(ClusterClient, C) -> F + Clone + Send + 'static,
    ) -> Result<T, String>
    where
        C: Clone + Send + 'static,
        T: Send + 'static,
        F: Future<Output = Result<T, String>> + 'static,
    {
        let (sender, outcome) = mpsc::channel();
        let (servers, timeout) = (self.bootstrap_server.0.clone(), self.timeout);
        let spec = ShardSpec { index: 0, cpu: None, io_memory_bytes: IO_MEMORY_BYTES };
        let running = run_shards(vec![spec], move |_| {
            let (sender, work, command, servers) = (sender.clone(), work.clone(), command.clone(), servers.clone());
            async move {
                let client = ClusterClient::new(servers, timeout);
                let _ = sender.send(Box::pin(work(client, command)).await);
            }
        });
        let threads = running.map_err(|error| error.to_string())?;
        let outcome = outcome.recv().unwrap_or_else(|_| Err("the command ended without a result".into()));
        threads.join();
        outcome
    }
}

impl Connect {
    /// Runs the command with a client, prints its report, and says by the exit code
    /// whether all of it was done.
    pub fn run<C, F>(&self, command: C, work: impl Fn(ClusterClient, C) -> F + Clone + Send + 'static) -> ExitCode
    where
        C: Clone + Send + 'static,
        F: Future<Output = Result<Report, String>> + 'static,
    {
        let outcome = self.reach.ask(command, work);
        outcome.and_then(|report| print(&report, self.format)).unwrap_or_else(|message| {
            say(&message);
            ExitCode::FAILURE
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_kafkas_tools_write_them() {
        let read = |text| bootstrap(text).map(|servers| servers.0);
        let server = |host: &str, port| (host.to_owned(), port);
        assert_eq!(read("a:1"), Ok(vec![server("a", 1)]));
        assert_eq!(read("a:1, b.c:65535"), Ok(vec![server("a", 1), server("b.c", 65535)]));
        assert_eq!(read("a"), Ok(vec![server("a", 9092)]));
        assert_eq!(read("[::1]:7,::1"), Ok(vec![server("::1", 7), server("::1", 9092)]));
        for wrong in ["", ":1", "a:", "a:0", "a:x", "a:65536", "a:1,,b:2"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "x", "NaN", "inf", "86401"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
