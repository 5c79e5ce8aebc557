//! The words of the requests that a group coordinator answers; no protocol
//! messages below this line.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::model::ErrorCode;

pub type GroupId = Arc<str>;

/// The client behind a request, as it is shown to operators.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Caller {
    pub client_id: String,
    /// With the leading `/` that Kafka shows.
    pub client_host: String,
}

/// A request whose reply is of a known kind.
pub trait Call: Into<Request> {
    type Reply: Into<Reply>;
    /// The group that the request is for.
    fn group(&self) -> &GroupId;
    /// `None`: the reply is one to another kind of request.
    fn reply(reply: Reply) -> Option<Self::Reply>;
}

/// Declares [`Request`] and [`Reply`], a kind each, and ties the two together.
macro_rules! calls {
    ($($kind:ident($request:ident) -> $reply:ident),* $(,)?) => {
        /// Any request.
        #[derive(Clone, Debug)]
        pub enum Request { $($kind($request)),* }

        impl Request {
            /// The group that the request is for.
            pub fn group(&self) -> &GroupId {
                match self { $(Request::$kind(request) => &request.group),* }
            }
        }

        /// Any reply.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Reply { $($kind($reply)),* }

        $(
            impl From<$request> for Request {
                fn from(request: $request) -> Request {
                    Request::$kind(request)
                }
            }

            impl From<$reply> for Reply {
                fn from(reply: $reply) -> Reply {
                    Reply::$kind(reply)
                }
            }

            impl Call for $request {
                type Reply = $reply;

                fn group(&self) -> &GroupId {
                    &self.group
                }

                fn reply(reply: Reply) -> Option<$reply> {
                    match reply {
                        Reply::$kind(reply) => Some(reply),
                        _ => None,
                    }
                }
            }
        )*
    };
}

calls! {
    Join(JoinRequest) -> JoinReply,
    Sync(SyncRequest) -> SyncReply,
    Heartbeat(HeartbeatRequest) -> HeartbeatReply,
    Leave(LeaveRequest) -> LeaveReply,
    CommitOffsets(CommitRequest) -> CommitReply,
    FetchOffsets(FetchOffsetsRequest) -> FetchOffsetsReply,
    DeleteOffsets(DeleteOffsetsRequest) -> DeleteOffsetsReply,
    Describe(DescribeRequest) -> DescribeReply,
    Delete(DeleteRequest) -> DeleteReply,
    ConsumerHeartbeat(ConsumerHeartbeatRequest) -> ConsumerHeartbeatReply,
    ConsumerDescribe(ConsumerDescribeRequest) -> ConsumerDescribeReply,
}

/// JoinGroup.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    pub group: GroupId,
    pub caller: Caller,
    /// Empty: a new member.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub session_timeout_ms: i32,
    /// The session timeout where the version has none of its own (v0).
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// By preference: name and metadata.
    pub protocols: Vec<(String, Bytes)>,
    /// A new dynamic member is given its id first and joins with it then (KIP-394, from v4 on).
    pub requires_known_member: bool,
    /// The client understands `skip_assignment` (v9 on).
    pub supports_skipping_assignment: bool,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct JoinReply {
    pub error: ErrorCode,
    /// -1 on errors.
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// Empty on errors.
    pub leader: String,
    pub skip_assignment: bool,
    pub member_id: String,
    /// For the leader only.
    pub members: Vec<JoinedMember>,
}

impl JoinReply {
    pub fn refused(error: ErrorCode, member_id: &str) -> JoinReply {
        JoinReply {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct JoinedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

/// SyncGroup.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    pub group: GroupId,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// `None`: the version has no such field (before v5).
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// From the leader: member id and assignment.
    pub assignments: Vec<(String, Bytes)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SyncReply {
    pub error: ErrorCode,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

impl SyncReply {
    pub fn refused(error: ErrorCode) -> SyncReply {
        SyncReply { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// Heartbeat.
#[derive(Clone, Debug)]
pub struct HeartbeatRequest {
    pub group: GroupId,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HeartbeatReply {
    pub error: ErrorCode,
}

/// LeaveGroup; one member in versions before 3.
#[derive(Clone, Debug)]
pub struct LeaveRequest {
    pub group: GroupId,
    pub members: Vec<LeavingMember>,
}

#[derive(Clone, Debug)]
pub struct LeavingMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LeaveReply {
    pub error: ErrorCode,
    pub members: Vec<LeftMember>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LeftMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub error: ErrorCode,
}

/// OffsetCommit. Topics and partitions that do not exist have been refused before it gets here.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    pub group: GroupId,
    /// The generation of a classic group or the member epoch of a consumer
    /// group; -1: no member commits.
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// Versions 2 to 4; `None`: the broker's.
    pub retention_ms: Option<i64>,
    /// From v9 on a client of a consumer group understands STALE_MEMBER_EPOCH; before, it is told
    /// ILLEGAL_GENERATION or UNKNOWN_MEMBER_ID.
    pub knows_member_epochs: bool,
    /// The producer (id and epoch) in whose transaction the offsets are committed: they count when
    /// it ends. `None`: at once.
    pub producer: Option<(i64, i16)>,
    pub topics: Vec<CommitTopic>,
}

#[derive(Clone, Debug)]
pub struct CommitTopic {
    pub name: Arc<str>,
    /// Nil where it is not known.
    pub id: Uuid,
    pub partitions: Vec<CommitPartition>,
}

#[derive(Clone, Debug)]
pub struct CommitPartition {
    pub index: i32,
    pub offset: i64,
    /// -1: none.
    pub leader_epoch: i32,
    pub metadata: String,
}

/// The outcome per partition, in the order of the request.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitReply {
    pub topics: Vec<TopicErrors>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TopicErrors {
    pub name: Arc<str>,
    pub partitions: Vec<(i32, ErrorCode)>,
}

/// OffsetFetch for one group.
#[derive(Clone, Debug)]
pub struct FetchOffsetsRequest {
    pub group: GroupId,
    /// Member id and epoch (v9 on, KIP-848), where the client says.
    pub member: Option<(String, i32)>,
    /// `None`: all there are.
    pub topics: Option<Vec<(Arc<str>, Vec<i32>)>>,
    pub require_stable: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchOffsetsReply {
    /// Of the whole group.
    pub error: ErrorCode,
    pub topics: Vec<(Arc<str>, Vec<FetchedOffset>)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchedOffset {
    pub index: i32,
    /// -1: none.
    pub offset: i64,
    /// -1: none.
    pub leader_epoch: i32,
    pub metadata: String,
    pub error: ErrorCode,
    /// The topic that it was committed for; nil: not known.
    pub topic_id: Uuid,
}

/// OffsetDelete.
#[derive(Clone, Debug)]
pub struct DeleteOffsetsRequest {
    pub group: GroupId,
    pub topics: Vec<(Arc<str>, Vec<i32>)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DeleteOffsetsReply {
    /// Of the whole group.
    pub error: ErrorCode,
    pub topics: Vec<TopicErrors>,
}

/// DescribeGroups, one group.
#[derive(Clone, Debug)]
pub struct DescribeRequest {
    pub group: GroupId,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DescribeReply {
    /// GROUP_ID_NOT_FOUND: there is no such classic group (to be told as state "Dead" before v6).
    pub error: ErrorCode,
    pub message: Option<String>,
    pub state: String,
    pub protocol_type: String,
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DescribedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub caller: Caller,
    /// Of the chosen protocol; empty where there is none yet.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// DeleteGroups, one group.
#[derive(Clone, Debug)]
pub struct DeleteRequest {
    pub group: GroupId,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DeleteReply {
    pub error: ErrorCode,
}

/// ListGroups: one of all groups of a coordinator.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedGroup {
    pub group: GroupId,
    pub protocol_type: String,
    /// As Kafka writes it ("PreparingRebalance", "Stable", ...).
    pub state: String,
    /// "classic" or "consumer".
    pub kind: String,
}

/// ConsumerGroupHeartbeat (KIP-848). `None`: not said, as last time.
#[derive(Clone, Debug)]
pub struct ConsumerHeartbeatRequest {
    pub group: GroupId,
    pub caller: Caller,
    /// From v1 on the client makes its own id, also for a first heartbeat; in v0 it is empty then.
    pub member_id: String,
    /// 0: join; -1: leave; -2: a static member leaves for a while.
    pub member_epoch: i32,
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    /// -1: not said.
    pub rebalance_timeout_ms: i32,
    pub subscribed_topics: Option<Vec<String>>,
    /// Empty: no longer by regular expression (v1 on).
    pub subscribed_regex: Option<String>,
    pub assignor: Option<String>,
    /// The partitions that the member has.
    pub owned: Option<Vec<(Uuid, Vec<i32>)>>,
}

/// Member epoch of one that joins (KIP-848).
const JOINS: i32 = 0;

/// Member epoch of one that leaves; also that of a member whose records are being taken back.
pub(super) const LEAVES: i32 = -1;

/// Member epoch of a static member that leaves for a while, until it is back.
pub(super) const LEAVES_FOR_A_WHILE: i32 = -2;

/// `rebalance_timeout_ms` that is not said.
const NO_TIMEOUT: i32 = -1;

impl ConsumerHeartbeatRequest {
    /// Kafka's rules for what a member has to say at which epoch, whatever its group is like; what
    /// is wrong, in Kafka's words. `makes_own_id`: the client makes its member id, also for its
    /// first heartbeat (v1 on, KIP-1082).
    pub fn check(&self, makes_own_id: bool) -> Result<(), &'static str> {
        let blank = |text: &Option<String>| text.as_ref().is_some_and(|text| text.trim().is_empty());
        let epoch = self.member_epoch;
        let needs_member = makes_own_id || epoch > JOINS || epoch == LEAVES;
        if needs_member && self.member_id.trim().is_empty() {
            return Err("MemberId can't be empty.");
        }
        if self.group.trim().is_empty() {
            return Err("GroupId can't be empty.");
        }
        if blank(&self.instance_id) {
            return Err("InstanceId can't be empty.");
        }
        if blank(&self.rack_id) {
            return Err("RackId can't be empty.");
        }
        match epoch {
            JOINS if self.rebalance_timeout_ms == NO_TIMEOUT => {
                Err("RebalanceTimeoutMs must be provided in first request.")
            }
            JOINS if self.owned.as_ref().is_none_or(|owned| !owned.is_empty()) => {
                Err("TopicPartitions must be empty when (re-)joining.")
            }
            JOINS if self.subscribed_topics.is_none() && self.subscribed_regex.is_none() => {
                Err("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.")
            }
            LEAVES_FOR_A_WHILE if self.instance_id.is_none() => Err("InstanceId can't be null."),
            ..LEAVES_FOR_A_WHILE => Err("MemberEpoch is invalid."),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerHeartbeatReply {
    pub error: ErrorCode,
    pub message: Option<String>,
    pub member_id: Option<String>,
    pub member_epoch: i32,
    pub heartbeat_interval_ms: i32,
    /// `None`: as last time.
    pub assignment: Option<Vec<(Uuid, Vec<i32>)>>,
}

/// ConsumerGroupDescribe, one group.
#[derive(Clone, Debug)]
pub struct ConsumerDescribeRequest {
    pub group: GroupId,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerDescribeReply {
    pub error: ErrorCode,
    pub message: Option<String>,
    pub state: String,
    pub group_epoch: i32,
    pub assignment_epoch: i32,
    pub assignor: String,
    pub members: Vec<ConsumerMember>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub member_epoch: i32,
    pub caller: Caller,
    pub subscribed_topics: Vec<String>,
    pub subscribed_regex: Option<String>,
    pub assignment: Vec<AssignedTopic>,
    pub target: Vec<AssignedTopic>,
    /// -1 unknown, 0 classic, 1 consumer (v1 on).
    pub kind: i8,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AssignedTopic {
    pub id: Uuid,
    pub name: Arc<str>,
    pub partitions: Vec<i32>,
}
