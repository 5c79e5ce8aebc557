//! Where reading begins and ends.

use std::collections::BTreeMap;

use crate::cli::moment::moment;
use crate::client::ClusterClient;
use crate::client::cluster_client::{Place, Spot};
use crate::client::consumer::Isolation;
use crate::client::consumer::Position;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Beginning,
    End,
    Offset(i64),
    /// So many before the end of each partition.
    Last(i64),
    /// The first record that is not older, in milliseconds since 1970 UTC.
    Time(i64),
}

pub(super) fn from(text: &str) -> Result<From, String> {
    match text {
        "beginning" | "earliest" => return Ok(From::Beginning),
        "end" | "latest" => return Ok(From::End),
        _ => {}
    }
    let number = |digits: &str| digits.parse::<i64>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let found = match (text.strip_prefix('-'), text.strip_prefix('@')) {
        (Some(count), _) => number(count).filter(|count| *count > 0).map(From::Last),
        (_, Some(ms)) => number(ms).map(From::Time),
        _ => number(text).map(From::Offset).or_else(|| moment(text).ok().map(From::Time)),
    };
    found.ok_or_else(|| {
        "it must read beginning, end, an offset, -N (the last N), YYYY-MM-DDTHH:mm:SS (UTC), or @MS (ms since 1970)"
            .into()
    })
}

/// The partitions to read.
pub(super) struct Wanted<'a> {
    pub topic: &'a str,
    pub partitions: &'a [i32],
    pub from: From,
    pub isolation: Isolation,
    /// End where the partitions end now.
    pub until_end: bool,
    /// The group's committed offset: there it goes on.
    pub committed: BTreeMap<i32, i64>,
}

/// Where to begin in each partition, as its leader tells.
pub(super) async fn positions(
    client: &mut ClusterClient,
    wanted: &Wanted<'_>,
) -> Result<BTreeMap<i32, Position>, String> {
    let last = match wanted.isolation {
        Isolation::ReadCommitted => Spot::LastStable,
        Isolation::ReadUncommitted => Spot::Latest,
    };
    let (earliest, ends) = (spots(client, wanted, Spot::Earliest).await?, spots(client, wanted, last).await?);
    let times = match wanted.from {
        From::Time(ms) => spots(client, wanted, Spot::Time(ms)).await?,
        _ => BTreeMap::new(),
    };
    let mut positions = BTreeMap::new();
    for (index, begin) in earliest {
        let end = *ends.get(&index).ok_or_else(|| format!("the end of {}-{index} is not told", wanted.topic))?;
        let time = times.get(&index).copied().filter(|offset| *offset >= 0);
        let committed = wanted.committed.get(&index).copied();
        positions.insert(index, position(wanted, begin, end, time, committed));
    }
    Ok(positions)
}

/// `begin`, `end`: what is there; `time`: the offset of the time that was asked
/// for, if there is a record.
fn position(wanted: &Wanted<'_>, begin: i64, end: i64, time: Option<i64>, committed: Option<i64>) -> Position {
    let from = match (committed, wanted.from) {
        (Some(offset), _) => offset,
        (None, From::Beginning) => begin,
        (None, From::End) => end,
        (None, From::Offset(offset)) => offset,
        (None, From::Last(count)) => end.saturating_sub(count).max(begin),
        (None, From::Time(_)) => time.unwrap_or(end),
    };
    // A group is told if its offset is not there any more.
    let next = if committed.is_some() { from } else { from.clamp(begin, end.max(begin)) };
    Position { next, from, end: wanted.until_end.then_some(end) }
}

async fn spots(client: &mut ClusterClient, wanted: &Wanted<'_>, spot: Spot) -> Result<BTreeMap<i32, i64>, String> {
    let places: Vec<(Place, Spot)> =
        wanted.partitions.iter().map(|index| ((wanted.topic.to_owned(), *index), spot)).collect();
    client.restart();
    let told = client.offsets(&places, true).await.map_err(|e| e.to_string())?;
    let offset = |((topic, index), outcome): (Place, Result<i64, crate::client::Refusal>)| {
        outcome.map(|offset| (index, offset)).map_err(|refusal| format!("{topic}-{index}: {refusal}"))
    };
    told.into_iter().map(offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_words_numbers_and_times() {
        let cases = [
            ("beginning", From::Beginning),
            ("end", From::End),
            ("0", From::Offset(0)),
            ("1700000000000", From::Offset(1_700_000_000_000)),
            ("-7", From::Last(7)),
            ("@1700000000000", From::Time(1_700_000_000_000)),
            ("2023-11-14T22:13:20", From::Time(1_700_000_000_000)),
            ("2023-11-15T00:13:20+02:00", From::Time(1_700_000_000_000)),
        ];
        for (text, expected) in cases {
            assert_eq!(from(text), Ok(expected), "{text}");
        }
        for wrong in ["", "-", "-0", "--1", "+1", "@", "@-1", "begin", "9223372036854775808", "2023-13-01"] {
            assert!(from(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn positions_lie_within_what_is_there() {
        let at = |from, until_end, committed| {
            let (topic, partitions, isolation) = ("t", &[0][..], Isolation::ReadUncommitted);
            let wanted = Wanted { topic, partitions, from, isolation, until_end, committed: BTreeMap::new() };
            let position = position(&wanted, 5, 20, None, committed);
            (position.next, position.from, position.end)
        };
        assert_eq!(at(From::Beginning, false, None), (5, 5, None));
        assert_eq!(at(From::End, true, None), (20, 20, Some(20)));
        assert_eq!(at(From::Last(3), false, None), (17, 17, None));
        assert_eq!(at(From::Last(99), false, None), (5, 5, None));
        assert_eq!(at(From::Offset(2), false, None), (5, 2, None));
        // Until they come nothing is shown.
        assert_eq!(at(From::Offset(30), false, None), (20, 30, None));
        assert_eq!(at(From::Time(1), false, None), (20, 20, None));
        assert_eq!(at(From::Beginning, false, Some(9)), (9, 9, None));
        assert_eq!(at(From::End, false, Some(2)), (2, 2, None));
    }
}
