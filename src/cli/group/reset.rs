//! A group goes on from other offsets.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::arguments::Reset;
use super::show::unknown_group;
use crate::cli::report::{Report, or_dash, table, with_outcome};
use crate::cli::topic::{at_spot, known};
use crate::client::cluster_client::{Committed, Place, Spot};
use crate::client::{ClusterClient, Refusal};
use crate::runtime::clock;

/// Facts about a partition.
#[derive(Default)]
struct Row {
    before: Option<i64>,
    after: Option<i64>,
    refusal: Option<Refusal>,
    /// How the offset that was asked for was moved into what is there.
    remark: Option<&'static str>,
}

pub(super) async fn reset(mut client: ClusterClient, command: Reset) -> Result<Report, String> {
    let name = &command.group;
    // A group that there is not yet may be given offsets: its members begin there.
    let group = client.group(name).await.map_err(|e| format!("group {name}: {e}"))?;
    if let Some(group) = group.as_ref().filter(|group| !group.members.is_empty()) {
        let (members, state) = (group.members.len(), &group.state);
        return Err(format!(
            "group {name} is {state} and has {members} member{}: stop them first; a reset is for empty groups",
            if members == 1 { "" } else { "s" }
        ));
    }
    if group.is_none() && command.all_topics {
        return Err(unknown_group(&mut client, name).await?);
    }
    let committed = match group {
        Some(_) => client.committed(name).await.map_err(|e| e.to_string())?,
        None => BTreeMap::new(),
    };
    let places = places(&mut client, &command, &committed).await?;
    if places.is_empty() {
        return Err(format!("group {name} has committed no offsets: name topics by --topic"));
    }
    let mut rows = targets(&mut client, &command, &places, &committed).await?;
    if command.execute {
        let offsets: Vec<(Place, i64)> = rows
            .iter()
            .filter(|(_, row)| row.refusal.is_none())
            .filter_map(|(place, row)| Some((place.clone(), row.after?)))
            .collect();
        for (place, outcome) in client.commit(name, &offsets).await.map_err(|e| e.to_string())? {
            rows.entry(place).or_default().refusal = outcome.err();
        }
    }
    let (mut lines, mut items, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for ((topic, index), row) in &rows {
        let after = row.after.filter(|_| row.refusal.is_none());
        if let Some(refusal) = &row.refusal {
            failed.push(format!("group {name}, {topic}-{index}: {refusal}"));
        }
        let item = json!({
            "group": name, "topic": topic, "partition": index, "current_offset": row.before, "new_offset": after,
            "remark": row.remark, "executed": command.execute && row.refusal.is_none(),
        });
        items.push(with_outcome(item, row.refusal.as_ref()));
        let remark = row.remark.unwrap_or_default().to_owned();
        lines.push(vec![name.clone(), topic.clone(), index.to_string(), or_dash(row.before), or_dash(after), remark]);
    }
    let mut text = table(&["GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "NEW-OFFSET", ""], lines);
    if !command.execute {
        text.push_str("nothing was committed; --execute does it\n");
    }
    Ok(Report { text, json: Value::Array(items), failed })
}

/// The partitions that are meant.
async fn places(
    client: &mut ClusterClient,
    command: &Reset,
    committed: &BTreeMap<Place, Committed>,
) -> Result<Vec<Place>, String> {
    if command.all_topics {
        return Ok(committed.keys().cloned().collect());
    }
    let names: Vec<String> = command.topics.iter().map(|(topic, _)| topic.clone()).collect();
    let topics = known(client, &names).await?;
    let mut places = Vec::new();
    for (name, indexes) in &command.topics {
        let topic = topics.iter().find(|topic| topic.name == *name);
        let has: Vec<i32> = topic.into_iter().flat_map(|topic| &topic.partitions).map(|p| p.index).collect();
        let wanted = indexes.as_ref().map_or(&has, |given| &given.0);
        if let Some(index) = wanted.iter().find(|index| !has.contains(index)) {
            return Err(format!("topic {name} has no partition {index}; it has {}", has.len()));
        }
        places.extend(wanted.iter().map(|index| (name.clone(), *index)));
    }
    places.sort();
    places.dedup();
    Ok(places)
}

/// The offset that each partition is to get. One that is outside of what is there becomes its
/// beginning or end, as with Kafka's tool.
async fn targets(
    client: &mut ClusterClient,
    command: &Reset,
    places: &[Place],
    committed: &BTreeMap<Place, Committed>,
) -> Result<BTreeMap<Place, Row>, String> {
    let mut rows: BTreeMap<Place, Row> = BTreeMap::new();
    for place in places {
        let before = committed.get(place).map(|committed| committed.offset);
        rows.insert(place.clone(), Row { before, ..Row::default() });
    }
    let mut spots = Vec::new();
    for spot in [Spot::Earliest, Spot::Latest] {
        spots.push(at_spot(client, places, spot).await?.into_iter().collect::<BTreeMap<_, _>>());
    }
    let time = command.to_datetime.or_else(|| Some(clock::wall_ms().saturating_sub(command.by_duration?).max(0)));
    let at_time: BTreeMap<Place, Result<i64, Refusal>> = match time {
        Some(time) => at_spot(client, places, Spot::Time(time)).await?.into_iter().collect(),
        None => BTreeMap::new(),
    };
    for (place, row) in &mut rows {
        let found = |spot: usize| spots.get(spot).and_then(|spots| spots.get(place)).cloned();
        let (earliest, latest) = match (found(0), found(1)) {
            (Some(Ok(earliest)), Some(Ok(latest))) => (earliest, latest),
            (Some(Err(refusal)), _) | (_, Some(Err(refusal))) => {
                row.refusal = Some(refusal);
                continue;
            }
            _ => continue,
        };
        let wanted = if command.to_earliest {
            earliest
        } else if let Some(offset) = command.to_offset {
            offset
        } else if let Some(by) = command.shift_by {
            match row.before {
                Some(before) => before.saturating_add(by),
                None => {
                    let message = Some("the group has committed no offset that could be shifted".to_owned());
                    row.refusal = Some(Refusal { code: NO_OFFSET, message });
                    continue;
                }
            }
        } else if let Some(found) = at_time.get(place) {
            match found {
                Ok(offset) => *offset,
                Err(refusal) => {
                    row.refusal = Some(refusal.clone());
                    continue;
                }
            }
        } else if command.to_current {
            row.before.unwrap_or(latest)
        } else {
            latest
        };
        row.remark = match wanted {
            _ if wanted < earliest => Some("moved up to the first offset"),
            _ if wanted > latest => Some("moved down to the end"),
            _ => None,
        };
        row.after = Some(wanted.clamp(earliest, latest));
    }
    Ok(rows)
}

/// OFFSET_OUT_OF_RANGE.
const NO_OFFSET: i16 = 1;
