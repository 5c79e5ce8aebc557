//! DescribeUserScramCredentials: there are none, so everybody that is asked about is unknown.

use std::collections::HashSet;

use kafka_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use kafka_protocol::messages::{ApiKey, DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{repeated, text};

pub const API: ApiSpec = ApiSpec::new(ApiKey::DescribeUserScramCredentials, 0, 0);

pub async fn handle(
    _: &Session,
    Call { request, .. }: Call<DescribeUserScramCredentialsRequest>,
) -> DescribeUserScramCredentialsResponse {
    let users: Vec<StrBytes> = request.users.unwrap_or_default().into_iter().map(|user| user.name).collect();
    let twice = repeated(users.iter().cloned());
    let mut answered = HashSet::new();
    let mut results = Vec::new();
    for user in users {
        if !answered.insert(user.clone()) {
            continue;
        }
        let (code, message) = if twice.contains(&user) {
            (ErrorCode::DuplicateResource, "the user is named twice")
        } else {
            (ErrorCode::ResourceNotFound, "the user has no SCRAM credentials")
        };
        let result = DescribeUserScramCredentialsResult::default().with_user(user).with_error_code(code.code());
        results.push(result.with_error_message(Some(text(message))));
    }
    DescribeUserScramCredentialsResponse::default().with_error_message(None).with_results(results)
}
