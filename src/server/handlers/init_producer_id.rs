//! InitProducerId: an id for an idempotent producer, or the next epoch of a transactional one.

use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::cluster::controller::ControlError;
use crate::model::ErrorCode;
use crate::observe::client_line;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};
use crate::transactions::api::{InitializeRequest, Producer};

use super::shared::{fenced_before, transactional_id};

pub const API: ApiSpec = ApiSpec::new(ApiKey::InitProducerId, 0, 5);

/// PRODUCER_FENCED is known from here on.
const FENCED_FROM: i16 = 4;

/// Without a transactional id the answer is always a fresh id with epoch 0, also for a
/// producer that names the one it has (v3 and later), as Kafka does: only a transactional id
/// gives the broker a say in epochs.
pub async fn handle(
    session: &Session,
    Call { version, request }: Call<InitProducerIdRequest>,
) -> InitProducerIdResponse {
    let producer = match convert(request) {
        Ok(Some(request)) => session.shard().initialize_producer(request).await,
        Ok(None) => {
            let id = session.shard().new_producer_id().await.map_err(|error: ControlError| {
                client_line!(warn, asker = %session, "no producer id could be given: {error}");
                error.code
            });
            id.map(|id| Producer { id, epoch: 0 })
        }
        Err(code) => Err(code),
    };
    respond(version, producer)
}

/// The request to the coordinator of the transactional id; `None`: there is none.
fn convert(request: InitProducerIdRequest) -> Result<Option<InitializeRequest>, ErrorCode> {
    let named = Producer { id: request.producer_id.0, epoch: request.producer_epoch };
    // Kafka takes both or neither.
    if (named.id == -1) != (named.epoch == -1) {
        return Err(ErrorCode::InvalidRequest);
    }
    let Some(id) = request.transactional_id else { return Ok(None) };
    Ok(Some(InitializeRequest {
        id: transactional_id(&id)?,
        timeout_ms: request.transaction_timeout_ms,
        expected: (named.id != -1).then_some(named),
        fresh_id: None,
    }))
}

fn respond(version: i16, producer: Result<Producer, ErrorCode>) -> InitProducerIdResponse {
    let (code, producer) = match producer {
        Ok(producer) => (ErrorCode::None, producer),
        Err(code) => (fenced_before(FENCED_FROM, version, code), Producer::NONE),
    };
    InitProducerIdResponse::default()
        .with_error_code(code.code())
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::respond::encode;
    use kafka_protocol::messages::TransactionalId;
    use kafka_protocol::protocol::StrBytes;

    #[test]
    fn transactional_producers_go_to_their_coordinator() {
        let request = |id: Option<&'static str>| {
            let id = id.map(|id| TransactionalId(StrBytes::from_static_str(id)));
            InitProducerIdRequest::default().with_transactional_id(id).with_transaction_timeout_ms(5)
        };
        assert!(convert(request(None)).is_ok_and(|request| request.is_none()));
        assert_eq!(convert(request(Some(""))).err(), Some(ErrorCode::InvalidRequest));
        let asked = convert(request(Some("tx"))).unwrap().unwrap();
        assert_eq!((&*asked.id, asked.timeout_ms, asked.expected), ("tx", 5, None));
    }

    #[test]
    fn an_id_comes_with_its_epoch() {
        let expected = |id: i64, epoch: i16| {
            let tx = Some(TransactionalId(StrBytes::from_static_str("tx")));
            let request = InitProducerIdRequest::default().with_transactional_id(tx);
            let asked = convert(request.with_producer_id(ProducerId(id)).with_producer_epoch(epoch));
            asked.map(|request| request.unwrap().expected)
        };
        assert_eq!((expected(-1, -1), expected(5, 0)), (Ok(None), Ok(Some(Producer { id: 5, epoch: 0 }))));
        assert_eq!(
            (expected(5, -1), expected(-1, 0)),
            (Err(ErrorCode::InvalidRequest), Err(ErrorCode::InvalidRequest))
        );
    }

    #[test]
    fn every_version_can_say_both() {
        for version in API.min..=API.max {
            let good = respond(version, Ok(Producer { id: 4000, epoch: 0 }));
            assert_eq!((good.error_code, good.producer_id.0, good.producer_epoch), (0, 4000, 0));
            let bad = respond(version, Err(ErrorCode::ProducerFenced));
            let code = if version >= 4 { 90 } else { 47 };
            assert_eq!((bad.error_code, bad.producer_id.0, bad.producer_epoch), (code, -1, -1));
            assert!([good, bad].iter().all(|r| encode(ApiKey::InitProducerId, version, 1, r).is_ok()), "v{version}");
        }
    }
}
