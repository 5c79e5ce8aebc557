//! DescribeTopicPartitions: partitions of topics, page by page (KIP-966).

use std::collections::BTreeSet;

use kafka_protocol::messages::describe_topic_partitions_request::Cursor as From;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{ApiKey, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};

use crate::cluster::{MetadataImage, TopicImage};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::metadata::{self, View};
use super::shared::{TOPIC_OPERATIONS, broker_id, is_internal, topic_name, unknown_name};

pub const API: ApiSpec = ApiSpec::new(ApiKey::DescribeTopicPartitions, 0, 0);

/// Most partitions of one answer, the default of Kafka's `max.request.partition.size.limit`.
const MAX_PARTITIONS: i32 = 2000;

pub async fn handle(
    session: &Session,
    Call { request, .. }: Call<DescribeTopicPartitionsRequest>,
) -> DescribeTopicPartitionsResponse {
    respond(&session.shard().image(), &session.client.listener, request)
}

fn respond(
    image: &MetadataImage,
    listener: &str,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let named: BTreeSet<&str> = request.topics.iter().map(|topic| &*topic.name.0).collect();
    let cursor = request.cursor.as_ref();
    if cursor.is_some_and(|cursor| !is_sound(cursor, &named)) {
        let refused = named.into_iter().map(|name| failed(name, ErrorCode::InvalidRequest));
        return DescribeTopicPartitionsResponse::default().with_topics(refused.collect());
    }
    let (first, start) = cursor.map_or(("", 0), |cursor| (&*cursor.topic_name.0, cursor.partition_index));
    let start_of = |name: &str| if name == first { usize::try_from(start).unwrap_or(0) } else { 0 };
    let limit = request.response_partition_limit.clamp(1, MAX_PARTITIONS) as usize;
    let mut page = Page { view: View::new(image, listener, metadata::API.max), left: limit, topics: Vec::new() };
    let next = if named.is_empty() {
        let mut topics = image.topics().filter(|topic| &*topic.name >= first);
        topics.find_map(|topic| page.take(topic, start_of(&topic.name)))
    } else {
        let mut names = named.into_iter().filter(|name| *name >= first);
        names.find_map(|name| match image.find_topic(name) {
            Ok(topic) => page.take(topic, start_of(name)),
            Err(_) if page.left == 0 => Some(Cursor::default().with_topic_name(topic_name(name))),
            Err(code) => {
                page.topics.push(unknown(name, code));
                None
            }
        })
    };
    DescribeTopicPartitionsResponse::default().with_topics(page.topics).with_next_cursor(next)
}

/// A cursor that an answer to the same question gave.
fn is_sound(cursor: &From, named: &BTreeSet<&str>) -> bool {
    cursor.partition_index >= 0 && (named.is_empty() || named.contains(&*cursor.topic_name.0))
}

/// An answer that fills up.
struct Page<'a> {
    view: View<'a>,
    /// Partitions that it has room for.
    left: usize,
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
}

impl Page<'_> {
    /// Takes the topic's partitions from `start` on; where there is no room for
    /// all, the place to go on at.
    fn take(&mut self, topic: &TopicImage, start: usize) -> Option<Cursor> {
        let go_on = |index: usize| {
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            Some(Cursor::default().with_topic_name(topic_name(&topic.name)).with_partition_index(index))
        };
        if self.left == 0 {
            return go_on(0);
        }
        let end = start.saturating_add(self.left).min(topic.partitions.len());
        let wanted = topic.partitions.iter().zip(0..).take(end).skip(start);
        let partitions: Vec<_> = wanted.map(|(partition, index)| self.partition(topic, index, partition)).collect();
        self.left -= partitions.len();
        let described = DescribeTopicPartitionsResponseTopic::default()
            .with_name(Some(topic_name(&topic.name)))
            .with_topic_id(topic.id)
            .with_is_internal(is_internal(&topic.name))
            .with_topic_authorized_operations(TOPIC_OPERATIONS)
            .with_partitions(partitions);
        self.topics.push(described);
        if end < topic.partitions.len() { go_on(end) } else { None }
    }

    fn partition(
        &self,
        topic: &TopicImage,
        index: i32,
        partition: &crate::cluster::PartitionImage,
    ) -> DescribeTopicPartitionsResponsePartition {
        let told = self.view.partition(topic, index, partition);
        let eligible = partition.elr.iter().map(|id| broker_id(*id)).collect();
        let last = partition.last_leader.iter().map(|id| broker_id(*id)).collect();
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(told.error_code)
            .with_partition_index(index)
            .with_leader_id(told.leader_id)
            .with_leader_epoch(told.leader_epoch)
            .with_replica_nodes(told.replica_nodes)
            .with_isr_nodes(told.isr_nodes)
            .with_eligible_leader_replicas(Some(eligible))
            .with_last_known_elr(Some(last))
            .with_offline_replicas(told.offline_replicas)
    }
}

fn unknown(name: &str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    let code = if code == ErrorCode::UnknownTopicOrPartition { unknown_name(name) } else { code };
    failed(name, code).with_is_internal(is_internal(name)).with_topic_authorized_operations(TOPIC_OPERATIONS)
}

fn failed(name: &str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default().with_name(Some(topic_name(name))).with_error_code(code.code())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;

    use super::super::shared::testing::{image, through_the_wire};
    use super::*;

    type Row = (String, i16, Vec<i32>);

    /// Name, error and partitions of each topic, and the place to go on at.
    fn ask(names: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> (Vec<Row>, Option<(String, i32)>) {
        let image = image(&[("a", 1, 2), ("b", 2, 3), ("__consumer_offsets", 3, 1)]);
        let topics = names.iter().map(|name| TopicRequest::default().with_name(topic_name(name))).collect();
        let cursor =
            cursor.map(|(name, index)| From::default().with_topic_name(topic_name(name)).with_partition_index(index));
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(topics)
            .with_response_partition_limit(limit)
            .with_cursor(cursor);
        let response = respond(&image, "PLAINTEXT", request);
        let response = through_the_wire(ApiKey::DescribeTopicPartitions, 0, &response);
        let rows = response.topics.iter().map(|topic| {
            let name = topic.name.as_ref().map(|name| name.0.to_string()).unwrap_or_default();
            (name, topic.error_code, topic.partitions.iter().map(|p| p.partition_index).collect())
        });
        let next = response.next_cursor.as_ref().map(|c| (c.topic_name.0.to_string(), c.partition_index));
        (rows.collect(), next)
    }

    fn row(name: &str, error: i16, partitions: std::ops::Range<i32>) -> Row {
        (name.to_owned(), error, partitions.collect())
    }

    #[test]
    fn pages_add_up_to_the_whole() {
        for names in [&[][..], &["b", "a", "__consumer_offsets", "b"]] {
            let (all, end) = ask(names, 2000, None);
            let expected = [row("__consumer_offsets", 0, 0..1), row("a", 0, 0..2), row("b", 0, 0..3)];
            assert_eq!((&all[..], end), (&expected[..], None));
            for limit in [-1, 0, 1, 2, 3, 4, 5, 6] {
                let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
                loop {
                    let from = cursor.as_ref().map(|(name, index): &(String, i32)| (name.as_str(), *index));
                    let (rows, next) = ask(names, limit, from);
                    let page: Vec<_> = rows
                        .into_iter()
                        .flat_map(|(name, _, p)| p.into_iter().map(move |p| (name.clone(), p)))
                        .collect();
                    assert!(page.len() <= limit.max(1) as usize, "{limit}: {page:?}");
                    seen.extend(page);
                    pages += 1;
                    cursor = next;
                    if cursor.is_none() || pages > 20 {
                        break;
                    }
                }
                let whole: Vec<_> = all.iter().flat_map(|(name, _, p)| p.iter().map(|p| (name.clone(), *p))).collect();
                assert_eq!(seen, whole, "in pages of {limit}");
            }
        }
    }

    #[test]
    fn unknown_topics_take_no_room_and_wait_for_their_page() {
        let at = |name: &str, index| Some((name.to_owned(), index));
        assert_eq!(
            ask(&["no", "a/b", "zz"], 1, None),
            (vec![row("a/b", 17, 0..0), row("no", 3, 0..0), row("zz", 3, 0..0)], None)
        );
        assert_eq!(
            ask(&["__consumer_offsets", "no"], 1, None),
            (vec![row("__consumer_offsets", 0, 0..1)], at("no", 0))
        );
        assert_eq!(ask(&["a", "no"], 1, Some(("no", 0))), (vec![row("no", 3, 0..0)], None));
    }

    #[test]
    fn cursors_that_nobody_gave_are_refused() {
        let refused = (vec![row("a", 42, 0..0), row("b", 42, 0..0)], None);
        assert_eq!(ask(&["a", "b"], 5, Some(("c", 0))), refused);
        assert_eq!(ask(&["a", "b"], 5, Some(("a", -1))), refused);
        assert_eq!(ask(&["a"], 5, Some(("a", 7))), (vec![row("a", 0, 0..0)], None), "behind the last partition");
    }
}
