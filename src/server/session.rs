//! The contract of handlers. Of every API whose messages are those of the crate `kafka-protocol`,
//! or of [`newer`](crate::protocol::newer), the handler is
//!
//! ```ignore
//! pub async fn handle(session: &Session, call: Call<Request>) -> Response
//! ```
//!
//! A [`Call`] is what was asked; a [`Session`] is by whom, and the shard that can answer. When the
//! handler is called, before or behind which other requests of the connection, is its API's
//! [`Mode`](crate::protocol::Mode). Handlers with a codec of their own are given the session itself
//! and an [`UnreadCall`](super::dispatch::UnreadCall).

use std::cell::Cell;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use crate::groups::api::{Call as GroupRequest, Caller, CommitReply, CommitRequest};
use crate::model::ErrorCode;
use crate::runtime::sync::Permit;
use crate::shard::{RequestTransaction, Shard};

use super::context::ServerContext;
use super::peer::{Client, Peer};
use super::quotas::QuotaCall;

/// A reply about a group that is larger is asked for alone.
const SMALL_REPLY_BYTES: usize = 64 << 10;
/// Groups of one request that are asked about side by side.
const AT_ONCE: usize = 32;
/// Once the groups of one answer take so much, the others are left for another request.
const ANSWER_BYTES: usize = 32 << 20;
/// The longest client id told to a coordinator: member ids are made of it, and those of all
/// members go into one answer.
const MAX_CLIENT_ID_BYTES: usize = 1024;
/// The longest client id in a line of the log.
const MAX_LOGGED_CLIENT_ID_BYTES: usize = 100;

/// A decoded request.
pub struct Call<R> {
    pub version: i16,
    pub request: R,
}

/// The sender of a request and the shard that works on it. Made for each request, of what its
/// connection and its shard have; kept until the request is answered.
pub struct Session {
    pub context: Rc<ServerContext>,
    /// The connection's other end: listener, address, software and principal.
    pub client: Rc<Client>,
    pub client_id: Option<Rc<str>>,
    /// `None`: the client has no quota.
    pub quota: Option<Rc<QuotaCall>>,
    /// Memory in which the request is answered; none for Produce, nor while it waits in line.
    pub working: Cell<Option<Permit>>,
    refused: bool,
}

impl Session {
    pub fn new(
        context: Rc<ServerContext>,
        client: Rc<Client>,
        client_id: Option<Rc<str>>,
        quota: Option<Rc<QuotaCall>>,
    ) -> Session {
        Session { context, client, client_id, quota, working: Cell::new(None), refused: false }
    }

    /// The same, with every question to a group's coordinator answered with
    /// COORDINATOR_NOT_AVAILABLE, upon which clients try again: so a request is answered in its own
    /// shape when there is no room for it to wait.
    pub fn refuse(self) -> Session {
        Session { refused: true, ..self }
    }

    pub fn shard(&self) -> &Rc<Shard> {
        &self.context.shard
    }

    /// The sender as Kafka shows it to others of its group.
    pub fn caller(&self) -> Caller {
        caller(self.client_id.as_deref(), self.client.peer)
    }

    /// Refuses the request where there is no room to work on it; to be called by handlers of
    /// [`Mode::InLine`](crate::protocol::Mode::InLine) before anything that is not
    /// [`ask`](Self::ask).
    pub fn check(&self) -> Result<(), ErrorCode> {
        if self.refused { Err(ErrorCode::CoordinatorNotAvailable) } else { Ok(()) }
    }

    /// Asks the coordinator of the request's group.
    pub async fn ask<C>(&self, request: C) -> Result<C::Reply, ErrorCode>
    where
        C: GroupRequest + Send + 'static,
        C::Reply: Send,
    {
        self.check()?;
        let shard = self.shard();
        let owner = shard.owner_of_group(request.group());
        self.client.tally.note(owner.as_slice(), |owner| *owner);
        shard.ask_group(request).await
    }

    /// [`ask`](Self::ask) for a commit in a transaction.
    pub async fn commit_in_transaction(
        &self,
        commit: CommitRequest,
        transaction: RequestTransaction,
    ) -> Result<CommitReply, ErrorCode> {
        self.check()?;
        let shard = self.shard();
        let owner = shard.owner_of_group(&commit.group);
        self.client.tally.note(owner.as_slice(), |owner| *owner);
        shard.commit_in_transaction(commit, transaction).await
    }

    /// [`ask`](Self::ask), where the answer may take minutes: what the request was made into is
    /// the group's from here on.
    pub async fn ask_and_wait<C>(&self, request: C) -> Result<C::Reply, ErrorCode>
    where
        C: GroupRequest + Send + 'static,
        C::Reply: Send,
    {
        drop(self.working.take());
        self.ask(request).await
    }

    /// Asks about several groups, and gives the replies in their order. Groups beyond what one
    /// answer may take are answered with COORDINATOR_LOAD_IN_PROGRESS, upon which clients ask for
    /// just those again. `bytes`: what a reply takes, about.
    pub async fn ask_each<C>(
        &self,
        requests: Vec<C>,
        bytes: impl Fn(&C::Reply) -> usize,
    ) -> Vec<Result<C::Reply, ErrorCode>>
    where
        C: GroupRequest + Send + 'static,
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
        // The next are asked for side by side as long as these are small: large ones are
        // not to be there together.
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

fn caller(client_id: Option<&str>, peer: Peer) -> Caller {
    let client_id = cut(client_id.unwrap_or_default(), MAX_CLIENT_ID_BYTES).to_owned();
    Caller { client_id, client_host: peer.ip().map(host).unwrap_or_default() }
}

/// At most so many bytes of a text, without a part of a character.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// For the log: the address, and the name that the client gives itself, cut and with what would
/// not be a line's escaped.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(f, self.client.peer, self.client_id.as_deref())
    }
}

fn named(f: &mut fmt::Formatter<'_>, peer: Peer, client_id: Option<&str>) -> fmt::Result {
    match peer.0 {
        Some(_) => fmt::Display::fmt(&peer, f)?,
        None => f.write_str("a client without an address")?,
    }
    match client_id {
        Some(id) => write!(f, " ({:?})", cut(id, MAX_LOGGED_CLIENT_ID_BYTES)),
        None => Ok(()),
    }
}

/// Java's `InetAddress.toString()` of an address without a name: IPv6 in full,
/// without zeros left out.
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
    fn a_sender_is_one_word_of_a_log_line() {
        let shown = |peer: Option<&str>, id: Option<&str>| {
            let peer = Peer(peer.map(|peer| peer.parse().unwrap()));
            fmt::from_fn(|f| named(f, peer, id)).to_string()
        };
        assert_eq!(shown(Some("10.0.0.1:5"), Some("me")), "10.0.0.1:5 (\"me\")");
        assert_eq!(shown(Some("[::1]:5"), None), "[::1]:5");
        let long = shown(None, Some(&"x\n".repeat(1000)));
        assert!(!long.contains('\n') && long.len() < 250, "{long}");
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
        // Answered last to first: asked one after the other, nothing would have
        // asked for the last yet.
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
