//! DeleteAcls: there is no authorizer, so there are none (see DescribeAcls).

use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{ApiKey, DeleteAclsRequest, DeleteAclsResponse};

use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{NO_AUTHORIZER, text};

pub const API: ApiSpec = ApiSpec::new(ApiKey::DeleteAcls, 1, 3);

pub async fn handle(_: &Session, Call { request, .. }: Call<DeleteAclsRequest>) -> DeleteAclsResponse {
    let refused = DeleteAclsFilterResult::default()
        .with_error_code(ErrorCode::SecurityDisabled.code())
        .with_error_message(Some(text(NO_AUTHORIZER)));
    DeleteAclsResponse::default().with_filter_results(vec![refused; request.filters.len()])
}
