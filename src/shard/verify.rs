//! Verification of transactions on their way to the log (KIP-890): the coordinator is asked before
//! a partition takes a transaction's first records. The rules are
//! [`partition::Verifications`](crate::partition::Verifications)'.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use super::check::{CheckedPart, not_served};
use super::state::Shard;
use crate::model::record_batch::BatchHeader;
use crate::model::{ErrorCode, PartitionId};
use crate::partition::{Rejected, Verified, is_final};
use crate::runtime::clock;

/// The transaction that a produce request names.
#[derive(Clone, Debug)]
pub struct RequestTransaction {
    pub id: Arc<str>,
    /// `transaction.version` 2: partitions are added by the request itself.
    pub adds: bool,
    /// The client knows TRANSACTION_ABORTABLE.
    pub knows_abortable: bool,
}

impl RequestTransaction {
    /// A coordinator's error, as the client knows it.
    pub fn told(&self, code: ErrorCode) -> ErrorCode {
        match code {
            // Only a coordinator says so of a producer, and clients take it for the end of theirs.
            ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
            ErrorCode::TransactionAbortable if !self.knows_abortable => ErrorCode::InvalidTxnState,
            code => code,
        }
    }
}

/// One question to a transaction's coordinator.
#[derive(Clone, Debug)]
pub struct Verify {
    pub transaction: RequestTransaction,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub partition: PartitionId,
}

/// Asks coordinators; the answers in the order of the questions.
pub type Verifier = Rc<dyn Fn(Vec<Verify>) -> Pin<Box<dyn Future<Output = Vec<ErrorCode>>>>>;

impl Shard {
    /// From now on records of transactions are taken only once `verifier` has said that
    /// their partitions take part.
    pub fn set_verifier(&self, verifier: Verifier) {
        *self.verifier.borrow_mut() = Some(verifier);
    }

    /// Has the first records of transactions verified, and refuses those that are not part of one.
    pub(super) async fn verify_all(
        self: &Rc<Self>,
        mut parts: Vec<CheckedPart>,
        transaction: &RequestTransaction,
    ) -> Vec<CheckedPart> {
        let verifier = self.verifier.borrow().clone();
        let verifier = verifier.filter(|_| transaction.adds || self.config.transaction_verification);
        let Some(verifier) = verifier else { return parts };
        let in_txn = |(at, part): (usize, &CheckedPart)| {
            let header = *part.batch.as_ref().ok()?.header();
            header.is_transactional().then_some((at, part.partition, header))
        };
        let asked: Vec<(usize, PartitionId, BatchHeader)> = parts.iter().enumerate().filter_map(in_txn).collect();
        let (places, questions): (Vec<usize>, Vec<(PartitionId, BatchHeader)>) =
            asked.iter().map(|(at, partition, header)| (*at, (*partition, *header))).unzip();
        let adds = transaction.adds;
        let begin = move |shard: Rc<Shard>, questions: Vec<(PartitionId, BatchHeader)>| async move {
            let now_ms = clock::wall_ms();
            let begin = |(partition, header): (PartitionId, BatchHeader)| {
                shard.online(partition).map_err(not_served)?.begin_verification(&header, adds, now_ms)
            };
            questions.into_iter().map(begin).collect()
        };
        let begun = self.scatter(questions, |(partition, _)| *partition, begin).await;
        let mut verifies = Vec::new();
        for ((at, (_, partition, header)), begun) in places.into_iter().zip(asked).zip(begun) {
            match begun.unwrap_or_else(|| Err(not_served(ErrorCode::NotLeaderOrFollower))) {
                Ok(verified @ Verified::By(_)) => {
                    let (producer_id, producer_epoch) = (header.producer_id.get(), header.producer_epoch.get());
                    let transaction = transaction.clone();
                    verifies.push((at, Verify { transaction, producer_id, producer_epoch, partition }));
                    parts[at].verified = verified;
                }
                Ok(verified) => parts[at].verified = verified,
                Err(rejected) => parts[at].batch = Err(rejected),
            }
        }
        if verifies.is_empty() {
            return parts;
        }
        let (places, questions): (Vec<usize>, Vec<Verify>) = verifies.into_iter().unzip();
        let asked: Vec<(PartitionId, i64)> =
            questions.iter().map(|asked| (asked.partition, asked.producer_id)).collect();
        let mut answers = verifier(questions).await.into_iter();
        let mut over = Vec::new();
        for (at, (partition, producer_id)) in places.into_iter().zip(asked) {
            let code = answers.next().unwrap_or(ErrorCode::UnknownServerError);
            if code != ErrorCode::None {
                parts[at].batch = Err(refused(transaction.told(code), transaction.adds));
            }
            if is_final(code) {
                over.push((partition, producer_id, parts[at].verified));
            }
        }
        if !over.is_empty() {
            let end = |shard: Rc<Shard>, over: Vec<(PartitionId, i64, Verified)>| async move {
                over.iter()
                    .for_each(|(partition, id, verified)| shard.verification_refused(*partition, *id, *verified));
                vec![(); over.len()]
            };
            self.scatter(over, |(partition, ..)| *partition, end).await;
        }
        parts
    }

    /// On the owner.
    pub(super) fn verification_refused(&self, partition: PartitionId, producer_id: i64, verified: Verified) {
        if let Ok(replica) = self.online(partition) {
            replica.verification_refused(producer_id, verified);
        }
    }
}

/// The answer to the producer. As in Kafka, what passes is told by a code that every client takes
/// for a reason to send again.
fn refused(code: ErrorCode, adds: bool) -> Rejected {
    let why = format!("it is not known whether the partition takes part in the transaction: {code}");
    match code {
        ErrorCode::InvalidTxnState => Rejected::new(code, "the partition does not take part in the transaction"),
        ErrorCode::CoordinatorLoadInProgress | ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator => {
            Rejected::new(ErrorCode::NotEnoughReplicas, why)
        }
        ErrorCode::ConcurrentTransactions if !adds => Rejected::new(ErrorCode::NotEnoughReplicas, why),
        code => Rejected::new(code, code.to_string()),
    }
}
