//! Counts of a request whose answer has been sent, and the choice of the slowest.

use std::time::Duration;

use kafka_protocol::messages::ApiKey;

use super::context::Link;
use super::peer::Client;
use super::pipeline::{Asked, Course};
use crate::observe::client_line;
use crate::observe::metrics::{Cause, SlowRequest, Spell, Step, Waits};
use crate::runtime::clock::{self, Moment};

/// Requests that wait for others of their group, for as long as those take.
const PATIENT: [ApiKey; 2] = [ApiKey::JoinGroup, ApiKey::SyncGroup];

/// Counts a request whose answer was at hand, and then sent, at these moments.
pub fn note_answered(link: &Link, client: &Client, asked: &Asked, (collected, sent): (Moment, Moment)) {
    let metrics = &link.metrics;
    let took = Spell::of(sent.ns_since(asked.received));
    metrics.api(asked.key).sent.add(took);
    match asked.course {
        Course::Produce(_) => {
            let spell = if sent == collected { took } else { Spell::of(collected.ns_since(asked.received)) };
            metrics.acknowledged.add(spell);
        }
        Course::Fetch { begun, by_follower } => {
            let stages = if by_follower { &metrics.follower_fetches } else { &metrics.consumer_fetches };
            stages.add(fetch_ns(asked, begun, (collected, sent)));
        }
        Course::Other => {}
    }
    let slow_ns = match asked.notes.waits() {
        None => took.ns,
        Some(waits) => (took.ns + waits.held_back()).saturating_sub(waits.expected()),
    };
    if metrics.slow.wants(slow_ns) {
        note_slow(link, client, asked, (collected, sent));
    }
}

/// Of the stages of a fetch, in their order.
fn fetch_ns(asked: &Asked, begun: Moment, (collected, sent): (Moment, Moment)) -> [u64; 4] {
    let waited = asked.notes.waits().map_or(0, |waits| waits.of(Cause::Records));
    let read = collected.ns_since(begun).saturating_sub(waited);
    [begun.ns_since(asked.received), waited, read, sent.ns_since(collected)]
}

fn steps(asked: &Asked, (collected, sent): (Moment, Moment)) -> Vec<(Step, Duration)> {
    let held_back = asked.notes.waits().map_or(0, Waits::held_back);
    let held_back = (held_back > 0).then_some((Step::HeldBack, held_back));
    let send = (Step::Send, sent.ns_since(collected));
    let own = match asked.course {
        Course::Produce(appended) => vec![
            (Step::Append, appended.ns_since(asked.received)),
            (Step::Acknowledge, collected.ns_since(appended)),
            send,
        ],
        Course::Fetch { begun, .. } => {
            let steps = [Step::LookUp, Step::Wait, Step::Read, Step::Send];
            steps.into_iter().zip(fetch_ns(asked, begun, (collected, sent))).collect()
        }
        Course::Other => vec![(Step::Handle, collected.ns_since(asked.received)), send],
    };
    held_back.into_iter().chain(own).map(|(step, ns)| (step, Duration::from_nanos(ns))).collect()
}

/// Keeps a request among the slowest, and says so if it took longer than
/// `corelane.slow.request.ms`, as far as it did.
#[cold]
fn note_slow(link: &Link, client: &Client, asked: &Asked, moments: (Moment, Moment)) {
    if PATIENT.iter().any(|api| *api as i16 == asked.key) {
        return;
    }
    let (target, kind) = (asked.target, client.software.borrow().as_ref().map(|own| own.kind().clone()));
    let request = SlowRequest {
        at_ms: clock::wall_ms(),
        key: asked.key,
        version: asked.version,
        client_id: client.last_id().map(|id| SlowRequest::name(&id)),
        client: kind.filter(|kind| kind.is_told()),
        listener: SlowRequest::name(&client.listener),
        peer: client.peer.0,
        target,
        topic: target.first().and_then(|(topic, _)| link.topic_name(topic)),
        request_bytes: asked.bytes as usize,
        response_bytes: asked.answer_bytes as usize,
        steps: steps(asked, moments),
        waits: asked.notes.waits().copied().unwrap_or_else(Waits::default),
    };
    let slow = &link.metrics.slow;
    if request.slow() >= slow.thresholds().logged {
        say(&request, client);
    }
    slow.note(request);
}

fn say(request: &SlowRequest, client: &Client) {
    let api = ApiKey::try_from(request.key).map_or_else(|()| request.key.to_string(), |api| format!("{api:?}"));
    client_line!(
        warn,
        api,
        version = request.version,
        client_id = request.client_id.as_deref(),
        peer = %client.peer,
        listener = &*request.listener,
        topic = request.topic.as_deref(),
        partition = request.target.first().map(|(_, index)| index),
        partitions = request.target.partitions,
        bytes = request.request_bytes,
        "a request took {:.1} ms: {} ({})",
        request.slow().as_secs_f64() * 1e3,
        request.waits_in_words(),
        request.stages_in_words()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::Target;
    use crate::runtime::waits::Notes;

    fn asked(course: Course, received: Moment, held_back_ms: u64) -> Asked {
        let mut notes = Notes::default();
        notes.add(Cause::Quota, held_back_ms * 1_000_000);
        notes.begin();
        Asked { key: 0, version: 13, bytes: 10, answer_bytes: 20, received, course, target: Target::default(), notes }
    }

    fn ms(steps: Vec<(Step, Duration)>) -> Vec<(Step, u128)> {
        steps.into_iter().map(|(step, time)| (step, time.as_millis())).collect()
    }

    #[test]
    fn the_stages_of_a_request_make_up_its_time() {
        let begin = Moment::now();
        let at = |ms: u64| begin.after(Duration::from_millis(ms));
        let produced = Course::Produce(at(3));
        let shown = ms(steps(&asked(produced, begin, 7), (at(40), at(42))));
        assert_eq!(shown, [(Step::HeldBack, 7), (Step::Append, 3), (Step::Acknowledge, 37), (Step::Send, 2)]);
        let fetched = Course::Fetch { begun: at(1), by_follower: false };
        let mut fetch = asked(fetched, begin, 0);
        fetch.notes.add(Cause::Records, 500_000_000);
        let shown = ms(steps(&fetch, (at(531), at(532))));
        assert_eq!(shown, [(Step::LookUp, 1), (Step::Wait, 500), (Step::Read, 30), (Step::Send, 1)]);
        let shown = ms(steps(&asked(Course::Other, begin, 0), (at(5), at(5))));
        assert_eq!(shown, [(Step::Handle, 5), (Step::Send, 0)]);
    }
}
