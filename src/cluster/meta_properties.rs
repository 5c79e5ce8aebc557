//! `meta.properties` of a data directory: which broker, which cluster, and which directory it is.
//! Kafka's format, version 1.
//!
//! A comment in its first line carries the CRC-32C of the other lines, so that a damaged
//! identity is told from another one. A file without that line (Kafka's, or one of an older
//! Corelane) is taken as it is.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::directory_id::DirectoryId;
use super::metadata_store::{at, replace_bytes, sync_directory};

pub const FILE: &str = "meta.properties";
const SUM: &str = "#corelane-crc32c=";

/// Contents of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    pub node_id: i32,
    pub cluster_id: String,
    /// `None`: written before directories had ids.
    pub directory_id: Option<DirectoryId>,
}

/// A directory's `meta.properties` as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaFile {
    Missing,
    /// With what is wrong with it.
    Damaged(String),
    /// Version 0: of a Kafka broker in ZooKeeper mode.
    ZooKeeper,
    Sound(MetaProperties),
}

impl MetaFile {
    pub fn look(directory: &Path) -> io::Result<MetaFile> {
        match fs::read_to_string(directory.join(FILE)) {
            Ok(text) => Ok(MetaFile::parse(&text)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(MetaFile::Missing),
            Err(e) if e.kind() == ErrorKind::InvalidData => Ok(MetaFile::Damaged("it is not text".into())),
            Err(e) => Err(e),
        }
    }

    fn parse(text: &str) -> MetaFile {
        let damaged = |what: &str| MetaFile::Damaged(what.to_owned());
        let body = match text.strip_prefix(SUM) {
            Some(rest) => match rest.split_once('\n') {
                Some((sum, body)) if sum == format!("{:08x}", crc32c::crc32c(body.as_bytes())) => body,
                _ => return damaged("its checksum is wrong"),
            },
            None => text,
        };
        let properties = match crate::config::properties::parse(body) {
            Ok(properties) => properties,
            Err(e) => return MetaFile::Damaged(format!("line {}: {}", e.line, e.message)),
        };
        let find = |key: &str| properties.iter().rev().find(|p| p.key == key).map(|p| p.value.trim());
        match find("version") {
            Some("1") => {}
            Some("0") => return MetaFile::ZooKeeper,
            Some(other) => return MetaFile::Damaged(format!("its version is {other:?}, not 1")),
            None => return damaged("it has no version"),
        }
        // Older releases of Corelane wrote `broker.id`.
        let Some(node) = find("node.id").or_else(|| find("broker.id")) else { return damaged("it has no node.id") };
        let Ok(node_id) = node.parse() else { return MetaFile::Damaged(format!("its node.id is {node:?}")) };
        let Some(cluster_id) = find("cluster.id").filter(|id| !id.is_empty()) else {
            return damaged("it has no cluster.id");
        };
        let directory_id = match find("directory.id") {
            None => None,
            Some(text) => match DirectoryId::parse(text) {
                Some(id) => Some(id),
                None => return MetaFile::Damaged(format!("its directory.id is {text:?}")),
            },
        };
        MetaFile::Sound(MetaProperties { node_id, cluster_id: cluster_id.to_owned(), directory_id })
    }
}

impl MetaProperties {
    /// Replaces the file; durable when it returns.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        replace_bytes(&directory.join(FILE), &directory.join("meta.properties.tmp"), self.format().as_bytes())
            .map_err(|e| at(directory, "cannot be marked as this broker's", e))?;
        sync_directory(directory)
    }

    fn format(&self) -> String {
        let cluster_id = crate::config::properties::escape(&self.cluster_id);
        let mut body = format!("version=1\nnode.id={}\ncluster.id={cluster_id}\n", self.node_id);
        if let Some(id) = self.directory_id {
            body.push_str(&format!("directory.id={id}\n"));
        }
        format!("{SUM}{:08x}\n{body}", crc32c::crc32c(body.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn sound() -> MetaProperties {
        let directory_id = Some(DirectoryId(Uuid::from_u128(0xabcdef)));
        MetaProperties { node_id: 4, cluster_id: "abc".into(), directory_id }
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_never_another_identity() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(MetaFile::look(directory.path()).unwrap(), MetaFile::Missing);
        sound().write(directory.path()).unwrap();
        assert_eq!(MetaFile::look(directory.path()).unwrap(), MetaFile::Sound(sound()));
        let good = sound().format().into_bytes();
        for position in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[position] ^= 1 << bit;
                fs::write(directory.path().join(FILE), &bad).unwrap();
                let found = MetaFile::look(directory.path()).unwrap();
                assert!(matches!(&found, MetaFile::Damaged(_)) || found == MetaFile::Sound(sound()), "{found:?}");
            }
            let cut = MetaFile::parse(std::str::from_utf8(&good[..position]).unwrap());
            assert!(matches!(cut, MetaFile::Damaged(_)), "cut at {position}: {cut:?}");
        }
    }

    #[test]
    fn any_cluster_id_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let ids = ["a\\b", "a\\", "\\u0041", "#a", "!a", "=a", ":a", "a=b: c", "a\tb\nc\rd\u{c}e", "ä€😀"];
        for cluster_id in ids.map(str::to_owned) {
            let properties = MetaProperties { cluster_id, ..sound() };
            properties.write(directory.path()).unwrap();
            assert_eq!(MetaFile::look(directory.path()).unwrap(), MetaFile::Sound(properties));
        }
    }

    #[test]
    fn files_of_kafka_and_of_older_releases_are_read() {
        let parse = |text: &str| MetaFile::parse(text);
        let old = MetaProperties { directory_id: None, ..sound() };
        assert_eq!(parse("version=1\nbroker.id=4\ncluster.id=abc\n"), MetaFile::Sound(old));
        let kafka = "#\n#Sat Nov 28\nnode.id=4\ndirectory.id=AAAAAAAAAAAAAAAAq83vAA\nversion=1\ncluster.id=abc\n";
        assert!(matches!(parse(kafka), MetaFile::Sound(found) if found.node_id == 4 && found.directory_id.is_some()));
        assert_eq!(parse("version=0\nbroker.id=4\ncluster.id=abc\n"), MetaFile::ZooKeeper);
        for damaged in ["", "version=1\n", "version=1\nnode.id=x\ncluster.id=abc\n", "version=2\nnode.id=4\n"] {
            assert!(matches!(parse(damaged), MetaFile::Damaged(_)), "{damaged:?}");
        }
    }
}
