//! The check of a produced batch, as Kafka 4.3's: framing and CRC, then every record. Pure.
//!
//! A header that does not say what the records say is put right where Kafka does so, so that
//! everything that reads it later (retention, the time index, the cleaner, offsets) may rely on it.

use std::ops::ControlFlow;

use bytes::Bytes;
use zerocopy::IntoBytes;

use super::replica::Rejected;
use crate::config::{CompressionType, ProduceValidation, TopicConfig};
use crate::model::ErrorCode;
use crate::model::record_batch::{self, BatchError, BatchHeader, CRC_START, Codec, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use crate::model::records::{self, BadRecord, Inspected, MAX_OUTPUT_BYTES, RecompressError, RecordError, Target};

/// Bad records of a batch that are named one by one; the message counts them all.
pub const MAX_BAD_RECORDS: usize = 1000;
/// Bad records that the message itself repeats.
const SHOWN_BAD_RECORDS: usize = 3;
const NO_TIMESTAMP: i64 = -1;
/// The value of compression.lz4.level that stands for the fast compressor.
const LZ4_FAST: i32 = 9;

/// One produced batch that may be appended. Only [`validate`] makes it.
#[derive(Clone, Debug)]
pub struct CheckedBatch {
    bytes: Bytes,
    header: BatchHeader,
    log_append_time_ms: i64,
}

impl CheckedBatch {
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// -1 unless message.timestamp.type=LogAppendTime.
    pub fn log_append_time_ms(&self) -> i64 {
        self.log_append_time_ms
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// The rules for batches of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub config: &'a TopicConfig,
    pub validation: ProduceValidation,
    pub now_ms: i64,
    pub limits: Limits,
}

/// The work that one check may make.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Decompressed bytes at which the walk gives up.
    pub output_bytes: u64,
    /// Decompressed bytes beyond which the batch is not compressed anew.
    pub recompressed_bytes: u64,
}

impl Limits {
    /// For a shard's own thread: about a millisecond.
    pub const INLINE: Limits = Limits { output_bytes: 1 << 20, recompressed_bytes: 8 << 10 };
    /// For a helper thread.
    pub const FULL: Limits = Limits { output_bytes: MAX_OUTPUT_BYTES, recompressed_bytes: MAX_OUTPUT_BYTES };
}

/// Why a batch was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Rejected(Rejected),
    /// It needs more work than [`Rules::limits`] allow; whether it is sound is not known yet.
    TooMuchWork,
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Refusal {
        Refusal::Rejected(rejected)
    }
}

impl Refusal {
    /// The answer to the client.
    pub fn rejected(self) -> Rejected {
        match self {
            Refusal::Rejected(rejected) => rejected,
            Refusal::TooMuchWork => {
                let message = format!("the batch decompresses to more than {MAX_OUTPUT_BYTES} bytes");
                Rejected::new(ErrorCode::MessageTooLarge, message)
            }
        }
    }
}

/// Checks `records`, the bytes of one partition in a produce request.
pub fn validate(records: &Bytes, rules: &Rules<'_>) -> Result<CheckedBatch, Refusal> {
    let header = check_header(records, rules.config)?;
    let target = target(header, rules.config);
    let by_header = rules.validation == ProduceValidation::Header;
    if by_header {
        check_header_times(header, rules)?;
    }
    if by_header && !rules.config.cleanup_compact && target.is_none() {
        return Ok(settled(records, header, header.max_timestamp.get(), rules));
    }
    let walked = check_records(records, header, rules)?;
    let max_timestamp = if by_header { header.max_timestamp.get() } else { walked.max_timestamp };
    let (mut batch, mut header, mut plain_bytes) = (records.clone(), *header, walked.plain_bytes);
    if walked.misplaced {
        let anew = records::renumbered(&batch).map_err(refused_records)?;
        plain_bytes = (anew.len() - HEADER_BYTES) as u64;
        batch = written_anew(anew, &mut header, rules.config)?;
    }
    match target {
        Some(_) if plain_bytes > rules.limits.recompressed_bytes => return Err(Refusal::TooMuchWork),
        Some(target) => {
            let anew = compressed_anew(&batch, target, plain_bytes, rules.config)?;
            header.set_codec(target.codec);
            batch = written_anew(anew, &mut header, rules.config)?;
        }
        None => {}
    }
    Ok(settled(&batch, &header, max_timestamp, rules))
}

/// The codec that the topic wants the batch in; `None`: it is in it.
fn target(header: &BatchHeader, config: &TopicConfig) -> Option<Target> {
    let (codec, level) = match config.compression {
        CompressionType::Producer => return None,
        CompressionType::Uncompressed => (Codec::None, None),
        CompressionType::Gzip => (Codec::Gzip, Some(config.compression_gzip_level)),
        CompressionType::Snappy => (Codec::Snappy, None),
        CompressionType::Lz4 => (Codec::Lz4, Some(config.compression_lz4_level).filter(|level| *level != LZ4_FAST)),
        CompressionType::Zstd => (Codec::Zstd, Some(config.compression_zstd_level)),
    };
    (header.codec() != Some(codec)).then_some(Target { codec, level })
}

/// The batch in the topic's codec, with room for the header.
fn compressed_anew(
    records: &Bytes,
    target: Target,
    plain_bytes: u64,
    config: &TopicConfig,
) -> Result<Vec<u8>, Rejected> {
    let limit = usize::try_from(config.segment_bytes).unwrap_or(usize::MAX).min(config.max_message_bytes as usize);
    records::recompress(records, target, plain_bytes, limit).map_err(|error| {
        let code = match &error {
            RecompressError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            RecompressError::Records(_) | RecompressError::Compress { .. } => ErrorCode::UnknownServerError,
        };
        Rejected::new(code, error.to_string())
    })
}

/// Completes a batch whose records were written anew: its length may have changed.
fn written_anew(mut batch: Vec<u8>, header: &mut BatchHeader, config: &TopicConfig) -> Result<Bytes, Rejected> {
    check_size(batch.len(), config)?;
    // Within max.message.bytes, so within 31 bits.
    header.batch_length.set((batch.len() - LENGTH_PREFIX_BYTES) as i32);
    seal(&mut batch, header);
    Ok(batch.into())
}

/// Everything that needs no record.
fn check_header<'a>(records: &'a Bytes, config: &TopicConfig) -> Result<&'a BatchHeader, Rejected> {
    let (header, total) = record_batch::frame(records).map_err(refused_batch)?;
    let invalid = |message: &str| Err(Rejected::new(ErrorCode::InvalidRecord, message));
    if header.base() != 0 {
        return Err(Rejected::new(
            ErrorCode::InvalidRecord,
            format!("the base offset of a produced batch must be 0, but it is {}", header.base()),
        ));
    }
    check_size(records.len(), config)?;
    if total != records.len() {
        return invalid("a produce request must hold exactly one batch a partition");
    }
    record_batch::check(records).map_err(refused_batch)?;
    record_batch::check_produced(header).map_err(refused_batch)?;
    if header.is_control() {
        return invalid("clients may not write control batches");
    }
    if header.is_transactional() && !header.is_idempotent() {
        return invalid("a batch of a transaction needs a producer id");
    }
    if header.is_idempotent() && (header.producer_epoch.get() < 0 || header.base_sequence.get() < 0) {
        return invalid("a batch with a producer id needs a producer epoch and a base sequence of 0 or more");
    }
    Ok(header)
}

fn check_size(bytes: usize, config: &TopicConfig) -> Result<(), Rejected> {
    if bytes > config.max_message_bytes as usize {
        let message =
            format!("the batch is {bytes} bytes, larger than max.message.bytes = {}", config.max_message_bytes);
        return Err(Rejected::new(ErrorCode::MessageTooLarge, message));
    }
    if bytes as u64 > config.segment_bytes {
        let message = format!("the batch is {bytes} bytes, larger than segment.bytes = {}", config.segment_bytes);
        return Err(Rejected::new(ErrorCode::RecordListTooLarge, message));
    }
    Ok(())
}

/// The outcome of the walk over a batch's records.
struct Walked {
    /// -1: no record has a timestamp.
    max_timestamp: i64,
    /// Bytes of the records, decompressed.
    plain_bytes: u64,
    /// The offset deltas of an uncompressed batch do not count from 0.
    misplaced: bool,
}

fn check_records(records: &Bytes, header: &BatchHeader, rules: &Rules<'_>) -> Result<Walked, Refusal> {
    let mut largest = NO_TIMESTAMP;
    let mut misplaced = None;
    let mut bad = BadRecords::default();
    let walked = records::inspect(records, rules.limits.output_bytes, &mut |record| {
        let timestamp = header.base_timestamp.get().wrapping_add(record.timestamp_delta);
        largest = largest.max(timestamp);
        if record.offset_delta != record.index && misplaced.is_none() {
            misplaced = Some(*record);
        }
        if let ControlFlow::Break(flaw) = check_record(record, timestamp, header, rules) {
            bad.note(record, flaw, rules);
        }
    });
    let plain_bytes = match walked {
        Ok(plain_bytes) => plain_bytes,
        Err(RecordError::TooLarge { .. }) => return Err(Refusal::TooMuchWork),
        Err(error) => return Err(refused_records(error).into()),
    };
    if let Some(rejected) = bad.rejected(header.record_count.get()) {
        return Err(rejected.into());
    }
    if let (Some(Inspected { index, offset_delta, .. }), false) = (misplaced, header.codec() == Some(Codec::None)) {
        // Kafka gives up on such a batch (it keeps one that is not compressed, whose
        // consumers then lose their place).
        let message = format!("record {index} of the batch has offset delta {offset_delta}; they must count from 0");
        return Err(Rejected::new(ErrorCode::UnknownServerError, message).into());
    }
    Ok(Walked { max_timestamp: largest, plain_bytes, misplaced: misplaced.is_some() })
}

/// The fault of a single record.
#[derive(Clone, Copy)]
enum Flaw {
    NoKey,
    OutOfRange(i64),
    LogAppendTime,
}

#[inline]
fn check_record(record: &Inspected, timestamp: i64, header: &BatchHeader, rules: &Rules<'_>) -> ControlFlow<Flaw> {
    let config = rules.config;
    if config.cleanup_compact && !record.has_key {
        return ControlFlow::Break(Flaw::NoKey);
    }
    if rules.validation == ProduceValidation::Header {
        return ControlFlow::Continue(());
    }
    // A client that sets the bit of LogAppendTime says that all records have the batch's largest
    // timestamp. Kafka takes it at its word and then drops the bit, so the records' own
    // timestamps must be right as well.
    let claimed = if header.is_log_append_time() { header.max_timestamp.get() } else { timestamp };
    if config.log_append_time || claimed == NO_TIMESTAMP {
        return match header.is_log_append_time() {
            true => ControlFlow::Break(Flaw::LogAppendTime),
            false => ControlFlow::Continue(()),
        };
    }
    let bad = |time: &i64| *time != NO_TIMESTAMP && is_out_of_range(*time, rules);
    let other = (claimed != timestamp).then_some(claimed);
    match other.filter(bad).or(Some(timestamp).filter(bad)) {
        Some(time) => ControlFlow::Break(Flaw::OutOfRange(time)),
        None => ControlFlow::Continue(()),
    }
}

fn is_out_of_range(timestamp: i64, rules: &Rules<'_>) -> bool {
    let age = rules.now_ms.wrapping_sub(timestamp);
    age > rules.config.timestamp_before_max_ms || age.wrapping_neg() > rules.config.timestamp_after_max_ms
}

/// The bad records of one batch.
#[derive(Default)]
struct BadRecords {
    total: usize,
    bad_times: usize,
    named: Vec<BadRecord>,
}

impl BadRecords {
    fn note(&mut self, record: &Inspected, flaw: Flaw, rules: &Rules<'_>) {
        self.total += 1;
        self.bad_times += match flaw {
            Flaw::NoKey => 0,
            Flaw::OutOfRange(_) | Flaw::LogAppendTime => 1,
        };
        if self.named.len() == MAX_BAD_RECORDS {
            return;
        }
        let (topic, partition) = (rules.topic, rules.partition);
        let message = match flaw {
            Flaw::NoKey => {
                format!("Compacted topic cannot accept message without key in topic partition {topic}-{partition}")
            }
            Flaw::OutOfRange(timestamp) => format!(
                "timestamp {timestamp} is out of range: it must lie within [{}, {}] (message.timestamp.before.max.ms, \
                 message.timestamp.after.max.ms)",
                rules.now_ms.saturating_sub(rules.config.timestamp_before_max_ms),
                rules.now_ms.saturating_add(rules.config.timestamp_after_max_ms)
            ),
            Flaw::LogAppendTime => "a producer may not set the timestamp type to LogAppendTime".to_owned(),
        };
        self.named.push(BadRecord { index: record.index, message });
    }

    fn rejected(self, count: i32) -> Option<Rejected> {
        let first = self.named.iter().take(SHOWN_BAD_RECORDS);
        let shown: Vec<String> = first.map(|bad| format!("record {}: {}", bad.index, bad.message)).collect();
        if shown.is_empty() {
            return None;
        }
        let more = if self.total > shown.len() { "; ..." } else { "" };
        let message =
            format!("{} of the batch's {count} records are not accepted: {}{more}", self.total, shown.join("; "));
        let code = if self.bad_times > 0 { ErrorCode::InvalidTimestamp } else { ErrorCode::InvalidRecord };
        Some(Rejected { code, message, records: self.named })
    }
}

/// The bounds by the header alone (`corelane.produce.validate=header`).
fn check_header_times(header: &BatchHeader, rules: &Rules<'_>) -> Result<(), Rejected> {
    if rules.config.log_append_time {
        return Ok(());
    }
    let (first, last) = (header.base_timestamp.get(), header.max_timestamp.get());
    let too_old = first >= 0 && rules.now_ms.saturating_sub(first) > rules.config.timestamp_before_max_ms;
    let too_new = last.saturating_sub(rules.now_ms) > rules.config.timestamp_after_max_ms;
    if too_old || too_new {
        let message = format!(
            "timestamps {first} to {last} are outside [{now} - {}, {now} + {}] (message.timestamp.before/after.max.ms)",
            rules.config.timestamp_before_max_ms,
            rules.config.timestamp_after_max_ms,
            now = rules.now_ms,
        );
        return Err(Rejected::new(ErrorCode::InvalidTimestamp, message));
    }
    Ok(())
}

/// The batch with the header that its topic and its records call for; the bytes themselves
/// where it has it already.
fn settled(records: &Bytes, header: &BatchHeader, max_timestamp: i64, rules: &Rules<'_>) -> CheckedBatch {
    let log_append_time = rules.config.log_append_time;
    let mut right = *header;
    right.set_timestamps(log_append_time, if log_append_time { rules.now_ms } else { max_timestamp });
    // The broker's own mark (KIP-534), and no producer's: the cleaner would drop tombstones by it.
    right.set_delete_horizon(None);
    let unchanged = right.attributes == header.attributes && right.max_timestamp == header.max_timestamp;
    let bytes = if unchanged { records.clone() } else { with_header(records, &mut right) };
    let log_append_time_ms = if log_append_time { rules.now_ms } else { NO_TIMESTAMP };
    CheckedBatch { bytes, header: right, log_append_time_ms }
}

/// A copy of the batch with another header, whose CRC is made anew.
fn with_header(records: &[u8], header: &mut BatchHeader) -> Bytes {
    let mut copy = records.to_vec();
    seal(&mut copy, header);
    Bytes::from(copy)
}

/// Puts `header` at the start of the batch, with the CRC of both.
fn seal(batch: &mut [u8], header: &mut BatchHeader) {
    let (place, body) = batch.split_at_mut(HEADER_BYTES);
    header.crc.set(crc32c::crc32c_append(crc32c::crc32c(&header.as_bytes()[CRC_START..]), body));
    place.copy_from_slice(header.as_bytes());
}

/// The error code of each fault follows the answers of Kafka 4.3.
fn refused_batch(error: BatchError) -> Rejected {
    let code = match error {
        BatchError::BadMagic(0 | 1) | BatchError::BadCount { .. } | BatchError::Truncated { .. } => {
            ErrorCode::InvalidRecord
        }
        BatchError::BadCodec(_) => ErrorCode::UnknownServerError,
        _ => ErrorCode::CorruptMessage,
    };
    Rejected::new(code, error.to_string())
}

fn refused_records(error: RecordError) -> Rejected {
    let code = match &error {
        // Not CORRUPT_MESSAGE: clients would send the same bytes again until their time is up.
        RecordError::Decompress { .. } => ErrorCode::UnknownServerError,
        RecordError::Batch(_)
        | RecordError::NegativeCount(_)
        | RecordError::TooLarge { .. }
        | RecordError::Truncated { .. }
        | RecordError::Trailing { .. }
        | RecordError::Malformed { .. } => ErrorCode::InvalidRecord,
    };
    Rejected::new(code, error.to_string())
}

#[cfg(test)]
mod tests;
