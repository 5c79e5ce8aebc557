//! Data directories that new partitions are kept off (`cordoned.log.dirs`, KIP-1066).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::ServerConfig;

pub(super) const OPTION: &str = "cordoned.log.dirs";

/// In place of names: every data directory.
const ALL: &str = "*";

/// The name by which Kafka knows a data directory (Java's `File.getAbsolutePath`): absolute,
/// without slashes that are there twice or at the end; `.`, `..` and links stay.
pub fn absolute_dir(dir: &Path) -> PathBuf {
    let from_root = match dir.is_absolute() {
        true => dir.to_path_buf(),
        false => std::env::current_dir().unwrap_or_default().join(dir),
    };
    let names = from_root.as_os_str().as_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let mut absolute = names.fold(Vec::new(), |mut path, name| {
        path.push(b'/');
        path.extend_from_slice(name);
        path
    });
    if absolute.is_empty() {
        absolute.push(b'/');
    }
    OsString::from_vec(absolute).into()
}

/// The entry names this directory of `log.dirs`: as it stands there, which is what Kafka asks for,
/// or by the absolute name that brokers tell and Kafka goes by afterwards.
fn is_same(entry: &str, dir: &Path) -> bool {
    // As text: paths of the standard library are equal although one has a `.` more.
    let entry = OsStr::new(entry);
    entry == dir.as_os_str() || entry == absolute_dir(dir).as_os_str()
}

impl ServerConfig {
    /// No new partition goes to this directory of `log.dirs` while there is another.
    pub fn is_cordoned(&self, dir: &Path) -> bool {
        self.cordoned_log_dirs.iter().any(|entry| entry == ALL || is_same(entry, dir))
    }

    /// Why the entries of `cordoned.log.dirs` cannot stand together, or beside `log.dirs`. Names
    /// are compared by the letter, as in Kafka.
    pub(super) fn check_cordoned(&self) -> Result<(), String> {
        let entries = &self.cordoned_log_dirs;
        if entries.len() > 1 && entries.iter().any(|entry| entry == ALL) {
            return Err(format!("names directories beside {ALL}, which stands for all"));
        }
        let is_dir = |entry: &str| self.log_dirs.iter().any(|dir| is_same(entry, dir));
        let is_known = |entry: &&String| *entry == ALL || is_dir(entry);
        match entries.iter().find(|entry| !is_known(entry)) {
            Some(unknown) => Err(format!("names {unknown}, which is not one of log.dirs")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(cordoned: &[&str]) -> ServerConfig {
        let log_dirs = ["/a", "/b/c"].map(Into::into).to_vec();
        let cordoned_log_dirs = cordoned.iter().map(ToString::to_string).collect();
        ServerConfig { log_dirs, cordoned_log_dirs, ..ServerConfig::default() }
    }

    #[test]
    fn directories_are_cordoned_by_name_or_all_at_once() {
        let cordoned = |entries: &[&str]| {
            let server = server(entries);
            server.check_cordoned().map(|()| ["/a", "/b/c"].map(|dir| server.is_cordoned(Path::new(dir))))
        };
        assert_eq!(cordoned(&[]), Ok([false, false]));
        assert_eq!(cordoned(&["/b/c"]), Ok([false, true]));
        assert_eq!(cordoned(&["/b/c", "/a"]), Ok([true, true]));
        assert_eq!(cordoned(&["*"]), Ok([true, true]));
        assert_eq!(cordoned(&["/a", "/a"]), Ok([true, false]));
        for (entries, part) in [
            (&["/b"][..], "names /b, which is not one of log.dirs"),
            (&["/a/"], "names /a/,"),
            (&["/a", "*"], "beside *"),
            (&[""], "names , which"),
        ] {
            let why = cordoned(entries).unwrap_err();
            assert!(why.contains(part), "{entries:?}: {why}");
        }
    }

    #[test]
    fn directories_have_kafkas_absolute_names() {
        let here = std::env::current_dir().unwrap();
        let absolute = |dir: &str| absolute_dir(Path::new(dir)).into_os_string().into_string().unwrap();
        for (dir, name) in [("/a", "/a"), ("/a/", "/a"), ("//a//b/", "/a/b"), ("/a/./b/..", "/a/./b/.."), ("/", "/")] {
            assert_eq!(absolute(dir), name);
        }
        for (dir, name) in [("a", "a"), ("./a/", "./a"), ("../a", "../a")] {
            assert_eq!(absolute(dir), format!("{}/{name}", here.display()));
        }
        let log_dirs: Vec<PathBuf> = ["a/", "./b"].map(Into::into).to_vec();
        let cordoned = |entry: &str| {
            let server = ServerConfig { log_dirs: log_dirs.clone(), ..server(&[entry]) };
            server.check_cordoned().map(|()| ["a/", "./b"].map(|dir| server.is_cordoned(Path::new(dir))))
        };
        for (entry, dirs) in [("a/", [true, false]), (&absolute("a"), [true, false]), (&absolute("./b"), [false, true])]
        {
            assert_eq!(cordoned(entry), Ok(dirs), "{entry}");
        }
        assert!(cordoned("a").is_err() && cordoned(&absolute("b")).is_err());
    }
}
