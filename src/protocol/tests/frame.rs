use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, MetadataResponse, RequestHeader as CrateHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::Random;
use crate::protocol::{ApiSpec, Prefix, RequestHeader, api_table, parse_header, parse_prefix, respond};

#[test]
fn headers_of_both_kinds_are_read_as_the_crate_writes_them() {
    let mut random = Random(7);
    for round in 0..200 {
        let flexible = round % 2 == 0;
        let client_id = (!random.chance(4)).then(|| random.text());
        let header = CrateHeader::default()
            .with_request_api_key(random.next() as i16)
            .with_request_api_version(random.next() as i16)
            .with_correlation_id(random.next() as i32)
            .with_client_id(client_id.clone().map(StrBytes::from_string))
            .with_unknown_tagged_fields(random.tags(flexible));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, if flexible { 2 } else { 1 }).unwrap();
        let end = frame.len();
        frame.extend_from_slice(b"body");

        let expected = RequestHeader {
            api_key: header.request_api_key,
            version: header.request_api_version,
            correlation_id: header.correlation_id,
            client_id: client_id.as_deref().map(str::as_bytes),
        };
        let RequestHeader { api_key, version, correlation_id, .. } = expected;
        assert_eq!(parse_prefix(&frame).unwrap(), Prefix { api_key, version, correlation_id });
        assert_eq!(parse_header(&frame, flexible).unwrap(), (expected, end));
        for cut in 0..end {
            assert!(parse_header(&frame[..cut], flexible).is_err(), "cut at {cut} of {end}");
            assert_eq!(parse_prefix(&frame[..cut]).is_ok(), cut >= 8);
        }
        for _ in 0..50 {
            let damaged = random.damage(&frame);
            if let Ok((_, start)) = parse_header(&damaged, flexible) {
                assert!(start <= damaged.len());
            }
        }
    }
}

#[test]
fn a_client_id_that_is_not_utf8_is_no_reason_to_refuse() {
    let frame = [0, 3, 0, 1, 0, 0, 0, 9, 0, 2, 0xff, b'a'];
    let (header, start) = parse_header(&frame, false).unwrap();
    assert_eq!((header.client_id, start), (Some(&[0xff, b'a'][..]), 12));
}

#[test]
fn flexible_versions_are_those_of_the_crate() {
    let mut known = 0;
    for key in (0..=200).filter_map(|key| ApiKey::try_from(key).ok()) {
        known += 1;
        for version in key.valid_versions().min..=key.valid_versions().max {
            let flexible = ApiSpec::new(key, 0, 0).is_flexible(version);
            assert_eq!(flexible, key.request_header_version(version) == 2, "{key:?} v{version}");
        }
    }
    assert!(known > 70, "only {known} APIs were compared");
}

#[test]
fn a_spec_supports_its_versions_and_produce_names_older_ones() {
    let produce = ApiSpec::new(ApiKey::Produce, 3, 13);
    assert_eq!((produce.advertised_min, produce.min), (0, 3));
    assert!(!produce.supports(2) && produce.supports(3) && produce.supports(13) && !produce.supports(14));
    assert_eq!(ApiSpec::new(ApiKey::Fetch, 4, 18).advertised_min, 4);
    assert_eq!(api_table::flexible_from(ApiKey::SaslHandshake), i16::MAX);
}

#[test]
fn responses_carry_their_length_and_the_header_of_their_version() {
    for version in 0..=13 {
        let body = MetadataResponse::default().with_controller_id(5.into());
        let body = if version < 1 { MetadataResponse::default() } else { body };
        let frame = respond::encode(ApiKey::Metadata, version, 77, &body).unwrap();
        let mut rest = frame.slice(4..);
        assert_eq!(frame[..4], (rest.len() as i32).to_be_bytes());
        let header = ResponseHeader::decode(&mut rest, if version >= 9 { 1 } else { 0 }).unwrap();
        assert_eq!(header.correlation_id, 77);
        assert_eq!(MetadataResponse::decode(&mut rest, version).unwrap(), body);
        assert_eq!(rest, Bytes::new());
    }
    // Header v0 whatever the version: a tagged-field byte would shift the error code.
    let frame =
        respond::encode(ApiKey::ApiVersions, 4, 1, &ApiVersionsResponse::default().with_error_code(35)).unwrap();
    assert_eq!(frame[8..10], 35i16.to_be_bytes());
}

#[test]
fn a_response_that_its_version_cannot_hold_is_an_error() {
    let body = MetadataResponse::default().with_cluster_id(Some(StrBytes::from_string("x".repeat(40_000))));
    let error = respond::encode(ApiKey::Metadata, 8, 1, &body).unwrap_err();
    assert!(error.to_string().contains("Metadata v8"), "{error}");
}
