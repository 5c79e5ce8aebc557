//! Parameters of a question, as they stand in its address.

use std::ops::RangeInclusive;
use std::str::FromStr;

use super::question::Problem;

/// Names and values, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Of all that follows the question mark of an address.
    pub fn parse(text: &str) -> Result<Query, Problem> {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(name)?, decoded(value)?))
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let read = pairs
            .map(|text| pair(text).ok_or_else(|| Problem::Wrong(format!("{text:?} is not percent-encoded UTF-8"))));
        read.collect::<Result<_, _>>().map(Query)
    }

    /// `None`: not given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that there must be.
    pub fn needed(&self, name: &str) -> Result<&str, Problem> {
        self.text(name).ok_or_else(|| Problem::Wrong(format!("the parameter {name} is missing")))
    }

    /// A number within `range`; `None`: not given.
    pub fn number<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, Problem>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || {
            let (low, high) = (range.start(), range.end());
            Problem::Wrong(format!("{name} is {text:?}; it must be a number from {low} to {high}"))
        };
        text.parse().ok().filter(|number| range.contains(number)).map(Some).ok_or_else(wrong)
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(rest.next())? << 4 | digit(rest.next())?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("a=1&b=%3Cb%3E%26+x%2B&empty=&alone&a=2").unwrap();
        assert_eq!((query.text("a"), query.text("b")), (Some("1"), Some("<b>& x+")));
        assert_eq!((query.text("empty"), query.text("alone"), query.text("c")), (Some(""), Some(""), None));
        assert_eq!(query.needed("b").unwrap(), "<b>& x+");
        assert!(matches!(query.needed("c"), Err(Problem::Wrong(_))));
        assert_eq!(Query::parse("").unwrap(), Query::default());
        for wrong in ["a=%", "a=%4", "a=%zz", "%ff=1", "a=%c3%28", "a=%+1"] {
            assert!(matches!(Query::parse(wrong), Err(Problem::Wrong(_))), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_within_their_bounds() {
        let query = Query::parse("a=5&b=-1&c=x&d=99999999999999999999").unwrap();
        assert_eq!((query.number("a", 0..=9).unwrap(), query.number("z", 0..=9).unwrap()), (Some(5), None));
        assert_eq!(query.number::<i64>("b", -1..=i64::MAX).unwrap(), Some(-1));
        for name in ["b", "c", "d"] {
            assert!(matches!(query.number::<i64>(name, 0..=100), Err(Problem::Wrong(_))), "{name}");
        }
    }
}
