//! Records as they are read: where one ends, and what is its key, its headers and its value.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use serde_json::{Map, Value};

use crate::cli::content;
use crate::cli::nearest::did_you_mean;
use crate::client::producer::Record;
use crate::runtime::bell::Bell;

/// Bytes of one look at the input.
const READ_BYTES: usize = 64 << 10;
/// Looks that may wait to be taken.
const READ_AHEAD: usize = 4;
/// No broker takes a longer record.
const MAX_RECORD_BYTES: usize = 100 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    Text,
    Json,
}

#[derive(Clone, Debug)]
pub(super) struct Separators {
    /// Ends a record.
    pub record: u8,
    pub key: Option<Vec<u8>>,
    pub headers: Option<Vec<u8>>,
}

/// How the input is read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub syntax: Syntax,
    pub separators: Separators,
    /// Empty values are null.
    pub tombstones: bool,
    /// Of records without one of their own.
    pub key: Option<Vec<u8>>,
    /// Of every record, before its own.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Of records that name none.
    pub partition: Option<i32>,
}

/// Records that were read, or why no more can be.
pub(super) type Batch = Result<Vec<Record>, String>;

/// Reads standard input on a thread of its own, which ends with the process. The bell rings when
/// there is something to take.
pub(super) fn start(reading: Reading, bell: Bell) -> io::Result<Receiver<Batch>> {
    let (sender, receiver) = sync_channel(READ_AHEAD);
    let body = move || {
        let mut parser = Parser::new(reading);
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; READ_BYTES];
        let mut ended = false;
        while !ended {
            let mut records = Vec::new();
            let outcome = match stdin.read(&mut buffer) {
                Ok(0) => {
                    ended = true;
                    parser.end(&mut records)
                }
                Ok(n) => parser.feed(&buffer[..n], &mut records),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) => Err(format!("standard input cannot be read: {error}")),
            };
            let failed = outcome.is_err();
            let nobody =
                sender.send(Ok(records)).is_err() || outcome.err().is_some_and(|e| sender.send(Err(e)).is_err());
            bell.ring();
            ended |= failed || nobody;
        }
        drop(sender);
        bell.ring();
    };
    thread::Builder::new().name("stdin".to_owned()).spawn(body)?;
    Ok(receiver)
}

/// Cuts bytes into records, whatever pieces they come in.
struct Parser {
    reading: Reading,
    /// The beginning of a record.
    rest: Vec<u8>,
    /// Of the record that was read last, from 1.
    number: u64,
}

impl Parser {
    fn new(reading: Reading) -> Parser {
        Parser { reading, rest: Vec::new(), number: 0 }
    }

    fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<Record>) -> Result<(), String> {
        while let Some(place) = bytes.iter().position(|byte| *byte == self.reading.separators.record) {
            if self.rest.is_empty() {
                self.record(&bytes[..place], out)?;
            } else {
                self.rest.extend_from_slice(&bytes[..place]);
                let whole = std::mem::take(&mut self.rest);
                self.record(&whole, out)?;
            }
            bytes = &bytes[place + 1..];
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > MAX_RECORD_BYTES {
            let number = self.number + 1;
            return Err(
                self.named(number, &format!("it is longer than {MAX_RECORD_BYTES} bytes, which no broker takes"))
            );
        }
        Ok(())
    }

    /// The last record may lack its end.
    fn end(&mut self, out: &mut Vec<Record>) -> Result<(), String> {
        let whole = std::mem::take(&mut self.rest);
        if whole.is_empty() { Ok(()) } else { self.record(&whole, out) }
    }

    fn record(&mut self, bytes: &[u8], out: &mut Vec<Record>) -> Result<(), String> {
        self.number += 1;
        let read = match self.reading.syntax {
            Syntax::Text => self.text(bytes),
            // As many tools, ones that end files with an empty line among them.
            Syntax::Json if bytes.trim_ascii().is_empty() => return Ok(()),
            Syntax::Json => json(bytes),
        };
        let mut record = read.map_err(|why| self.named(self.number, &why))?;
        record.key = record.key.or_else(|| self.reading.key.clone());
        record.partition = record.partition.or(self.reading.partition);
        if self.reading.tombstones && record.value.as_ref().is_some_and(Vec::is_empty) {
            record.value = None;
        }
        if !self.reading.headers.is_empty() {
            record.headers.splice(0..0, self.reading.headers.iter().cloned());
        }
        out.push(record);
        Ok(())
    }

    fn named(&self, number: u64, why: &str) -> String {
        let unit = if self.reading.separators.record == b'\n' { "line" } else { "record" };
        format!("standard input, {unit} {number}: {why}")
    }

    fn text(&self, bytes: &[u8]) -> Result<Record, String> {
        let mut rest = bytes;
        let mut record = Record::default();
        if let Some(separator) = &self.reading.separators.headers {
            let missing = || format!("'{}' does not end its headers (--headers-separator)", separator.escape_ascii());
            let (headers, after) = split(rest, separator).ok_or_else(missing)?;
            record.headers = text_headers(headers)?;
            rest = after;
        }
        if let Some(separator) = &self.reading.separators.key {
            let missing =
                || format!("'{}' does not separate a key from a value (--key-separator)", separator.escape_ascii());
            let (key, after) = split(rest, separator).ok_or_else(missing)?;
            record.key = Some(key.to_vec());
            rest = after;
        }
        record.value = Some(rest.to_vec());
        Ok(record)
    }
}

fn split<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let place = bytes.windows(separator.len()).position(|window| window == separator)?;
    Some((&bytes[..place], &bytes[place + separator.len()..]))
}

type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// `NAME:VALUE,NAME:VALUE`, as for Kafka's own console producer.
fn text_headers(bytes: &[u8]) -> Result<Headers, String> {
    let mut headers = Vec::new();
    for header in bytes.split(|byte| *byte == b',').filter(|header| !header.is_empty()) {
        let wrong = || format!("the header '{}' does not read NAME:VALUE", header.escape_ascii());
        let (name, value) = split(header, b":").ok_or_else(wrong)?;
        headers.push((name.to_vec(), Some(value.to_vec())));
    }
    Ok(headers)
}

/// Fields of an object; those of the second half are told by `corelane consume`, and not looked at.
const FIELDS: [&str; 8] = ["key", "value", "headers", "partition", "timestamp_ms", "topic", "offset", "timestamp_type"];

fn json(bytes: &[u8]) -> Result<Record, String> {
    let fields: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON object: {error}"))?;
    if let Some(field) = fields.keys().find(|field| !FIELDS.contains(&field.as_str())) {
        let known = FIELDS[..5].join(", ");
        return Err(format!("there is no field {field}{}; there are {known}", did_you_mean(field, FIELDS)));
    }
    let Some(value) = fields.get("value") else {
        return Err("it has no value; null stands for none".to_owned());
    };
    let named = |field: &str, why: String| format!("{field}: {why}");
    Ok(Record {
        key: content::bytes(fields.get("key").unwrap_or(&Value::Null)).map_err(|why| named("key", why))?,
        value: content::bytes(value).map_err(|why| named("value", why))?,
        headers: json_headers(fields.get("headers").unwrap_or(&Value::Null)).map_err(|why| named("headers", why))?,
        partition: integer(&fields, "partition")?,
        timestamp_ms: integer(&fields, "timestamp_ms")?,
    })
}

fn integer<T: TryFrom<i64>>(fields: &Map<String, Value>, name: &str) -> Result<Option<T>, String> {
    let wrong = |value: &Value| format!("{name}: {value} is no whole number of 0 or more");
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_i64().filter(|number| *number >= 0).and_then(|number| T::try_from(number).ok());
            number.map(Some).ok_or_else(|| wrong(value))
        }
    }
}

/// An object by name, or an array of objects with `key` and `value`, which may have a name twice.
fn json_headers(headers: &Value) -> Result<Headers, String> {
    match headers {
        Value::Null => Ok(Vec::new()),
        Value::Object(fields) => {
            let header = |(name, value): (&String, &Value)| Ok((name.clone().into_bytes(), content::bytes(value)?));
            fields.iter().map(header).collect()
        }
        Value::Array(items) => {
            let header = |item: &Value| {
                let name = content::bytes(item.get("key").unwrap_or(&Value::Null))?;
                let name = name.ok_or_else(|| format!("{item} has no key"))?;
                Ok((name, content::bytes(item.get("value").unwrap_or(&Value::Null))?))
            };
            items.iter().map(header).collect()
        }
        other => Err(format!("{other} is neither an object nor an array")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        let separators = Separators { record: b'\n', key: None, headers: None };
        let (key, headers) = (None, Vec::new());
        Reading { syntax: Syntax::Text, separators, tombstones: false, key, headers, partition: None }
    }

    /// The input, in pieces of every size.
    fn read(reading: &Reading, input: &[u8]) -> Result<Vec<Record>, String> {
        let mut all = Vec::new();
        for size in [1, 2, 3, 7, input.len().max(1)] {
            let (mut parser, mut records) = (Parser::new(reading.clone()), Vec::new());
            let fed: Result<Vec<()>, _> = input.chunks(size).map(|piece| parser.feed(piece, &mut records)).collect();
            all.push(fed.and_then(|_| parser.end(&mut records)).map(|()| records));
        }
        assert!(all.windows(2).all(|two| two[0] == two[1]), "{all:?}");
        all.swap_remove(0)
    }

    fn values(reading: &Reading, input: &[u8]) -> Vec<Option<Vec<u8>>> {
        read(reading, input).unwrap().into_iter().map(|record| record.value).collect()
    }

    fn bytes(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_are_records_whatever_bytes_they_have() {
        let mut reading = reading();
        assert_eq!(values(&reading, b""), []);
        assert_eq!(values(&reading, b"a\n\nb"), [bytes("a"), bytes(""), bytes("b")]);
        assert_eq!(values(&reading, b"\xff\0\r\n"), [Some(b"\xff\0\r".to_vec())]);
        reading.tombstones = true;
        assert_eq!(values(&reading, b"a\n\n"), [bytes("a"), None]);
        reading.separators.record = 0;
        assert_eq!(values(&reading, b"a\nb\0c\0"), [bytes("a\nb"), bytes("c")]);
    }

    #[test]
    fn keys_and_headers_stand_before_values() {
        let mut reading = reading();
        reading.separators.key = Some(b"::".to_vec());
        let records = read(&reading, b"k::v::w\n::\n").unwrap();
        assert_eq!((&records[0].key, &records[0].value), (&bytes("k"), &bytes("v::w")));
        assert_eq!((&records[1].key, &records[1].value), (&bytes(""), &bytes("")));
        let error = read(&reading, b"k::v\nk:v\n").unwrap_err();
        assert!(error.starts_with("standard input, line 2: '::' does not separate"), "{error}");
        reading.separators.headers = Some(b"\t".to_vec());
        let records = read(&reading, b"a:1,b:x:y,a:\tk::v\n\tk::v\n").unwrap();
        let header = |name: &str, value: &str| (name.as_bytes().to_vec(), bytes(value));
        assert_eq!(records[0].headers, [header("a", "1"), header("b", "x:y"), header("a", "")]);
        assert_eq!((records[1].headers.len(), &records[1].key), (0, &bytes("k")));
        assert!(read(&reading, b"a\tk::v").unwrap_err().contains("the header 'a' does not read NAME:VALUE"));
    }

    #[test]
    fn what_is_given_for_all_is_for_those_without_their_own() {
        let mut reading = reading();
        reading.syntax = Syntax::Json;
        (reading.key, reading.partition) = (bytes("all"), Some(3));
        reading.headers = vec![(b"h".to_vec(), bytes("1"))];
        let input = br#"{"value": "a"}
            {"value": "b", "key": "own", "partition": 0, "headers": {"h": "2"}}"#;
        let records = read(&reading, input).unwrap();
        assert_eq!((&records[0].key, records[0].partition, records[0].headers.len()), (&bytes("all"), Some(3), 1));
        assert_eq!((&records[1].key, records[1].partition), (&bytes("own"), Some(0)));
        assert_eq!(records[1].headers, [(b"h".to_vec(), bytes("1")), (b"h".to_vec(), bytes("2"))]);
    }

    #[test]
    fn json_objects_have_known_fields_and_a_value() {
        let mut reading = reading();
        reading.syntax = Syntax::Json;
        let input =
            br#"{"key": {"hex": "ff"}, "value": null, "timestamp_ms": 5, "headers": [{"key": "a"}], "offset": 9}

            {"value": {"n": 1}}"#;
        let records = read(&reading, input).unwrap();
        assert_eq!((&records[0].key, &records[0].value, records[0].timestamp_ms), (&Some(vec![255]), &None, Some(5)));
        assert_eq!(records[0].headers, [(b"a".to_vec(), None)]);
        assert_eq!(records[1].value, bytes(r#"{"n":1}"#));
        for (wrong, why) in [
            ("{\"value\": 1}\nx", "line 2: it is no JSON object"),
            ("[]", "no JSON object"),
            (r#"{"vlaue": "a"}"#, "there is no field vlaue; did you mean value?"),
            (r#"{"key": "a"}"#, "it has no value"),
            (r#"{"value": "", "partition": -1}"#, "partition: -1 is no whole number"),
            (r#"{"value": "", "partition": 2147483648}"#, "partition: 2147483648 is no"),
            (r#"{"value": "", "timestamp_ms": "now"}"#, "timestamp_ms: \"now\" is no"),
            (r#"{"value": {"hex": "0"}}"#, "value: \"0\" is no even number of hex digits"),
            (r#"{"value": "", "headers": "a:1"}"#, "headers: \"a:1\" is neither"),
            (r#"{"value": "", "headers": [{}]}"#, "headers: {} has no key"),
        ] {
            let error = read(&reading, wrong.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
