//! DescribeTransactions: how far the transactions of some transactional ids have come (KIP-664).

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    ApiKey, DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TransactionalId,
};

use super::shared::{text, topic_name, transactional_id};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};
use crate::transactions::api::Description;

pub const API: ApiSpec = ApiSpec::new(ApiKey::DescribeTransactions, 0, 0);

pub async fn handle(
    session: &Session,
    Call { request, .. }: Call<DescribeTransactionsRequest>,
) -> DescribeTransactionsResponse {
    // An id of a byte or two must not buy an answer of a hundred again and again.
    let mut answered = HashSet::new();
    let mut states = Vec::new();
    for id in request.transactional_ids.into_iter().filter(|id| answered.insert(id.clone())) {
        let described = match transactional_id(&id) {
            Ok(id) => session.shard().describe_transaction(id).await,
            Err(code) => Err(code),
        };
        states.push(state(id, described));
    }
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

fn state(id: TransactionalId, described: Result<Description, ErrorCode>) -> TransactionState {
    let state = TransactionState::default().with_transactional_id(id);
    match described {
        Ok(description) => state
            .with_transaction_state(text(description.state.name()))
            .with_transaction_timeout_ms(description.timeout_ms)
            .with_transaction_start_time_ms(description.started_ms)
            .with_producer_id(ProducerId(description.producer.id))
            .with_producer_epoch(description.producer.epoch)
            .with_topics(topics(description)),
        Err(code) => state.with_error_code(code.code()),
    }
}

/// Partitions are in the order of their topics.
fn topics(description: Description) -> Vec<TopicData> {
    let mut topics: Vec<(Arc<str>, Vec<i32>)> = Vec::new();
    for (topic, index) in description.partitions {
        match topics.last_mut() {
            Some((last, indexes)) if *last == topic => indexes.push(index),
            _ => topics.push((topic, vec![index])),
        }
    }
    let data = |(topic, indexes): (Arc<str>, Vec<i32>)| {
        TopicData::default().with_topic(topic_name(&topic)).with_partitions(indexes)
    };
    topics.into_iter().map(data).collect()
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::through_the_wire;
    use super::*;
    use crate::transactions::State;
    use crate::transactions::api::Producer;

    #[test]
    fn a_transaction_or_why_not() {
        let partition = |topic: &str, index| (topic.into(), index);
        let description = Description {
            id: "t".into(),
            producer: Producer { id: 7, epoch: 2 },
            state: State::PrepareCommit,
            timeout_ms: 5000,
            started_ms: 9,
            partitions: [partition("b", 0), partition("a", 3), partition("a", 1)].into(),
        };
        let id = TransactionalId(text("t"));
        let states = vec![state(id.clone(), Ok(description)), state(id, Err(ErrorCode::TransactionalIdNotFound))];
        let seen =
            through_the_wire(API.key, 0, &DescribeTransactionsResponse::default().with_transaction_states(states));
        let good = &seen.transaction_states[0];
        assert_eq!((good.error_code, &*good.transaction_state, good.producer_id.0), (0, "PrepareCommit", 7));
        let topics: Vec<_> = good.topics.iter().map(|topic| (&*topic.topic.0, topic.partitions.clone())).collect();
        assert_eq!(topics, [("a", vec![1, 3]), ("b", vec![0])]);
        assert_eq!(seen.transaction_states[1].error_code, 105);
    }
}
