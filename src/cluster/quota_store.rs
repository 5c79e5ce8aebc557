//! `client-quotas.json` of the embedded store: client quotas, one entry for
//! each entity that has any.
//!
//! The file is written and read as those of [`metadata_store`](super::metadata_store) are.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::metadata_store::{FORMAT, LocalStore, check_format, damaged, read, replace};
use super::quotas::{EntityName, QuotaEntity};

/// Options by entity, as they are stored.
pub type StoredQuotas = BTreeMap<QuotaEntity, BTreeMap<String, String>>;

#[derive(Serialize, Deserialize)]
struct QuotasRecord {
    format: u32,
    quotas: Vec<QuotaRecord>,
}

#[derive(Serialize, Deserialize)]
struct QuotaRecord {
    /// By entity type; `None`: the default.
    entity: BTreeMap<String, Option<String>>,
    options: BTreeMap<String, String>,
}

impl LocalStore {
    /// Without the file there are none. A damaged one is an error: clients would have no limits.
    pub(super) fn stored_quotas(&self) -> io::Result<StoredQuotas> {
        let file = self.quotas_file();
        let record: QuotasRecord = match read(&file) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(StoredQuotas::new()),
            Err(e) if e.kind() == ErrorKind::InvalidData => {
                let advice = "or move it away to go on without client quotas";
                return Err(io::Error::new(ErrorKind::InvalidData, format!("{e}; {advice}")));
            }
            record => record?,
        };
        check_format(&file, record.format)?;
        let entity = |named: BTreeMap<String, Option<String>>| {
            let parts: BTreeMap<String, EntityName> =
                named.iter().map(|(kind, name)| (kind.clone(), name.as_deref().map(Into::into))).collect();
            QuotaEntity::of(&parts).ok_or_else(|| damaged(&file, &format!("{named:?} is no entity of quotas")))
        };
        record.quotas.into_iter().map(|quota| Ok((entity(quota.entity)?, quota.options))).collect()
    }

    /// Durable when it returns.
    pub(super) fn put_quotas(&self, quotas: &StoredQuotas) -> io::Result<()> {
        let record = |(entity, options): (&QuotaEntity, &BTreeMap<String, String>)| QuotaRecord {
            entity: entity
                .parts()
                .into_iter()
                .map(|(kind, name)| (kind.to_owned(), name.map(|n| n.to_string())))
                .collect(),
            options: options.clone(),
        };
        let record = QuotasRecord { format: FORMAT, quotas: quotas.iter().map(record).collect() };
        replace(&self.quotas_file(), "client-quotas", &record)
    }

    fn quotas_file(&self) -> PathBuf {
        self.directory.join("client-quotas.json")
    }
}
