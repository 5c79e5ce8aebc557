//! ApiVersions: what this broker serves (KIP-35, KIP-511).

use bytes::Bytes;
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::model::ErrorCode;
use crate::protocol::{ApiSpec, Malformed, respond};
use crate::server::dispatch::APIS;
use crate::server::session::{Call, Session};

pub const API: ApiSpec = ApiSpec::new(ApiKey::ApiVersions, 0, 4);

/// The response has features from here on (KIP-584).
const FEATURES_FROM: i16 = 3;

/// Features by Kafka's names, and the versions that are supported: consumer groups (KIP-848) and
/// epochs that rise with each end of a transaction (KIP-890) are always on.
pub const FEATURES: [(&str, i16, i16); 2] = [("group.version", 1, 1), ("transaction.version", 2, 2)];

/// A client says what it is from here on (KIP-511).
const SOFTWARE_FROM: i16 = 3;

/// The client says what it is by such a request.
pub fn tells_software(key: ApiKey, version: i16) -> bool {
    key == API.key && version >= SOFTWARE_FROM
}

pub async fn handle(session: &Session, Call { version, request }: Call<ApiVersionsRequest>) -> ApiVersionsResponse {
    let response = respond(version, &request);
    if version >= SOFTWARE_FROM && response.error_code == ErrorCode::None.code() {
        let (name, software_version) = (&request.client_software_name, &request.client_software_version);
        let software = session.context.link.metrics.clients.count(name, software_version);
        // The one that it counted as before goes.
        let before = session.client.software.borrow_mut().replace(software);
        drop(before);
    }
    // Also one whose words for itself were refused.
    session.client.introduce();
    response
}

fn respond(version: i16, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    let named = is_sound(&request.client_software_name) && is_sound(&request.client_software_version);
    if version >= SOFTWARE_FROM && !named {
        return ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
    }
    let response = ApiVersionsResponse::default().with_api_keys(ranges());
    if version < FEATURES_FROM {
        return response;
    }
    let name = StrBytes::from_static_str;
    let supported = FEATURES.map(|(feature, min, max)| {
        SupportedFeatureKey::default().with_name(name(feature)).with_min_version(min).with_max_version(max)
    });
    // Supported features are in force: nothing is to be switched on.
    let finalized = FEATURES.map(|(feature, _, max)| {
        FinalizedFeatureKey::default().with_name(name(feature)).with_min_version_level(max).with_max_version_level(max)
    });
    response
        .with_supported_features(supported.to_vec())
        .with_finalized_features(finalized.to_vec())
        .with_finalized_features_epoch(0)
}

/// The answer to a version that is not known here, in the one shape that every client can read: v0,
/// with the ranges, so that the client can ask again (KIP-511). A version below 0 is no client's,
/// and is told what Kafka tells of any: this API's range.
pub fn refuse_version(version: i16, correlation_id: i32) -> Result<Bytes, Malformed> {
    let mut ranges = ranges();
    if version < 0 {
        ranges.retain(|range| range.api_key == API.key as i16);
    }
    let body =
        ApiVersionsResponse::default().with_error_code(ErrorCode::UnsupportedVersion.code()).with_api_keys(ranges);
    respond::encode(API.key, 0, correlation_id, &body)
}

fn ranges() -> Vec<ApiVersion> {
    let range = |spec: &ApiSpec| {
        ApiVersion::default()
            .with_api_key(spec.key as i16)
            .with_min_version(spec.advertised_min)
            .with_max_version(spec.max)
    };
    let mut ranges: Vec<ApiVersion> = APIS.iter().map(range).collect();
    ranges.sort_by_key(|range| range.api_key);
    ranges
}

/// Kafka's rule for what a client says of itself: letters and digits at both
/// ends, `-` and `.` within.
fn is_sound(text: &str) -> bool {
    let ends = [text.chars().next(), text.chars().next_back()];
    ends.iter().all(|end| end.is_some_and(|c| c.is_ascii_alphanumeric()))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::through_the_wire;
    use super::*;
    use bytes::Buf;
    use kafka_protocol::protocol::Decodable;

    fn request(name: &'static str, version: &'static str) -> ApiVersionsRequest {
        ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str(name))
            .with_client_software_version(StrBytes::from_static_str(version))
    }

    #[test]
    fn every_version_names_produce_from_0_and_itself() {
        for version in API.min..=API.max {
            let response = respond(version, &request("librdkafka", "2.8.0"));
            assert_eq!(response.error_code, 0);
            let range =
                |key: i16| response.api_keys.iter().find(|r| r.api_key == key).map(|r| (r.min_version, r.max_version));
            assert_eq!(range(0), Some((0, 13)));
            assert_eq!(range(18), Some((0, 4)));
            let seen = through_the_wire(API.key, version, &response);
            let level = seen.finalized_features.iter().map(|f| (&*f.name, f.min_version_level, f.max_version_level));
            let all = vec![("group.version", 1, 1), ("transaction.version", 2, 2)];
            let expected = if version >= 3 { all } else { vec![] };
            assert_eq!(level.collect::<Vec<_>>(), expected, "v{version}");
            let range = seen.supported_features.iter().map(|f| (&*f.name, f.min_version, f.max_version));
            assert_eq!(range.collect::<Vec<_>>(), expected, "v{version}");
        }
    }

    #[test]
    fn a_client_must_name_itself_properly_from_v3_on() {
        for (name, client) in [("", "1"), ("a", ""), ("-a", "1"), ("a", "1."), ("a b", "1"), ("ä", "1")] {
            assert_eq!(respond(3, &request(name, client)).error_code, 42, "{name:?} {client:?}");
            assert_eq!(respond(2, &request(name, client)).error_code, 0);
        }
        assert_eq!(respond(4, &request("apache-kafka-java", "4.1.0")).error_code, 0);
    }

    #[test]
    fn a_version_too_new_is_answered_in_the_shape_of_v0() {
        for (version, keys) in [(5, APIS.len()), (-1, 1)] {
            let mut frame = refuse_version(version, 77).unwrap();
            assert_eq!(frame.get_i32() as usize, frame.len());
            assert_eq!(frame.get_i32(), 77);
            let response = ApiVersionsResponse::decode(&mut frame, 0).unwrap();
            assert_eq!((response.error_code, response.api_keys.len()), (35, keys));
            assert!(frame.is_empty());
        }
    }
}
