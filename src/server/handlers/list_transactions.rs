//! ListTransactions: the transactional ids of this broker, or some of them
//! (KIP-664, KIP-994, KIP-1152).

use std::collections::HashSet;

use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{
    ApiKey, ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId,
};
use regex::{Regex, RegexBuilder};

use super::shared::text;
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::runtime::clock;
use crate::server::session::{Call, Session};
use crate::transactions::State;
use crate::transactions::api::Description;

pub const API: ApiSpec = ApiSpec::new(ApiKey::ListTransactions, 0, 2);

/// Most bytes of memory for a compiled expression.
const MAX_REGEX_BYTES: usize = 1 << 20;

pub async fn handle(
    session: &Session,
    Call { request, .. }: Call<ListTransactionsRequest>,
) -> ListTransactionsResponse {
    let wanted = match Wanted::of(&request) {
        Ok(wanted) => wanted,
        Err(code) => return ListTransactionsResponse::default().with_error_code(code.code()),
    };
    let (error, all) = session.shard().list_transactions().await;
    respond(&request, &wanted, error, all)
}

struct Wanted {
    states: HashSet<String>,
    producer_ids: HashSet<i64>,
    longer_than_ms: i64,
    pattern: Option<Regex>,
}

impl Wanted {
    fn of(request: &ListTransactionsRequest) -> Result<Wanted, ErrorCode> {
        let pattern = request.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty());
        let limited = |pattern: &str| RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).build();
        // The whole id, as Java's `matches`; by itself first, so that it cannot end the
        // group that it is put into.
        let compile = |pattern: &str| limited(pattern).and_then(|_| limited(&format!("^(?:{pattern})$")));
        Ok(Wanted {
            states: request.state_filters.iter().map(|state| state.to_string()).collect(),
            producer_ids: request.producer_id_filters.iter().map(|id| id.0).collect(),
            longer_than_ms: request.duration_filter,
            pattern: pattern.map(compile).transpose().map_err(|_| ErrorCode::InvalidRegularExpression)?,
        })
    }

    fn has(&self, transaction: &Description, now_ms: i64) -> bool {
        let took_ms = now_ms.saturating_sub(transaction.started_ms);
        (self.states.is_empty() || self.states.contains(transaction.state.name()))
            && (self.producer_ids.is_empty() || self.producer_ids.contains(&transaction.producer.id))
            && (self.longer_than_ms < 0 || took_ms > self.longer_than_ms)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(&transaction.id))
    }
}

fn respond(
    request: &ListTransactionsRequest,
    wanted: &Wanted,
    error: ErrorCode,
    all: Vec<Description>,
) -> ListTransactionsResponse {
    let unknown: HashSet<_> = request.state_filters.iter().filter(|name| !State::is_name(name)).cloned().collect();
    let now_ms = clock::wall_ms();
    let some = all.into_iter().filter(|transaction| error == ErrorCode::None && wanted.has(transaction, now_ms));
    let states = some.map(|transaction| {
        TransactionState::default()
            .with_transactional_id(TransactionalId(text(&transaction.id)))
            .with_producer_id(ProducerId(transaction.producer.id))
            .with_transaction_state(text(transaction.state.name()))
    });
    ListTransactionsResponse::default()
        .with_error_code(error.code())
        .with_unknown_state_filters(unknown.into_iter().collect())
        .with_transaction_states(states.collect())
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::through_the_wire;
    use super::*;
    use crate::transactions::api::Producer;

    fn listed(request: ListTransactionsRequest) -> (i16, String, usize) {
        let transaction = |id: &str, number, state, age_ms: i64| Description {
            id: id.into(),
            producer: Producer { id: number, epoch: 0 },
            state,
            timeout_ms: 1000,
            started_ms: clock::wall_ms() - age_ms,
            partitions: Default::default(),
        };
        let all = vec![
            transaction("a1", 1, State::Ongoing, 100_000),
            transaction("a2", 2, State::Empty, 0),
            transaction("b", 3, State::Ongoing, 0),
        ];
        let Ok(wanted) = Wanted::of(&request) else { return (128, String::new(), 0) };
        let seen = through_the_wire(API.key, API.max, &respond(&request, &wanted, ErrorCode::None, all));
        let ids: Vec<String> =
            seen.transaction_states.iter().map(|state| state.transactional_id.0.to_string()).collect();
        (seen.error_code, ids.join(","), seen.unknown_state_filters.len())
    }

    #[test]
    fn transactions_are_chosen_by_state_producer_age_and_name() {
        let all = || ListTransactionsRequest::default();
        assert_eq!(listed(all()), (0, "a1,a2,b".into(), 0));
        assert_eq!(listed(all().with_state_filters(vec![text("Ongoing"), text("Dead")])), (0, "a1,b".into(), 0));
        assert_eq!(listed(all().with_state_filters(vec![text("ongoing")])), (0, String::new(), 1));
        assert_eq!(listed(all().with_producer_id_filters(vec![ProducerId(2)])), (0, "a2".into(), 0));
        assert_eq!(listed(all().with_duration_filter(50_000)), (0, "a1".into(), 0));
        assert_eq!(listed(all().with_transactional_id_pattern(Some(text("a.")))), (0, "a1,a2".into(), 0));
        assert_eq!(listed(all().with_transactional_id_pattern(Some(text("a")))), (0, String::new(), 0));
        for odd in ["(", "a)|(.*", ")(?:"] {
            assert_eq!(listed(all().with_transactional_id_pattern(Some(text(odd)))).0, 128, "{odd}");
        }
    }
}
