//! Numbers that one thread writes and others read. One writer: adding is a load and a store, so it
//! costs what a plain number costs, and the reader sees some recent value.

use std::sync::atomic::{AtomicU64, Ordering};

/// Rises only.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// By the one thread that writes it.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// By any thread, of a count that several write, all of them by this.
    pub fn add_shared(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Takes over what has been counted elsewhere.
    pub fn set(&self, total: u64) {
        self.0.store(total, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Rises and falls.
#[derive(Debug, Default)]
pub struct Level(AtomicU64);

impl Level {
    pub fn set(&self, level: u64) {
        self.0.store(level, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
