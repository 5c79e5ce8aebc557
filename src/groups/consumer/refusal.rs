//! Why a request is not done.

use crate::model::ErrorCode;

/// An error and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::groups) struct Refusal {
    pub error: ErrorCode,
    pub message: String,
}

impl Refusal {
    pub(super) fn new(error: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { error, message: message.into() }
    }
}
