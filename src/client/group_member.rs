//! A member of a group that reads one topic, by the classic protocol: it joins, is given
//! partitions, says that it lives, commits and leaves. Who is the group's leader gives all members
//! their partitions, by Kafka's assignor `range`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};

use super::cluster_client::{ClusterClient, Place, To, is_of_network, text, will_pass};
use super::consumer_protocol::{assigned, assignment, range, subscribed, subscription};
use super::error::{ClientError, Refusal};
use crate::model::ErrorCode;
use crate::runtime::{clock, spawn_local};

const PROTOCOL_TYPE: &str = "consumer";
const ASSIGNOR: &str = "range";
/// A member that says nothing for so long is out of the group.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the members to join again.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(60);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
const _: () = assert!(HEARTBEAT_INTERVAL.as_millis() * 3 <= SESSION_TIMEOUT.as_millis());
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(200);
const GOODBYE_WITHIN: Duration = Duration::from_secs(5);

/// News that heartbeats brought.
#[derive(Default)]
struct Pulse {
    /// This generation is over: no more heartbeats of it.
    over: Cell<bool>,
    rejoin: Cell<bool>,
    /// The group does not know the member any more.
    lost: Cell<bool>,
    failed: RefCell<Option<String>>,
}

/// Lives on a shard.
pub struct GroupMember {
    client: ClusterClient,
    group: String,
    topic: String,
    id: String,
    generation: i32,
    pulse: Rc<Pulse>,
    /// As the leader: partitions of the topic when they were given out.
    given: Option<usize>,
}

impl GroupMember {
    pub fn new(client: ClusterClient, group: String, topic: String) -> GroupMember {
        let pulse = Rc::new(Pulse::default());
        GroupMember { client, group, topic, id: String::new(), generation: -1, pulse, given: None }
    }

    /// Has to join (again) before it reads on.
    pub fn must_join(&self) -> bool {
        self.generation < 0 || self.pulse.rejoin.get() || self.pulse.lost.get()
    }

    /// The group cannot be read any more, and why.
    pub fn failed(&self) -> Option<String> {
        self.pulse.failed.borrow().clone()
    }

    /// The topic has so many partitions now: as the leader, has all join again if that is news.
    pub fn topic_has(&self, partitions: usize) {
        if self.given.is_some_and(|given| given != partitions) && partitions > 0 {
            self.pulse.rejoin.set(true);
        }
    }

    /// Joins; the topic's partitions that are this member's. Waits for the other members as long as
    /// it takes. Dropped in mid-wait it may only [leave](Self::leave).
    pub async fn join(&mut self) -> Result<Vec<i32>, ClientError> {
        self.pulse.over.set(true);
        if self.pulse.lost.get() {
            self.id.clear();
        }
        let mut failing_until = None;
        loop {
            self.client.restart();
            let error = match self.join_once().await {
                Ok(Some(partitions)) => {
                    self.begin_heartbeats();
                    return Ok(partitions);
                }
                Ok(None) => {
                    failing_until = None;
                    continue;
                }
                Err(error) => error,
            };
            // Without an answer others may not have joined yet.
            if !matches!(error, ClientError::NoAnswer { .. }) {
                let until = *failing_until.get_or_insert(clock::now() + self.client.timeout());
                if !is_of_network(&error) || clock::now() >= until {
                    return Err(error);
                }
            }
            clock::sleep(PAUSE).await;
        }
    }

    /// `None`: it has to begin anew.
    async fn join_once(&mut self) -> Result<Option<Vec<i32>>, ClientError> {
        let (group, id) = (&self.group, &self.id);
        let metadata = subscription(&[self.topic.as_str()]);
        let make = |_| {
            let protocol = JoinGroupRequestProtocol::default().with_name(text(ASSIGNOR));
            let protocol = protocol.with_metadata(metadata.clone().into());
            JoinGroupRequest::default()
                .with_group_id(GroupId(text(group)))
                .with_session_timeout_ms(millis(SESSION_TIMEOUT))
                .with_rebalance_timeout_ms(millis(REBALANCE_TIMEOUT))
                .with_member_id(text(id))
                .with_protocol_type(text(PROTOCOL_TYPE))
                .with_protocols(vec![protocol])
        };
        let answer = self.client.ask_once(To::Coordinator(group), make).await?;
        let code = answer.error_code;
        if code == ErrorCode::MemberIdRequired.code() {
            self.id = answer.member_id.to_string();
            return Ok(None);
        }
        if !self.may_go_on("join", code)? {
            return Ok(None);
        }
        (self.id, self.generation) = (answer.member_id.to_string(), answer.generation_id);
        self.given = None;
        let shares = match *answer.leader == *self.id {
            true => self.share_out(&answer).await?,
            false => Vec::new(),
        };
        self.sync(shares).await
    }

    /// As the leader: what each member is given.
    async fn share_out(&mut self, joined: &JoinGroupResponse) -> Result<Vec<SyncGroupRequestAssignment>, ClientError> {
        let mut members = BTreeMap::new();
        for member in &joined.members {
            let topics = subscribed(&member.metadata).ok_or_else(|| {
                ClientError::Other(format!(
                    "member {} of group {} subscribes to nothing readable",
                    member.member_id, self.group
                ))
            })?;
            members.insert(member.member_id.to_string(), topics);
        }
        let mut names: Vec<String> = members.values().flatten().cloned().collect();
        names.sort();
        names.dedup();
        let topics = self.client.topics(Some(&names)).await?;
        let told = topics.iter().filter(|topic| topic.refusal.is_none());
        let counts: BTreeMap<String, usize> = told.map(|topic| (topic.name.clone(), topic.partitions.len())).collect();
        self.given = counts.get(&self.topic).copied();
        let share = |(member, partitions): (String, BTreeMap<String, Vec<i32>>)| {
            let share = SyncGroupRequestAssignment::default().with_member_id(text(&member));
            share.with_assignment(assignment(&partitions).into())
        };
        Ok(range(&members, &counts).into_iter().map(share).collect())
    }

    async fn sync(&mut self, shares: Vec<SyncGroupRequestAssignment>) -> Result<Option<Vec<i32>>, ClientError> {
        let (group, id, generation) = (&self.group, &self.id, self.generation);
        let make = |version| {
            let request = SyncGroupRequest::default().with_group_id(GroupId(text(group))).with_member_id(text(id));
            let request = request.with_generation_id(generation).with_assignments(shares.clone());
            match version {
                ..5 => request,
                _ => request.with_protocol_type(Some(text(PROTOCOL_TYPE))).with_protocol_name(Some(text(ASSIGNOR))),
            }
        };
        let answer = self.client.ask_once(To::Coordinator(group), make).await?;
        if !self.may_go_on("join", answer.error_code)? {
            return Ok(None);
        }
        let places = assigned(&answer.assignment).ok_or_else(|| {
            ClientError::Other(format!("what the leader of group {} gave this member cannot be read", self.group))
        })?;
        Ok(Some(places.into_iter().filter(|(topic, _)| *topic == self.topic).map(|(_, index)| index).collect()))
    }

    /// `false`: not now, but it may join again at once. An error that passes is one of the network.
    fn may_go_on(&mut self, what: &str, code: i16) -> Result<bool, ClientError> {
        let Some(refusal) = Refusal::of(code, None) else { return Ok(true) };
        let is = |codes: &[ErrorCode]| codes.iter().any(|of| of.code() == code);
        if is(&[ErrorCode::UnknownMemberId]) {
            self.id.clear();
        }
        if is(&[ErrorCode::UnknownMemberId, ErrorCode::RebalanceInProgress, ErrorCode::IllegalGeneration]) {
            return Ok(false);
        }
        let problem = format!("cannot {what} group {}: {refusal}", self.group);
        if will_pass(code) {
            self.client.forget_coordinator(&self.group);
            return Err(ClientError::Io(std::io::Error::other(problem)));
        }
        let hint = match is(&[ErrorCode::InconsistentGroupProtocol]) {
            true => format!("; its members use another protocol or assignor than `{ASSIGNOR}`: give another --group"),
            false => String::new(),
        };
        Err(ClientError::Other(format!("{problem}{hint}")))
    }

    fn begin_heartbeats(&mut self) {
        self.pulse = Rc::new(Pulse::default());
        let pulse = self.pulse.clone();
        let (client, group) = (self.client.sibling(), self.group.clone());
        spawn_local(Box::pin(heartbeats(client, group, self.id.clone(), self.generation, pulse)));
    }

    /// Commits the offsets of partitions of the topic; those that were refused, with why.
    pub async fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<Vec<(i32, Refusal)>, ClientError> {
        if offsets.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<(Place, i64)> =
            offsets.iter().map(|(index, offset)| ((self.topic.clone(), *index), *offset)).collect();
        self.client.restart();
        let told = self.client.commit_as(&self.group, (&self.id, self.generation), &places).await?;
        Ok(told.into_iter().filter_map(|((_, index), outcome)| Some((index, outcome.err()?))).collect())
    }

    /// The group's committed offsets in the topic.
    pub async fn committed(&mut self) -> Result<BTreeMap<i32, i64>, ClientError> {
        self.client.restart();
        let all = self.client.committed(&self.group).await?;
        let own = all.into_iter().filter(|((topic, _), _)| *topic == self.topic);
        Ok(own.map(|((_, index), committed)| (index, committed.offset)).collect())
    }

    /// Leaves, so that the others need not wait until it is missed. Nobody is there any more
    /// whom a failure would help.
    pub async fn leave(self) {
        self.pulse.over.set(true);
        if self.id.is_empty() {
            return;
        }
        let (group, id) = (&self.group, &self.id);
        // One of its own: a join may have been given up in the middle of an answer.
        let mut client = self.client.sibling();
        let make = |version| {
            let request = LeaveGroupRequest::default().with_group_id(GroupId(text(group)));
            match version {
                ..3 => request.with_member_id(text(id)),
                _ => request.with_members(vec![MemberIdentity::default().with_member_id(text(id))]),
            }
        };
        let _ = clock::until(clock::now() + GOODBYE_WITHIN, client.ask_once(To::Coordinator(group), make)).await;
    }
}

async fn heartbeats(mut client: ClusterClient, group: String, id: String, generation: i32, pulse: Rc<Pulse>) {
    loop {
        clock::sleep(HEARTBEAT_INTERVAL).await;
        if pulse.over.get() {
            return;
        }
        client.restart();
        let make = |_| {
            let request = HeartbeatRequest::default().with_group_id(GroupId(text(&group)));
            request.with_generation_id(generation).with_member_id(text(&id))
        };
        // Without an answer the next one may be heard: the coordinator may have moved.
        let Ok(answer) = client.ask_once(To::Coordinator(&group), make).await else { continue };
        match answer.error_code {
            0 => {}
            code if code == ErrorCode::RebalanceInProgress.code() => pulse.rejoin.set(true),
            code if code == ErrorCode::IllegalGeneration.code() => pulse.rejoin.set(true),
            code if code == ErrorCode::UnknownMemberId.code() => pulse.lost.set(true),
            code if will_pass(code) => client.forget_coordinator(&group),
            code => {
                let refusal = Refusal { code, message: None };
                *pulse.failed.borrow_mut() = Some(format!("group {group}: {refusal}"));
            }
        }
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
