//! Requests to group coordinators, whichever shard they live on.

use std::rc::Rc;
use std::sync::Arc;

pub use crate::groups::api::*;

use super::state::Shard;
use crate::cluster::TopicImage;
use crate::model::ErrorCode;

/// Where groups and their committed offsets are kept.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

impl Shard {
    /// A request to its group's coordinator. Err: COORDINATOR_NOT_AVAILABLE, COORDINATOR_LOAD_IN_PROGRESS, NOT_COORDINATOR.
    pub async fn ask_group<C: Call + Send + 'static>(self: &Rc<Self>, _: C) -> Result<C::Reply, ErrorCode>
    where
        C::Reply: Send,
    {
        Err(ErrorCode::CoordinatorNotAvailable)
    }

    /// All groups of this broker; the error (loading) when some could not be asked comes with those that could.
    pub async fn list_groups(self: &Rc<Self>) -> (ErrorCode, Vec<ListedGroup>) {
        (ErrorCode::CoordinatorNotAvailable, Vec::new())
    }

    /// The topic of committed offsets, made when it is not there yet.
    pub async fn offsets_topic(self: &Rc<Self>) -> Result<Arc<TopicImage>, ErrorCode> {
        self.image().topic(OFFSETS_TOPIC).cloned().ok_or(ErrorCode::CoordinatorNotAvailable)
    }
}
