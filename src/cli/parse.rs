//! Words of the command line that several commands share.

/// KEY=VALUE, as for an option; the value may be empty.
pub(super) fn option(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it must read KEY=VALUE")?;
    if key.trim().is_empty() {
        return Err("the key before = is missing".into());
    }
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// The replicas of each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Assignment(pub Vec<Vec<i32>>);

/// In Kafka's writing: `1:2,2:3`.
pub(super) fn assignment(text: &str) -> Result<Assignment, String> {
    let broker = |id: &str| match id.trim().parse::<i32>() {
        Ok(id) if id >= 0 => Ok(id),
        _ => Err(format!("'{id}' is no broker's id; it must read 1:2,2:3 (brokers of partition 0, then of 1)")),
    };
    let partitions = text.split(',').map(|partition| partition.split(':').map(broker).collect());
    let partitions: Vec<Vec<i32>> = partitions.collect::<Result<_, _>>()?;
    for replicas in &partitions {
        let mut once = replicas.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() != replicas.len() {
            return Err("a broker is named twice for one partition".into());
        }
    }
    Ok(Assignment(partitions))
}

/// Partitions by index, in order, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Indexes(pub Vec<i32>);

/// `0,2-4`.
pub(super) fn indexes(text: &str) -> Result<Indexes, String> {
    const MOST: usize = 1_000_000;
    let wrong = || format!("'{text}' names no partitions; it must read like 0,2-4");
    let number = |text: &str| text.trim().parse::<i32>().ok().filter(|n| *n >= 0).ok_or_else(wrong);
    let mut found = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last || usize::try_from(last - first).unwrap_or(MOST) >= MOST {
            return Err(wrong());
        }
        found.extend(first..=last);
    }
    found.sort_unstable();
    found.dedup();
    Ok(Indexes(found))
}

/// `TOPIC` or `TOPIC:0,2-4`.
pub(super) fn topic_partitions(text: &str) -> Result<(String, Option<Indexes>), String> {
    let (topic, partitions) = match text.split_once(':') {
        Some((topic, partitions)) => (topic, Some(indexes(partitions)?)),
        None => (text, None),
    };
    if topic.is_empty() {
        return Err("the topic is missing; it must read TOPIC or TOPIC:0,1".into());
    }
    Ok((topic.to_owned(), partitions))
}

/// Bytes that were typed with escapes: `\t`, `\n`, `\r`, `\0`, `\\` and `\xHH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Escaped(pub Vec<u8>);

pub(super) fn escaped(text: &str) -> Result<Escaped, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(place) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..place]);
        let (byte, length) = escape(&rest[place + 1..])?;
        bytes.push(byte);
        rest = &rest[place + 1 + length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(Escaped(bytes))
}

/// The byte that stands behind a backslash, and how long its name is.
pub(super) fn escape(rest: &str) -> Result<(u8, usize), String> {
    let simple = |byte| Ok((byte, 1));
    match rest.as_bytes().first() {
        Some(b't') => simple(b'\t'),
        Some(b'n') => simple(b'\n'),
        Some(b'r') => simple(b'\r'),
        Some(b'0') => simple(0),
        Some(b'\\') => simple(b'\\'),
        Some(b'x') => {
            let digits = rest.get(1..3).filter(|digits| !digits.starts_with('+'));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            byte.map(|byte| (byte, 3)).ok_or_else(|| "\\x must be followed by two hex digits".to_owned())
        }
        Some(_) => {
            let named = rest.chars().next().unwrap_or_default();
            Err(format!("\\{named} is no escape; there are \\t, \\n, \\r, \\0, \\\\ and \\xHH"))
        }
        None => Err("a backslash is the last character; \\\\ stands for one".to_owned()),
    }
}

/// As [`escaped`], and not empty.
pub(super) fn separator(text: &str) -> Result<Escaped, String> {
    escaped(text).and_then(|bytes| if bytes.0.is_empty() { Err("it is empty".to_owned()) } else { Ok(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_at_the_first_equals_sign() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(option("a=b=c"), pair("a", "b=c"));
        assert_eq!(option(" x = y "), pair("x", "y"));
        assert_eq!(option("z="), pair("z", ""));
        assert!(option("novalue").is_err() && option("=v").is_err());
    }

    #[test]
    fn assignments_are_kafkas() {
        assert_eq!(assignment("1:2,2:3"), Ok(Assignment(vec![vec![1, 2], vec![2, 3]])));
        assert_eq!(assignment("0"), Ok(Assignment(vec![vec![0]])));
        for wrong in ["", "1:", "1,,2", "a", "1:-2", "1:1"] {
            assert!(assignment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn partitions_are_listed_or_ranges() {
        assert_eq!(indexes("4,0, 2-3,2"), Ok(Indexes(vec![0, 2, 3, 4])));
        for wrong in ["", "a", "-1", "3-2", "1,", "0-2147483647"] {
            assert!(indexes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn topics_may_have_partitions() {
        assert_eq!(topic_partitions("a"), Ok(("a".to_owned(), None)));
        assert_eq!(topic_partitions("a:1,0"), Ok(("a".to_owned(), Some(Indexes(vec![0, 1])))));
        assert!(topic_partitions(":1").is_err() && topic_partitions("a:").is_err());
    }

    #[test]
    fn escapes_are_those_of_shells() {
        let read = |text| escaped(text).map(|bytes| bytes.0);
        assert_eq!(read(r"a\tb\n\r\0\\\x7F\xff"), Ok(b"a\tb\n\r\0\\\x7f\xff".to_vec()));
        assert_eq!(read(r"\t"), Ok(vec![9]));
        assert_eq!(read(r"\x00\xfF"), Ok(vec![0, 255]));
        assert_eq!(read("\u{fc}::"), Ok("\u{fc}::".as_bytes().to_vec()));
        for wrong in [r"\", r"\q", r"\x0", r"\x0g", r"\x+1", "\\\u{fc}", "\\x\u{fc}"] {
            assert!(escaped(wrong).is_err(), "{wrong}");
        }
        assert!(separator("").is_err());
    }
}
