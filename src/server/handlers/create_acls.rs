//! CreateAcls: there is no authorizer, so none can be made (see DescribeAcls).

use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::{ApiKey, CreateAclsRequest, CreateAclsResponse};

use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{NO_AUTHORIZER, text};

pub const API: ApiSpec = ApiSpec::new(ApiKey::CreateAcls, 1, 3);

pub async fn handle(_: &Session, Call { request, .. }: Call<CreateAclsRequest>) -> CreateAclsResponse {
    let refused = AclCreationResult::default()
        .with_error_code(ErrorCode::SecurityDisabled.code())
        .with_error_message(Some(text(NO_AUTHORIZER)));
    CreateAclsResponse::default().with_results(vec![refused; request.creations.len()])
}
