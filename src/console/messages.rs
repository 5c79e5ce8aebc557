//! Messages of a partition.

use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::question::{MOST_SHOWN_BYTES, Problem};
use crate::client::cluster_client::{Place, Spot};
use crate::client::{ClusterClient, Refusal};
use crate::model::ErrorCode;
use crate::model::record_batch::{self, BatchHeader};
use crate::model::records::{self, RecordView};

/// Bytes that one request to the leader asks for.
const FETCH_BYTES: i32 = 1 << 20;
/// Requests to the leader for one answer: records that compaction has taken leave
/// batches without any to show.
const MOST_FETCHES: usize = 8;
/// Keys, values and headers of an answer, before it is full.
const ANSWER_BYTES: usize = 1 << 20;
const _: () = assert!(MOST_SHOWN_BYTES <= ANSWER_BYTES);
/// Headers that are shown of a message, and bytes of each key and value of one.
const MOST_HEADERS: usize = 100;
const HEADER_BYTES: usize = 1 << 10;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// As many before the end as are asked for.
    Newest,
    Offset(i64),
    /// The first record that is not older, in milliseconds since 1970 UTC.
    Time(i64),
}

/// Which messages, and how much of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Browse {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) position: Position,
    /// Messages.
    pub(super) limit: usize,
    /// Bytes that are shown of each key and each value.
    pub(super) shown_bytes: usize,
}

pub(super) async fn read(client: &mut ClusterClient, browse: &Browse) -> Result<Value, Problem> {
    let place: Place = (browse.topic.clone(), browse.partition);
    let start = offset_of(client, &place, Spot::Earliest).await?;
    let end = offset_of(client, &place, Spot::Latest).await?;
    let from = match browse.position {
        Position::Offset(offset) => offset,
        Position::Newest => end.saturating_sub(i64::try_from(browse.limit).unwrap_or(i64::MAX)),
        Position::Time(ms) => match offset_of(client, &place, Spot::Time(ms)).await? {
            // All are older.
            -1 => end,
            offset => offset,
        },
    };
    let mut answer = Answer {
        limit: browse.limit,
        shown_bytes: browse.shown_bytes,
        first: from.clamp(start, end.max(start)),
        next: from.clamp(start, end.max(start)),
        bytes: 0,
        messages: Vec::new(),
        errors: Vec::new(),
    };
    let first = answer.first;
    for _ in 0..MOST_FETCHES {
        if answer.next >= end || answer.is_full() {
            break;
        }
        let fetched = client.fetch(&place, answer.next, FETCH_BYTES).await?;
        let fetched = fetched.map_err(|refusal| problem(&place, &refusal))?;
        let before = answer.next;
        answer.take(&fetched.batches);
        if answer.next == before {
            break;
        }
    }
    Ok(json!({
        "topic": browse.topic,
        "partition": browse.partition,
        "start_offset": start,
        "end_offset": end,
        "first_offset": first,
        "next_offset": answer.next,
        "messages": answer.messages,
        "errors": answer.errors,
    }))
}

async fn offset_of(client: &mut ClusterClient, place: &Place, spot: Spot) -> Result<i64, Problem> {
    let answers = client.offsets(&[(place.clone(), spot)], false).await?;
    let (_, offset) = answers.into_iter().next().ok_or_else(|| Problem::Failed("no answer to ListOffsets".into()))?;
    offset.map_err(|refusal| problem(place, &refusal))
}

fn problem((topic, partition): &Place, refusal: &Refusal) -> Problem {
    match refusal.code == ErrorCode::UnknownTopicOrPartition.code() {
        true => Problem::NotFound(format!("there is no partition {partition} of a topic {topic}")),
        false => Problem::Failed(format!("{topic}-{partition}: {refusal}")),
    }
}

/// Messages taken so far.
struct Answer {
    limit: usize,
    shown_bytes: usize,
    /// Records before it are not shown.
    first: i64,
    /// The first offset that was not looked at.
    next: i64,
    bytes: usize,
    messages: Vec<Value>,
    /// Batches that cannot be read.
    errors: Vec<String>,
}

impl Answer {
    fn is_full(&self) -> bool {
        self.messages.len() >= self.limit || self.bytes >= ANSWER_BYTES
    }

    /// Takes what there is room for.
    fn take(&mut self, mut batches: &[u8]) {
        while !self.is_full() {
            // The rest of the last one is cut off, mostly.
            let Ok((header, total)) = record_batch::frame(batches) else { return };
            let (batch, rest) = batches.split_at(total);
            self.take_batch(header, batch);
            batches = rest;
        }
    }

    fn take_batch(&mut self, header: &BatchHeader, batch: &[u8]) {
        let read = records::read(batch, &mut |record| {
            if record.meta.offset < self.next || record.meta.offset < self.first {
                return ControlFlow::Continue(());
            }
            if self.is_full() {
                return ControlFlow::Break(());
            }
            self.take_record(header, record);
            ControlFlow::Continue(())
        });
        if let Err(error) = read {
            self.errors.push(format!("the batch of offset {}: {error}", header.base()));
        }
        if !self.is_full() {
            self.next = self.next.max(header.next_offset());
        }
    }

    fn take_record(&mut self, header: &BatchHeader, record: &RecordView<'_>) {
        let headers: Vec<Value> = records::headers(record.headers)
            .unwrap_or_default()
            .into_iter()
            .take(MOST_HEADERS)
            .map(|(key, value)| json!({ "key": content(Some(key), HEADER_BYTES), "value": content(value, HEADER_BYTES) }))
            .collect();
        let shown = |bytes: Option<&[u8]>| bytes.map_or(0, |bytes| bytes.len().min(self.shown_bytes));
        self.bytes +=
            shown(record.key) + shown(record.value) + record.headers.len().min(2 * MOST_HEADERS * HEADER_BYTES);
        self.next = record.meta.offset.saturating_add(1);
        self.messages.push(json!({
            "offset": record.meta.offset,
            "timestamp_ms": (record.meta.timestamp_ms >= 0).then_some(record.meta.timestamp_ms),
            "timestamp_type": if header.is_log_append_time() { "LogAppendTime" } else { "CreateTime" },
            "key": content(record.key, self.shown_bytes),
            "value": content(record.value, self.shown_bytes),
            "headers": headers,
            "transactional": header.is_transactional(),
            "control": header.is_control(),
        }));
    }
}

/// `text` where it is UTF-8, else `hex`, of its first `most` bytes; `bytes` is how many
/// there are. Null stays null.
fn content(bytes: Option<&[u8]>, most: usize) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    let shown = &bytes[..bytes.len().min(most)];
    let cut = shown.len() < bytes.len();
    let text = match std::str::from_utf8(shown) {
        Ok(text) => Some(text),
        // Cut within a character.
        Err(error) if cut && error.error_len().is_none() => {
            shown.get(..error.valid_up_to()).and_then(|whole| std::str::from_utf8(whole).ok())
        }
        Err(_) => None,
    };
    match text {
        Some(text) => json!({ "bytes": bytes.len(), "cut": cut, "text": text }),
        None => {
            let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "bytes": bytes.len(), "cut": cut, "hex": hex })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::records::BatchWriter;
    use crate::model::testing::header;

    #[test]
    fn contents_are_text_or_hex_and_are_cut() {
        assert_eq!(content(None, 9), Value::Null);
        assert_eq!(content(Some("añb".as_bytes()), 9), json!({ "bytes": 4, "cut": false, "text": "añb" }));
        assert_eq!(content(Some("añb".as_bytes()), 2), json!({ "bytes": 4, "cut": true, "text": "a" }));
        assert_eq!(content(Some(&[0xff, 0x00]), 9), json!({ "bytes": 2, "cut": false, "hex": "ff00" }));
        assert_eq!(content(Some(&[b'a', 0xc3]), 9), json!({ "bytes": 2, "cut": false, "hex": "61c3" }));
        assert_eq!(content(Some(b""), 0), json!({ "bytes": 0, "cut": false, "text": "" }));
    }

    fn answer(limit: usize, first: i64) -> Answer {
        Answer { limit, shown_bytes: 10, first, next: first, bytes: 0, messages: Vec::new(), errors: Vec::new() }
    }

    fn offsets(answer: &Answer) -> Vec<i64> {
        answer.messages.iter().filter_map(|message| message["offset"].as_i64()).collect()
    }

    /// Records 0 to 4 in one batch, 5 to 9 in the next.
    fn batches() -> Vec<u8> {
        let mut bytes = Vec::new();
        for base in [0, 5] {
            let mut writer = BatchWriter::new(base, 1000);
            for offset in base..base + 5 {
                writer.push(offset, 1000 + offset, None, Some(format!("value {offset}").as_bytes()), &[0]);
            }
            bytes.extend(writer.finish(header(5, 1000)).unwrap());
        }
        bytes
    }

    #[test]
    fn messages_are_taken_from_the_first_one_up_to_the_limit() {
        let mut all = answer(100, 3);
        all.take(&batches());
        assert_eq!((offsets(&all), all.next), ((3..10).collect(), 10));
        assert_eq!(all.messages[0]["value"], json!({ "bytes": 7, "cut": false, "text": "value 3" }));
        assert_eq!(all.messages[0]["timestamp_ms"], 1003);
        let mut some = answer(3, 4);
        some.take(&batches());
        assert_eq!((offsets(&some), some.next, some.is_full()), (vec![4, 5, 6], 7, true));
        // A batch that is cut off is left for the next request.
        let mut cut = answer(100, 0);
        cut.take(&batches()[..batches().len() - 1]);
        assert_eq!((offsets(&cut), cut.next), ((0..5).collect(), 5));
    }

    #[test]
    fn an_answer_is_full_of_bytes_too() {
        let mut large = answer(200, 0);
        large.shown_bytes = ANSWER_BYTES;
        let mut writer = BatchWriter::new(0, 0);
        (0..9).for_each(|offset| writer.push(offset, 0, None, Some(&[b'x'; ANSWER_BYTES / 3 - 10]), &[0]));
        large.take(&writer.finish(header(9, 0)).unwrap());
        assert_eq!((offsets(&large), large.next), (vec![0, 1, 2, 3], 4));
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_named_and_passed_over() {
        let mut bytes = batches();
        // The first record's length is negative.
        bytes[record_batch::HEADER_BYTES] = 0x7f;
        let mut answer = answer(100, 0);
        answer.take(&bytes);
        assert_eq!(answer.errors.len(), 1, "{:?}", answer.errors);
        assert_eq!((offsets(&answer), answer.next), ((5..10).collect(), 10));
    }
}
