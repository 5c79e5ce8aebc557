//! EndTxn: commits or aborts a transaction (KIP-98). The answer comes once the decision is
//! written; the markers follow.

use kafka_protocol::messages::{ApiKey, EndTxnRequest, EndTxnResponse, ProducerId};

use super::shared::{fenced_before, transactional_id};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};
use crate::transactions::api::{EndRequest, Producer};

pub const API: ApiSpec = ApiSpec::new(ApiKey::EndTxn, 0, 5);

/// From here on a client goes by `transaction.version` 2 (KIP-890): the answer names the producer
/// of the next transaction.
const EPOCH_RISES_FROM: i16 = 5;
/// PRODUCER_FENCED is known from here on.
const FENCED_FROM: i16 = 2;

pub async fn handle(session: &Session, Call { version, request }: Call<EndTxnRequest>) -> EndTxnResponse {
    let ended = match transactional_id(&request.transactional_id) {
        Ok(id) => {
            let producer = Producer { id: request.producer_id.0, epoch: request.producer_epoch };
            let version = if version >= EPOCH_RISES_FROM { 2 } else { 0 };
            let request = EndRequest { id, producer, commit: request.committed, version, fresh_id: None };
            session.shard().end_transaction(request).await
        }
        Err(code) => Err(code),
    };
    respond(version, ended)
}

fn respond(version: i16, ended: Result<Producer, ErrorCode>) -> EndTxnResponse {
    let (code, producer) = match ended {
        Ok(producer) if version >= EPOCH_RISES_FROM => (ErrorCode::None, producer),
        Ok(_) => (ErrorCode::None, Producer::NONE),
        Err(code) => (fenced_before(FENCED_FROM, version, code), Producer::NONE),
    };
    EndTxnResponse::default()
        .with_error_code(code.code())
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::through_the_wire;
    use super::*;

    #[test]
    fn the_next_producer_is_named_where_there_is_room_for_it() {
        for version in API.min..=API.max {
            let seen = through_the_wire(API.key, version, &respond(version, Ok(Producer { id: 7, epoch: 3 })));
            let next = if version >= 5 { (7, 3) } else { (-1, -1) };
            assert_eq!((seen.error_code, (seen.producer_id.0, seen.producer_epoch)), (0, next), "v{version}");
            let fenced = through_the_wire(API.key, version, &respond(version, Err(ErrorCode::ProducerFenced)));
            assert_eq!(fenced.error_code, if version >= 2 { 90 } else { 47 }, "v{version}");
        }
    }
}
