//! Before the clock runs: the topic, its leaders, its offsets, and which
//! connection gets which partitions.

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, ToSocketAddrs};

use super::context::CLIENT_ID;
use super::options::{From, Options, Work};
use crate::client::admin::{self, End, TopicLayout};
use crate::client::{ClientError, Connection};

/// Work of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    pub address: SocketAddr,
    pub partitions: Vec<i32>,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub lanes: Vec<Lane>,
    pub partitions: usize,
    /// Where consumers begin, by partition.
    pub begin: HashMap<i32, i64>,
    /// Where `consume` ends; empty: it follows the tail.
    pub end: HashMap<i32, i64>,
}

pub fn resolve(host_port: &str) -> Result<SocketAddr, ClientError> {
    let failed = |e: &dyn std::fmt::Display| ClientError::Other(format!("{host_port} is no address host:port: {e}"));
    let found = host_port.to_socket_addrs().map_err(|e| failed(&e))?.next();
    found.ok_or_else(|| failed(&"the name has no address"))
}

/// Call on a shard that has nothing else to do: resolving names blocks.
pub async fn prepare(options: &Options) -> Result<Plan, ClientError> {
    let bootstrap = resolve(&options.bootstrap)?;
    let mut connection = Connection::open(bootstrap, CLIENT_ID).await?;
    let layout = topic(&mut connection, options).await?;
    let partitions = match options.partitions {
        Some(wanted) => usize::try_from(wanted).unwrap_or(0),
        None => layout.leaders.len(),
    };
    if partitions > layout.leaders.len() {
        let has = layout.leaders.len();
        return Err(ClientError::Other(format!("topic {} has {has} partition(s), not {partitions}", options.topic)));
    }
    let leaders = &layout.leaders[..partitions];
    let addresses = addresses(&layout, leaders, bootstrap)?;
    let once = share_out(leaders, &addresses, options.connections)?;
    let times = if let Work::Consume(consume) = &options.work { consume.fan_out } else { 1 };
    let lanes: Vec<Lane> = std::iter::repeat_n(once, times).flatten().collect();
    if matches!(options.work, Work::E2e(_)) && lanes.len() > partitions {
        return Err(ClientError::Other(
            "e2e checks the order within each partition, so it needs a partition for each connection".into(),
        ));
    }
    let (mut begin, mut end) = (HashMap::new(), HashMap::new());
    let (first, last) = match &options.work {
        // For producers it shows that the leaders know of their office.
        Work::Produce(_) | Work::E2e(_) => (End::Latest, false),
        Work::Consume(consume) if consume.from == From::End => (End::Latest, false),
        Work::Consume(_) => (End::Earliest, true),
    };
    for (node, address) in &addresses {
        let own: Vec<i32> = (0..).zip(leaders).filter(|(_, leader)| *leader == node).map(|(index, _)| index).collect();
        let mut connection = Connection::open(*address, CLIENT_ID).await?;
        begin.extend(admin::await_offsets(&mut connection, &options.topic, &own, first).await?);
        if last {
            end.extend(admin::offsets(&mut connection, &options.topic, &own, End::Latest).await?);
        }
    }
    Ok(Plan { lanes, partitions, begin, end })
}

async fn topic(connection: &mut Connection, options: &Options) -> Result<TopicLayout, ClientError> {
    let topic = &options.topic;
    if admin::layout(connection, topic).await?.is_none() {
        if matches!(options.work, Work::Consume(_)) {
            return Err(ClientError::Other(format!("there is no topic {topic}")));
        }
        admin::create_topic(connection, topic, options.partitions.unwrap_or(1)).await?;
    }
    admin::await_leaders(connection, topic).await
}

/// The leaders' addresses by node. A broker that is alone is asked where it was
/// found, whatever it advertises.
fn addresses(
    layout: &TopicLayout,
    leaders: &[i32],
    bootstrap: SocketAddr,
) -> Result<BTreeMap<i32, SocketAddr>, ClientError> {
    let mut found = BTreeMap::new();
    for leader in leaders {
        if found.contains_key(leader) {
            continue;
        }
        let node = layout.nodes.iter().find(|node| node.id == *leader);
        let node = node.ok_or_else(|| ClientError::Other(format!("the cluster does not know its broker {leader}")))?;
        let address =
            if layout.nodes.len() == 1 { bootstrap } else { resolve(&format!("{}:{}", node.host, node.port))? };
        found.insert(*leader, address);
    }
    Ok(found)
}

/// Connections go to the leaders in turn. Each leader's partitions are shared out among its
/// connections; connections in excess share partitions.
fn share_out(
    leaders: &[i32],
    addresses: &BTreeMap<i32, SocketAddr>,
    connections: usize,
) -> Result<Vec<Lane>, ClientError> {
    if connections < addresses.len() {
        let brokers = addresses.len();
        return Err(ClientError::Other(format!(
            "the topic has {brokers} leaders: give --connections {brokers} or more"
        )));
    }
    let mut lanes = Vec::with_capacity(connections);
    for index in 0..connections {
        let Some((node, address)) = addresses.iter().nth(index % addresses.len()) else { break };
        let own: Vec<i32> = (0..).zip(leaders).filter(|(_, leader)| *leader == node).map(|(index, _)| index).collect();
        let rank = index / addresses.len();
        let beside = (connections - index % addresses.len()).div_ceil(addresses.len());
        let mut partitions: Vec<i32> = own.iter().copied().skip(rank).step_by(beside).collect();
        if partitions.is_empty() {
            partitions = vec![own[rank % own.len()]];
        }
        lanes.push(Lane { address: *address, partitions });
    }
    Ok(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(leaders: &[i32], connections: usize) -> Vec<(u16, Vec<i32>)> {
        let address = |node: i32| (node, SocketAddr::from(([127, 0, 0, 1], node as u16)));
        let addresses = leaders.iter().map(|node| address(*node)).collect();
        let lanes = share_out(leaders, &addresses, connections).unwrap();
        lanes.into_iter().map(|lane| (lane.address.port(), lane.partitions)).collect()
    }

    #[test]
    fn partitions_are_shared_out_among_their_leaders_connections() {
        assert_eq!(shared(&[1, 1, 1], 1), [(1, vec![0, 1, 2])]);
        assert_eq!(shared(&[1, 1, 1], 2), [(1, vec![0, 2]), (1, vec![1])]);
        assert_eq!(shared(&[1], 3), [(1, vec![0]), (1, vec![0]), (1, vec![0])]);
        assert_eq!(shared(&[1, 2, 1, 2], 3), [(1, vec![0]), (2, vec![1, 3]), (1, vec![2])]);
        let addresses = BTreeMap::from([(1, ([127, 0, 0, 1], 1).into()), (2, ([127, 0, 0, 1], 2).into())]);
        assert!(share_out(&[1, 2], &addresses, 1).is_err());
    }
}
