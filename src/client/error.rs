//! What can go wrong between a client and its broker.

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
    #[error("the broker announces a response of {0} bytes, which no response has")]
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
