//! `idle`: connections that say hello and then nothing, to see what a broker pays for them
//! and whether it keeps them.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use futures_lite::future::or;
use serde_json::{Value, json};

use super::context::CLIENT_ID;
use super::run::RunError;
use super::setup::resolve;
use super::stats::Errors;
use crate::client::{ClientError, Connection, Idle as Held};
use crate::runtime::executor::{ShardSpec, run_shards};
use crate::runtime::process::{self, StopFlag};
use crate::runtime::sync::Notify;
use crate::runtime::{clock, probe, spawn_local};

const IO_MEMORY_BYTES: usize = 1 << 20;
/// Connections that are being opened at a time.
const OPENERS: usize = 32;
/// Descriptors beside the connections.
const OTHER_FILES: u64 = 100;
const ENDED: &str = "connections that the broker has ended";
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct Idle {
    /// host:port
    pub bootstrap: String,
    pub connections: usize,
    pub duration: Duration,
}

/// How it went, or how far it has come.
#[derive(Clone, Debug, Default)]
pub struct IdleReport {
    pub asked: usize,
    pub opened: usize,
    /// At the last look.
    pub open: usize,
    /// Time to open them.
    pub open_seconds: f64,
    /// Time for which they were held.
    pub seconds: f64,
    pub client_cpu_seconds: f64,
    pub errors: Errors,
    pub interrupted: bool,
}

impl IdleReport {
    /// Some were not opened or not kept.
    pub fn is_short(&self) -> bool {
        self.open < self.asked || !self.errors.is_empty()
    }

    pub fn json(&self, options: &Idle) -> Value {
        json!({
            "mode": "idle",
            "settings": {
                "bootstrap": options.bootstrap, "connections": options.connections,
                "duration_s": options.duration.as_secs_f64(),
            },
            "asked": self.asked,
            "opened": self.opened,
            "open_at_end": self.open,
            "open_seconds": self.open_seconds,
            "seconds": self.seconds,
            "client_cpu_s": self.client_cpu_seconds,
            "errors": self.errors,
            "void": false,
            "interrupted": self.interrupted,
        })
    }

    pub fn table(&self) -> String {
        let early = if self.interrupted { " (interrupted)" } else { "" };
        let mut out = format!(
            "mode                   idle\n\
             opened                 {} of {} in {:.3} s\n\
             held                   {:.3} s{early}\n\
             open at the end        {}\n\
             client CPU             {:.2} s\n",
            self.opened, self.asked, self.open_seconds, self.seconds, self.open, self.client_cpu_seconds
        );
        for (what, count) in &self.errors {
            out.push_str(&format!("ERROR                  {count} x {what}\n"));
        }
        out
    }
}

/// Runs to the end, or to SIGINT or SIGTERM. `each_second` gets how many connections are open.
pub fn run_idle(options: &Idle, mut each_second: impl FnMut(usize)) -> Result<IdleReport, RunError> {
    let address = resolve(&options.bootstrap)?;
    let wanted = options.connections as u64 + OTHER_FILES;
    let limit = probe::raise_open_files_to(wanted).map_err(RunError::Start)?;
    if limit < wanted {
        return Err(RunError::Files { wanted, limit });
    }
    let stop = StopFlag::default();
    process::stop_in_background(&stop)?;
    let (sender, news) = mpsc::channel();
    let (all, shard_stop) = (options.clone(), stop.clone());
    let spec = ShardSpec { index: 0, cpu: None, io_memory_bytes: IO_MEMORY_BYTES };
    let running = run_shards(vec![spec], move |_| {
        let (options, stop, sender) = (all.clone(), shard_stop.clone(), sender.clone());
        async move {
            let report = hold(&options, address, &stop, |open| drop(sender.send(News::Open(open)))).await;
            let _ = sender.send(News::Done(Box::new(report)));
        }
    })?;
    let report = loop {
        match news.recv() {
            Ok(News::Open(open)) => each_second(open),
            Ok(News::Done(report)) => break Ok(*report),
            Err(_) => break Err(RunError::Thread("the thread has ended without a result".into())),
        }
    };
    running.join();
    let interrupted = stop.is_set();
    stop.set();
    report.map(|report| IdleReport { interrupted, ..report })
}

enum News {
    Open(usize),
    Done(Box<IdleReport>),
}

/// State that the opening tasks share.
struct Opening {
    left: Cell<usize>,
    held: RefCell<Vec<Held>>,
    errors: RefCell<Errors>,
    openers: Cell<usize>,
    ended: Notify,
}

async fn hold(options: &Idle, address: SocketAddr, stop: &StopFlag, mut each_second: impl FnMut(usize)) -> IdleReport {
    let openers = OPENERS.min(options.connections);
    let opening = Rc::new(Opening {
        left: Cell::new(options.connections),
        held: RefCell::default(),
        errors: RefCell::default(),
        openers: Cell::new(openers),
        ended: Notify::new(),
    });
    let begun = clock::now();
    for _ in 0..openers {
        spawn_local(open_some(opening.clone(), address, stop.clone()));
    }
    let mut next = begun + SECOND;
    while opening.openers.get() > 0 {
        let wait = next.saturating_duration_since(clock::now());
        or(opening.ended.notified(), clock::sleep(wait)).await;
        if clock::now() >= next {
            next += SECOND;
            each_second(opening.held.borrow().len());
        }
    }
    let opened = opening.held.borrow().len();
    let open_seconds = clock::now().saturating_duration_since(begun).as_secs_f64();
    let (begun, cpu_before) = (clock::now(), process::cpu_seconds());
    let mut next = begun + SECOND;
    // Those that are open are held, whatever became of others.
    while opened > 0 && !stop.is_set() && clock::now() < begun + options.duration {
        let wake = next.min(begun + options.duration);
        clock::sleep(wake.saturating_duration_since(clock::now()).min(StopFlag::POLL)).await;
        if clock::now() >= next {
            next += SECOND;
            each_second(look(&opening.held));
        }
        // One tells whether to look at all of them; a broker that has gone ends the run.
        let first_is_open = opening.held.borrow_mut().first_mut().is_some_and(Held::is_open);
        if !first_is_open && look(&opening.held) == 0 {
            stop.set();
        }
    }
    let client_cpu_seconds = process::cpu_seconds().zip(cpu_before).map_or(0.0, |(now, before)| now - before);
    let open = look(&opening.held);
    if open < opened {
        *opening.errors.borrow_mut().entry(ENDED.to_owned()).or_default() += (opened - open) as u64;
    }
    IdleReport {
        asked: options.connections,
        opened,
        open,
        open_seconds,
        seconds: clock::now().saturating_duration_since(begun).as_secs_f64(),
        client_cpu_seconds,
        errors: opening.errors.take(),
        interrupted: false,
    }
}

/// How many the broker has not ended.
fn look(held: &RefCell<Vec<Held>>) -> usize {
    held.borrow_mut().iter_mut().map(|connection| usize::from(connection.is_open())).sum()
}

/// Ends with the first that fails: a broker that refuses is not asked without end.
async fn open_some(opening: Rc<Opening>, address: SocketAddr, stop: StopFlag) {
    while opening.left.get() > 0 && !stop.is_set() {
        opening.left.set(opening.left.get() - 1);
        match Connection::open(address, CLIENT_ID).await {
            Ok(connection) => opening.held.borrow_mut().push(connection.hold()),
            Err(error) => {
                *opening.errors.borrow_mut().entry(advice(&error)).or_default() += 1;
                break;
            }
        }
    }
    opening.openers.set(opening.openers.get() - 1);
    opening.ended.notify_all();
}

/// The error, with what to do about it where that is known.
fn advice(error: &ClientError) -> String {
    let kind = if let ClientError::Io(error) = error { error.kind() } else { io::ErrorKind::Other };
    match kind {
        io::ErrorKind::AddrNotAvailable => {
            format!("{error}: no local port is left; widen the range (sysctl net.ipv4.ip_local_port_range)")
        }
        _ => error.to_string(),
    }
}
