//! SaslHandshake: every listener is PLAINTEXT, and a client that wants to authenticate is told so, as by Kafka.

use std::rc::Rc;

use kafka_protocol::messages::{ApiKey, SaslHandshakeRequest, SaslHandshakeResponse};

use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::context::ServerContext;

pub const API: ApiSpec = ApiSpec::new(ApiKey::SaslHandshake, 0, 1);

pub async fn handle(_: &Rc<ServerContext>, _: i16, _: SaslHandshakeRequest) -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_error_code(ErrorCode::IllegalSaslState.code())
}
