//! The oldest records of a topic go.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::arguments::Trim;
use super::show::known;
use crate::cli::report::{Report, or_dash, table, with_outcome};
use crate::client::cluster_client::{Place, Spot};
use crate::client::{ClusterClient, Refusal};
use crate::model::ErrorCode;
use crate::runtime::clock;

/// The offset by which DeleteRecords means the partition's end.
const ALL: i64 = -1;

/// Facts about a partition.
#[derive(Default)]
struct Row {
    start: Option<i64>,
    until: Option<i64>,
    refusal: Option<Refusal>,
}

pub(super) async fn trim(mut client: ClusterClient, command: Trim) -> Result<Report, String> {
    let topics = known(&mut client, std::slice::from_ref(&command.topic)).await?;
    let has: Vec<i32> = topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.index).collect();
    let indexes = command.partition.as_ref().map_or_else(|| has.clone(), |given| given.0.clone());
    if let Some(index) = indexes.iter().find(|index| !has.contains(index)) {
        return Err(format!("topic {} has no partition {index}; it has {}", command.topic, has.len()));
    }
    let places: Vec<Place> = indexes.iter().map(|index| (command.topic.clone(), *index)).collect();
    let mut rows: BTreeMap<Place, Row> = places.iter().map(|place| (place.clone(), Row::default())).collect();

    let earliest: Vec<(Place, Spot)> = places.iter().map(|place| (place.clone(), Spot::Earliest)).collect();
    for (place, outcome) in client.offsets(&earliest, true).await.map_err(|e| e.to_string())? {
        let row = rows.entry(place).or_default();
        match outcome {
            Ok(offset) => row.start = Some(offset),
            Err(refusal) => row.refusal = Some(refusal),
        }
    }
    if command.dry_run
        && let Some(offset) = command.to_offset
    {
        refuse_beyond_end(&mut client, offset, &mut rows).await?;
    }
    let until = until(&mut client, &command, &rows).await?;
    for (place, outcome) in until {
        let row = rows.entry(place).or_default();
        match outcome {
            // Records that were deleted before stay so.
            Ok(offset) => row.until = Some(row.start.map_or(offset, |start| offset.max(start))),
            Err(refusal) => row.refusal = Some(refusal),
        }
    }
    if !command.dry_run {
        let before: Vec<(Place, i64)> = rows
            .iter()
            .filter(|(_, row)| row.refusal.is_none())
            .filter_map(|(place, row)| Some((place.clone(), if command.to_latest { ALL } else { row.until? })))
            .collect();
        for (place, outcome) in client.delete_records(&before).await.map_err(|e| e.to_string())? {
            let row = rows.entry(place).or_default();
            match outcome {
                Ok(low_watermark) => row.until = Some(low_watermark),
                Err(refusal) => row.refusal = Some(refusal),
            }
        }
    }

    let (mut lines, mut items, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for ((topic, index), row) in &rows {
        let until = row.until.filter(|_| row.refusal.is_none());
        let deleted = until.zip(row.start).map(|(until, start)| until - start);
        let cells = [or_dash(row.start), or_dash(until), or_dash(deleted)];
        lines.push([topic.clone(), index.to_string()].into_iter().chain(cells).collect());
        if let Some(refusal) = &row.refusal {
            failed.push(format!("{topic}-{index}: {refusal}"));
        }
        let item = json!({
            "topic": topic, "partition": index, "start_offset_before": row.start, "start_offset": until,
            "deleted": deleted, "dry_run": command.dry_run,
        });
        items.push(with_outcome(item, row.refusal.as_ref()));
    }
    let mut text = table(&["TOPIC", "PARTITION", "START-OFFSET", "NEW-START-OFFSET", "DELETED"], lines);
    if command.dry_run {
        text.push_str("nothing was deleted: --dry-run\n");
    }
    Ok(Report { text, json: Value::Array(items), failed })
}

/// Has partitions whose end is before this offset refuse, as their leaders do.
async fn refuse_beyond_end(
    client: &mut ClusterClient,
    offset: i64,
    rows: &mut BTreeMap<Place, Row>,
) -> Result<(), String> {
    let latest: Vec<(Place, Spot)> = rows.keys().map(|place| (place.clone(), Spot::Latest)).collect();
    for (place, outcome) in client.offsets(&latest, true).await.map_err(|e| e.to_string())? {
        let row = rows.entry(place).or_default();
        match outcome {
            Ok(end) if end < offset => {
                let message = format!("the partition ends at offset {end}");
                row.refusal = Refusal::of(ErrorCode::OffsetOutOfRange.code(), Some(&message));
            }
            Ok(_) => {}
            Err(refusal) => row.refusal = Some(refusal),
        }
    }
    Ok(())
}

/// The offset before which each partition's records go.
async fn until(
    client: &mut ClusterClient,
    command: &Trim,
    rows: &BTreeMap<Place, Row>,
) -> Result<Vec<(Place, Result<i64, Refusal>)>, String> {
    let places: Vec<Place> = rows.iter().filter(|(_, row)| row.refusal.is_none()).map(|(p, _)| p.clone()).collect();
    if let Some(offset) = command.to_offset {
        return Ok(places.into_iter().map(|place| (place, Ok(offset))).collect());
    }
    let spot = match (command.to_datetime, command.by_duration) {
        (Some(at), _) => Spot::Time(at),
        (None, Some(ago)) => Spot::Time(clock::wall_ms().saturating_sub(ago).max(0)),
        (None, None) => Spot::Latest,
    };
    at_spot(client, &places, spot).await
}

/// The offset at the spot in each partition; its end, for a time after its last record.
pub(in crate::cli) async fn at_spot(
    client: &mut ClusterClient,
    places: &[Place],
    spot: Spot,
) -> Result<Vec<(Place, Result<i64, Refusal>)>, String> {
    let ask = |places: &[Place], spot| places.iter().map(|place| (place.clone(), spot)).collect::<Vec<_>>();
    let mut found = client.offsets(&ask(places, spot), true).await.map_err(|e| e.to_string())?;
    let after: Vec<Place> = found.iter().filter(|(_, o)| *o == Ok(-1)).map(|(place, _)| place.clone()).collect();
    let ends = client.offsets(&ask(&after, Spot::Latest), true).await.map_err(|e| e.to_string())?;
    let ends: BTreeMap<Place, Result<i64, Refusal>> = ends.into_iter().collect();
    for (place, outcome) in &mut found {
        if let Some(end) = ends.get(place) {
            *outcome = end.clone();
        }
    }
    Ok(found)
}
