//! The thread, and what it reads from.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::changes::Admin;
use super::console::Guard;
use super::http;
use super::pages::Pages;
use crate::config::ServerConfig;
use crate::console::Desk;
use crate::observe::metrics::Metrics;
use crate::runtime::watchdog::StallCounter;
use crate::shard::SurveyDesk;

const OPTION: &str = "corelane.http.listener";

/// Where metrics are to be served, if anywhere.
pub type Bound = Option<(SocketAddr, TcpListener)>;

/// Parts of metrics.
pub struct Sources {
    pub metrics: Arc<Metrics>,
    pub broker_id: i32,
    pub log_dirs: Vec<PathBuf>,
    /// `corelane.metrics.partitions`
    pub partitions: bool,
    /// `corelane.metrics.max.names`
    pub most_names: usize,
    /// Where each shard is asked for what is not counted.
    pub desks: Vec<Arc<SurveyDesk>>,
    /// Where the console asks the cluster.
    pub console: Desk,
    pub(super) guard: Guard,
    pub(super) admin: Admin,
    /// Parts that are there once the shards run.
    pub late: OnceLock<Late>,
}

impl Sources {
    /// Of a broker with these settings; `config.shards` is how many there are.
    pub fn of(config: &ServerConfig) -> Arc<Sources> {
        Arc::new(Sources {
            metrics: Metrics::new(config.shards, config.in_cluster()),
            broker_id: config.broker_id,
            log_dirs: config.log_dirs.clone(),
            partitions: config.metrics_partitions,
            most_names: config.metrics_max_names,
            desks: (0..config.shards).map(|_| Arc::default()).collect(),
            console: Desk::new(config),
            guard: Guard::of(config),
            admin: Admin::new(config.console_admin),
            late: OnceLock::new(),
        })
    }
}

/// Parts made for the shards, just before they run.
pub struct Late {
    pub cluster_id: String,
    /// Messages that wait for each shard.
    pub mailboxes: Vec<Box<dyn Fn() -> usize + Send + Sync>>,
    pub stalls: Option<StallCounter>,
}

/// Takes the address. Where that fails for the default, which nobody asked for, a warning says so;
/// otherwise the broker must not start.
pub fn bind(config: &ServerConfig) -> Result<Bound, String> {
    let Some(address) = config.http_listener.1 else { return Ok(None) };
    match TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener)) {
        Ok(listener) => Ok(Some((address, listener))),
        Err(error) => refused(config.given.contains_key(OPTION), address, &error).map(|()| None),
    }
}

fn refused(asked_for: bool, address: SocketAddr, error: &io::Error) -> Result<(), String> {
    if asked_for {
        return Err(format!("{OPTION}: {address}: {error}; give it a free address, or none ({OPTION}=)"));
    }
    tracing::warn!(
        "no metrics are served: {address}: {error}. Another broker on this machine may have the default address: give each its own \
         in {OPTION}, or none ({OPTION}=)"
    );
    Ok(())
}

/// Starts the thread; to be called before any thread is pinned. It ends with the process.
pub fn start((address, listener): (SocketAddr, TcpListener), sources: Arc<Sources>) -> Result<(), String> {
    let failed = |error: io::Error| format!("{OPTION}: {address}: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(failed)?;
    let pages = Pages::new(sources);
    let serve = move || {
        if let Err(error) = runtime.block_on(http::serve(listener, pages.router())) {
            tracing::error!("no metrics are served: {address}: {error}");
        }
    };
    std::thread::Builder::new().name("monitor".to_owned()).spawn(serve).map_err(failed)?;
    tracing::info!("metrics at http://{address}/metrics, the console at http://{address}/");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_taken_matters_where_it_was_asked_for() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut config =
            ServerConfig { http_listener: (address.to_string(), Some(address)), ..ServerConfig::default() };
        assert!(matches!(bind(&config), Ok(None)));
        config.given.insert(OPTION.to_owned(), address.to_string());
        let error = bind(&config).err().unwrap();
        assert!(error.contains(&address.to_string()) && error.contains("free address"), "{error}");
        config.http_listener = (String::new(), None);
        assert!(matches!(bind(&config), Ok(None)));
        drop(taken);
        config.http_listener.1 = Some(address);
        assert_eq!(bind(&config).unwrap().map(|(bound, _)| bound), Some(address));
    }
}
