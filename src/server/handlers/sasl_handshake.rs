//! SaslHandshake: every listener is PLAINTEXT, and a client that wants to authenticate
//! is told so, as by Kafka.

use kafka_protocol::messages::{ApiKey, SaslHandshakeRequest, SaslHandshakeResponse};

use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

pub const API: ApiSpec = ApiSpec::new(ApiKey::SaslHandshake, 0, 1);

pub async fn handle(_: &Session, _: Call<SaslHandshakeRequest>) -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_error_code(ErrorCode::IllegalSaslState.code())
}
