//! Records of `__transaction_state`, in Kafka's own format (`TransactionLogKey.json`,
//! `TransactionLogValue.json`). A key begins with the number of its kind (int16), a value with the
//! version of its schema (int16).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::api::{TopicPartition, TransactionalId};
use super::{State, Transaction};
use crate::coordinator::wire::{BadRecord, Reader, read_value, write_key, write_value};
use crate::model::wire::Writer;

/// The one kind of key.
const KIND: i16 = 0;
/// Version of values, which Kafka writes from `transaction.version` 1 on.
const VERSION: i16 = 1;
const FIRST_FLEXIBLE_VERSION: i16 = 1;
const PREVIOUS_PRODUCER_ID_TAG: u32 = 0;
const NEXT_PRODUCER_ID_TAG: u32 = 1;
const CLIENT_VERSION_TAG: u32 = 2;
/// The least that a topic takes: an empty name, one partition.
const LEAST_TOPIC_BYTES: usize = 2;
const PARTITION_BYTES: usize = 4;

/// One transactional id as it is now; a value of `None` is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub id: TransactionalId,
    pub value: Option<Transaction>,
}

impl Record {
    /// Key and value as they are written.
    pub fn encode(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut key = write_key(KIND, 2 + self.id.len());
        key.string(&self.id);
        (key.out, self.value.as_ref().map(encode_value))
    }

    /// `Ok(None)`: a kind that this version does not know; it is passed over.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Record>, BadRecord> {
        let mut key = Reader::new(key, false);
        if key.int16("the kind of a key")? != KIND {
            return Ok(None);
        }
        let id = key.text("the transactional id")?.into();
        Ok(Some(Record { id, value: value.map(decode_value).transpose()? }))
    }
}

fn encode_value(transaction: &Transaction) -> Vec<u8> {
    let names: usize = transaction.partitions.iter().map(|(topic, _)| topic.len() + PARTITION_BYTES).sum();
    let mut out = write_value(VERSION, true, 64 + names);
    out.int64(transaction.producer.id);
    out.int16(transaction.producer.epoch);
    out.int32(transaction.timeout_ms);
    out.int8(transaction.state as i8);
    match transaction.state {
        State::Empty => out.nullable_count(None),
        _ => encode_partitions(&transaction.partitions, &mut out),
    }
    out.int64(transaction.updated_ms);
    out.int64(transaction.started_ms);
    let previous = transaction.previous_id.to_be_bytes();
    let next = transaction.next_id.to_be_bytes();
    let version = transaction.version.to_be_bytes();
    let fields: [(u32, &[u8], bool); 3] = [
        (PREVIOUS_PRODUCER_ID_TAG, &previous, transaction.previous_id != -1),
        (NEXT_PRODUCER_ID_TAG, &next, transaction.next_id != -1),
        (CLIENT_VERSION_TAG, &version, transaction.version != 0),
    ];
    let said: Vec<(u32, &[u8])> =
        fields.into_iter().filter(|(_, _, said)| *said).map(|(tag, bytes, _)| (tag, bytes)).collect();
    out.tagged_fields(&said);
    out.out
}

/// Partitions are in order, so those of a topic are together.
fn encode_partitions(partitions: &BTreeSet<TopicPartition>, out: &mut Writer) {
    let mut topics: Vec<(&Arc<str>, Vec<i32>)> = Vec::new();
    for (topic, index) in partitions {
        match topics.last_mut() {
            Some((last, indexes)) if *last == topic => indexes.push(*index),
            _ => topics.push((topic, vec![*index])),
        }
    }
    out.count(topics.len());
    for (topic, indexes) in topics {
        out.string(topic);
        out.count(indexes.len());
        for index in indexes {
            out.int32(index);
        }
        out.no_tagged_fields();
    }
}

fn decode_value(value: &[u8]) -> Result<Transaction, BadRecord> {
    let (_, mut value) = read_value(value, FIRST_FLEXIBLE_VERSION, VERSION, "a transaction")?;
    let id = value.int64("the producer id")?;
    let epoch = value.int16("the producer epoch")?;
    let mut transaction = Transaction::new(id, value.int32("the transaction timeout")?, 0);
    transaction.producer.epoch = epoch;
    let number = value.int8("the state")?;
    transaction.state = State::of(number).ok_or_else(|| BadRecord(format!("a transaction in state {number}")))?;
    let topics = value.nullable_array(LEAST_TOPIC_BYTES, "the topics")?.unwrap_or(0);
    for _ in 0..topics {
        let topic: Arc<str> = value.text("a topic")?.into();
        for _ in 0..value.array(PARTITION_BYTES, "the partitions")? {
            transaction.partitions.insert((topic.clone(), value.int32("a partition")?));
        }
        value.skip_tagged_fields()?;
    }
    transaction.updated_ms = value.int64("the time of the last update")?;
    transaction.started_ms = value.int64("the time of the start")?;
    value.tagged_fields(|tag, bytes| {
        let mut field = Reader::new(bytes, true);
        match tag {
            PREVIOUS_PRODUCER_ID_TAG => transaction.previous_id = field.int64("the previous producer id")?,
            NEXT_PRODUCER_ID_TAG => transaction.next_id = field.int64("the next producer id")?,
            CLIENT_VERSION_TAG => transaction.version = field.int16("the version of the client")?,
            _ => {}
        }
        Ok(())
    })?;
    if transaction.state == State::Empty {
        transaction.partitions.clear();
    }
    Ok(transaction)
}
