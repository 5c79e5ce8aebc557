//! InitProducerId: an id for an idempotent producer.

use std::rc::Rc;

use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::cluster::controller::ControlError;
use crate::model::ErrorCode;
use crate::observe::client_line;
use crate::protocol::ApiSpec;
use crate::server::context::ServerContext;
use crate::server::dispatch::Asker;

pub const API: ApiSpec = ApiSpec::new(ApiKey::InitProducerId, 0, 5);

/// Without a transactional id the answer is always a fresh id with epoch 0, also for a producer that names the one it has
/// (v3 and later), as Kafka does: only a transactional id gives the broker a say in epochs.
pub async fn handle(
    context: &Rc<ServerContext>,
    asker: &Asker,
    _: i16,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    if let Some(code) = refusal(&request) {
        if code == ErrorCode::UnsupportedVersion {
            let id = request.transactional_id.as_ref().map(|id| &*id.0);
            client_line!(warn, %asker, transactional_id = id, "refused a transactional producer: not supported yet");
        }
        return respond(Err(code));
    }
    let id = context.shard.new_producer_id().await;
    respond(id.map_err(|error: ControlError| {
        client_line!(warn, %asker, "no producer id could be given: {error}");
        error.code
    }))
}

fn refusal(request: &InitProducerIdRequest) -> Option<ErrorCode> {
    // Kafka takes both or neither.
    if (request.producer_id.0 == -1) != (request.producer_epoch == -1) {
        return Some(ErrorCode::InvalidRequest);
    }
    let id = request.transactional_id.as_ref()?;
    // Fatal to Java clients and librdkafka alike; COORDINATOR_NOT_AVAILABLE and the like would make them ask for ever.
    Some(if id.0.is_empty() { ErrorCode::InvalidRequest } else { ErrorCode::UnsupportedVersion })
}

fn respond(id: Result<i64, ErrorCode>) -> InitProducerIdResponse {
    match id {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(code) => InitProducerIdResponse::default()
            .with_error_code(code.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::respond::encode;
    use kafka_protocol::messages::TransactionalId;
    use kafka_protocol::protocol::StrBytes;

    #[test]
    fn transactional_producers_are_refused_for_good() {
        let request = |id: Option<&'static str>| {
            let id = id.map(|id| TransactionalId(StrBytes::from_static_str(id)));
            InitProducerIdRequest::default().with_transactional_id(id)
        };
        assert_eq!(refusal(&request(None)), None);
        assert_eq!(refusal(&request(Some(""))), Some(ErrorCode::InvalidRequest));
        assert_eq!(refusal(&request(Some("tx"))), Some(ErrorCode::UnsupportedVersion));
    }

    #[test]
    fn an_id_comes_with_its_epoch() {
        let request = |id: i64, epoch: i16| {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            refusal(&request.with_producer_id(ProducerId(id)).with_producer_epoch(epoch))
        };
        assert_eq!((request(-1, -1), request(5, 0)), (None, None));
        assert_eq!(
            (request(5, -1), request(-1, 0)),
            (Some(ErrorCode::InvalidRequest), Some(ErrorCode::InvalidRequest))
        );
    }

    #[test]
    fn every_version_can_say_both() {
        for version in API.min..=API.max {
            let good = respond(Ok(4000));
            assert_eq!((good.error_code, good.producer_id.0, good.producer_epoch), (0, 4000, 0));
            let bad = respond(Err(ErrorCode::KafkaStorageError));
            assert_eq!((bad.error_code, bad.producer_id.0, bad.producer_epoch), (56, -1, -1));
            assert!([good, bad].iter().all(|r| encode(ApiKey::InitProducerId, version, 1, r).is_ok()), "v{version}");
        }
    }
}
