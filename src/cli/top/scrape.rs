//! Shards, topics and clients of a broker, from its /metrics.

use std::collections::BTreeMap;

/// A line of Prometheus' text format.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl Sample<'_> {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str())
    }
}

/// `None`: it has no value that is of use here.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let (mut labels, mut rest) = (Vec::new(), rest);
    if let Some(mut inside) = rest.strip_prefix('{') {
        while !inside.starts_with('}') {
            let (label, value) = inside.split_once("=\"")?;
            let (value, after) = unescaped(value)?;
            labels.push((label.trim_start_matches(','), value));
            inside = after;
        }
        rest = &inside[1..];
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// A label's value up to its end, and what follows.
fn unescaped(text: &str) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, char) in text.char_indices() {
        match char {
            'n' if escaped => value.push('\n'),
            char if escaped => value.push(char),
            '\\' => {
                escaped = true;
                continue;
            }
            '"' => return Some((value, &text[at + 1..])),
            char => value.push(char),
        }
        escaped = false;
    }
    None
}

/// Of a shard; totals are since the broker's start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shard {
    pub busy_seconds: f64,
    pub connections: f64,
    pub received_bytes: f64,
    pub sent_bytes: f64,
    pub io_in_flight: f64,
    pub waiting_messages: f64,
}

/// Of a topic on a broker, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Traffic {
    pub records_in: f64,
    pub bytes_in: f64,
    pub bytes_out: f64,
}

/// Of a broker.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scrape {
    pub broker: Option<i32>,
    pub cluster: Option<String>,
    pub shards: BTreeMap<u16, Shard>,
    pub topics: BTreeMap<String, Traffic>,
    /// Connections by software and version.
    pub clients: BTreeMap<(String, String), f64>,
}

impl Scrape {
    pub fn read(text: &str) -> Scrape {
        let mut scrape = Scrape::default();
        let lines = text.lines().filter(|line| line.starts_with("corelane_"));
        lines.filter_map(sample).for_each(|sample| scrape.take(&sample));
        scrape
    }

    fn take(&mut self, sample: &Sample<'_>) {
        let value = sample.value;
        if sample.name == "corelane_broker_info" {
            self.broker = sample.label("broker").and_then(|id| id.parse().ok());
            self.cluster = sample.label("cluster").map(str::to_owned);
        } else if sample.name == "corelane_client_connections" {
            let label = |name| sample.label(name).unwrap_or_default().to_owned();
            *self.clients.entry((label("software"), label("version"))).or_default() += value;
        } else if let Some(topic) = sample.label("topic").filter(|_| sample.name.starts_with("corelane_topic_")) {
            let field: fn(&mut Traffic) -> &mut f64 = match sample.name {
                "corelane_topic_received_records_total" => |traffic| &mut traffic.records_in,
                "corelane_topic_received_bytes_total" => |traffic| &mut traffic.bytes_in,
                "corelane_topic_sent_bytes_total" => |traffic| &mut traffic.bytes_out,
                _ => return,
            };
            *field(self.topics.entry(topic.to_owned()).or_default()) += value;
        } else if let Some(shard) = sample.label("shard").and_then(|shard| shard.parse().ok()) {
            let field: fn(&mut Shard) -> &mut f64 = match sample.name {
                "corelane_shard_turn_seconds_sum" => |shard| &mut shard.busy_seconds,
                "corelane_connections" => |shard| &mut shard.connections,
                "corelane_network_received_bytes_total" => |shard| &mut shard.received_bytes,
                "corelane_network_sent_bytes_total" => |shard| &mut shard.sent_bytes,
                "corelane_shard_io_in_flight" => |shard| &mut shard.io_in_flight,
                "corelane_shard_mailbox_messages" => |shard| &mut shard.waiting_messages,
                _ => return,
            };
            *field(self.shards.entry(shard).or_default()) = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_read() {
        let text = "# HELP corelane_connections Open connections.\n\
            corelane_broker_info{broker=\"3\",cluster=\"abc\"} 1\n\
            corelane_shard_turn_seconds_sum{shard=\"1\"} 2.5\n\
            corelane_shard_turn_seconds_bucket{shard=\"1\",le=\"+Inf\"} 7\n\
            corelane_connections{shard=\"1\"} 4\n\
            corelane_topic_received_bytes_total{topic=\"a\"} 1e3\n\
            corelane_topic_sent_bytes_total{topic=\"a\"} 5\n\
            corelane_client_connections{software=\"say \\\"hi\\\\\\n\",version=\"1\"} 2\n\
            corelane_ready 1\nother{topic=\"b\"} 1\ncorelane_connections{shard=\"2\n";
        let scrape = Scrape::read(text);
        assert_eq!((scrape.broker, scrape.cluster.as_deref()), (Some(3), Some("abc")));
        let shard = Shard { busy_seconds: 2.5, connections: 4.0, ..Shard::default() };
        assert_eq!(scrape.shards, BTreeMap::from([(1, shard)]));
        let traffic = Traffic { bytes_in: 1000.0, bytes_out: 5.0, ..Traffic::default() };
        assert_eq!(scrape.topics, BTreeMap::from([("a".to_owned(), traffic)]));
        assert_eq!(scrape.clients, BTreeMap::from([(("say \"hi\\\n".to_owned(), "1".to_owned()), 2.0)]));
    }
}
