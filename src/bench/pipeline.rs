//! One producing connection: a sender that keeps up to `in_flight` requests on the way, and a
//! receiver that takes the time of each answer the moment it is there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::or;
use kafka_protocol::messages::ApiKey;

use super::context::{CLIENT_ID, Context, DRAIN};
use super::stats::Done;
use crate::client::core::InFlight;
use crate::client::{ClientError, Connection, Receiver, Sender, error_name};
use crate::protocol::asking::{Caller, PRODUCE_VERSIONS, ProduceEnvelope, read_produce_response};
use crate::runtime::{clock, spawn_local};

/// Smaller requests are copied together: one slice costs less than three.
const COPY_UP_TO: usize = 4096;

/// A request under way, until its answer.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub intended_ns: u64,
    pub records: u64,
    pub bytes: u64,
    /// Before compression.
    pub raw_bytes: u64,
}

pub struct Request {
    pub envelope: Rc<ProduceEnvelope>,
    pub batch: Bytes,
    pub sent: Sent,
}

pub enum Step {
    Request(Request),
    /// Nothing is due before.
    Wait(u64),
    /// Nothing is due any more.
    End,
}

/// Where requests come from.
pub trait Source {
    /// The next request at `now_ns`. It counts as sent.
    fn next(&mut self, now_ns: u64) -> Step;
}

#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub acks: i16,
    pub in_flight: usize,
    /// Answers are what the run counts; otherwise their latency is noted beside it.
    pub counts: bool,
    pub open_loop: bool,
}

struct Lane {
    flight: RefCell<InFlight<Sent>>,
    /// An answer has come, or none will any more.
    answered: crate::runtime::sync::Notify,
    failed: Cell<bool>,
    closing: Cell<bool>,
    receiving: Cell<bool>,
}

/// The version in which to produce on this connection.
pub fn produce_caller(connection: &Connection) -> Result<Caller<'static>, ClientError> {
    let version = connection.versions().pick(ApiKey::Produce, PRODUCE_VERSIONS)?;
    Ok(Caller { client_id: CLIENT_ID, version })
}

/// Sends until the source ends or the run halts, and waits for the answers.
pub async fn run<S: Source>(connection: Connection, version: i16, source: S, terms: Terms, context: Rc<Context>) {
    let (sender, receiver) = connection.split();
    let lane = Rc::new(Lane {
        flight: RefCell::default(),
        answered: crate::runtime::sync::Notify::new(),
        failed: Cell::new(false),
        closing: Cell::new(false),
        receiving: Cell::new(true),
    });
    spawn_local(receive(receiver, version, terms, lane.clone(), context.clone()));
    let mut sender = sender;
    if let Err(error) = send(&mut sender, source, terms, &lane, &context).await
        && !lane.failed.replace(true)
    {
        context.connection_lost(&error);
    }
    context.shared.sending.fetch_sub(1, Ordering::AcqRel);
    let deadline = clock::now() + DRAIN;
    while !lane.flight.borrow().is_empty() && !lane.failed.get() && clock::now() < deadline {
        or(lane.answered.notified(), clock::sleep(Duration::from_millis(50))).await;
    }
    let now_ns = context.now_ns();
    let left: Vec<Sent> = lane.flight.borrow_mut().abandon().collect();
    for sent in &left {
        context.recorder.unanswered(sent.intended_ns, now_ns);
    }
    if !left.is_empty() {
        context.error("requests without an answer".to_owned(), left.len() as u64);
    }
    lane.closing.set(true);
    sender.shutdown();
    while lane.receiving.get() {
        lane.answered.notified().await;
    }
}

async fn send<S: Source>(
    sender: &mut Sender,
    mut source: S,
    terms: Terms,
    lane: &Lane,
    context: &Context,
) -> Result<(), ClientError> {
    // acks=0: what this flush carries.
    let mut unanswered: Vec<Sent> = Vec::new();
    let mut pushed = 0;
    loop {
        let mut wait_until = None;
        let mut ended = context.is_halted() || lane.failed.get();
        while !ended && unanswered.len().max(lane.flight.borrow().len()) < terms.in_flight {
            let now_ns = context.now_ns();
            match source.next(now_ns) {
                Step::Request(request) => {
                    if terms.open_loop {
                        context.recorder.sent(request.sent.intended_ns, now_ns);
                    }
                    push(sender, request, terms, lane, &mut unanswered);
                    pushed += 1;
                }
                Step::Wait(due_ns) => {
                    wait_until = Some(due_ns);
                    break;
                }
                Step::End => ended = true,
            }
        }
        if pushed > 0 {
            sender.flush().await?;
            pushed = 0;
            let now_ns = context.now_ns();
            for sent in unanswered.drain(..) {
                arrived(context, terms, sent, now_ns);
            }
        } else if ended {
            return Ok(());
        } else if let Some(due_ns) = wait_until {
            context.sleep_until(due_ns).await;
            let now_ns = context.now_ns();
            if now_ns >= due_ns {
                context.recorder.woke(due_ns, now_ns);
            }
        } else {
            or(lane.answered.notified(), context.halt.notified()).await;
        }
    }
}

fn push(sender: &mut Sender, request: Request, terms: Terms, lane: &Lane, unanswered: &mut Vec<Sent>) {
    let mut flight = lane.flight.borrow_mut();
    let id = if terms.acks == 0 {
        unanswered.push(request.sent);
        flight.take_id()
    } else {
        flight.begin(request.sent)
    };
    let (mut head, tail) = request.envelope.around(id);
    if request.batch.len() <= COPY_UP_TO {
        head.extend_from_slice(&request.batch);
        head.extend_from_slice(&tail);
        sender.push(head.into());
    } else {
        sender.push(head.into());
        sender.push(request.batch);
        sender.push(tail);
    }
}

fn arrived(context: &Context, terms: Terms, sent: Sent, now_ns: u64) {
    if terms.counts {
        let Sent { intended_ns, records, bytes, raw_bytes } = sent;
        context.recorder.done(Done { intended_ns, now_ns, requests: 1, records, bytes, raw_bytes });
    } else {
        context.recorder.acknowledged(sent.intended_ns, now_ns);
    }
}

async fn receive(mut receiver: Receiver, version: i16, terms: Terms, lane: Rc<Lane>, context: Rc<Context>) {
    loop {
        match answer(&mut receiver, version, &lane, &context).await {
            Ok((sent, now_ns, true)) => arrived(&context, terms, sent, now_ns),
            Ok((sent, now_ns, false)) => context.recorder.unanswered(sent.intended_ns, now_ns),
            Err(error) => {
                if !lane.closing.get() && !lane.failed.replace(true) {
                    context.connection_lost(&error);
                }
                break;
            }
        }
        lane.answered.notify_all();
    }
    lane.receiving.set(false);
    lane.answered.notify_all();
}

/// The next answer, when it was there, and whether it says that all is well.
async fn answer(
    receiver: &mut Receiver,
    version: i16,
    lane: &Lane,
    context: &Context,
) -> Result<(Sent, u64, bool), ClientError> {
    let frame = receiver.next().await?;
    let now_ns = context.now_ns();
    let sent = lane.flight.borrow_mut().end(frame)?;
    let (mut well, mut partitions) = (true, 0);
    read_produce_response(version, frame, |produced| {
        partitions += 1;
        if produced.error_code != 0 {
            well = false;
            context.error(format!("Produce: {}", error_name(produced.error_code)), 1);
        }
    })?;
    if partitions != 1 {
        return Err(ClientError::Other(format!("a Produce response for one partition names {partitions}")));
    }
    Ok((sent, now_ns, well))
}
