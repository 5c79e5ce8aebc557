//! Subscriptions by regular expression. Kafka takes RE2's syntax and matches the whole name;
//! internal topics match like others.
//!
//! Names are ASCII, and expressions are taken byte by byte: `\w`, `\d` and `(?i)` mean ASCII as
//! in RE2. Classes of Unicode (`\pL`) are refused: compiled on a shard, a few kilobytes of them
//! would hold it up for seconds.

use std::collections::BTreeSet;

use regex::bytes::{Regex, RegexBuilder};

use super::refusal::Refusal;
use crate::groups::env::Topics;
use crate::groups::record::RegexValue;
use crate::model::ErrorCode;

/// Most bytes of a compiled expression; the expression itself is bounded by the request.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// The longest expression, bytes: what is compiled whenever topics come or go has a bound.
const MAX_BYTES: usize = 4096;
/// As much of an expression is repeated in a refusal.
const MAX_SHOWN_BYTES: usize = 256;

/// A regular expression that was found to be one.
pub(super) struct Pattern(Regex);

impl Pattern {
    pub(super) fn compile(regex: &str) -> Result<Pattern, Refusal> {
        let invalid = |why: String| {
            let shown = &regex[..regex.floor_char_boundary(MAX_SHOWN_BYTES)];
            let message = format!("SubscribedTopicRegex `{shown}` is not a valid regular expression: {why}.");
            Refusal::new(ErrorCode::InvalidRegularExpression, message)
        };
        if regex.len() > MAX_BYTES {
            return Err(invalid(format!("it has {} bytes, more than {MAX_BYTES}", regex.len())));
        }
        let plain = without_quotes(regex);
        if asks_for_unicode(&plain) {
            return Err(invalid("there is no flag u".to_owned()));
        }
        // By itself first: put between parentheses, `a)(b` would become one.
        build(&plain).map_err(invalid)?;
        build(&format!(r"\A(?:{plain})\z")).map(Pattern).map_err(invalid)
    }

    /// The names that match, of all topics.
    pub(super) fn resolve(&self, topics: &dyn Topics, now_ms: i64) -> RegexValue {
        let names: BTreeSet<String> = topics
            .all()
            .iter()
            .filter(|topic| self.0.is_match(topic.name.as_bytes()))
            .map(|topic| topic.name.as_ref().to_owned())
            .collect();
        RegexValue { topics: names, version: topics.version().cast_signed(), resolved_ms: now_ms }
    }
}

fn build(regex: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(regex);
    builder.unicode(false).size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES);
    builder.build().map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => "it is too large when compiled".to_owned(),
        other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    })
}

/// True if the crate's own flag `u` stands anywhere (or seems to, within a class).
fn asks_for_unicode(regex: &str) -> bool {
    regex.split("(?").skip(1).any(|rest| {
        let flags = rest.split(|c: char| !c.is_ascii_alphabetic() && c != '-').next().unwrap_or_default();
        flags.contains('u') && rest[flags.len()..].starts_with([':', ')'])
    })
}

/// RE2 takes what is between `\Q` and `\E` literally, this crate knows no such thing.
fn without_quotes(regex: &str) -> String {
    let (mut plain, mut rest) = (String::new(), regex);
    while let Some(escape) = rest.find('\\') {
        let after = escape + 1;
        let Some(escaped) = rest[after..].chars().next() else { break };
        if escaped == 'Q' {
            plain.push_str(&rest[..escape]);
            let quoted = &rest[after + 1..];
            let (literal, following) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            plain.push_str(&regex::escape(literal));
            rest = following;
        } else {
            let end = after + escaped.len_utf8();
            plain.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::consumer::fakes::FakeTopics;

    fn matches(regex: &str) -> Vec<String> {
        let topics = FakeTopics::of(&[("__consumer_offsets", 1), ("a.b", 1), ("aab", 1), ("ab", 1), ("other", 1)]);
        Pattern::compile(regex).unwrap().resolve(&topics, 7).topics.into_iter().collect()
    }

    #[test]
    fn whole_names_match() {
        assert_eq!(matches("a"), Vec::<String>::new());
        assert_eq!(matches("a+b"), ["aab", "ab"]);
        assert_eq!(matches("ab|other"), ["ab", "other"]);
        assert_eq!(matches("^a.b$"), ["a.b", "aab"]);
        assert_eq!(matches(".*").len(), 5);
        assert_eq!(matches(r"(?i)A[^B]B|(?:\w\w)"), ["a.b", "aab", "ab"]);
    }

    #[test]
    fn quoted_parts_are_literal() {
        assert_eq!(matches(r"\Qa.b\E"), ["a.b"]);
        assert_eq!(matches(r"\Qa.\Eb|o\w+"), ["a.b", "other"]);
        assert_eq!(matches(r"\Qa.b"), ["a.b"]);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for bad in
            ["[", "a)(b", "(?P<x", "*", r"a\", "(?x)a#", "(((a{1000}){1000}){1000})", r"\pL", "(?iu)a", "a(?u:b)"]
        {
            let refusal = Pattern::compile(bad).err().expect(bad);
            assert_eq!(refusal.error, ErrorCode::InvalidRegularExpression, "{bad}");
            assert!(refusal.message.contains(bad) && !refusal.message.contains('\n'), "{}", refusal.message);
        }
    }

    /// By Unicode's rules the second would take half a minute.
    #[test]
    fn large_classes_and_long_expressions_are_refused_or_cheap() {
        for bad in [r"\pL".repeat(8000), format!("(?i){}", r"[\x{0}-\x{10FFFF}]".repeat(1500)), "(".repeat(30_000)] {
            let refusal = Pattern::compile(&bad).err().expect("refused");
            assert!(refusal.message.len() < 1000, "{}", refusal.message.len());
        }
        let names: Vec<String> = (0..200).map(|n| format!("(?i)orders-{n}")).collect();
        assert!(Pattern::compile(&names.join("|")).is_ok());
    }
}
