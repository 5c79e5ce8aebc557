//! Bytes of a record in JSON: text where they are UTF-8, else an object with `hex`.

use serde_json::{Value, json};

/// Text where it is UTF-8, else an object with its bytes in hex.
pub(super) fn content(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => json!(text),
        Some((bytes, Err(_))) => json!({ "hex": hex(bytes) }),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// The other way; everything else that JSON has stands for its own text.
pub(super) fn bytes(content: &Value) -> Result<Option<Vec<u8>>, String> {
    match content {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone().into_bytes())),
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("hex") => {
            let digits = fields["hex"].as_str().and_then(unhex);
            digits.map(Some).ok_or_else(|| format!("{} is no even number of hex digits", fields["hex"]))
        }
        other => Ok(Some(other.to_string().into_bytes())),
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(value(pair[0])? << 4 | value(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were() {
        for all in [None, Some(&b""[..]), Some(b"plain"), Some("\u{fc}\n\"".as_bytes()), Some(b"\xff\x00\x0f")] {
            let text = content(all).to_string();
            assert_eq!(bytes(&serde_json::from_str(&text).unwrap()), Ok(all.map(<[u8]>::to_vec)), "{text}");
        }
        assert_eq!(content(Some(b"\xff\x0a")), json!({ "hex": "ff0a" }));
        assert_eq!(bytes(&json!({ "hex": "FF" })), Ok(Some(vec![255])));
        for other in [json!(1.5), json!([1, "a"]), json!({ "a": null }), json!({ "hex": "00", "b": 1 })] {
            assert_eq!(bytes(&other), Ok(Some(other.to_string().into_bytes())));
        }
        for wrong in [json!({ "hex": "0" }), json!({ "hex": "0g" }), json!({ "hex": 1 }), json!({ "hex": "\u{fc}" })] {
            assert!(bytes(&wrong).is_err(), "{wrong}");
        }
    }
}
