//! A JoinGroup that waits for other members, and what is asked behind it on its connection.

use std::time::Duration;

use kafka_protocol::messages::{DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest};

use crate::groups::{beat, group, join, stable};
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::world::*;

/// Little memory, so that a few requests would use it up: a mebibyte a shard for request bytes.
const OPTIONS: &[&str] = &["corelane.receive.memory.bytes=1048576", "socket.request.max.bytes=1048576"];
const REBALANCE_IN_PROGRESS: i16 = 27;
/// More of [`large`], for both connections together, than there is room for.
const BEHIND: usize = 12;
const GROUP: &str = "waits";

/// Some 60 KiB that ask for little.
fn large() -> DescribeGroupsRequest {
    let groups = (0..3).map(|n| GroupId(text(&format!("{n}{}", &longest()[..20_000]))));
    DescribeGroupsRequest::default().with_groups(groups.collect())
}

pub fn run() {
    let broker = Broker::start_with(OPTIONS);
    let mut world = World::new(broker.port);
    crate::groups::find_coordinator(&mut world);
    let (leader, generation) = stable(&mut world, GROUP);

    // Twice: the second time with what the first left behind when its connection was closed.
    let mut waiting = Client::connect(broker.port);
    let joining = ask_to_join(&mut waiting);
    for _ in 0..BEHIND {
        waiting.send(6, &large());
    }
    assert!(waiting.hears_nothing(Duration::from_millis(500)), "it waits for the leader to join again");
    drop(waiting);
    let mut waiting = Client::connect(broker.port);
    waiting.send(5, &joining);
    for _ in 0..BEHIND {
        waiting.send(6, &large());
    }
    let last = HeartbeatRequest::default().with_group_id(group(GROUP)).with_member_id(joining.member_id.clone());
    waiting.send(4, &last);
    assert!(waiting.hears_nothing(Duration::from_millis(500)));

    // Others are read and answered, with small requests and large ones, on every shard.
    for _ in 0..8 {
        let mut other = Client::connect(broker.port);
        assert_eq!(other.call(6, &large()).groups.len(), 3);
        assert_eq!(beat(&mut world, 4, GROUP, (&leader, generation)), REBALANCE_IN_PROGRESS);
    }

    // The leader joins again: all that waited behind, outside the broker's
    // memory, is answered in order.
    let joined = world.client.call(5, &join(5, GROUP, &leader, "range"));
    assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, generation + 1, 2));
    let joined = waiting.receive_before::<JoinGroupRequest>(BEHIND + 1, 5);
    assert_eq!((joined.error_code, joined.generation_id, &*joined.leader), (0, generation + 1, &*leader));
    assert_eq!(joined.member_id, joining.member_id);
    for later in (1..=BEHIND).rev() {
        let groups = waiting.receive_before::<DescribeGroupsRequest>(later, 6).groups;
        assert_eq!(groups.len(), 3);
        assert_eq!(groups[0].error_code, code::GROUP_ID_NOT_FOUND);
    }
    let beat = waiting.receive::<HeartbeatRequest>(4, 4);
    assert_eq!(beat.error_code, code::ILLEGAL_GENERATION);
}

/// A new member's request, which is to wait; what it was.
fn ask_to_join(client: &mut Client) -> JoinGroupRequest {
    let told = client.call(5, &join(5, GROUP, "", "range"));
    assert_eq!(told.error_code, code::MEMBER_ID_REQUIRED);
    let request = join(5, GROUP, &told.member_id, "range");
    client.send(5, &request);
    request
}
