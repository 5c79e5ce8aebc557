//! SaslHandshake, DescribeAcls, CreateAcls, DeleteAcls, ListPartitionReassignments,
//! DescribeUserScramCredentials: what they are about is not there, and each says so as Kafka does.

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::{
    CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, DescribeUserScramCredentialsRequest,
    ListPartitionReassignmentsRequest, SaslHandshakeRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::support::world::World;

const ILLEGAL_SASL_STATE: i16 = 34;
const SECURITY_DISABLED: i16 = 54;
const RESOURCE_NOT_FOUND: i16 = 91;
const DUPLICATE_RESOURCE: i16 = 92;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

pub fn sasl_handshake(world: &mut World, version: i16) {
    let response = world.client.call(version, &SaslHandshakeRequest::default().with_mechanism(text("PLAIN")));
    assert_eq!((response.error_code, response.mechanisms.len()), (ILLEGAL_SASL_STATE, 0));
}

pub fn describe_acls(world: &mut World, version: i16) {
    // Known filters, and ones that there are not.
    for number in [1, 99] {
        let request = DescribeAclsRequest::default()
            .with_resource_type_filter(number)
            .with_pattern_type_filter(number)
            .with_operation(number)
            .with_permission_type(number);
        let response = world.client.call(version, &request);
        assert_eq!((response.throttle_time_ms, response.error_code), (0, SECURITY_DISABLED));
        assert!(response.error_message.is_some_and(|message| message.contains("No Authorizer")));
        assert!(response.resources.is_empty());
    }
}

pub fn create_acls(world: &mut World, version: i16) {
    for count in [0, 1, 3] {
        let one = AclCreation::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_principal(text("User:a"))
            .with_host(text("*"))
            .with_operation(3)
            .with_permission_type(3);
        let response = world.client.call(version, &CreateAclsRequest::default().with_creations(vec![one; count]));
        assert_eq!(response.results.len(), count);
        assert!(response.results.iter().all(|r| r.error_code == SECURITY_DISABLED && r.error_message.is_some()));
    }
}

pub fn delete_acls(world: &mut World, version: i16) {
    for count in [0, 1, 3] {
        let one = DeleteAclsFilter::default().with_resource_type_filter(1).with_operation(1).with_permission_type(1);
        let response = world.client.call(version, &DeleteAclsRequest::default().with_filters(vec![one; count]));
        assert_eq!(response.filter_results.len(), count);
        let refused = |code: i16, acls: usize| code == SECURITY_DISABLED && acls == 0;
        assert!(response.filter_results.iter().all(|r| refused(r.error_code, r.matching_acls.len())));
    }
}

pub fn list_partition_reassignments(world: &mut World, version: i16) {
    let named = ListPartitionReassignmentsTopics::default()
        .with_name(TopicName(text("no-such-topic")))
        .with_partition_indexes(vec![0, -1]);
    for topics in [None, Some(vec![]), Some(vec![named])] {
        let request = ListPartitionReassignmentsRequest::default().with_timeout_ms(1000).with_topics(topics);
        let response = world.client.call(version, &request);
        assert_eq!((response.error_code, response.error_message, response.topics.len()), (0, None, 0));
    }
}

pub fn describe_user_scram_credentials(world: &mut World, version: i16) {
    let users = |names: &[&'static str]| Some(names.iter().map(|n| UserName::default().with_name(text(n))).collect());
    for (users, expected) in [
        (None, vec![]),
        (users(&[]), vec![]),
        (
            users(&["a", "b", "a", ""]),
            vec![("a", DUPLICATE_RESOURCE), ("b", RESOURCE_NOT_FOUND), ("", RESOURCE_NOT_FOUND)],
        ),
    ] {
        let request = DescribeUserScramCredentialsRequest::default().with_users(users);
        let response = world.client.call(version, &request);
        let told: Vec<_> = response.results.iter().map(|r| (&*r.user, r.error_code)).collect();
        assert_eq!((response.error_code, told), (0, expected));
    }
}
