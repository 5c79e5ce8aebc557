//! ZooKeeper servers as processes, and a proxy that can be cut.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::cluster::store::zookeeper::{ConnectString, RoundTrips, Settings, ZooKeeper};
use crate::model::BrokerId;

/// Longest wait for anything; only a failing test takes it.
pub const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);

/// Folder of the jars; `None`: these tests are left out.
pub fn jars() -> Option<OsString> {
    let jars = std::env::var_os("CORELANE_ZOOKEEPER").filter(|jars| !jars.is_empty());
    if jars.is_none() {
        eprintln!("left out: CORELANE_ZOOKEEPER names no folder with the jars of ZooKeeper");
    }
    jars
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        if is_so() {
            return;
        }
        thread::sleep(PAUSE);
    }
    unreachable!("{what}: not within {PATIENCE:?}");
}

/// One server or an ensemble.
pub struct Servers {
    jars: OsString,
    options: Vec<String>,
    home: tempfile::TempDir,
    ports: Vec<u16>,
    children: Vec<Option<Child>>,
}

impl Servers {
    pub fn start(jars: &OsString, count: usize, options: &[&str]) -> Servers {
        let home = tempfile::tempdir().expect("a directory");
        let ports = free_ports(3 * count);
        let mut servers = Servers {
            jars: jars.clone(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            home,
            ports,
            children: (0..count).map(|_| None).collect(),
        };
        for index in 0..count {
            servers.configure(index);
            servers.start_one(index);
        }
        for index in 0..count {
            servers.wait_for(index);
        }
        servers
    }

    fn folder(&self, index: usize) -> PathBuf {
        self.home.path().join(index.to_string())
    }

    fn configure(&self, index: usize) {
        let (folder, count) = (self.folder(index), self.children.len());
        fs::create_dir_all(&folder).expect("a directory");
        fs::write(folder.join("myid"), format!("{}\n", index + 1)).expect("a file");
        let mut text = format!(
            "tickTime=500\ninitLimit=20\nsyncLimit=10\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\n\
             maxSessionTimeout=600000\nadmin.enableServer=false\n4lw.commands.whitelist=*\n",
            folder.display(),
            self.ports[3 * index],
        );
        for other in (0..count).filter(|_| count > 1) {
            let [_, quorum, election] = [0, 1, 2].map(|at| self.ports[3 * other + at]);
            text += &format!("server.{}=127.0.0.1:{quorum}:{election}\n", other + 1);
        }
        fs::write(folder.join("zoo.cfg"), text).expect("a file");
    }

    pub fn start_one(&mut self, index: usize) {
        let folder = self.folder(index);
        let mut classes = self.jars.clone();
        classes.push("/*");
        let log = fs::OpenOptions::new().append(true).create(true).open(folder.join("log")).expect("a file");
        let child = Command::new("java")
            .args(["-Xmx96m", "-Dzookeeper.forceSync=no"])
            .args(&self.options)
            .arg("-cp")
            .arg(classes)
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(folder.join("zoo.cfg"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.children[index] = Some(child.expect("java starts"));
    }

    /// Kills a server as by kill -9.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.children[index].take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child ends");
        }
    }

    pub fn wait_for(&self, index: usize) {
        wait_until("a server serves", || self.serves(index));
    }

    pub fn serves(&self, index: usize) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.address(index))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"srvr")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.contains("Mode: "))
    }

    pub fn address(&self, index: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[3 * index]))
    }

    /// All of them.
    pub fn connect(&self) -> String {
        let all = (0..self.children.len()).map(|index| self.address(index).to_string());
        all.collect::<Vec<_>>().join(",")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address").port()).collect()
}

pub fn settings(connect: &str, broker: i32) -> Settings {
    let connect = ConnectString::parse(connect).expect("a connect string");
    Settings {
        session_timeout: Duration::from_secs(10),
        connection_timeout: PATIENCE,
        audit_pause: Duration::from_millis(10),
        ..Settings::new(connect, BrokerId(broker))
    }
}

pub fn open(connect: &str) -> ZooKeeper {
    ZooKeeper::open(settings(connect, 1), Box::new(|| {})).expect("a session")
}

/// Everything that any of them has begun has its end, and all of them know.
pub fn settle(all: &[RoundTrips]) {
    for _ in 0..2 {
        assert!(all.iter().all(|trips| trips.wait(PATIENCE)), "a round trip within {PATIENCE:?}");
    }
}

/// A way to a server that can be cut.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Both ends of each connection.
    streams: Mutex<Vec<TcpStream>>,
    is_cut: Mutex<bool>,
    held: Mutex<Held>,
    /// Bytes that were kept back.
    kept: AtomicU64,
}

/// The direction in which nothing gets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Held {
    #[default]
    Nothing,
    Requests,
    Answers,
}

impl Proxy {
    pub fn to(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                if *accepting.is_cut.lock().expect("a lock") {
                    continue;
                }
                let Ok(server) = TcpStream::connect(server) else { continue };
                let ends = [&client, &server].map(|stream| stream.try_clone().expect("a descriptor"));
                accepting.streams.lock().expect("a lock").extend(ends);
                forward(&client, &server, accepting.clone(), Held::Requests);
                forward(&server, &client, accepting.clone(), Held::Answers);
            }
        });
        Proxy { address, shared }
    }

    pub fn connect(&self) -> String {
        self.address.to_string()
    }

    /// Ends all connections, and takes no more.
    pub fn cut(&self) {
        *self.shared.is_cut.lock().expect("a lock") = true;
        for stream in self.shared.streams.lock().expect("a lock").drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    pub fn mend(&self) {
        self.hold(Held::Nothing);
        *self.shared.is_cut.lock().expect("a lock") = false;
    }

    /// Keeps back, and loses, what comes from now on in one direction.
    pub fn hold(&self, held: Held) {
        *self.shared.held.lock().expect("a lock") = held;
    }

    pub fn kept(&self) -> u64 {
        self.shared.kept.load(Ordering::Relaxed)
    }
}

fn forward(from: &TcpStream, to: &TcpStream, shared: Arc<Shared>, direction: Held) {
    let ends = [from, to].map(|stream| stream.try_clone().expect("a descriptor"));
    thread::spawn(move || {
        let [mut from, mut to] = ends;
        let mut buffer = [0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if *shared.held.lock().expect("a lock") == direction {
                shared.kept.fetch_add(count as u64, Ordering::Relaxed);
            } else if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
    });
}

/// ZooKeeper's shell.
pub fn shell(jars: &Path, server: SocketAddr, commands: &str) -> String {
    let mut child = Command::new("java")
        .arg("-cp")
        .arg(jars.join("*"))
        .args(["org.apache.zookeeper.ZooKeeperMain", "-server", &server.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("java starts");
    child.stdin.take().expect("a pipe").write_all(commands.as_bytes()).expect("a pipe");
    String::from_utf8_lossy(&child.wait_with_output().expect("it ends").stdout).into_owned()
}
