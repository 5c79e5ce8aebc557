//! Subscriptions by regular expression. Kafka takes RE2's syntax and matches the whole name; internal topics match like others.

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

use super::refusal::Refusal;
use crate::groups::env::Topics;
use crate::groups::record::RegexValue;
use crate::model::ErrorCode;

/// What a compiled expression may take; the expression of a request is itself bounded by the request.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// A regular expression that was found to be one.
pub(super) struct Pattern(Regex);

impl Pattern {
    pub(super) fn compile(regex: &str) -> Result<Pattern, Refusal> {
        let invalid = |why: String| {
            let message = format!("SubscribedTopicRegex `{regex}` is not a valid regular expression: {why}.");
            Refusal::new(ErrorCode::InvalidRegularExpression, message)
        };
        let plain = without_quotes(regex);
        // By itself first: put between parentheses, `a)(b` would become one.
        build(&plain).map_err(invalid)?;
        build(&format!(r"\A(?:{plain})\z")).map(Pattern).map_err(invalid)
    }

    /// The names that match, of all topics.
    pub(super) fn resolve(&self, topics: &dyn Topics, now_ms: i64) -> RegexValue {
        let names: BTreeSet<String> = topics
            .all()
            .iter()
            .filter(|topic| self.0.is_match(&topic.name))
            .map(|topic| topic.name.as_ref().to_owned())
            .collect();
        RegexValue { topics: names, version: topics.version().cast_signed(), resolved_ms: now_ms }
    }
}

fn build(regex: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(regex).size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES).build();
    built.map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => "it is too large when compiled".to_owned(),
        other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
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
    }

    #[test]
    fn quoted_parts_are_literal() {
        assert_eq!(matches(r"\Qa.b\E"), ["a.b"]);
        assert_eq!(matches(r"\Qa.\Eb|o\w+"), ["a.b", "other"]);
        assert_eq!(matches(r"\Qa.b"), ["a.b"]);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for bad in ["[", "a)(b", "(?P<x", "*", r"a\", "(?x)a#", "(((a{1000}){1000}){1000})"] {
            let refusal = Pattern::compile(bad).err().expect(bad);
            assert_eq!(refusal.error, ErrorCode::InvalidRegularExpression, "{bad}");
            assert!(refusal.message.contains(bad) && !refusal.message.contains('\n'), "{}", refusal.message);
        }
    }
}
