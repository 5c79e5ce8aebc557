//! Figures of a shard that cannot be counted as they happen: the sizes and ends of its partitions,
//! and its groups. Asked for at each scrape and answered at the next tick, in slices between which
//! others have their turn.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::state::Shard;
use crate::cluster::MetadataImage;
use crate::groups::SurveyedGroup;
use crate::model::PartitionId;
use crate::runtime::Yielder;

/// Partitions looked at between two turns of others.
const SLICE: usize = 256;

/// Questions that wait at a time.
const MOST_ASKERS: usize = 8;

/// One shard's answer.
pub struct Survey {
    pub image: Arc<MetadataImage>,
    pub partitions: Vec<SurveyedPartition>,
    /// That this shard coordinates.
    pub groups: Vec<SurveyedGroup>,
}

/// One replica on the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SurveyedPartition {
    pub id: PartitionId,
    pub bytes: u64,
    pub start_offset: i64,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub open_transactions: usize,
}

type Asker = Box<dyn FnOnce(Survey) + Send>;

/// Where other threads ask a shard.
#[derive(Default)]
pub struct SurveyDesk {
    asked: AtomicBool,
    askers: Mutex<Vec<Asker>>,
}

impl SurveyDesk {
    /// From any thread. `answer` is called on the shard, with a survey that begins after this; it
    /// is dropped with the shard if that ends.
    pub fn ask(&self, answer: impl FnOnce(Survey) + Send + 'static) {
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        // A shard that does not answer collects no more of them.
        askers.truncate(MOST_ASKERS - 1);
        askers.push(Box::new(answer));
        drop(askers);
        self.asked.store(true, Ordering::Release);
    }

    fn take(&self) -> Vec<Asker> {
        if !self.asked.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut *self.askers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shard {
    /// Answers the questions at `desk`.
    pub(super) async fn answer_desk(self: &Rc<Self>, desk: &SurveyDesk) {
        // Each is given a survey of its own: askers share theirs before they come here.
        for asker in desk.take() {
            asker(self.survey().await);
        }
    }

    async fn survey(&self) -> Survey {
        let mut yielder = Yielder;
        let replicas = self.all_replicas();
        let mut partitions = Vec::with_capacity(replicas.len());
        for slice in replicas.chunks(SLICE) {
            partitions.extend(slice.iter().map(|replica| SurveyedPartition {
                id: replica.id,
                bytes: replica.log().size_bytes(),
                start_offset: replica.start_offset(),
                high_watermark: replica.high_watermark(),
                last_stable_offset: replica.last_stable_offset(),
                open_transactions: replica.open_transactions(),
            }));
            yielder.pass().await;
        }
        let mut groups = Vec::new();
        for hosted in self.coordinators.groups.all() {
            groups.extend(hosted.survey());
            yielder.pass().await;
        }
        Survey { image: self.image(), partitions, groups }
    }
}
