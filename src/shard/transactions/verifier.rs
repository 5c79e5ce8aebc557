//! Partitions ask the coordinators of transactions whether they take part in one, or to
//! be added to it (KIP-890).

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::routing::AddMode;
use crate::cluster::controller::OFFSETS_TOPIC;
use crate::groups::api::{Call, CommitReply, CommitRequest};
use crate::model::{ErrorCode, PartitionId};
use crate::partition::{Verified, is_final};
use crate::shard::coordinators::answer;
use crate::shard::{RequestTransaction, Shard, Verify};
use crate::transactions::api::{Producer, TopicPartition};

/// Questions about one transaction: it, its producer, and the places of the
/// questions with their partitions.
struct Asked {
    transaction: RequestTransaction,
    producer: Producer,
    parts: Vec<(usize, TopicPartition)>,
}

impl Shard {
    /// From now on the coordinators of transactions say which partitions take part.
    pub(in crate::shard) fn verify_by_coordinators(self: &Rc<Self>) {
        let shard = Rc::downgrade(self);
        self.set_verifier(Rc::new(move |questions: Vec<Verify>| {
            let shard = shard.upgrade();
            Box::pin(async move {
                match shard {
                    Some(shard) => shard.ask_coordinators(questions).await,
                    None => vec![ErrorCode::NotLeaderOrFollower; questions.len()],
                }
            })
        }));
    }

    async fn ask_coordinators(self: &Rc<Self>, questions: Vec<Verify>) -> Vec<ErrorCode> {
        let mut codes = vec![ErrorCode::UnknownTopicOrPartition; questions.len()];
        for Asked { transaction, producer, parts } in self.by_transaction(questions) {
            let partitions = parts.iter().map(|(_, partition)| partition.clone()).collect();
            let mode = AddMode::of(&transaction);
            let outcomes = self.add_to_transaction(&transaction.id, producer, partitions, mode).await;
            let (told, otherwise): (HashMap<TopicPartition, ErrorCode>, ErrorCode) = match outcomes {
                Ok(outcomes) => (outcomes.into_iter().collect(), ErrorCode::CoordinatorNotAvailable),
                Err(code) => (HashMap::new(), code),
            };
            for (at, partition) in parts {
                codes[at] = told.get(&partition).copied().unwrap_or(otherwise);
            }
        }
        codes
    }

    /// Those about topics that are no more are left out.
    fn by_transaction(&self, questions: Vec<Verify>) -> Vec<Asked> {
        let (image, mut asked) = (self.image(), Vec::<Asked>::new());
        for (at, question) in questions.into_iter().enumerate() {
            let Some(topic) = image.topic_by_id(question.partition.topic) else { continue };
            let part = (at, (topic.name.clone(), question.partition.index.0));
            let producer = Producer { id: question.producer_id, epoch: question.producer_epoch };
            let same = |one: &&mut Asked| one.producer == producer && one.transaction.id == question.transaction.id;
            match asked.iter_mut().find(same) {
                Some(one) => one.parts.push(part),
                None => asked.push(Asked { transaction: question.transaction, producer, parts: vec![part] }),
            }
        }
        asked
    }

    /// TxnOffsetCommit: commits offsets of a group in a transaction, once its coordinator has said
    /// that the group's partition takes part. A marker that comes meanwhile voids that word, so no
    /// commit is left to wait for the end of a transaction that has ended.
    pub async fn commit_in_transaction(
        self: &Rc<Self>,
        commit: CommitRequest,
        transaction: RequestTransaction,
    ) -> Result<CommitReply, ErrorCode> {
        let (id, epoch) = commit.producer.ok_or(ErrorCode::InvalidRequest)?;
        let partition = self.partition_of_group(&commit.group).ok_or(ErrorCode::NotCoordinator)?;
        let owner = self.owner(partition);
        let mut verified = Verified::Unasked;
        if transaction.adds || self.config.transaction_verification {
            let begin = move |shard: Rc<Shard>| async move { shard.begin_commit(partition, id, epoch) };
            verified = self.on_shard(owner, begin).await.map_err(|_| ErrorCode::NotCoordinator)??;
        }
        if let Verified::By(_) = verified {
            let name: Arc<str> = OFFSETS_TOPIC.into();
            let partitions = BTreeSet::from([(name, partition.index.0)]);
            let (producer, mode) = (Producer { id, epoch }, AddMode::of(&transaction));
            let outcomes = self.add_to_transaction(&transaction.id, producer, partitions, mode).await;
            let code = outcomes.map_or_else(|code| code, |outcomes| first_error(&outcomes));
            if is_final(code) {
                let end = move |shard: Rc<Shard>| async move { shard.verification_refused(partition, id, verified) };
                let _ = self.on_shard(owner, end).await;
            }
            if code != ErrorCode::None {
                return Err(transaction.told(code));
            }
        }
        let commit = move |shard: Rc<Shard>| {
            let hosted = shard.coordinators.groups.get(partition).filter(|hosted| hosted.is_in_office());
            let asked = hosted.map(|hosted| shard.with_world(|world| hosted.commit(commit, verified, world)));
            answer(asked.unwrap_or(Err(ErrorCode::NotCoordinator)))
        };
        let reply = self.on_shard(owner, commit).await.map_err(|_| ErrorCode::NotCoordinator)??;
        CommitRequest::reply(reply).ok_or(ErrorCode::UnknownServerError)
    }

    /// On the owner.
    fn begin_commit(&self, partition: PartitionId, id: i64, epoch: i16) -> Result<Verified, ErrorCode> {
        let hosted = self.coordinators.groups.get(partition).filter(|hosted| hosted.is_in_office());
        hosted.ok_or(ErrorCode::NotCoordinator)?.begin_commit(id, epoch)
    }
}

fn first_error(outcomes: &[(TopicPartition, ErrorCode)]) -> ErrorCode {
    let codes = outcomes.iter().map(|(_, code)| *code);
    codes.into_iter().find(|code| *code != ErrorCode::None).unwrap_or(ErrorCode::None)
}
