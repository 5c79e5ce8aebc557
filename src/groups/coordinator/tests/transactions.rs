//! TxnOffsetCommit: offsets that count when a transaction is committed.

use std::sync::Arc;

use super::fixture::*;
use crate::groups::api::*;
use crate::groups::coordinator::Coordinator;
use crate::model::ErrorCode;

/// Entry of the log: records of a call with the producer of their transaction, or the end of a
/// transaction.
enum Entry {
    Records(Option<i64>, Log),
    End(i64, bool),
}

#[derive(Default)]
struct Chain {
    world: World,
    entries: Vec<Entry>,
}

impl Chain {
    fn commit(&mut self, producer_id: Option<i64>, group: &str, offsets: &[(&str, i32, i64)]) -> ErrorCode {
        let producer = producer_id.map(|id| (id, 0));
        self.call(CommitRequest { producer, ..commit(group, -1, "", offsets) }, producer_id)
    }

    fn call(&mut self, request: CommitRequest, producer_id: Option<i64>) -> ErrorCode {
        let error = error_of(&self.world.call(request));
        self.wrote(producer_id);
        error
    }

    fn wrote(&mut self, producer_id: Option<i64>) {
        let records = self.world.records.iter().map(|record| record.encode()).collect();
        self.entries.push(Entry::Records(producer_id, records));
    }

    fn end(&mut self, producer_id: i64, commit: bool) {
        self.world.act(|coordinator, _| coordinator.end_transaction(producer_id, commit));
        self.entries.push(Entry::End(producer_id, commit));
    }

    /// The offset, and its error for those who want stable ones.
    fn offset(&mut self, group: &str, partition: i32) -> (i64, ErrorCode) {
        let mut fetch = |require_stable, all: bool| {
            let topics = (!all).then(|| vec![("t".into(), vec![partition])]);
            let reply =
                self.world.call(FetchOffsetsRequest { group: group.into(), member: None, topics, require_stable });
            let of_topic = reply.topics.into_iter().find(|(topic, _)| &**topic == "t");
            of_topic.and_then(|(_, offsets)| offsets.into_iter().find(|offset| offset.index == partition))
        };
        let (plain, stable) = (fetch(false, false).unwrap(), fetch(true, false).unwrap());
        if let Some(listed) = fetch(true, true) {
            assert_eq!(listed, stable);
        }
        assert_eq!(plain.error, ErrorCode::None);
        assert_eq!(stable.offset, if stable.error == ErrorCode::None { plain.offset } else { -1 });
        (plain.offset, stable.error)
    }

    /// Another broker loads what was written.
    fn reload(&mut self) {
        let mut coordinator = Coordinator::default();
        for entry in &self.entries {
            match entry {
                Entry::Records(producer_id, records) => {
                    for (key, value) in records {
                        coordinator.replay_of(*producer_id, key, value.as_deref()).unwrap();
                    }
                }
                Entry::End(producer_id, commit) => coordinator.end_transaction(*producer_id, *commit),
            }
        }
        self.world.coordinator = coordinator;
        self.world.act(|coordinator, env| coordinator.loaded(env));
    }
}

const STABLE: ErrorCode = ErrorCode::None;
const UNSTABLE: ErrorCode = ErrorCode::UnstableOffsetCommit;

#[test]
fn offsets_count_when_the_transaction_is_committed() {
    for commit in [true, false] {
        for reload in [false, true] {
            let mut chain = Chain::default();
            assert_eq!(chain.commit(None, "g", &[("t", 0, 5)]), ErrorCode::None);
            assert_eq!(chain.commit(Some(7), "g", &[("t", 0, 10), ("t", 1, 11)]), ErrorCode::None);
            if reload {
                chain.reload();
            }
            assert_eq!((chain.offset("g", 0), chain.offset("g", 1)), ((5, UNSTABLE), (-1, UNSTABLE)));
            assert_eq!(chain.offset("g", 2), (-1, STABLE));
            chain.end(8, commit);
            assert_eq!(chain.offset("g", 0), (5, UNSTABLE), "another producer's end");
            chain.end(7, commit);
            let (first, second) = if commit { (10, 11) } else { (5, -1) };
            assert_eq!((chain.offset("g", 0), chain.offset("g", 1)), ((first, STABLE), (second, STABLE)));
            chain.reload();
            assert_eq!((chain.offset("g", 0), chain.offset("g", 1)), ((first, STABLE), (second, STABLE)));
        }
    }
}

#[test]
fn the_last_of_several_in_one_transaction_counts() {
    let mut chain = Chain::default();
    for offset in [10, 12, 11] {
        chain.commit(Some(7), "g", &[("t", 0, offset)]);
    }
    let bytes = chain.world.coordinator.bytes();
    chain.commit(Some(7), "g", &[("t", 0, 13)]);
    assert_eq!(chain.world.coordinator.bytes(), bytes);
    chain.end(7, true);
    assert_eq!(chain.offset("g", 0), (13, STABLE));
}

/// The later commit in the log counts, whichever transaction ends first.
#[test]
fn the_later_commit_counts() {
    for reload in [false, true] {
        let mut chain = Chain::default();
        chain.commit(Some(7), "g", &[("t", 0, 10), ("t", 1, 10)]);
        chain.commit(None, "g", &[("t", 0, 20)]);
        chain.commit(Some(8), "g", &[("t", 1, 30)]);
        if reload {
            chain.reload();
        }
        assert_eq!(chain.offset("g", 0), (20, UNSTABLE));
        chain.end(8, true);
        assert_eq!(chain.offset("g", 1), (30, UNSTABLE));
        chain.end(7, true);
        assert_eq!((chain.offset("g", 0), chain.offset("g", 1)), ((20, STABLE), (30, STABLE)));
        // A new one of the same producer is another matter.
        chain.commit(Some(7), "g", &[("t", 0, 40)]);
        chain.end(7, true);
        assert_eq!(chain.offset("g", 0), (40, STABLE));
    }
}

#[test]
fn a_group_goes_with_what_is_pending_and_not_before() {
    let mut chain = Chain::default();
    chain.world.config.offsets_retention_ms = 1000;
    chain.commit(Some(7), "g", &[("t", 0, 10)]);
    chain.commit(None, "g", &[("t", 0, 5)]);
    chain.commit(Some(7), "g", &[("t", 0, 11)]);
    chain.world.pass(chain.world.config.offsets_retention_check_interval_ms * 2);
    chain.wrote(None);
    assert_eq!(chain.offset("g", 0), (5, UNSTABLE), "a transaction is about to replace it");
    let reply = chain.world.call(DeleteRequest { group: "g".into() });
    chain.wrote(None);
    assert_eq!(reply.error, ErrorCode::None);
    assert_eq!(chain.world.coordinator.bytes(), 0);
    chain.end(7, true);
    assert_eq!((chain.offset("g", 0), chain.world.state("g")), ((-1, STABLE), "none"));
    chain.reload();
    assert_eq!(chain.offset("g", 0), (-1, STABLE));
}

#[test]
fn offsets_of_removed_topics_go_pending_ones_too() {
    let mut chain = Chain::default();
    chain.commit(Some(7), "g", &[("t", 0, 10)]);
    chain.world.act(|coordinator, env| coordinator.topics_changed(&[Arc::from("t")], env));
    chain.wrote(None);
    chain.end(7, true);
    assert_eq!(chain.offset("g", 0), (-1, STABLE));
}

#[test]
fn members_and_producers_that_name_none_may_commit() {
    let mut chain = Chain::default();
    let (generation, ids) = chain.world.stable("g", vec![join("g", ""), join("g", "")]);
    let at = |generation, member: &str| CommitRequest {
        producer: Some((7, 0)),
        ..commit("g", generation, member, &[("t", 0, 5)])
    };
    let cases = [
        (at(generation, &ids[0]), ErrorCode::None),
        (at(-1, ""), ErrorCode::None),
        (at(generation - 1, &ids[0]), ErrorCode::IllegalGeneration),
        (at(generation, "x"), ErrorCode::UnknownMemberId),
    ];
    for (request, error) in cases {
        let shown = format!("{request:?}");
        assert_eq!(chain.call(request, Some(7)), error, "{shown}");
    }
    let unknown = CommitRequest { producer: Some((7, 0)), ..commit("unknown", 1, "x", &[("t", 0, 5)]) };
    assert_eq!(chain.call(unknown, Some(7)), ErrorCode::IllegalGeneration);
    // Also while a rebalance is being completed.
    let joins = [chain.world.ask(join("g", &ids[0])), chain.world.ask(join("g", &ids[1]))];
    chain.world.all_joined(&joins);
    assert_eq!(chain.world.state("g"), "CompletingRebalance");
    assert_eq!(chain.call(at(generation + 1, &ids[1]), Some(7)), ErrorCode::None);
}
