//! The broker as a process of its own, on a port and a data directory of its own.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const LOG: &str = "broker.log";
const START_WITHIN: Duration = Duration::from_secs(60);
/// The port is free when it is looked for, which is no promise that it still is
/// when the broker takes it.
const ATTEMPTS: usize = 3;

/// Ends with this value, whatever becomes of the test.
pub struct Broker {
    child: Child,
    pub port: u16,
    log: PathBuf,
    dir: TempDir,
    options: &'static [&'static str],
}

impl Broker {
    /// Returns once it takes connections.
    pub fn start() -> Broker {
        Broker::start_with(&[])
    }

    /// The same with options of its own, `key=value` each.
    pub fn start_with(options: &'static [&'static str]) -> Broker {
        let mut said = String::new();
        for _ in 0..ATTEMPTS {
            let mut broker = Broker::spawn(options);
            if broker.wait_until_it_serves("") {
                return broker;
            }
            said = broker.log();
        }
        panic!("the broker does not start; it said:\n{said}");
    }

    fn spawn(options: &'static [&'static str]) -> Broker {
        // Under target/: /tmp may be in memory, where there is no direct I/O.
        let dir = tempfile::Builder::new().prefix("broker-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Broker { child: Broker::process(port, dir.path(), options), port, log: dir.path().join(LOG), dir, options }
    }

    fn process(port: u16, dir: &Path, options: &[&str]) -> Child {
        let output = File::options().create(true).append(true).open(dir.join(LOG)).unwrap();
        Command::new(env!("CARGO_BIN_EXE_corelane"))
            .arg("server")
            .args(["--override", &format!("listeners=PLAINTEXT://127.0.0.1:{port}")])
            .args(["--override", &format!("log.dirs={}", dir.join("data").display())])
            .args(["--override", "corelane.http.listener="])
            .args(["--override", "broker.rack=north"])
            .args(["--override", "group.initial.rebalance.delay.ms=0"])
            .args(options.iter().flat_map(|option| ["--override", option]))
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap()
    }

    /// Its data, while it runs or not.
    #[allow(dead_code)]
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Ends it in good order, lets `meanwhile` happen and starts it on the same port and data.
    #[allow(dead_code)]
    pub fn restart(&mut self, meanwhile: impl FnOnce()) {
        let term = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap();
        assert!(term.success() && self.child.wait().unwrap().success(), "{}", self.log());
        meanwhile();
        let before = self.log();
        self.child = Broker::process(self.port, self.dir.path(), self.options);
        assert!(self.wait_until_it_serves(&before), "{}", self.log());
    }

    /// Goes by what it says after `before`: a connection may have been taken by
    /// somebody else who got the port.
    fn wait_until_it_serves(&mut self, before: &str) -> bool {
        let begun = Instant::now();
        let listens = format!("listening on PLAINTEXT://127.0.0.1:{}", self.port);
        while begun.elapsed() < START_WITHIN && self.runs() {
            if self.log().strip_prefix(before).is_some_and(|said| said.contains(&listens)) {
                return true;
            }
            sleep(Duration::from_millis(20));
        }
        false
    }

    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its process id, for signals.
    #[allow(dead_code)] // not every suite sends any
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that the broker has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
