//! `group-options.json` of the embedded store: options of single groups, one entry for
//! each group that has any.
//!
//! The file is written and read as those of [`metadata_store`](super::metadata_store) are.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::metadata_store::{FORMAT, LocalStore, check_format, read, replace};

/// Options by group, as they are stored.
pub type StoredGroups = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Serialize, Deserialize)]
struct GroupsRecord {
    format: u32,
    groups: StoredGroups,
}

impl LocalStore {
    /// Without the file there are none. A damaged one is an error: members of groups would be given
    /// up too early or too late.
    pub(super) fn stored_groups(&self) -> io::Result<StoredGroups> {
        let file = self.groups_file();
        let record: GroupsRecord = match read(&file) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(StoredGroups::new()),
            Err(e) if e.kind() == ErrorKind::InvalidData => {
                let advice = "or move it away to go on without options of groups";
                return Err(io::Error::new(ErrorKind::InvalidData, format!("{e}; {advice}")));
            }
            record => record?,
        };
        check_format(&file, record.format)?;
        Ok(record.groups)
    }

    /// Durable when it returns.
    pub(super) fn put_groups(&self, groups: &StoredGroups) -> io::Result<()> {
        replace(&self.groups_file(), "group-options", &GroupsRecord { format: FORMAT, groups: groups.clone() })
    }

    fn groups_file(&self) -> PathBuf {
        self.directory.join("group-options.json")
    }
}
