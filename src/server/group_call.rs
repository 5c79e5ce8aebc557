//! A client's request on its way to a group's coordinator, and what it holds meanwhile.
//!
//! Such requests are answered one after the other on a connection: as in Kafka, one is begun when the one before it has been
//! answered, which may take minutes. So while it waits in line a request is a copy of its bytes, and holds nothing that
//! others need to be read or answered.

use std::cell::Cell;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;

use crate::model::ErrorCode;
use crate::runtime::SendRoom;
use crate::runtime::sync::Permit;
use crate::shard::groups::{Call, Caller};

use super::context::ServerContext;
use super::peer::Peer;
use super::traffic::Tally;

/// Requests up to this size wait in line for nothing; a connection has `corelane.connection.pipeline` of them at most.
const SMALL_BYTES: usize = 4 << 10;
/// A reply about a group that is larger is asked for alone.
const SMALL_REPLY_BYTES: usize = 64 << 10;
/// Groups of one request that are asked about side by side.
const AT_ONCE: usize = 32;
/// Once the groups of one answer take so much, the others are left for another request.
const ANSWER_BYTES: usize = 32 << 20;
/// The longest client id told to a coordinator: member ids are made of it, and those of all members go into one answer.
const MAX_CLIENT_ID_BYTES: usize = 1024;

/// What a request holds while it waits in line.
pub struct InLine {
    context: Rc<ServerContext>,
    caller: Caller,
    tally: Tally,
    body: Bytes,
    _share: Option<Permit>,
}

impl InLine {
    /// Takes a place in line; the receive memory of `body` may be given back then. An error: there is no room to wait.
    pub fn new(context: &Rc<ServerContext>, caller: Caller, tally: &Tally, body: &Bytes) -> Result<InLine, Caller> {
        let share = match body.len() {
            ..=SMALL_BYTES => None,
            bytes => match context.waiting_groups.try_acquire(bytes) {
                Some(share) => Some(share),
                None => return Err(caller),
            },
        };
        let (context, tally, body) = (context.clone(), tally.clone(), Bytes::copy_from_slice(body));
        Ok(InLine { context, caller, tally, body, _share: share })
    }

    /// The request's turn has come: its body, and the call to ask with. `memory`: how much a request needs.
    pub async fn begin(self, memory: impl FnOnce(&Bytes) -> usize, room: &SendRoom) -> (GroupCall, Bytes) {
        let working = self.context.work(memory(&self.body), room).await;
        let InLine { context, caller, tally, body, .. } = self;
        (GroupCall { context, caller, tally, working: Cell::new(Some(working)), refused: false }, body)
    }
}

/// How a handler asks coordinators.
pub struct GroupCall {
    pub context: Rc<ServerContext>,
    pub caller: Caller,
    tally: Tally,
    working: Cell<Option<Permit>>,
    refused: bool,
}

impl GroupCall {
    /// A call whose every question is answered with COORDINATOR_NOT_AVAILABLE, upon which clients try again: so a request is
    /// answered in its own shape when there is no room for it to wait.
    pub fn refused(context: &Rc<ServerContext>, caller: Caller) -> GroupCall {
        let (context, tally) = (context.clone(), Tally::default());
        GroupCall { context, caller, tally, working: Cell::new(None), refused: true }
    }

    /// Whether there is no room to work on this; to be asked before anything is done that is not [`ask`](Self::ask).
    pub fn check(&self) -> Result<(), ErrorCode> {
        if self.refused { Err(ErrorCode::CoordinatorNotAvailable) } else { Ok(()) }
    }

    pub async fn ask<C>(&self, request: C) -> Result<C::Reply, ErrorCode>
    where
        C: Call + Send + 'static,
        C::Reply: Send,
    {
        self.check()?;
        let shard = &self.context.shard;
        let owner = shard.owner_of_group(request.group());
        self.tally.note(owner.as_slice(), |owner| *owner);
        shard.ask_group(request).await
    }

    /// [`ask`](Self::ask), where the answer may take minutes: what the request was made into is the group's from here on.
    pub async fn ask_and_wait<C>(&self, request: C) -> Result<C::Reply, ErrorCode>
    where
        C: Call + Send + 'static,
        C::Reply: Send,
    {
        drop(self.working.take());
        self.ask(request).await
    }

    /// Asks about several groups, and gives the replies in their order. Groups beyond what one answer may take are answered
    /// with COORDINATOR_LOAD_IN_PROGRESS, upon which clients ask for just those again. `bytes`: what a reply takes, about.
    pub async fn ask_each<C>(
        &self,
        requests: Vec<C>,
        bytes: impl Fn(&C::Reply) -> usize,
    ) -> Vec<Result<C::Reply, ErrorCode>>
    where
        C: Call + Send + 'static,
        C::Reply: Send,
    {
        each(requests, ANSWER_BYTES, |request| self.ask(request), bytes).await
    }
}

async fn each<Q, R, F: Future<Output = Result<R, ErrorCode>>>(
    requests: Vec<Q>,
    most_bytes: usize,
    ask: impl Fn(Q) -> F,
    bytes: impl Fn(&R) -> usize,
) -> Vec<Result<R, ErrorCode>> {
    let mut replies = Vec::with_capacity(requests.len());
    let (mut left, mut at_once) = (most_bytes, 1);
    let mut requests = requests.into_iter();
    loop {
        let asked: Vec<Q> = requests.by_ref().take(at_once).collect();
        if asked.is_empty() {
            return replies;
        }
        if left == 0 {
            replies.extend(asked.iter().map(|_| Err(ErrorCode::CoordinatorLoadInProgress)));
            continue;
        }
        // The next are asked for side by side as long as these are small: large ones are not to be there together.
        at_once = (2 * at_once).min(AT_ONCE);
        for reply in all(asked.into_iter().map(&ask).collect()).await {
            let taken = reply.as_ref().map_or(0, &bytes);
            if taken > SMALL_REPLY_BYTES {
                at_once = 1;
            }
            replies.push(if left > 0 { reply } else { Err(ErrorCode::CoordinatorLoadInProgress) });
            left = left.saturating_sub(taken);
        }
    }
}

/// Waits for all of a few futures side by side.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in running.iter_mut().zip(&mut outputs).filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(cx) {
                Poll::Ready(value) => *output = Some(value),
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// Who asks, as Kafka shows it.
pub fn caller(client_id: Option<&str>, peer: Peer) -> Caller {
    let client_id = client_id.unwrap_or_default();
    let client_id = client_id[..client_id.floor_char_boundary(MAX_CLIENT_ID_BYTES)].to_owned();
    Caller { client_id, client_host: peer.ip().map(host).unwrap_or_default() }
}

/// Java's `InetAddress.toString()` of an address without a name: IPv6 in full, without zeros left out.
fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => {
            let segments = address.segments().map(|segment| format!("{segment:x}"));
            format!("/{}", segments.join(":"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sync::oneshot;
    use futures_lite::future::{block_on, zip};
    use std::cell::RefCell;

    #[test]
    fn hosts_are_shown_as_kafka_does() {
        let of = |address: &str| caller(None, Peer(address.parse().ok())).client_host;
        assert_eq!(of("127.0.0.1:9092"), "/127.0.0.1");
        assert_eq!(of("[::ffff:10.1.2.3]:9092"), "/10.1.2.3");
        assert_eq!(of("[::1]:9092"), "/0:0:0:0:0:0:0:1");
        assert_eq!(of("[fe80::ABCD:0:12]:1"), "/fe80:0:0:0:0:abcd:0:12");
        assert_eq!(caller(None, Peer(None)), Caller::default());
    }

    #[test]
    fn client_ids_are_cut_between_characters() {
        assert_eq!(caller(Some("me"), Peer(None)).client_id, "me");
        assert_eq!(
            caller(Some(&format!("x{}", "ä".repeat(600))), Peer(None)).client_id,
            format!("x{}", "ä".repeat(511))
        );
    }

    #[test]
    fn several_are_asked_side_by_side_and_answered_in_order() {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::<i32>()).unzip();
        let receivers = RefCell::new(receivers.into_iter().map(Some).collect::<Vec<_>>());
        let ask = |number: usize| {
            let receiver = receivers.borrow_mut()[number].take();
            async move { receiver.unwrap().recv().await.ok_or(ErrorCode::NotCoordinator) }
        };
        let answered = async {
            for (number, sender) in senders.into_iter().enumerate().rev() {
                sender.send(number as i32 * 10);
            }
        };
        // Answered last to first: asked one after the other, nothing would have asked for the last yet.
        let (replies, ()) = block_on(zip(each(vec![0, 1, 2], 100, ask, |_| 1), answered));
        assert_eq!(replies, [Ok(0), Ok(10), Ok(20)]);
    }

    #[test]
    fn what_one_answer_cannot_take_is_left_for_another() {
        let asked = Cell::new(0);
        let ask = |number: usize| {
            asked.set(asked.get() + 1);
            std::future::ready(if number == 1 { Err(ErrorCode::NotCoordinator) } else { Ok(number) })
        };
        let replies = block_on(each((0..100).collect(), 25, ask, |_| 10));
        let later = Err(ErrorCode::CoordinatorLoadInProgress);
        assert_eq!(replies[..5], [Ok(0), Err(ErrorCode::NotCoordinator), Ok(2), Ok(3), later]);
        assert_eq!((replies.len(), asked.get()), (100, 1 + 2 + 4), "the number asked for at once doubles");
        assert!(replies[5..].iter().all(|reply| *reply == later));
    }
}
