//! Headers of a record (KIP-82): names, not necessarily unique, with values.

use super::build::put_field;
use crate::model::varint;

/// A header's name, and its value or null.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// Appends headers as they stand in a record, their count included.
pub fn put_headers<'a>(out: &mut Vec<u8>, headers: impl ExactSizeIterator<Item = Header<'a>>) {
    varint::put_signed(out, headers.len() as i64);
    for (key, value) in headers {
        put_field(out, Some(key));
        put_field(out, value);
    }
}

/// The headers of a record that was shown ([`RecordView::headers`](super::RecordView));
/// `None`: they are malformed.
pub fn headers(mut bytes: &[u8]) -> Option<Vec<Header<'_>>> {
    let count = usize::try_from(varint::take_signed(&mut bytes, 32).ok()?).ok()?;
    let mut found = Vec::new();
    for _ in 0..count {
        let key = take_field(&mut bytes)??;
        found.push((key, take_field(&mut bytes)?));
    }
    bytes.is_empty().then_some(found)
}

/// `None`: malformed; `Some(None)`: null.
fn take_field<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint::take_signed(bytes, 32).ok()?;
    if length == -1 {
        return Some(None);
    }
    let (field, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(Some(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_out_as_they_went_in_and_cut_ones_do_not() {
        let long = vec![7; 300];
        let all: [Header; 4] = [(b"a", Some(b"1")), (b"a", None), (b"", Some(b"")), (b"\xff", Some(&long))];
        let mut bytes = Vec::new();
        put_headers(&mut bytes, all.into_iter());
        assert_eq!(headers(&bytes).unwrap(), all);
        for cut in 0..bytes.len() {
            assert_eq!(headers(&bytes[..cut]), None, "cut at {cut}");
        }
        bytes.push(0);
        assert_eq!(headers(&bytes), None);
        assert_eq!(headers(&[0]), Some(Vec::new()));
        // A negative count, one without headers behind it, a null name, a varint without end.
        for wrong in [&[1][..], &[0xfe, 0xff, 0xff, 0xff, 0x0f], &[2, 1, 1], &[0xff; 6]] {
            assert_eq!(headers(wrong), None, "{wrong:?}");
        }
    }
}
