//! Open connections by what their clients say they are (KIP-511).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Kinds of clients that are told apart; the names are the clients' to choose.
const MOST: usize = 100;
/// Longer names and versions are cut.
const MOST_BYTES: usize = 60;
/// A client that has not said, or one too many.
const UNTOLD: (&str, &str) = ("unknown", "unknown");
const OTHER: (&str, &str) = ("other", "other");

/// Name and version of clients of a kind, as they say.
#[derive(Debug)]
pub struct ClientKind {
    pub name: Box<str>,
    pub version: Box<str>,
    /// Connections.
    open: AtomicU64,
}

impl ClientKind {
    /// The client has said what it is.
    pub fn is_told(&self) -> bool {
        (&*self.name, &*self.version) != UNTOLD
    }
}

type Kinds = BTreeMap<(String, String), Arc<ClientKind>>;

/// Connections of all shards. Asked when a client says what it is, so rarely.
#[derive(Debug, Default)]
pub struct Clients(Mutex<Kinds>);

/// One connection's part of [`Clients`], until it is dropped.
#[derive(Debug)]
pub struct Software(Arc<ClientKind>);

impl Software {
    pub fn kind(&self) -> &Arc<ClientKind> {
        &self.0
    }
}

impl Drop for Software {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Clients {
    /// A connection whose client has not said what it is.
    pub fn untold(&self) -> Software {
        self.count(UNTOLD.0, UNTOLD.1)
    }

    pub fn count(&self, name: &str, version: &str) -> Software {
        let cut = |text: &str| text[..text.floor_char_boundary(MOST_BYTES)].to_owned();
        let mut key = (cut(name), cut(version));
        let mut kinds = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if kinds.len() >= MOST && !kinds.contains_key(&key) {
            kinds.retain(|_, kind| kind.open.load(Ordering::Relaxed) > 0);
        }
        if kinds.len() >= MOST && !kinds.contains_key(&key) {
            key = (OTHER.0.to_owned(), OTHER.1.to_owned());
        }
        let (name, version) = (key.0.as_str().into(), key.1.as_str().into());
        let kind = kinds.entry(key).or_insert_with(|| Arc::new(ClientKind { name, version, open: AtomicU64::new(0) }));
        kind.open.fetch_add(1, Ordering::Relaxed);
        Software(kind.clone())
    }

    /// Name, version and connections open, by name. Kinds that had any since the table
    /// was last full stay in it.
    pub fn open(&self) -> Vec<(String, String, u64)> {
        let kinds = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let open = |((name, version), kind): (&(String, String), &Arc<ClientKind>)| {
            (name.clone(), version.clone(), kind.open.load(Ordering::Relaxed))
        };
        kinds.iter().map(open).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_count_while_they_are_open() {
        let clients = Clients::default();
        let (java, other) = (clients.count("apache-kafka-java", "4.3.1"), clients.untold());
        let second = clients.count("apache-kafka-java", "4.3.1");
        let row = |name: &str, version: &str, open| (name.to_owned(), version.to_owned(), open);
        assert_eq!(clients.open(), [row("apache-kafka-java", "4.3.1", 2), row("unknown", "unknown", 1)]);
        drop((java, other));
        assert_eq!(clients.open(), [row("apache-kafka-java", "4.3.1", 1), row("unknown", "unknown", 0)]);
        drop(second);
    }

    #[test]
    fn clients_cannot_make_kinds_without_end() {
        let clients = Clients::default();
        let open: Vec<Software> = (0..3 * MOST).map(|n| clients.count(&format!("client-{n}"), "1")).collect();
        assert_eq!(clients.open().len(), MOST + 1);
        assert_eq!(clients.open().iter().map(|(_, _, open)| open).sum::<u64>(), 3 * MOST as u64);
        drop(open);
        let _next = clients.count(&"é".repeat(1000), "2");
        let named: Vec<_> = clients.open().into_iter().filter(|(_, _, open)| *open > 0).collect();
        assert!(matches!(&named[..], [(name, _, 1)] if name.len() == MOST_BYTES), "{named:?}");
        assert_eq!(clients.open().len(), 1, "those that have gone make room");
    }
}
