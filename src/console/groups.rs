//! Groups, their members and their lag.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::question::{PAGE, PARTITIONS, Part, Problem, of_page};
use crate::client::ClusterClient;
use crate::client::cluster_client::{Member, Place, Spot, Standing};

/// Partitions of a page of groups whose ends are asked for; groups behind them
/// are shown without a lag.
const MOST_OFFSETS: usize = 5000;
/// Members that are shown of a group.
const MOST_MEMBERS: usize = 500;

pub(super) async fn list(client: &mut ClusterClient, part: &Part) -> Result<Value, Problem> {
    let (mut all, failed) = client.groups().await?;
    // Others (share and streams groups) commit no offsets of this kind.
    all.retain(|listed| matches!(listed.kind.as_str(), "" | "Classic" | "Consumer"));
    let matching = || all.iter().filter(|listed| part.matches(&listed.group));
    let shown = of_page(matching(), part.page, PAGE);
    let mut offsets: HashMap<&str, BTreeMap<Place, i64>> = HashMap::new();
    let mut ends: BTreeMap<Place, Option<i64>> = BTreeMap::new();
    for listed in &shown {
        // One whose coordinator moves just now is shown without a lag.
        let Ok(committed) = client.committed(&listed.group).await else { continue };
        if ends.len() + committed.len() > MOST_OFFSETS {
            continue;
        }
        ends.extend(committed.keys().map(|place| (place.clone(), None)));
        let committed = committed.into_iter().map(|(place, committed)| (place, committed.offset)).collect();
        offsets.insert(&listed.group, committed);
    }
    let wanted: Vec<(Place, Spot)> = ends.keys().map(|place| (place.clone(), Spot::Latest)).collect();
    for (place, end) in client.offsets(&wanted, false).await? {
        ends.insert(place, end.ok());
    }
    let rows = shown.iter().map(|listed| {
        let offsets = offsets.get(listed.group.as_str());
        let lag_of =
            |(place, offset): (&Place, &i64)| ends.get(place).copied().flatten().map(|end| (end - offset).max(0));
        let lags = || offsets.into_iter().flatten().map(lag_of);
        let mut topics: Vec<&str> = offsets.into_iter().flatten().map(|((topic, _), _)| topic.as_str()).collect();
        topics.dedup();
        json!({
            "group": listed.group,
            "state": listed.state,
            "type": listed.kind,
            "protocol_type": listed.protocol_type,
            "coordinator": listed.coordinator,
            "topics": offsets.map(|_| topics.len()),
            "partitions": offsets.map(BTreeMap::len),
            "lag": offsets.map(|_| lags().flatten().sum::<i64>()),
            "unknown_partitions": lags().filter(Option::is_none).count(),
        })
    });
    let rows: Vec<Value> = rows.collect();
    Ok(json!({
        "total": all.len(), "matching": matching().count(), "page": part.page, "page_size": PAGE,
        "groups": rows, "errors": failed,
    }))
}

pub(super) async fn show(client: &mut ClusterClient, name: &str, page: usize) -> Result<Value, Problem> {
    let Some(group) = client.group(name).await? else {
        return Err(Problem::NotFound(format!("there is no group {name}")));
    };
    let standings = client.standings(&group).await?;
    let members: HashMap<&str, &Member> = group.members.iter().map(|member| (member.id.as_str(), member)).collect();
    let row = |standing: &Standing| {
        let reader = standing.member.as_deref().and_then(|id| members.get(id));
        json!({
            "topic": standing.place.0,
            "partition": standing.place.1,
            "committed_offset": standing.committed,
            "end_offset": standing.end,
            "lag": standing.lag(),
            "member": standing.member,
            "client_id": reader.map(|member| &member.client_id),
            "host": reader.map(|member| &member.host),
            "error": standing.refusal.as_ref().map(ToString::to_string),
        })
    };
    let member = |member: &Member| {
        json!({
            "member": member.id, "instance": member.instance, "client_id": member.client_id, "host": member.host,
            "partitions": member.assigned.len(),
        })
    };
    Ok(json!({
        "group": group.group,
        "state": group.state,
        "type": group.kind.name(),
        "protocol_type": group.protocol_type,
        "assignor": group.assignor,
        "epoch": group.epoch,
        "coordinator": group.coordinator,
        "lag": standings.iter().filter_map(Standing::lag).sum::<i64>(),
        "unknown_partitions": standings.iter().filter(|standing| standing.lag().is_none()).count(),
        "member_count": group.members.len(),
        "members": group.members.iter().take(MOST_MEMBERS).map(member).collect::<Vec<_>>(),
        "partition_count": standings.len(),
        "page": page, "page_size": PARTITIONS,
        "partitions": of_page(standings.iter(), page, PARTITIONS).into_iter().map(row).collect::<Vec<_>>(),
    }))
}
