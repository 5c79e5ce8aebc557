use super::*;
use crate::protocol::fetch::{FetchTopic, ForgottenTopic};
use uuid::Uuid;

fn name(text: &'static str) -> TopicKey {
    TopicKey::Name(Bytes::from_static(text.as_bytes()))
}

fn partition(index: i32, offset: i64) -> FetchPartition {
    FetchPartition {
        index,
        current_leader_epoch: -1,
        fetch_offset: offset,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        max_bytes: 1 << 20,
    }
}

fn request(
    session: (i32, i32),
    wanted: &[(TopicKey, &[(i32, i64)])],
    forgotten: &[(TopicKey, &[i32])],
) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 1 << 20,
        isolation_level: 0,
        session_id: session.0,
        session_epoch: session.1,
        topics: wanted
            .iter()
            .map(|(topic, list)| FetchTopic {
                topic: topic.clone(),
                partitions: list.iter().map(|(index, offset)| partition(*index, *offset)).collect(),
            })
            .collect(),
        forgotten: forgotten
            .iter()
            .map(|(topic, list)| ForgottenTopic { topic: topic.clone(), partitions: list.to_vec() })
            .collect(),
        rack_id: None,
        replica_id: -1,
        replica_epoch: -1,
    }
}

fn answer(index: i32, high_watermark: i64, data: bool) -> Option<FetchPartitionResponse> {
    Some(FetchPartitionResponse {
        index,
        error: ErrorCode::None,
        high_watermark,
        last_stable_offset: high_watermark,
        log_start_offset: 0,
        aborted: None,
        records: if data { vec![Bytes::from_static(b"batch")] } else { Vec::new() },
        diverging: None,
        preferred_replica: None,
    })
}

struct Ids(u32);

impl Ids {
    fn next(&mut self) -> u32 {
        self.0 += 1;
        self.0
    }
}

fn cache(capacity: usize) -> (SessionCache, Ids) {
    (SessionCache::new(capacity, 1 << 20, ShardId(3)), Ids(0))
}

fn start(cache: &mut SessionCache, ids: &mut Ids, partitions: i32, now_ms: i64) -> i32 {
    let list: Vec<_> = (0..partitions).map(|i| (i, 0)).collect();
    match cache.open(&request((0, 0), &[(name("t"), &list)], &[]), false, now_ms, || ids.next()) {
        Opened::Session { id, epoch: 1, full: true } => id,
        Opened::Sessionless => 0,
        other => panic!("{other:?}"),
    }
}

fn offsets(cache: &SessionCache, id: i32) -> Vec<(i32, i64)> {
    let session = cache.session(id).unwrap();
    session.partitions().map(|(_, p)| (p.request.index, p.request.fetch_offset)).collect()
}

fn slots(cache: &SessionCache, id: i32) -> Vec<u32> {
    cache.session(id).unwrap().partitions().map(|(slot, _)| slot).collect()
}

#[test]
fn a_full_fetch_starts_a_session_whose_id_names_its_shard() {
    let (mut cache, mut ids) = cache(10);
    let id = start(&mut cache, &mut ids, 3, 0);
    assert_eq!(id & 0x3ff, 3);
    assert_eq!(offsets(&cache, id), [(0, 0), (1, 0), (2, 0)]);
    // The first answer names everything, news or not.
    let mut responses = vec![answer(0, 0, false), answer(1, 5, true), answer(2, 0, false)];
    let order = slots(&cache, id);
    assert!(cache.close(id, 1, true, &order, &mut responses));
    assert!(responses.iter().all(Option::is_some));
    assert_eq!(offsets(&cache, id), [(0, 0), (2, 0), (1, 0)], "what had data goes to the end");
}

#[test]
fn incremental_requests_add_change_and_forget_and_step_the_epoch() {
    let (mut cache, mut ids) = cache(10);
    let id = start(&mut cache, &mut ids, 3, 0);
    let next = request((id, 1), &[(name("t"), &[(1, 50), (7, 70)]), (name("u"), &[(0, 9)])], &[(name("t"), &[0, 99])]);
    let opened = cache.open(&next, false, 1, || ids.next());
    assert_eq!(opened, Opened::Session { id, epoch: 2, full: false });
    assert_eq!(offsets(&cache, id), [(1, 50), (2, 0), (7, 70), (0, 9)]);
    assert_eq!(cache.bytes, cache.sessions.values().map(Session::bytes).sum::<usize>());
    // The freed slot is used again, at the end of the order.
    let opened = cache.open(&request((id, 2), &[(name("u"), &[(5, 5)])], &[]), false, 1, || ids.next());
    assert_eq!(opened, Opened::Session { id, epoch: 3, full: false });
    assert_eq!(offsets(&cache, id), [(1, 50), (2, 0), (7, 70), (0, 9), (5, 5)]);
    assert_eq!(cache.session(id).unwrap().slots.len(), 5);
}

#[test]
fn incremental_answers_leave_out_what_has_no_news() {
    let (mut cache, mut ids) = cache(10);
    let id = start(&mut cache, &mut ids, 3, 0);
    let order = slots(&cache, id);
    let mut first = vec![answer(0, 1, false), answer(1, 1, false), answer(2, 1, false)];
    assert!(cache.close(id, 1, true, &order, &mut first));
    let mut round = |epoch: i32, mut responses: Vec<Option<FetchPartitionResponse>>| {
        let opened = cache.open(&request((id, epoch), &[], &[]), false, 0, || 1);
        assert_eq!(opened, Opened::Session { id, epoch: epoch + 1, full: false });
        assert!(cache.close(id, epoch + 1, false, &order, &mut responses));
        responses.iter().flatten().map(|r| r.index).collect::<Vec<_>>()
    };
    assert_eq!(round(1, vec![answer(0, 1, false), answer(1, 1, false), answer(2, 1, false)]), [0; 0]);
    assert_eq!(round(2, vec![answer(0, 1, false), answer(1, 2, false), answer(2, 1, false)]), [1], "high watermark");
    let failed = answer(2, 1, false).map(|r| FetchPartitionResponse { error: ErrorCode::OffsetOutOfRange, ..r });
    assert_eq!(round(3, vec![answer(0, 1, false), answer(1, 2, false), failed.clone()]), [2]);
    assert_eq!(round(4, vec![answer(0, 1, false), answer(1, 2, false), failed]), [2], "errors every time");
    assert_eq!(round(5, vec![answer(0, 1, false), answer(1, 2, false), answer(2, 1, false)]), [2], "error gone");
    assert_eq!(round(6, vec![answer(0, 1, true), answer(1, 2, false), answer(2, 1, false)]), [0], "data");
}

#[test]
fn wrong_ids_epochs_and_kinds_are_refused_with_kafkas_codes() {
    let (mut cache, mut ids) = cache(10);
    let id = start(&mut cache, &mut ids, 1, 0);
    let mut open = |session: (i32, i32), by_id: bool| cache.open(&request(session, &[], &[]), by_id, 0, || ids.next());
    assert_eq!(open((id + 1024, 1), false), Opened::Refused(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(open((0, 5), false), Opened::Refused(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(open((id, 2), false), Opened::Refused(ErrorCode::InvalidFetchSessionEpoch));
    assert_eq!(open((id, 1), true), Opened::Refused(ErrorCode::FetchSessionTopicIdError));
    assert_eq!(open((id, 1), false), Opened::Session { id, epoch: 2, full: false });
    assert_eq!(open((id, 1), false), Opened::Refused(ErrorCode::InvalidFetchSessionEpoch), "each epoch once");
    assert_eq!(open((id, -1), false), Opened::Sessionless, "the final epoch ends it");
    assert_eq!(open((id, 2), false), Opened::Refused(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(cache.bytes, 0);
}

#[test]
fn an_answer_that_comes_after_the_next_request_is_void() {
    let (mut cache, mut ids) = cache(10);
    let id = start(&mut cache, &mut ids, 1, 0);
    cache.open(&request((id, 1), &[], &[]), false, 0, || 1);
    let mut late = vec![answer(0, 1, true)];
    assert!(!cache.close(id, 1, true, &[0], &mut late));
    assert!(cache.close(id, 2, false, &[0], &mut late));
}

#[test]
fn a_session_left_empty_ends() {
    let (mut cache, mut ids) = cache(10);
    let id = start(&mut cache, &mut ids, 1, 0);
    let opened = cache.open(&request((id, 1), &[], &[(name("t"), &[0])]), false, 0, || 1);
    assert_eq!(opened, Opened::Sessionless);
    assert!(cache.session(id).is_none());
}

#[test]
fn a_full_cache_gives_way_to_the_stale_first_and_then_to_the_larger() {
    let (mut cache, mut ids) = cache(2);
    let small = start(&mut cache, &mut ids, 2, 0);
    let large = start(&mut cache, &mut ids, 5, 0);
    assert_eq!(start(&mut cache, &mut ids, 9, 1000), 0, "young sessions in use stay");
    // Both are old now, and in use.
    for (id, epoch) in [(small, 1), (large, 1)] {
        let opened = cache.open(&request((id, epoch), &[], &[]), false, 100_000, || 1);
        assert!(matches!(opened, Opened::Session { .. }));
    }
    assert_eq!(start(&mut cache, &mut ids, 2, EVICTION_MS + 1), 0, "no larger than the smallest");
    let third = start(&mut cache, &mut ids, 3, EVICTION_MS + 1);
    assert!(third != 0 && cache.session(small).is_none() && cache.session(large).is_some());
    // `large` was last used at 100 s.
    let fourth = start(&mut cache, &mut ids, 1, 100_000 + EVICTION_MS + 1);
    assert!(fourth != 0 && cache.session(large).is_none() && cache.session(third).is_some());
    assert_eq!(cache.bytes, cache.sessions.values().map(Session::bytes).sum::<usize>());
}

#[test]
fn no_capacity_means_no_sessions() {
    let (mut cache, mut ids) = cache(0);
    assert_eq!(start(&mut cache, &mut ids, 2, 0), 0);
    let empty = cache.open(&request((0, 0), &[], &[]), false, 0, || ids.next());
    assert_eq!(empty, Opened::Sessionless);
}

#[test]
fn fresh_ids_are_positive_and_unused() {
    let (mut cache, _) = cache(10);
    let mut draws = [u32::MAX, 5, 5].into_iter();
    let mut open = |topic: TopicKey| {
        let opened = cache.open(&request((0, 0), &[(topic, &[(0, 0)])], &[]), true, 0, || draws.next().unwrap());
        match opened {
            Opened::Session { id, .. } => id,
            other => panic!("{other:?}"),
        }
    };
    let got = [0, 1, 2].map(|n| open(TopicKey::Id(Uuid::from_u128(n))));
    assert_eq!(got, [i32::MAX & !0x3ff | 3, 5 << 10 | 3, 6 << 10 | 3]);
}

#[test]
fn epochs_wrap_to_one() {
    assert_eq!(next_epoch(1), 2);
    assert_eq!(next_epoch(i32::MAX), 1);
}

#[test]
fn a_session_that_saw_too_many_topics_come_and_go_ends() {
    let (mut cache, mut ids) = cache(10);
    let id = start(&mut cache, &mut ids, 1, 0);
    for n in 1.. {
        let (old, new) = (TopicKey::Id(Uuid::from_u128(n - 1)), TopicKey::Id(Uuid::from_u128(n)));
        let next = request((id, n as i32), &[(new, &[(0, 0)])], &[(old, &[0])]);
        match cache.open(&next, false, 0, || 1) {
            Opened::Session { .. } => assert!(n < 2000),
            other => {
                assert_eq!((other, n), (Opened::Refused(ErrorCode::FetchSessionIdNotFound), KEPT_TOPICS as u128));
                break;
            }
        }
    }
    assert_eq!(cache.bytes, 0);
}

fn named(text: String) -> TopicKey {
    TopicKey::Name(Bytes::from(text))
}

#[test]
fn sessions_take_no_more_memory_than_they_may() {
    let (mut cache, mut ids) = cache(1000);
    let list: Vec<_> = (0..100).map(|i| (i, 0)).collect();
    let mut wanted = |cache: &mut SessionCache, now_ms| {
        cache.open(&request((0, 0), &[(name("t"), &list)], &[]), false, now_ms, || ids.next())
    };
    let opened = (0..1000).take_while(|_| wanted(&mut cache, 0) != Opened::Sessionless).count();
    assert!((10..100).contains(&opened), "{opened}");
    assert!(cache.bytes <= cache.limit_bytes);
    assert_eq!(wanted(&mut cache, EVICTION_MS), Opened::Sessionless, "who is there stays for a while");
    assert!(matches!(wanted(&mut cache, EVICTION_MS + 1), Opened::Session { .. }));
    assert!(cache.bytes <= cache.limit_bytes);
}

#[test]
fn long_topic_names_count() {
    let (mut cache, mut ids) = cache(1000);
    let topics: Vec<_> = (0..40).map(|n| (named(format!("{n}{}", "x".repeat(30_000))), &[(0, 0)][..])).collect();
    assert_eq!(cache.open(&request((0, 0), &topics, &[]), false, 0, || ids.next()), Opened::Sessionless);
    assert_eq!(cache.bytes, 0);
    // A session that grows beyond is ended, and its client starts anew without one.
    let Opened::Session { id, .. } = cache.open(&request((0, 0), &topics[..20], &[]), false, 0, || ids.next()) else {
        panic!("there is room for it");
    };
    let grown = cache.open(&request((id, 1), &topics[20..], &[]), false, 0, || ids.next());
    assert_eq!((grown, cache.bytes), (Opened::Refused(ErrorCode::FetchSessionIdNotFound), 0));
}

#[test]
fn a_session_goes_on_in_another_shards_cache() {
    let (mut old, mut ids) = cache(10);
    let mut new = SessionCache::new(1, 1 << 20, ShardId(5));
    let id = start(&mut old, &mut ids, 3, 70_000);
    let taken = old.take(id, 80_000).unwrap();
    assert_eq!((old.bytes, old.sessions.len()), (0, 0));
    assert!(old.take(id, 80_000).is_none() && old.take(NO_SESSION, 80_000).is_none());
    new.put(id, taken, 500);
    assert_eq!(new.bytes, new.session(id).unwrap().bytes());
    assert_eq!(
        (new.session(id).unwrap().created_ms, new.session(id).unwrap().used_ms),
        (-9500, 500),
        "as old as before"
    );
    let next = request((id, 1), &[(name("t"), &[(1, 50)])], &[]);
    assert_eq!(new.open(&next, false, 501, || 9), Opened::Session { id, epoch: 2, full: false });
    assert_eq!(offsets(&new, id), [(0, 0), (1, 50), (2, 0)]);
}

#[test]
fn a_session_that_finds_no_room_is_begun_anew_by_its_client() {
    let (mut old, mut ids) = cache(10);
    let mut new = SessionCache::new(1, 1 << 20, ShardId(5));
    let [first, second] = [0, 0].map(|now| start(&mut old, &mut ids, 3, now));
    new.put(first, old.take(first, 0).unwrap(), 0);
    new.put(second, old.take(second, 0).unwrap(), 1);
    assert!(new.session(first).is_some(), "who is there stays");
    let opened = new.open(&request((second, 1), &[], &[]), false, 1, || 9);
    assert_eq!(opened, Opened::Refused(ErrorCode::FetchSessionIdNotFound));
    // An id that has been given out again meanwhile.
    let again = start(&mut old, &mut Ids(ids.0 - 2), 2, 0);
    assert_eq!(again, first);
    let mut new = SessionCache::new(9, 1 << 20, ShardId(5));
    new.put(first, old.take(first, 0).unwrap(), 0);
    let third = start(&mut old, &mut Ids(ids.0 - 2), 3, 0);
    new.put(third, old.take(third, 0).unwrap(), 0);
    assert_eq!((new.session(first).unwrap().len(), new.bytes), (2, new.session(first).unwrap().bytes()));
}
