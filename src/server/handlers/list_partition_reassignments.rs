//! ListPartitionReassignments: replicas do not move, so none is under way, of whatever topics.

use std::rc::Rc;

use kafka_protocol::messages::{ApiKey, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use crate::protocol::ApiSpec;
use crate::server::context::ServerContext;

pub const API: ApiSpec = ApiSpec::new(ApiKey::ListPartitionReassignments, 0, 0);

pub async fn handle(
    _: &Rc<ServerContext>,
    _: i16,
    _: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default().with_error_message(None)
}
