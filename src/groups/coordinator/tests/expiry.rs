//! Offsets that are too old, and groups that nothing is left of.

use bytes::Bytes;

use super::fixture::*;
use crate::config::GroupConfig;
use crate::groups::api::{CommitRequest, JoinRequest};

const MINUTE: u64 = 60_000;
const RETENTION: u64 = 100 * MINUTE;

fn world() -> World {
    World::with(GroupConfig {
        offsets_retention_ms: RETENTION as i64,
        offsets_retention_check_interval_ms: MINUTE,
        ..GroupConfig::default()
    })
}

/// Lets time go by with a member that sends heartbeats.
fn pass_alive(world: &mut World, ms: u64, generation: i32, member: &str) {
    for _ in 0..ms / 5000 {
        world.pass(5000);
        world.heartbeat("g", generation, member);
    }
}

#[test]
fn of_a_simple_group_each_offset_ages_by_itself() {
    let mut world = world();
    world.call(commit("g", -1, "", &[("t", 0, 1), ("t", 1, 1)]));
    world.pass(RETENTION / 2);
    world.call(commit("g", -1, "", &[("t", 1, 2)]));
    world.pass(RETENTION / 2 - MINUTE);
    assert_eq!(world.offset("g", "t", 0), 1);
    world.pass(MINUTE);
    assert_eq!((world.offset("g", "t", 0), world.offset("g", "t", 1)), (-1, 2));
    world.pass(RETENTION / 2);
    assert_eq!((world.offset("g", "t", 1), world.state("g")), (-1, "none"));
    let before = world.log.len();
    world.reload();
    assert_eq!((world.state("g"), world.log.len()), ("none", before));
}

#[test]
fn of_a_group_that_had_members_all_offsets_age_together_since_it_is_empty() {
    let mut world = world();
    let (generation, ids) = world.stable("g", vec![join("g", "")]);
    world.call(commit("g", generation, &ids[0], &[("t", 0, 1)]));
    pass_alive(&mut world, 2 * RETENTION, generation, &ids[0]);
    assert_eq!(world.offset("g", "t", 0), 1, "it is read");
    world.call(leave("g", &[(&ids[0], None)]));
    for reload in [false, true] {
        world.pass(RETENTION / 2 - MINUTE);
        assert_eq!(world.offset("g", "t", 0), 1);
        if !reload {
            world.reload();
        }
    }
    world.pass(3 * MINUTE);
    assert_eq!((world.offset("g", "t", 0), world.state("g")), (-1, "none"));
}

#[test]
fn of_a_stable_group_those_offsets_age_that_nobody_reads() {
    let cases: [(&str, Bytes, [i64; 2]); 3] = [
        ("consumer", subscription(&["t"]), [1, -1]),
        ("consumer", Bytes::from_static(b"no subscription"), [1, 1]),
        ("connect", subscription(&["t"]), [1, 1]),
    ];
    for (protocol_type, metadata, left) in cases {
        let mut world = world();
        let protocols = vec![("p".into(), metadata)];
        let request = JoinRequest { protocol_type: protocol_type.into(), protocols, ..join("g", "") };
        let (generation, ids) = world.stable("g", vec![request]);
        world.call(commit("g", generation, &ids[0], &[("t", 0, 1), ("u", 0, 1)]));
        pass_alive(&mut world, RETENTION + 2 * MINUTE, generation, &ids[0]);
        assert_eq!(["t", "u"].map(|topic| world.offset("g", topic, 0)), left, "{protocol_type}");
        assert_eq!(world.state("g"), "Stable");
    }
}

#[test]
fn a_retention_time_that_a_client_gives_goes_before() {
    let mut world = world();
    let kept = |retention_ms| CommitRequest { retention_ms, ..commit("g", -1, "", &[("t", 0, 1)]) };
    for (retention_ms, expires_ms) in
        [(Some(10 * MINUTE), 10 * MINUTE), (Some(2 * RETENTION), 2 * RETENTION), (None, RETENTION)]
    {
        let start = world.mono_ms;
        world.call(kept(retention_ms.map(|ms| ms as i64)));
        world.reload();
        world.pass(expires_ms - MINUTE);
        assert_eq!(world.offset("g", "t", 0), 1, "{retention_ms:?}");
        world.pass(2 * MINUTE);
        assert_eq!(world.offset("g", "t", 0), -1, "{retention_ms:?} since {start}");
    }
    world.call(kept(Some(-1)));
    world.pass(RETENTION - MINUTE);
    assert_eq!(world.offset("g", "t", 0), 1, "-1: the broker's");
}

#[test]
fn groups_without_offsets_vanish_when_nobody_is_in_them_or_was_told_to_come() {
    let mut world = world();
    let (generation, ids) = world.stable("g", vec![join("g", "")]);
    pass_alive(&mut world, 2 * MINUTE, generation, &ids[0]);
    assert_eq!(world.state("g"), "Stable");
    world.call(leave("g", &[(&ids[0], None)]));
    let pending = JoinRequest { requires_known_member: true, session_timeout_ms: 300_000, ..join("g", "") };
    world.call(pending);
    world.pass(2 * MINUTE);
    assert_eq!(world.state("g"), "Empty");
    world.pass(5 * MINUTE);
    assert_eq!(world.state("g"), "none");
    assert!(replayed(&world.log).groups.is_empty());
}

#[test]
fn many_old_offsets_go_in_steps() {
    let mut world = world();
    for group in 0..30 {
        for chunk in 0..10 {
            let offsets: Vec<(&str, i32, i64)> = (0..10).map(|index| ("t", chunk * 10 + index, 1)).collect();
            world.call(commit(&format!("g{group}"), -1, "", &offsets));
        }
    }
    world.mono_ms += RETENTION;
    let (mut ticks, mut most) = (0, 0);
    while world.coordinator.next_deadline().is_some_and(|at| at < 2 * RETENTION) && !world.coordinator.groups.is_empty()
    {
        world.mono_ms = world.mono_ms.max(world.coordinator.next_deadline().unwrap());
        world.act(|coordinator, env| coordinator.tick(env));
        (ticks, most) = (ticks + 1, most.max(world.records.len()));
    }
    assert!(world.coordinator.groups.is_empty() && world.coordinator.offsets.is_empty());
    assert!(ticks >= 3 && most <= 1100, "{ticks} steps of up to {most} records");
}
