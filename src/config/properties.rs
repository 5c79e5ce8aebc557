//! The syntax of Java's `.properties` files (`java.util.Properties.load`), with line numbers kept.

/// One `key = value`, unescaped, with the 1-based line it begins on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Property {
    pub line: usize,
    pub key: String,
    pub value: String,
}

/// What is wrong, and the 1-based line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub line: usize,
    pub message: String,
}

/// All properties in file order, repeated keys included.
pub(crate) fn parse(text: &str) -> Result<Vec<Property>, SyntaxError> {
    let mut properties = Vec::new();
    let mut lines = text.split('\n').enumerate();
    while let Some((index, raw)) = lines.next() {
        let line = index + 1;
        let first = trim_start(raw.strip_suffix('\r').unwrap_or(raw));
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        // An odd number of backslashes at the end joins the next line, whose
        // leading white space is dropped.
        while logical.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1 {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(trim_start(next.strip_suffix('\r').unwrap_or(next)));
        }
        let (key, value) = split(&logical);
        let unescaped = |text| unescape(text).map_err(|message| SyntaxError { line, message });
        properties.push(Property { line, key: unescaped(key)?, value: unescaped(value)? });
    }
    Ok(properties)
}

/// `value` as it stands behind `key=`, so that [`parse`] reads it back.
pub(crate) fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\u{c}' => text.push_str("\\f"),
            // Leading ones would be taken for separators.
            ' ' | '=' | ':' => text.extend(['\\', c]),
            c => text.push(c),
        }
    }
    text
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// The key ends at the first unescaped `=`, `:` or white space; the separator may be
/// surrounded by white space.
fn split(logical: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = logical.find(|c| {
        let ends = !escaped && (is_space(c) || matches!(c, '=' | ':'));
        escaped = !escaped && c == '\\';
        ends
    });
    let (key, rest) = logical.split_at(end.unwrap_or(logical.len()));
    let rest = trim_start(rest);
    (key, trim_start(rest.strip_prefix(['=', ':']).unwrap_or(rest)))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut units: Vec<u16> = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let escape = if c == '\\' { chars.next() } else { None };
        if escape == Some('u') {
            let digits: String = chars.by_ref().take(4).collect();
            let valid = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| valid);
            units.push(
                unit.ok_or_else(|| format!("\\u{digits} is not an escape: four hexadecimal digits must follow"))?,
            );
            continue;
        }
        // Escapes are UTF-16 units: two of them may make one character.
        result.push_str(&String::from_utf16_lossy(&std::mem::take(&mut units)));
        result.push(match escape {
            Some('t') => '\t',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('f') => '\u{c}',
            Some(other) => other,
            None if c == '\\' => continue,
            None => c,
        });
    }
    result.push_str(&String::from_utf16_lossy(&units));
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        parse(text).unwrap().into_iter().map(|p| (p.line, p.key, p.value)).collect()
    }

    fn pair(text: &str) -> (String, String) {
        let (_, key, value) = pairs(text).remove(0);
        (key, value)
    }

    #[test]
    fn separators_comments_and_line_numbers() {
        let text = "# c\n\n  ! d\r\na=1\r\n b : 2\nc 3\nd\t=\t4 \ne\n";
        let expected = [(4, "a", "1"), (5, "b", "2"), (6, "c", "3"), (7, "d", "4 "), (8, "e", "")];
        assert_eq!(pairs(text), expected.map(|(l, k, v)| (l, k.to_owned(), v.to_owned())));
        assert_eq!(pair("a = = b"), ("a".into(), "= b".into()));
        assert_eq!(pair("= b"), (String::new(), "b".into()));
        assert_eq!(pair("a=#no comment"), ("a".into(), "#no comment".into()));
    }

    #[test]
    fn continuation_joins_on_an_odd_number_of_backslashes_only() {
        assert_eq!(
            pairs("a=1,\\\n   2,\\\r\n\t3\nb=4")[..],
            [(1, "a".into(), "1,2,3".into()), (4, "b".into(), "4".into())]
        );
        assert_eq!(pairs("a=1\\\\\nb=2").len(), 2);
        assert_eq!(pair("a=1\\"), ("a".into(), "1".into()));
        assert_eq!(pair("# c\\\na=1"), ("a".into(), "1".into()), "a comment does not continue");
    }

    #[test]
    fn escapes() {
        assert_eq!(pair(r"a\ b\=c\:d=\tx\q\\"), ("a b=c:d".into(), "\txq\\".into()));
        assert_eq!(pair(r"a=\u00e9\ud83d\ude00!"), ("a".into(), "é😀!".into()));
        let error = parse("x=1\n\ny=\\u12g4").unwrap_err();
        assert_eq!(error.line, 3);
        assert!(parse(r"y=\u12").is_err());
    }
}
