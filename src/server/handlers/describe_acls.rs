//! DescribeAcls: there is no authorizer, and that is what is answered, as Kafka does without one:
//! tools then go on without.

use kafka_protocol::messages::{ApiKey, DescribeAclsRequest, DescribeAclsResponse};

use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{NO_AUTHORIZER, text};

pub const API: ApiSpec = ApiSpec::new(ApiKey::DescribeAcls, 1, 3);

pub async fn handle(_: &Session, _: Call<DescribeAclsRequest>) -> DescribeAclsResponse {
    DescribeAclsResponse::default()
        .with_error_code(ErrorCode::SecurityDisabled.code())
        .with_error_message(Some(text(NO_AUTHORIZER)))
}
