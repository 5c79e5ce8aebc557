//! Option values as text: types, bounds, and the sentences said when a value does not fit.

use std::fmt;

/// An option's type, by Kafka's numbers in DescribeConfigs (`ConfigResponse.ConfigType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Boolean => "boolean",
            Kind::String => "string",
            Kind::Int => "int",
            Kind::Long => "long",
            Kind::Double => "double",
            Kind::List => "list",
        })
    }
}

/// Which values of a type are accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bounds {
    Any,
    /// Inclusive.
    AtLeast(i64),
    /// Inclusive at both ends.
    Between(i64, i64),
    /// At least `min`, or exactly `or` (such as -1: no limit).
    AtLeastOr {
        min: i64,
        or: i64,
    },
    /// At least this, or negative: no limit.
    AtLeastOrNegative(i64),
    /// One of these (a list: each of its elements), in this spelling.
    OneOf(&'static [&'static str]),
    NotEmpty,
    /// Inclusive at both ends, for doubles.
    Fraction(f64, f64),
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bounds::Any => Ok(()),
            Bounds::AtLeast(min) => write!(f, "at least {min}"),
            Bounds::Between(min, max) => write!(f, "{min} to {max}"),
            Bounds::AtLeastOr { min, or } => write!(f, "{or}, or at least {min}"),
            Bounds::AtLeastOrNegative(min) => write!(f, "negative, or at least {min}"),
            Bounds::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Bounds::NotEmpty => f.write_str("not empty"),
            Bounds::Fraction(min, max) => write!(f, "{min} to {max}"),
        }
    }
}

impl Bounds {
    /// As people are told, of an option of this type.
    pub(super) fn told(&self, kind: Kind) -> String {
        match self {
            Bounds::OneOf(words) if kind == Kind::List => format!("any of {}", words.join(", ")),
            bounds => bounds.to_string(),
        }
    }
}

/// A value of the right type, within its bounds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Boolean(bool),
    Integer(i64),
    Double(f64),
    Text(String),
    List(Vec<String>),
}

impl Value {
    /// 0 for what is not an integer; the table's types make that a mistake in the
    /// table, which its test finds.
    pub(super) fn integer(&self) -> i64 {
        if let Value::Integer(number) = self { *number } else { 0 }
    }

    pub(super) fn double(&self) -> f64 {
        if let Value::Double(number) = self { *number } else { 0.0 }
    }

    pub(super) fn boolean(&self) -> bool {
        matches!(self, Value::Boolean(true))
    }

    pub(super) fn text(&self) -> &str {
        if let Value::Text(text) = self { text } else { "" }
    }

    pub(super) fn list(&self) -> &[String] {
        if let Value::List(list) = self { list } else { &[] }
    }
}

/// `text` as a value of `kind` within `bounds`; the error is the end of a sentence
/// that begins with the value.
pub(super) fn parse(kind: Kind, bounds: Bounds, text: &str) -> Result<Value, String> {
    let text = text.trim();
    let value = match kind {
        Kind::Boolean if text.eq_ignore_ascii_case("true") => Value::Boolean(true),
        Kind::Boolean if text.eq_ignore_ascii_case("false") => Value::Boolean(false),
        Kind::Boolean => return Err("is not a boolean: it must be true or false".into()),
        Kind::Int => Value::Integer(text.parse::<i32>().map_err(|_| not_a_number(text, "a 32-bit", bounds))?.into()),
        Kind::Long => Value::Integer(text.parse().map_err(|_| not_a_number(text, "a 64-bit", bounds))?),
        Kind::Double => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Double(number),
            _ => return Err(must_be("is not a number", bounds)),
        },
        Kind::String => Value::Text(text.to_owned()),
        Kind::List => Value::List(split_list(text)),
    };
    check(&value, bounds).map(|()| value)
}

/// The comma-separated elements, trimmed; an empty text has none.
pub(super) fn split_list(text: &str) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    text.split(',').map(|part| part.trim().to_owned()).collect()
}

fn not_a_number(text: &str, width: &str, bounds: Bounds) -> String {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        must_be(&format!("does not fit into {width} integer"), bounds)
    } else {
        must_be(&format!("is not {width} integer"), bounds)
    }
}

fn must_be(what: &str, bounds: Bounds) -> String {
    if bounds == Bounds::Any { what.to_owned() } else { format!("{what}; it must be {bounds}") }
}

fn check(value: &Value, bounds: Bounds) -> Result<(), String> {
    let fits = match (bounds, value) {
        (Bounds::Any, _) => true,
        (Bounds::AtLeast(min), Value::Integer(n)) => *n >= min,
        (Bounds::Between(min, max), Value::Integer(n)) => (min..=max).contains(n),
        (Bounds::AtLeastOr { min, or }, Value::Integer(n)) => *n >= min || *n == or,
        (Bounds::AtLeastOrNegative(min), Value::Integer(n)) => *n >= min || *n < 0,
        (Bounds::Fraction(min, max), Value::Double(n)) => (min..=max).contains(n),
        (Bounds::OneOf(words), Value::Text(text)) => words.contains(&text.as_str()),
        (Bounds::OneOf(words), Value::List(list)) => list.iter().all(|item| words.contains(&item.as_str())),
        (Bounds::NotEmpty, Value::Text(text)) => !text.is_empty(),
        (Bounds::NotEmpty, Value::List(list)) => !list.is_empty() && list.iter().all(|item| !item.is_empty()),
        // A bound that does not go with the type is a mistake in the table; its test finds it.
        _ => false,
    };
    if fits { Ok(()) } else { Err(must_be("is out of bounds", bounds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_held_to_their_width_and_bounds() {
        assert_eq!(parse(Kind::Int, Bounds::AtLeast(1), " 7 "), Ok(Value::Integer(7)));
        assert_eq!(parse(Kind::Long, Bounds::Any, "9223372036854775807"), Ok(Value::Integer(i64::MAX)));
        let error = parse(Kind::Int, Bounds::AtLeast(1), "2147483648").unwrap_err();
        assert_eq!(error, "does not fit into a 32-bit integer; it must be at least 1");
        assert!(parse(Kind::Int, Bounds::Any, "").unwrap_err().starts_with("is not a 32-bit integer"));
        assert!(parse(Kind::Int, Bounds::Any, "1k").is_err());
        assert_eq!(parse(Kind::Int, Bounds::Between(1, 3), "4").unwrap_err(), "is out of bounds; it must be 1 to 3");
        let or = Bounds::AtLeastOr { min: 1, or: -1 };
        assert!(parse(Kind::Long, or, "-1").is_ok() && parse(Kind::Long, or, "1").is_ok());
        assert!(parse(Kind::Long, or, "0").is_err() && parse(Kind::Long, or, "-2").is_err());
        let negative = Bounds::AtLeastOrNegative(1);
        assert!(parse(Kind::Long, negative, "-2").is_ok() && parse(Kind::Long, negative, "1").is_ok());
        assert!(parse(Kind::Long, negative, "0").is_err());
    }

    #[test]
    fn words_lists_and_booleans() {
        assert_eq!(parse(Kind::Boolean, Bounds::Any, "TRUE"), Ok(Value::Boolean(true)));
        assert!(parse(Kind::Boolean, Bounds::Any, "yes").is_err());
        let words = Bounds::OneOf(&["compact", "delete"]);
        let both = vec!["delete".to_owned(), "compact".to_owned()];
        assert_eq!(parse(Kind::List, words, "delete, compact"), Ok(Value::List(both)));
        assert!(parse(Kind::List, words, "delete,shred").is_err());
        assert!(parse(Kind::List, Bounds::NotEmpty, "").is_err());
        assert!(parse(Kind::List, Bounds::NotEmpty, "a,,b").is_err());
        assert!(parse(Kind::Double, Bounds::Fraction(0.0, 1.0), "1.1").is_err());
        assert!(parse(Kind::Double, Bounds::Fraction(0.0, 1.0), "NaN").is_err());
    }
}
