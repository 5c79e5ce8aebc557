//! Calls between shards. Each pair of shards has a bounded channel in each direction; calls from one shard to another
//! arrive in the order they were posted.

use std::rc::Rc;

use futures_lite::future::Boxed;

use crate::model::ShardId;

/// The unconnected ends for one shard, made before the threads start.
pub struct MeshSeat<S: 'static> {
    pub(crate) _private: std::marker::PhantomData<fn(S)>,
}

/// One seat per shard. `capacity`: messages per pair and direction.
pub fn mesh<S: 'static>(shards: u16, capacity: usize) -> Vec<MeshSeat<S>> {
    let _ = (shards, capacity);
    todo!()
}

/// This shard's connected mailbox. `S` is the shard's state: calls run on it.
pub struct Mesh<S: 'static> {
    pub(crate) _private: std::marker::PhantomData<fn(S)>,
}

/// The other shard has stopped: the broker is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard has stopped")]
pub struct ShardStopped;

impl<S: 'static> Mesh<S> {
    /// Connects to all peers (waits until they have started).
    pub async fn connect(seat: MeshSeat<S>) -> Rc<Mesh<S>> {
        let _ = seat;
        todo!()
    }

    /// Starts answering calls on `state`.
    pub fn serve(self: &Rc<Self>, state: Rc<S>) {
        let _ = state;
        todo!()
    }

    /// Posts `work` to run on `target`. The outer future resolves once the call is queued (waiting while `target`'s queue
    /// is full); calls to one target start in the order they were queued. The inner future resolves to the result.
    /// On the own shard `work` is started at once.
    pub async fn call<R, W, F>(
        self: &Rc<Self>,
        target: ShardId,
        work: W,
    ) -> Result<impl Future<Output = Result<R, ShardStopped>> + use<S, R, W, F>, ShardStopped>
    where
        W: FnOnce(Rc<S>) -> F + Send + 'static,
        F: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        let _ = (target, work);
        Ok(std::future::pending())
    }

    /// Posts `work` without an answer; dropped when `target` has stopped.
    pub fn tell<W>(self: &Rc<Self>, target: ShardId, work: W)
    where
        W: FnOnce(&Rc<S>) + Send + 'static,
    {
        let _ = (target, work);
        todo!()
    }
}

#[allow(dead_code)]
type Unused = Boxed<()>;
