//! Remedy of a finding: a command to show, and, where it is a write below /proc/sys or /sys, the
//! same write to do.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mend {
    Sysctl {
        key: String,
        value: String,
    },
    /// A file below /sys, by its absolute path.
    Sys {
        path: PathBuf,
        value: String,
    },
    /// Only people can do this one: limits, mounts, other programs.
    ByHand(String),
}

impl Mend {
    pub fn sysctl(key: &str, value: impl Into<String>) -> Mend {
        Mend::Sysctl { key: key.to_owned(), value: value.into() }
    }

    pub fn sys(path: impl Into<PathBuf>, value: impl Into<String>) -> Mend {
        Mend::Sys { path: path.into(), value: value.into() }
    }

    pub fn by_hand(command: impl Into<String>) -> Mend {
        Mend::ByHand(command.into())
    }

    /// True if [`apply`](Self::apply) can do it.
    pub fn is_applicable(&self) -> bool {
        !matches!(self, Mend::ByHand(_))
    }

    /// Changes the running system below `root` ("/" but in tests), until the next start;
    /// `None`: only people can do it.
    pub fn apply(&self, root: &Path) -> Option<io::Result<()>> {
        let (path, value) = match self {
            Mend::Sysctl { key, value } => (root.join("proc/sys").join(key.replace('.', "/")), value),
            Mend::Sys { path, value } => (root.join(path.strip_prefix("/").unwrap_or(path)), value),
            Mend::ByHand(_) => return None,
        };
        // Never makes a file: what is not there is an error.
        let written = OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(value.as_bytes()));
        Some(written.map_err(|e| io::Error::new(e.kind(), format!("cannot write {value} to {}: {e}", path.display()))))
    }
}

/// The exact command.
impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mend::Sysctl { key, value } if value.contains(char::is_whitespace) => {
                write!(f, "sudo sysctl -w {key}='{value}'")
            }
            Mend::Sysctl { key, value } => write!(f, "sudo sysctl -w {key}={value}"),
            Mend::Sys { path, value } => write!(f, "echo {value} | sudo tee {}", path.display()),
            Mend::ByHand(command) => f.write_str(command),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mend_writes_what_its_command_writes_and_makes_no_file() {
        let root = tempfile::tempdir().unwrap();
        let key = root.path().join("proc/sys/vm/swappiness");
        std::fs::create_dir_all(key.parent().unwrap()).unwrap();
        let mend = Mend::sysctl("vm.swappiness", "1");
        assert_eq!(mend.to_string(), "sudo sysctl -w vm.swappiness=1");
        let missing = mend.apply(root.path()).unwrap().unwrap_err();
        assert!(missing.to_string().contains("swappiness"), "{missing}");
        assert!(!key.exists());
        std::fs::write(&key, "6").unwrap();
        mend.apply(root.path()).unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(&key).unwrap(), "1");
        assert!(Mend::by_hand("ulimit -n 1").apply(root.path()).is_none());
        assert_eq!(Mend::sys("/sys/a", "none").to_string(), "echo none | sudo tee /sys/a");
        assert_eq!(Mend::sysctl("a.b", "1 2").to_string(), "sudo sysctl -w a.b='1 2'");
    }
}
