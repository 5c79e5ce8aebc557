//! AddOffsetsToTxn: a group's partition of `__consumer_offsets` becomes part of
//! a transaction (KIP-98).

use std::collections::BTreeSet;

use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, ApiKey};

use super::shared::{fenced_before, transactional_id};
use crate::cluster::controller::OFFSETS_TOPIC;
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};
use crate::transactions::api::{AddPartitionsRequest, Producer};

pub const API: ApiSpec = ApiSpec::new(ApiKey::AddOffsetsToTxn, 0, 4);

/// PRODUCER_FENCED is known from here on.
const FENCED_FROM: i16 = 2;

pub async fn handle(
    session: &Session,
    Call { version, request }: Call<AddOffsetsToTxnRequest>,
) -> AddOffsetsToTxnResponse {
    let added = add(session, request).await.err().unwrap_or(ErrorCode::None);
    AddOffsetsToTxnResponse::default().with_error_code(fenced_before(FENCED_FROM, version, added).code())
}

async fn add(session: &Session, request: AddOffsetsToTxnRequest) -> Result<(), ErrorCode> {
    let id = transactional_id(&request.transactional_id)?;
    session.shard().offsets_topic().await?;
    let partition =
        session.shard().partition_of_group(&request.group_id.0).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let request = AddPartitionsRequest {
        id,
        producer: Producer { id: request.producer_id.0, epoch: request.producer_epoch },
        partitions: BTreeSet::from([(OFFSETS_TOPIC.into(), partition.index.0)]),
        verify_only: false,
        version: 0,
    };
    session.shard().add_partitions(request).await.map(|_| ())
}
