//! WriteTxnMarkers: transactions end in partitions that this broker leads (KIP-98). Sent by
//! transaction coordinators.

use std::collections::HashSet;

use kafka_protocol::messages::ApiKey;

use crate::cluster::MetadataImage;
use crate::model::ErrorCode;
use crate::protocol::markers::{MarkerResult, WritableMarker, decode, encode_response};
use crate::protocol::{ApiSpec, Malformed, Prefix};
use crate::server::dispatch::UnreadCall;
use crate::server::pipeline::{Answer, Reply};
use crate::server::session::Session;
use crate::shard::MarkerPart;

use super::shared::{find_partition, find_topic, merge_outcomes};

pub const API: ApiSpec = ApiSpec::new(ApiKey::WriteTxnMarkers, 1, 2).own_codec();

pub fn handle(session: Session, call: UnreadCall) -> Result<Answer, Malformed> {
    let UnreadCall { prefix: Prefix { version, correlation_id, .. }, body, permit, .. } = call;
    let (mut results, parts) = split_request(&session.shard().image(), decode(version, body)?);
    drop(permit);
    Ok(Answer::Later(Box::pin(async move {
        take_outcomes(&mut results, session.shard().write_markers(parts).await);
        let metrics = session.context.link.metrics.api(ApiKey::WriteTxnMarkers as i16);
        places(&mut results)
            .filter(|error| **error != ErrorCode::None)
            .for_each(|error| metrics.note_error(error.code()));
        Reply::Frame(encode_response(correlation_id, &results))
    })))
}

/// The markers that go to the shards, and the response with places for their outcomes: those
/// without an error, in the same order.
fn split_request(image: &MetadataImage, markers: Vec<WritableMarker>) -> (Vec<MarkerResult>, Vec<MarkerPart>) {
    let mut parts = Vec::new();
    let results = markers.into_iter().map(|WritableMarker { marker, topics }| {
        // One marker ends a transaction in a partition, however often it is named.
        let mut named = HashSet::new();
        let topics = topics.into_iter().map(|(key, indexes)| {
            let topic = find_topic(image, &key);
            let places =
                indexes.into_iter().filter_map(|index| match topic.and_then(|topic| find_partition(topic, index)) {
                    Ok(partition) if named.insert(partition) => {
                        parts.push(MarkerPart { partition, marker });
                        Some((index, ErrorCode::None))
                    }
                    Ok(_) => None,
                    Err(code) => Some((index, code)),
                });
            let places = places.collect();
            (key, places)
        });
        MarkerResult { producer_id: marker.producer_id, topics: topics.collect() }
    });
    (results.collect(), parts)
}

fn places(results: &mut [MarkerResult]) -> impl Iterator<Item = &mut ErrorCode> {
    let topics = results.iter_mut().flat_map(|result| &mut result.topics);
    topics.flat_map(|(_, places)| places).map(|(_, error)| error)
}

fn take_outcomes(results: &mut [MarkerResult], outcomes: Vec<ErrorCode>) {
    merge_outcomes(places(results), |place| place, outcomes, |place, outcome| *place = outcome);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::shared::testing::{id_of, image};
    use super::*;
    use crate::model::{Marker, MarkerKind, PartitionId};
    use crate::protocol::TopicKey;

    #[test]
    fn outcomes_find_their_places_among_refusals() {
        let image = image(&[("a", 1, 2)]);
        let name = |name: &'static str| TopicKey::Name(Bytes::from_static(name.as_bytes()));
        let marker = |producer_id| Marker {
            producer_id,
            producer_epoch: 0,
            kind: MarkerKind::Abort,
            coordinator_epoch: 1,
            transaction_version: 2,
        };
        let asked = vec![
            WritableMarker { marker: marker(5), topics: vec![(name("a"), vec![1, 7, 0, 1]), (name("no"), vec![0])] },
            WritableMarker { marker: marker(6), topics: vec![(name("a"), vec![1])] },
        ];
        let (mut results, parts) = split_request(&image, asked);
        let found: Vec<_> = parts.iter().map(|part| (part.marker.producer_id, part.partition)).collect();
        let partition = |index| PartitionId::new(id_of(1), index);
        assert_eq!(found, [(5, partition(1)), (5, partition(0)), (6, partition(1))]);
        take_outcomes(&mut results, vec![ErrorCode::None, ErrorCode::InvalidProducerEpoch]);
        let errors: Vec<i16> = places(&mut results).map(|error| error.code()).collect();
        assert_eq!(errors, [0, 3, 47, 3, -1], "and what has no outcome is an error");
    }
}
