//! A shard's door for what the layers above send from shard to shard: its connections. What
//! they send is theirs to know.

use std::any::Any;
use std::cell::RefCell;

use super::state::Shard;
use crate::model::ShardId;

/// Something of a layer above.
pub type Parcel = Box<dyn Any + Send>;

type Taker = Box<dyn Fn(Parcel)>;

/// The one who takes the parcels.
#[derive(Default)]
pub(super) struct Door(RefCell<Option<Taker>>);

impl Shard {
    /// Sends `parcel` to `target`; dropped if that shard has stopped, or does not
    /// [take parcels](Self::take_parcels). Not held back by the bound on calls: the
    /// sender bounds what it sends.
    pub fn send_parcel(&self, target: ShardId, parcel: Parcel) {
        self.mesh.tell(target, move |shard| {
            if let Some(take) = &*shard.door.0.borrow() {
                take(parcel);
            }
        });
    }

    /// Has `take` take the parcels to this shard. It is called from between two
    /// tasks and must not wait.
    pub fn take_parcels(&self, take: impl Fn(Parcel) + 'static) {
        *self.door.0.borrow_mut() = Some(Box::new(take));
    }

    /// Messages to other shards so far, calls and news.
    pub fn messages(&self) -> u64 {
        self.mesh.messages()
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.shards
    }
}
