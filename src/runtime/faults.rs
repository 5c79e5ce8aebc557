//! Faults on demand, for tests: a rule makes one kind of file operation on matching paths
//! fail from some point on.
//!
//! Rules belong to a shard. Tests add them with [`inject`]; a whole process takes them at a shard's
//! first file from the environment: `CORELANE_FAULTS="write:EIO:topic-0:100;fdatasync:EIO:.log:0"`,
//! which reads: of the writes to paths that contain `topic-0` let 100 pass, then fail with EIO.
//! Errors: `EIO`, `ENOSPC`, `EROFS`, `EDQUOT`, a number, `SHORT` (write half) or `SLOW<ms>` (reads,
//! writes, syncs and reservations take that much longer). A fifth field ends the rule:
//! `write:ENOSPC:topic-0:100:3` fails three times, then lets everything pass.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use super::context;

/// The kinds of file operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Open,
    Read,
    Write,
    /// A write of zeros ahead of the data.
    Ahead,
    Fdatasync,
    /// A whole file system is synced.
    SyncFs,
    Preallocate,
    Truncate,
    /// A small file beside the log is written: checkpoint, index, epochs.
    Small,
    /// The free space of a file system is asked for: a fault says that there is none.
    Space,
}

/// Outcome that replaces the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails with this errno.
    Os(i32),
    /// Writes: the first half reaches the file, then the write ends short. Other operations: EIO.
    Short,
    /// The operation takes so many milliseconds longer. Reads, writes, syncs
    /// and reservations heed it.
    Slow(u64),
}

struct Rule {
    op: Op,
    path_part: String,
    pass: u64,
    /// Faults left.
    times: u64,
    fault: Fault,
}

/// Rules of one shard.
#[derive(Default)]
pub(super) struct Faults {
    active: Cell<bool>,
    loaded: Cell<bool>,
    rules: RefCell<Vec<Rule>>,
}

impl Faults {
    pub(super) fn are_active(&self) -> bool {
        self.active.get()
    }

    fn add(&self, rule: Rule) {
        self.rules.borrow_mut().push(rule);
        self.active.set(true);
    }
}

/// On this shard: of the `op`s on paths that contain `path_part`, `pass` more succeed, all
/// later ones meet `fault`.
pub fn inject(op: Op, path_part: &str, pass: u64, fault: Fault) {
    inject_times(op, path_part, pass, u64::MAX, fault);
}

/// As [`inject`], but only `times` operations meet `fault`.
pub fn inject_times(op: Op, path_part: &str, pass: u64, times: u64, fault: Fault) {
    let rule = Rule { op, path_part: path_part.to_owned(), pass, times, fault };
    context::with(|shard| shard.faults.add(rule));
}

/// Removes this shard's rules.
pub fn clear() {
    context::with(|shard| {
        shard.faults.rules.borrow_mut().clear();
        shard.faults.active.set(false);
    });
}

/// The fault that `op` on `path` meets now, if any.
pub(super) fn check(op: Op, path: &Path) -> Option<Fault> {
    context::with(|shard| if shard.faults.active.get() { shard.faults.meet(op, path) } else { None })
}

impl Faults {
    fn meet(&self, op: Op, path: &Path) -> Option<Fault> {
        let path = path.to_string_lossy();
        let applies = |rule: &Rule| rule.op == op && rule.times > 0 && path.contains(&rule.path_part);
        let mut rules = self.rules.borrow_mut();
        let rule = rules.iter_mut().find(|rule| applies(rule))?;
        if rule.pass > 0 {
            rule.pass -= 1;
            return None;
        }
        rule.times -= 1;
        Some(rule.fault)
    }
}

/// The fault of blocking code that writes the small file at `path`.
pub fn check_small(path: &Path) -> io::Result<()> {
    load();
    match check(Op::Small, path) {
        Some(fault @ (Fault::Os(_) | Fault::Short)) => Err(fault.error()),
        Some(Fault::Slow(ms)) => {
            std::thread::sleep(Duration::from_millis(ms));
            Ok(())
        }
        None => Ok(()),
    }
}

/// Takes the environment's rules, once per shard.
pub(super) fn load() {
    static TEXT: OnceLock<Option<String>> = OnceLock::new();
    if context::with(|shard| shard.faults.loaded.replace(true)) {
        return;
    }
    let Some(text) = TEXT.get_or_init(|| std::env::var("CORELANE_FAULTS").ok()) else { return };
    for part in text.split(';').filter(|part| !part.is_empty()) {
        match parse(part) {
            Some(rule) => {
                tracing::warn!("CORELANE_FAULTS: {part} is in force");
                context::with(|shard| shard.faults.add(rule));
            }
            None => tracing::error!("CORELANE_FAULTS: {part:?} is not op:error:part-of-path:count"),
        }
    }
}

fn parse(part: &str) -> Option<Rule> {
    let mut fields = part.splitn(5, ':');
    let op = match fields.next()? {
        "open" => Op::Open,
        "read" => Op::Read,
        "write" => Op::Write,
        "ahead" => Op::Ahead,
        "fdatasync" => Op::Fdatasync,
        "syncfs" => Op::SyncFs,
        "preallocate" => Op::Preallocate,
        "truncate" => Op::Truncate,
        "small" => Op::Small,
        "space" => Op::Space,
        _ => return None,
    };
    let fault = match fields.next()? {
        "EIO" => Fault::Os(libc::EIO),
        "ENOSPC" => Fault::Os(libc::ENOSPC),
        "EROFS" => Fault::Os(libc::EROFS),
        "EDQUOT" => Fault::Os(libc::EDQUOT),
        "SHORT" => Fault::Short,
        slow if slow.starts_with("SLOW") => Fault::Slow(slow[4..].parse().ok()?),
        number => Fault::Os(number.parse().ok()?),
    };
    let path_part = fields.next()?.to_owned();
    let pass = fields.next()?.parse().ok()?;
    let times = fields.next().map_or(Some(u64::MAX), |times| times.parse().ok())?;
    Some(Rule { op, path_part, pass, times, fault })
}

impl Fault {
    pub(super) fn error(self) -> io::Error {
        match self {
            Fault::Os(code) => io::Error::from_raw_os_error(code),
            Fault::Short | Fault::Slow(_) => io::Error::from_raw_os_error(libc::EIO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_counted() {
        let rule = parse("write:ENOSPC:topic-0:2").unwrap();
        assert_eq!((rule.op, rule.fault, rule.pass), (Op::Write, Fault::Os(libc::ENOSPC), 2));
        assert!(parse("write:EIO:x").is_none());
        assert!(parse("wrote:EIO:x:1").is_none());
        assert_eq!(parse("write:SLOW20:x:1").unwrap().fault, Fault::Slow(20));
        assert_eq!(parse("small:EIO:x:1:3").unwrap().times, 3);
        inject_times(Op::Small, "few", 1, 2, Fault::Os(5));
        let met: Vec<bool> = (0..5).map(|_| check(Op::Small, Path::new("/few")).is_some()).collect();
        assert_eq!(met, [false, true, true, false, false]);
        inject(Op::Write, "topic-0", 1, Fault::Short);
        assert_eq!(check(Op::Write, Path::new("/d/topic-1/0.log")), None);
        assert_eq!(check(Op::Fdatasync, Path::new("/d/topic-0/0.log")), None);
        assert_eq!(check(Op::Write, Path::new("/d/topic-0/0.log")), None);
        assert_eq!(check(Op::Write, Path::new("/d/topic-0/0.log")), Some(Fault::Short));
        assert_eq!(check(Op::Write, Path::new("/d/topic-0/0.log")), Some(Fault::Short));
        clear();
        assert_eq!(check(Op::Write, Path::new("/d/topic-0/0.log")), None);
    }
}
