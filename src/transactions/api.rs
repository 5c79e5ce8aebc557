//! The words of the requests that a transaction coordinator answers; no protocol
//! messages below this line.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::State;
use crate::model::ErrorCode;

pub type TransactionalId = Arc<str>;

/// A partition by its topic's name, as Kafka's records have it.
pub type TopicPartition = (Arc<str>, i32);

/// A producer: its id, and the epoch that tells it from earlier ones of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
}

impl Producer {
    /// In answers that name none.
    pub const NONE: Producer = Producer { id: -1, epoch: -1 };
}

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Error(ErrorCode),
    /// It takes a producer id that nobody had: ask again with one.
    NeedsProducerId,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal::Error(code)
    }
}

/// Any request.
#[derive(Clone, Debug)]
pub enum Request {
    Initialize(InitializeRequest),
    AddPartitions(AddPartitionsRequest),
    End(EndRequest),
    Describe(TransactionalId),
}

impl From<AddPartitionsRequest> for Request {
    fn from(request: AddPartitionsRequest) -> Request {
        Request::AddPartitions(request)
    }
}

/// InitProducerId of a transactional producer.
#[derive(Clone, Debug)]
pub struct InitializeRequest {
    pub id: TransactionalId,
    pub timeout_ms: i32,
    /// The producer that wants to go on with a higher epoch (KIP-360).
    pub expected: Option<Producer>,
    /// A producer id that nobody had.
    pub fresh_id: Option<i64>,
}

/// AddPartitionsToTxn and AddOffsetsToTxn.
#[derive(Clone, Debug)]
pub struct AddPartitionsRequest {
    pub id: TransactionalId,
    pub producer: Producer,
    pub partitions: BTreeSet<TopicPartition>,
    /// Only ask whether they have been added (KIP-890).
    pub verify_only: bool,
    /// `transaction.version` that the producer goes by.
    pub version: i16,
}

/// EndTxn.
#[derive(Clone, Debug)]
pub struct EndRequest {
    pub id: TransactionalId,
    pub producer: Producer,
    pub commit: bool,
    /// `transaction.version` that the producer goes by.
    pub version: i16,
    /// A producer id that nobody had.
    pub fresh_id: Option<i64>,
}

/// Any reply, to the request of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The producer to go on as. For `End`: what the next transaction is written as
    /// (`transaction.version` 2).
    Producer(Result<Producer, Refusal>),
    /// Per partition where they were only to be verified; else one for all.
    Partitions(Result<Vec<(TopicPartition, ErrorCode)>, ErrorCode>),
    Description(Result<Description, ErrorCode>),
}

/// DescribeTransactions, one transactional id.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    pub id: TransactionalId,
    pub producer: Producer,
    pub state: State,
    pub timeout_ms: i32,
    /// -1: no transaction yet.
    pub started_ms: i64,
    pub partitions: BTreeSet<TopicPartition>,
}
