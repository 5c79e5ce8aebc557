//! From a transactional id to its coordinator.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::hosted::World;
use crate::client::Connection;
use crate::client::transactions::add_partitions;
use crate::cluster::TopicImage;
use crate::cluster::controller::TRANSACTION_TOPIC;
use crate::model::{BrokerId, ErrorCode, PartitionId};
use crate::shard::coordinators::{CoordinatorTopic, answer};
use crate::shard::{RequestTransaction, Shard};
use crate::transactions::VERSION;
use crate::transactions::api::{
    AddPartitionsRequest, Description, EndRequest, InitializeRequest, Producer, Refusal, Reply, Request, TopicPartition,
};

/// Outcomes of AddPartitionsToTxn that are told as they are; others are passing errors.
const FROM_PEERS: [ErrorCode; 8] = [
    ErrorCode::None,
    ErrorCode::InvalidProducerEpoch,
    ErrorCode::InvalidProducerIdMapping,
    ErrorCode::ProducerFenced,
    ErrorCode::ConcurrentTransactions,
    ErrorCode::TransactionAbortable,
    ErrorCode::InvalidTxnState,
    ErrorCode::CoordinatorLoadInProgress,
];

/// Treatment of partitions that are written to in a transaction (KIP-890).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddMode {
    /// They have been added, or the transaction is to be aborted.
    Verify,
    /// They are added by the way (`transaction.version` 2).
    Add,
}

impl AddMode {
    pub(super) fn of(transaction: &RequestTransaction) -> AddMode {
        if transaction.adds { AddMode::Add } else { AddMode::Verify }
    }
}

impl Shard {
    /// InitProducerId of a transactional id. Takes a new producer id where the
    /// coordinator needs one.
    pub async fn initialize_producer(self: &Rc<Self>, request: InitializeRequest) -> Result<Producer, ErrorCode> {
        self.ask_with_id(|fresh_id| Request::Initialize(InitializeRequest { fresh_id, ..request.clone() })).await
    }

    /// EndTxn: the producer that the next transaction is written as.
    pub async fn end_transaction(self: &Rc<Self>, request: EndRequest) -> Result<Producer, ErrorCode> {
        self.ask_with_id(|fresh_id| Request::End(EndRequest { fresh_id, ..request.clone() })).await
    }

    /// AddPartitionsToTxn: the outcome of each partition.
    pub async fn add_partitions(
        self: &Rc<Self>,
        request: AddPartitionsRequest,
    ) -> Result<Vec<(TopicPartition, ErrorCode)>, ErrorCode> {
        match self.ask_transaction(Request::AddPartitions(request)).await? {
            Reply::Partitions(reply) => reply,
            _ => Err(ErrorCode::UnknownServerError),
        }
    }

    /// Partitions are to be part of an open transaction, wherever its coordinator
    /// is: the outcome of each.
    pub(super) async fn add_to_transaction(
        self: &Rc<Self>,
        id: &str,
        producer: Producer,
        partitions: BTreeSet<TopicPartition>,
        mode: AddMode,
    ) -> Result<Vec<(TopicPartition, ErrorCode)>, ErrorCode> {
        let verify_only = mode == AddMode::Verify;
        let coordinator = self.transaction_coordinator_of(id).ok_or(ErrorCode::CoordinatorNotAvailable)?;
        if coordinator == self.broker() {
            let request = AddPartitionsRequest { id: id.into(), producer, partitions, verify_only, version: VERSION };
            return self.add_partitions(request).await;
        }
        let transaction = (id, producer.id, producer.epoch);
        let ask = async |peer: &mut Connection| add_partitions(peer, transaction, partitions.iter(), verify_only).await;
        let outcomes = self.ask_peer(coordinator, ask).await.map_err(|error| {
            tracing::debug!(transactional_id = id, broker = %coordinator, %error, "a coordinator could not be asked");
            ErrorCode::CoordinatorNotAvailable
        })?;
        let known = |code: i16| FROM_PEERS.into_iter().find(|known| known.code() == code);
        let told = |(partition, code)| (partition, known(code).unwrap_or(ErrorCode::CoordinatorNotAvailable));
        Ok(outcomes.into_iter().map(told).collect())
    }

    /// DescribeTransactions, one transactional id.
    pub async fn describe_transaction(self: &Rc<Self>, id: Arc<str>) -> Result<Description, ErrorCode> {
        match self.ask_transaction(Request::Describe(id)).await? {
            Reply::Description(reply) => reply,
            _ => Err(ErrorCode::UnknownServerError),
        }
    }

    async fn ask_with_id(self: &Rc<Self>, request: impl Fn(Option<i64>) -> Request) -> Result<Producer, ErrorCode> {
        let mut fresh_id = None;
        loop {
            match self.ask_transaction(request(fresh_id)).await? {
                Reply::Producer(Ok(producer)) => return Ok(producer),
                Reply::Producer(Err(Refusal::Error(code))) => return Err(code),
                Reply::Producer(Err(Refusal::NeedsProducerId)) if fresh_id.is_none() => {
                    fresh_id = Some(self.new_producer_id().await.map_err(|error| error.code)?);
                }
                _ => return Err(ErrorCode::UnknownServerError),
            }
        }
    }

    /// Asks the coordinator of the request's transactional id, whichever shard it lives on. The
    /// error: COORDINATOR_LOAD_IN_PROGRESS or NOT_COORDINATOR (look for it again).
    pub async fn ask_transaction(self: &Rc<Self>, request: Request) -> Result<Reply, ErrorCode> {
        let id = match &request {
            Request::Initialize(request) => &request.id,
            Request::AddPartitions(request) => &request.id,
            Request::End(request) => &request.id,
            Request::Describe(id) => id,
        };
        let partition = self.coordinator_partition(TRANSACTION_TOPIC, id).ok_or(ErrorCode::NotCoordinator)?;
        let asked = self.on_shard(self.owner(partition), move |shard| shard.ask_transaction_here(partition, request));
        asked.await.map_err(|_| ErrorCode::NotCoordinator)?
    }

    /// Every transactional id of this broker; with an error when some
    /// coordinators could not be asked.
    pub async fn list_transactions(self: &Rc<Self>) -> (ErrorCode, Vec<Description>) {
        self.list_each(|shard| shard.coordinators.transactions.all().iter().map(|hosted| hosted.list()).collect()).await
    }

    /// The topic of transactions, made when it is not there yet.
    pub async fn transaction_topic(self: &Rc<Self>) -> Result<Arc<TopicImage>, ErrorCode> {
        let most_in_sync = if self.config.in_cluster() { i32::MAX } else { 1 };
        self.coordinator_topic(CoordinatorTopic {
            name: TRANSACTION_TOPIC,
            num_partitions: self.config.transaction_topic_num_partitions,
            replication_factor: self.config.transaction_topic_replication_factor,
            replication_factor_by: "transaction.state.log.replication.factor",
            configs: vec![
                ("cleanup.policy", "compact".to_owned()),
                ("compression.type", "uncompressed".to_owned()),
                ("min.insync.replicas", self.config.transaction_topic_min_isr.min(most_in_sync).to_string()),
                ("segment.bytes", self.config.transaction_topic_segment_bytes.to_string()),
                ("unclean.leader.election.enable", "false".to_owned()),
            ],
        })
        .await
    }

    /// The broker that leads the transactional id's partition.
    pub fn transaction_coordinator_of(&self, id: &str) -> Option<BrokerId> {
        self.coordinator_broker(TRANSACTION_TOPIC, id)
    }

    /// On the owner.
    fn ask_transaction_here(
        self: Rc<Self>,
        partition: PartitionId,
        request: Request,
    ) -> impl Future<Output = Result<Reply, ErrorCode>> {
        let hosted = self.coordinators.transactions.get(partition).filter(|hosted| hosted.is_in_office());
        let asked = hosted.map(|hosted| hosted.request(request, &self.transaction_world()));
        answer(asked.unwrap_or(Err(ErrorCode::NotCoordinator)))
    }

    /// This shard's world as transaction coordinators see it.
    pub(in crate::shard) fn transaction_world(&self) -> World<'_> {
        World { config: &self.config.transaction, memory: self.coordinators.memory.bytes() }
    }
}
