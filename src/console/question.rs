//! The console's questions to the cluster, and the bounds of each answer.

use serde_json::Value;

use super::cache::Cache;
use super::change::{self, Change};
use super::messages::{Browse, Position};
use super::query::Query;
use super::{brokers, groups, messages, topics};
use crate::client::{ClientError, ClusterClient};

/// Topics or groups on a page.
pub(super) const PAGE: usize = 50;
/// Partitions of a topic or group on a page.
pub(super) const PARTITIONS: usize = 100;
/// Messages of an answer.
const MOST_MESSAGES: usize = 200;
/// Bytes that are shown of each key and value, where the question says nothing of it.
const SHOWN_BYTES: usize = 2 << 10;
/// The most that it may ask for.
pub(super) const MOST_SHOWN_BYTES: usize = 1 << 20;
/// Kafka's longest name of a topic is shorter, and so is any group id that its tools take.
const NAME_BYTES: usize = 1 << 10;
const MOST_PAGES: usize = 1_000_000;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The question itself.
    Wrong(String),
    /// There is no such topic, partition or group.
    NotFound(String),
    /// A broker did not answer, or refused.
    Failed(String),
    /// Too many ask, or nothing can be asked now.
    Busy(String),
    /// A change that the brokers' rules do not allow.
    Refused(String),
}

impl Problem {
    pub fn why(&self) -> &str {
        match self {
            Problem::Wrong(why)
            | Problem::NotFound(why)
            | Problem::Failed(why)
            | Problem::Busy(why)
            | Problem::Refused(why) => why,
        }
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Problem {
        Problem::Failed(error.to_string())
    }
}

/// A part of a list that is too long for one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Text that names must contain, in any case.
    pub(super) search: String,
    /// From 0.
    pub(super) page: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    Cluster,
    Topics(Part),
    Topic { name: String, page: usize },
    Groups(Part),
    Group { name: String, page: usize },
    LogDirs,
    Messages(Browse),
    Change(Change),
}

impl Question {
    pub fn cluster(_: &Query) -> Result<Question, Problem> {
        Ok(Question::Cluster)
    }

    pub fn log_dirs(_: &Query) -> Result<Question, Problem> {
        Ok(Question::LogDirs)
    }

    /// `search`, `page`
    pub fn topics(query: &Query) -> Result<Question, Problem> {
        part(query).map(Question::Topics)
    }

    /// `search`, `page`
    pub fn groups(query: &Query) -> Result<Question, Problem> {
        part(query).map(Question::Groups)
    }

    /// `name`, `page`
    pub fn topic(query: &Query) -> Result<Question, Problem> {
        Ok(Question::Topic { name: name(query, "name")?, page: page(query)? })
    }

    /// `name`, `page`
    pub fn group(query: &Query) -> Result<Question, Problem> {
        Ok(Question::Group { name: name(query, "name")?, page: page(query)? })
    }

    /// `topic`, `partition`, one of `offset` and `time_ms` (neither: the newest), `limit`, `bytes`
    pub fn messages(query: &Query) -> Result<Question, Problem> {
        let offset = query.number("offset", 0..=i64::MAX)?;
        let time_ms = query.number("time_ms", 0..=i64::MAX)?;
        let position = match (offset, time_ms) {
            (Some(_), Some(_)) => return Err(Problem::Wrong("offset and time_ms exclude each other".into())),
            (Some(offset), None) => Position::Offset(offset),
            (None, Some(ms)) => Position::Time(ms),
            (None, None) => Position::Newest,
        };
        Ok(Question::Messages(Browse {
            topic: name(query, "topic")?,
            partition: query.number("partition", 0..=i32::MAX)?.unwrap_or(0),
            position,
            limit: query.number("limit", 1..=MOST_MESSAGES)?.unwrap_or(PAGE),
            shown_bytes: query.number("bytes", 0..=MOST_SHOWN_BYTES)?.unwrap_or(SHOWN_BYTES),
        }))
    }

    pub(super) async fn answer(self, client: &mut ClusterClient, cache: &Cache) -> Result<Value, Problem> {
        match self {
            Question::Cluster => brokers::cluster(client, cache).await,
            Question::LogDirs => brokers::log_dirs(client).await,
            Question::Topics(part) => topics::list(client, cache, &part).await,
            Question::Topic { name, page } => topics::show(client, cache, &name, page).await,
            Question::Groups(part) => groups::list(client, &part).await,
            Question::Group { name, page } => groups::show(client, &name, page).await,
            Question::Messages(browse) => messages::read(client, &browse).await,
            Question::Change(change) => {
                let outcome = change::carry_out(client, &change).await;
                // Facts in the cache may be so no more.
                cache.clear();
                outcome
            }
        }
    }
}

fn part(query: &Query) -> Result<Part, Problem> {
    Ok(Part { search: query.text("search").unwrap_or_default().to_lowercase(), page: page(query)? })
}

fn page(query: &Query) -> Result<usize, Problem> {
    Ok(query.number("page", 0..=MOST_PAGES)?.unwrap_or(0))
}

fn name(query: &Query, parameter: &str) -> Result<String, Problem> {
    let name = query.needed(parameter)?;
    match name.len() > NAME_BYTES {
        true => Err(Problem::Wrong(format!("{parameter} is longer than {NAME_BYTES} bytes"))),
        false => Ok(name.to_owned()),
    }
}

impl Part {
    pub(super) fn matches(&self, name: &str) -> bool {
        self.search.is_empty() || name.to_lowercase().contains(&self.search)
    }
}

/// Elements of a page.
pub(super) fn of_page<T>(all: impl Iterator<Item = T>, page: usize, size: usize) -> Vec<T> {
    all.skip(page.saturating_mul(size)).take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(query: &str) -> Result<Browse, Problem> {
        match Question::messages(&Query::parse(query)?)? {
            Question::Messages(browse) => Ok(browse),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn questions_have_defaults_and_bounds() {
        let browse = messages("topic=t").unwrap();
        assert_eq!((browse.partition, browse.position, browse.limit), (0, Position::Newest, PAGE));
        let browse = messages("topic=t&partition=3&offset=7&limit=200&bytes=1048576").unwrap();
        assert_eq!((browse.partition, browse.position, browse.limit), (3, Position::Offset(7), 200));
        assert_eq!(messages("topic=t&time_ms=5").unwrap().position, Position::Time(5));
        let long = format!("topic={}", "x".repeat(NAME_BYTES + 1));
        for wrong in
            ["", "topic=t&offset=1&time_ms=1", "topic=t&limit=201", "topic=t&limit=0", "topic=t&offset=-1", &long]
        {
            assert!(matches!(messages(wrong), Err(Problem::Wrong(_))), "{wrong}");
        }
        let topics = Question::topics(&Query::parse("search=Ab&page=2").unwrap()).unwrap();
        assert_eq!(topics, Question::Topics(Part { search: "ab".into(), page: 2 }));
        assert!(Question::topic(&Query::default()).is_err());
    }

    #[test]
    fn a_page_is_a_part_of_the_whole() {
        assert_eq!(of_page(0..10, 1, 4), [4, 5, 6, 7]);
        assert_eq!(of_page(0..10, 2, 4), [8, 9]);
        assert!(of_page(0..10, usize::MAX, 4).is_empty());
        let part = Part { search: "ab".into(), page: 0 };
        assert!(part.matches("xABy") && !part.matches("ba"));
    }
}
