//! Changes that a person makes in the console (`corelane.console.admin`). Each is a
//! request of Kafka's to the brokers, as any tool would send it, so their rules hold,
//! and nothing else is done.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::{Value, json};

use super::question::Problem;
use crate::client::cluster_client::{Change as Alteration, ConfigResource, NewTopic, Place, Spot};
use crate::client::{ClusterClient, Refusal};

/// As it is asked for, in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    CreateTopic {
        topic: String,
        /// `None`: the broker's default, as below.
        partitions: Option<i32>,
        replication_factor: Option<i16>,
        #[serde(default)]
        configs: BTreeMap<String, String>,
    },
    DeleteTopic {
        topic: String,
    },
    /// Up to so many.
    AddPartitions {
        topic: String,
        partitions: i32,
    },
    AlterTopic {
        topic: String,
        option: String,
        /// `None`: it goes back to the broker's value.
        value: Option<String>,
    },
    /// Of a group without members: all that it has committed of the topic.
    ResetOffsets {
        group: String,
        topic: String,
        to: Target,
    },
}

/// Where a group is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Target {
    Earliest,
    Latest,
    Offset(i64),
    /// At the first record that is not older.
    TimeMs(i64),
}

impl Change {
    pub fn parse(text: &[u8]) -> Result<Change, Problem> {
        serde_json::from_slice(text).map_err(|error| Problem::Wrong(format!("this is no change: {error}")))
    }
}

/// The change in words, with quotes around names, which may be anything.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::CreateTopic { topic, .. } => write!(f, "create topic {topic:?}"),
            Change::DeleteTopic { topic } => write!(f, "delete topic {topic:?}"),
            Change::AddPartitions { topic, partitions } => write!(f, "grow topic {topic:?} to {partitions} partitions"),
            Change::AlterTopic { topic, option, value: Some(value) } => {
                write!(f, "set {option:?} of topic {topic:?} to {value:?}")
            }
            Change::AlterTopic { topic, option, value: None } => write!(f, "unset {option:?} of topic {topic:?}"),
            Change::ResetOffsets { group, topic, to } => {
                write!(f, "move group {group:?} in topic {topic:?} to ")?;
                match to {
                    Target::Earliest => f.write_str("the beginning"),
                    Target::Latest => f.write_str("the end"),
                    Target::Offset(offset) => write!(f, "offset {offset}"),
                    Target::TimeMs(ms) => write!(f, "the time {ms} ms"),
                }
            }
        }
    }
}

fn refused(refusal: Refusal) -> Problem {
    Problem::Refused(refusal.to_string())
}

/// The outcome for one name, of a request about it alone.
fn only<K>(outcomes: Vec<(K, Result<(), Refusal>)>) -> Result<(), Problem> {
    outcomes.into_iter().try_for_each(|(_, outcome)| outcome.map_err(refused))
}

pub(super) async fn carry_out(client: &mut ClusterClient, change: &Change) -> Result<Value, Problem> {
    match change {
        Change::CreateTopic { topic, partitions, replication_factor, configs } => {
            let new = NewTopic {
                name: topic.clone(),
                partitions: *partitions,
                replication_factor: *replication_factor,
                configs: configs.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
                ..NewTopic::default()
            };
            only(client.create_topics(&[new], false).await?)?;
        }
        Change::DeleteTopic { topic } => only(client.delete_topics(std::slice::from_ref(topic)).await?)?,
        Change::AddPartitions { topic, partitions } => {
            client.add_partitions(topic, *partitions, &[], false).await?.map_err(refused)?;
        }
        Change::AlterTopic { topic, option, value } => {
            let alteration = match value {
                Some(value) => Alteration::Set(option.clone(), value.clone()),
                None => Alteration::Unset(option.clone()),
            };
            client.alter_configs(&ConfigResource::topic(topic), &[alteration], false).await?.map_err(refused)?;
        }
        Change::ResetOffsets { group, topic, to } => return reset(client, group, topic, *to).await,
    }
    Ok(json!({ "done": change.to_string() }))
}

async fn reset(client: &mut ClusterClient, name: &str, topic: &str, to: Target) -> Result<Value, Problem> {
    let group = client.group(name).await?.ok_or_else(|| Problem::NotFound(format!("there is no group {name}")))?;
    if !group.members.is_empty() {
        let members = group.members.len();
        return Err(Problem::Refused(format!("group {name} has {members} members: only a group without any is moved")));
    }
    let mut committed = client.committed(name).await?;
    committed.retain(|(of, _), _| of == topic);
    if committed.is_empty() {
        return Err(Problem::NotFound(format!("group {name} has committed nothing of topic {topic}")));
    }
    let places: Vec<Place> = committed.into_keys().collect();
    let (starts, ends) = (at(client, &places, Spot::Earliest).await?, at(client, &places, Spot::Latest).await?);
    let wanted = match to {
        Target::Earliest => starts.clone(),
        Target::Latest => ends.clone(),
        Target::Offset(offset) => places.iter().map(|place| (place.clone(), offset)).collect(),
        // Behind the last record: its end.
        Target::TimeMs(ms) => at(client, &places, Spot::Time(ms)).await?,
    };
    let within = |place: &Place| {
        let (start, end) = (*starts.get(place)?, *ends.get(place)?);
        let wanted = wanted.get(place).copied().filter(|offset| *offset >= 0).unwrap_or(end);
        Some((place.clone(), wanted.clamp(start, end.max(start))))
    };
    let offsets: Vec<(Place, i64)> = places.iter().filter_map(within).collect();
    only(client.commit(name, &offsets).await?)?;
    let moved = offsets.iter().map(|((_, index), offset)| json!({ "partition": index, "offset": offset }));
    Ok(json!({
        "done": Change::ResetOffsets { group: name.to_owned(), topic: topic.to_owned(), to }.to_string(),
        "offsets": moved.collect::<Vec<_>>(),
    }))
}

async fn at(client: &mut ClusterClient, places: &[Place], spot: Spot) -> Result<BTreeMap<Place, i64>, Problem> {
    let wanted: Vec<(Place, Spot)> = places.iter().map(|place| (place.clone(), spot)).collect();
    let mut found = BTreeMap::new();
    for ((topic, index), offset) in client.offsets(&wanted, true).await? {
        let offset = offset.map_err(|refusal| Problem::Refused(format!("{topic}-{index}: {refusal}")))?;
        found.insert((topic, index), offset);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_and_told() {
        let told = |text: &str| Change::parse(text.as_bytes()).map(|change| change.to_string());
        for (text, expected) in [
            (r#"{"change":"create_topic","topic":"t","partitions":3}"#, r#"create topic "t""#),
            (r#"{"change":"delete_topic","topic":"a\nb"}"#, r#"delete topic "a\nb""#),
            (r#"{"change":"add_partitions","topic":"t","partitions":9}"#, r#"grow topic "t" to 9 partitions"#),
            (r#"{"change":"alter_topic","topic":"t","option":"a.b","value":"7"}"#, r#"set "a.b" of topic "t" to "7""#),
            (r#"{"change":"alter_topic","topic":"t","option":"a.b","value":null}"#, r#"unset "a.b" of topic "t""#),
            (
                r#"{"change":"reset_offsets","group":"g","topic":"t","to":{"offset":5}}"#,
                r#"move group "g" in topic "t" to offset 5"#,
            ),
            (
                r#"{"change":"reset_offsets","group":"g","topic":"t","to":"latest"}"#,
                r#"move group "g" in topic "t" to the end"#,
            ),
        ] {
            assert_eq!(told(text), Ok(expected.to_owned()), "{text}");
        }
        for wrong in [
            "",
            "{}",
            r#"{"change":"drop"}"#,
            r#"{"change":"delete_topic"}"#,
            r#"{"change":"delete_topic","topic":"t","force":true}"#,
            r#"{"change":"add_partitions","topic":"t","partitions":99999999999}"#,
            r#"{"change":"reset_offsets","group":"g","topic":"t","to":"yesterday"}"#,
        ] {
            assert!(matches!(told(wrong), Err(Problem::Wrong(_))), "{wrong}");
        }
    }
}
