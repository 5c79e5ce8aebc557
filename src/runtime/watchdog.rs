//! Notices a shard that makes no progress: each shard beats every 250 ms, a thread checks every second.

/// Starts the thread; one heart per shard.
pub fn start(shards: u16) -> std::io::Result<Vec<Heart>> {
    let _ = shards;
    todo!()
}

/// Beats for one shard; give it to the shard's thread.
pub struct Heart {
    pub(crate) _private: (),
}

impl Heart {
    /// Runs for as long as the shard does.
    pub async fn beat(self) {
        todo!()
    }
}
