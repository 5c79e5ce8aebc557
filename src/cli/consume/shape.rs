//! How a record is printed.

use serde_json::{Value, json};

use crate::cli::content::{content, hex};
use crate::cli::nearest::did_you_mean;
use crate::cli::parse::escape;
use crate::model::record_batch::BatchHeader;
use crate::model::records::{RecordView, headers};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The value and a new line.
    Text,
    /// An object a line.
    Json,
    /// Partition, offset, key and value.
    Hex,
    Template(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Plain(Vec<u8>),
    Value,
    ValueLength,
    Key,
    KeyLength,
    Headers,
    Topic,
    Partition,
    Offset,
    Timestamp,
}

pub(super) fn shape(text: &str) -> Result<Shape, String> {
    match text {
        "text" => Ok(Shape::Text),
        "json" => Ok(Shape::Json),
        "hex" => Ok(Shape::Hex),
        _ if text.contains(['%', '\\']) => template(text).map(Shape::Template),
        _ => {
            let meant = did_you_mean(text, ["text", "json", "hex"]);
            Err(format!(r"it must read text, json, hex, or be a template such as '%k\t%v\n'{meant}"))
        }
    }
}

fn template(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut plain = Vec::new();
    let mut rest = text;
    while let Some(place) = rest.find(['%', '\\']) {
        plain.extend_from_slice(&rest.as_bytes()[..place]);
        let behind = &rest[place + 1..];
        if rest[place..].starts_with('\\') {
            let (byte, length) = escape(behind)?;
            plain.push(byte);
            rest = &behind[length..];
            continue;
        }
        let piece = match behind.chars().next() {
            Some('v' | 's') => Some(Piece::Value),
            Some('V' | 'S') => Some(Piece::ValueLength),
            Some('k') => Some(Piece::Key),
            Some('K') => Some(Piece::KeyLength),
            Some('h') => Some(Piece::Headers),
            Some('t') => Some(Piece::Topic),
            Some('p') => Some(Piece::Partition),
            Some('o') => Some(Piece::Offset),
            Some('T') => Some(Piece::Timestamp),
            Some('%') => None,
            other => {
                let named = other.map_or_else(|| "%".to_owned(), |letter| format!("%{letter}"));
                return Err(format!("{named} stands for nothing; there are %v %s %k %h %t %p %o %T %V %S %K and %%"));
            }
        };
        match piece {
            None => plain.push(b'%'),
            Some(piece) => {
                if !plain.is_empty() {
                    pieces.push(Piece::Plain(std::mem::take(&mut plain)));
                }
                pieces.push(piece);
            }
        }
        rest = &behind[1..];
    }
    plain.extend_from_slice(rest.as_bytes());
    if !plain.is_empty() {
        pieces.push(Piece::Plain(plain));
    }
    Ok(pieces)
}

impl Shape {
    /// Appends a record of a partition.
    pub fn print(
        &self,
        out: &mut Vec<u8>,
        (topic, partition): (&str, i32),
        (record, header): (&RecordView<'_>, &BatchHeader),
    ) {
        match self {
            Shape::Text => {
                out.extend_from_slice(record.value.unwrap_or_default());
                out.push(b'\n');
            }
            Shape::Json => {
                out.extend_from_slice(object((topic, partition), record, header).to_string().as_bytes());
                out.push(b'\n');
            }
            Shape::Hex => {
                let field = |bytes: Option<&[u8]>| match bytes {
                    None => "-".to_owned(),
                    Some([]) => "\"\"".to_owned(),
                    Some(bytes) => hex(bytes),
                };
                let (key, value) = (field(record.key), field(record.value));
                out.extend_from_slice(format!("{partition} {} {key} {value}\n", record.meta.offset).as_bytes());
            }
            Shape::Template(pieces) => {
                for piece in pieces {
                    piece.print(out, (topic, partition), record);
                }
            }
        }
    }
}

impl Piece {
    fn print(&self, out: &mut Vec<u8>, (topic, partition): (&str, i32), record: &RecordView<'_>) {
        let mut text = |text: String| out.extend_from_slice(text.as_bytes());
        match self {
            Piece::Plain(bytes) => out.extend_from_slice(bytes),
            Piece::Value => out.extend_from_slice(record.value.unwrap_or_default()),
            Piece::ValueLength => text(record.meta.value_len.to_string()),
            Piece::Key => out.extend_from_slice(record.key.unwrap_or_default()),
            Piece::KeyLength => text(record.meta.key_len.to_string()),
            Piece::Topic => text(topic.to_owned()),
            Piece::Partition => text(partition.to_string()),
            Piece::Offset => text(record.meta.offset.to_string()),
            Piece::Timestamp => text(record.meta.timestamp_ms.to_string()),
            // As kcat prints them.
            Piece::Headers => {
                for (place, (name, value)) in headers(record.headers).unwrap_or_default().into_iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(name);
                    out.push(b'=');
                    out.extend_from_slice(value.unwrap_or(b"NULL"));
                }
            }
        }
    }
}

fn object((topic, partition): (&str, i32), record: &RecordView<'_>, header: &BatchHeader) -> Value {
    let names = headers(record.headers).unwrap_or_default().into_iter();
    let names: Vec<Value> =
        names.map(|(name, value)| json!({ "key": content(Some(name)), "value": content(value) })).collect();
    let timestamp_ms = record.meta.timestamp_ms;
    let timestamp_type = match (timestamp_ms, header.is_log_append_time()) {
        (..0, _) => None,
        (_, false) => Some("CreateTime"),
        (_, true) => Some("LogAppendTime"),
    };
    json!({
        "topic": topic, "partition": partition, "offset": record.meta.offset,
        "timestamp_ms": (timestamp_ms >= 0).then_some(timestamp_ms), "timestamp_type": timestamp_type,
        "key": content(record.key), "value": content(record.value), "headers": names,
    })
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use zerocopy::FromZeros;

    use super::*;
    use crate::model::records::{self, BatchWriter, put_headers};

    /// The output for a record with these parts.
    fn printed(text: &str, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
        let mut names = Vec::new();
        put_headers(&mut names, [(&b"a"[..], Some(&b"1"[..])), (b"b", None)].into_iter());
        let mut writer = BatchWriter::new(7, 1000);
        writer.push(7, 1005, key, value, &names);
        let mut header = BatchHeader::new_zeroed();
        header.magic = 2;
        header.base_timestamp.set(1000);
        let batch = writer.finish(header).unwrap();
        let (shape, mut out) = (shape(text).unwrap(), Vec::new());
        records::read(&batch, &mut |record| {
            shape.print(&mut out, ("t", 3), (record, &header));
            ControlFlow::Continue(())
        })
        .unwrap();
        out
    }

    #[test]
    fn templates_are_kcats() {
        let print = |text: &str| printed(text, Some(b"k"), Some(b"\xffv"));
        assert_eq!(print(r"%k\t%v\n"), b"k\t\xffv\n");
        assert_eq!(print("%t/%p@%o %T %K %S %h %%"), b"t/3@7 1005 1 2 a=1,b=NULL %");
        assert_eq!(print(r"\x00\\%s"), b"\0\\\xffv");
        assert_eq!(printed("[%k][%s]%K%V", None, None), b"[][]-1-1");
        for (wrong, why) in [("%q", "%q stands for nothing"), ("%", "% stands"), (r"\q", r"\q is no escape")] {
            let error = shape(wrong).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(shape("jsno").unwrap_err().contains("did you mean json?"));
    }

    #[test]
    fn nothing_is_lost_in_json_and_hex() {
        let object: Value = serde_json::from_slice(&printed("json", Some(b"\xff"), Some(b"v"))).unwrap();
        let expected = json!({
            "topic": "t", "partition": 3, "offset": 7, "timestamp_ms": 1005, "timestamp_type": "CreateTime",
            "key": { "hex": "ff" }, "value": "v",
            "headers": [{ "key": "a", "value": "1" }, { "key": "b", "value": null }],
        });
        assert_eq!(object, expected);
        assert_eq!(printed("hex", Some(b"\xff0"), None), b"3 7 ff30 -\n");
        assert_eq!(printed("hex", None, Some(b"")), b"3 7 - \"\"\n");
        assert_eq!(printed("text", None, None), b"\n");
    }
}
