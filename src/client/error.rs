//! Errors between a client and its broker.

use std::fmt;
use std::io;

use kafka_protocol::error::ResponseError;

use crate::protocol::Malformed;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the broker ended the connection")]
    Ended,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the broker announces a response of {0} bytes, more than is taken here")]
    ResponseTooLarge(i64),
    #[error("the broker answered request {found} where {wanted:?} was the next")]
    OutOfStep { found: i32, wanted: Option<i32> },
    #[error("the broker did not answer {what} within {seconds} s")]
    NoAnswer { what: String, seconds: u64 },
    #[error("the broker serves {api} {served}; this client speaks {spoken}")]
    Version { api: String, served: String, spoken: String },
    #[error("{what}: {}", error_name(*code))]
    Broker { what: String, code: i16 },
    #[error("{0}")]
    Other(String),
}

/// Kafka's name of an error code with its number.
pub fn error_name(code: i16) -> String {
    match ResponseError::try_from_code(code) {
        Some(ResponseError::Unknown(_)) | None => format!("error code {code}"),
        Some(error) => format!("{error:?} ({code})"),
    }
}

/// Kafka's constant for an error code: `NOT_CONTROLLER`.
pub fn error_constant(code: i16) -> String {
    let Some(error) = ResponseError::try_from_code(code) else { return "NONE".into() };
    if let ResponseError::Unknown(code) = error {
        return format!("ERROR_CODE_{code}");
    }
    let mut constant = String::new();
    for letter in format!("{error:?}").chars() {
        if letter.is_ascii_uppercase() && !constant.is_empty() {
            constant.push('_');
        }
        constant.push(letter.to_ascii_uppercase());
    }
    constant
}

/// One item of a request that the broker refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: i16,
    /// The broker's own words.
    pub message: Option<String>,
}

impl Refusal {
    /// `None`: it was not refused.
    pub fn of(code: i16, message: Option<&str>) -> Option<Refusal> {
        let message = message.filter(|text| !text.is_empty()).map(str::to_owned);
        (code != 0).then_some(Refusal { code, message })
    }

    pub fn check(code: i16, message: Option<&str>) -> Result<(), Refusal> {
        Refusal::of(code, message).map_or(Ok(()), Err)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let constant = error_constant(self.code);
        match (&self.message, ResponseError::try_from_code(self.code)) {
            (Some(message), _) => write!(f, "{message} ({constant})"),
            (None, Some(error)) if !matches!(error, ResponseError::Unknown(_)) => {
                write!(f, "{error} ({constant})")
            }
            (None, _) => f.write_str(&constant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_kafkas() {
        let constants = [0, 3, 16, 41, 68, -1, 17].map(error_constant);
        let expected = ["NONE", "UNKNOWN_TOPIC_OR_PARTITION", "NOT_COORDINATOR", "NOT_CONTROLLER", "NON_EMPTY_GROUP"];
        assert_eq!(constants[..5], expected);
        assert_eq!(constants[5..], ["UNKNOWN_SERVER_ERROR", "INVALID_TOPIC_EXCEPTION"]);
        assert_eq!(error_constant(9_999), "ERROR_CODE_9999");
    }

    #[test]
    fn a_refusal_has_the_brokers_words_or_kafkas() {
        assert_eq!(Refusal::of(0, Some("fine")), None);
        let said = Refusal::of(36, Some("Topic 'a' already exists.")).unwrap();
        assert_eq!(said.to_string(), "Topic 'a' already exists. (TOPIC_ALREADY_EXISTS)");
        let silent = Refusal::of(68, Some("")).unwrap().to_string();
        assert!(silent.ends_with("(NON_EMPTY_GROUP)") && silent.len() > 20, "{silent}");
    }
}
