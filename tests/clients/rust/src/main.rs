//! rust-rdkafka under the contract of tests/clients/README.md.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pollster::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use serde_json::{Value, json};

type Done<T = ()> = Result<T, Box<dyn Error>>;

const PATIENCE: Duration = Duration::from_secs(30);

/// The arguments after the scenario.
struct Args(HashMap<String, String>);

impl Args {
    fn text(&self, name: &str) -> Done<&str> {
        Ok(self.0.get(name).ok_or(format!("{name} is missing"))?)
    }

    fn number<T: std::str::FromStr<Err: Error + 'static>>(&self, name: &str) -> Done<T> {
        Ok(self.text(name)?.parse()?)
    }

    fn config(&self) -> Done<ClientConfig> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.text("bootstrap")?);
        Ok(config)
    }
}

fn main() -> Done {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let pairs = words.iter().skip(1).filter_map(|word| word.split_once('='));
    let args = Args(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
    match words.first().map(String::as_str) {
        Some("produce") => produce(&args),
        Some("consume") => consume(&args),
        Some("group") => group(&args),
        Some("admin") => admin(&args),
        _ => Err("usage: produce|consume|group|admin name=value...".into()),
    }
}

fn tell(value: &Value) -> Done {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

// ---- produce

/// Partition and offset of a record.
type Placed = Result<(i32, i64), KafkaError>;

/// Reports each delivery with the place of its record in the input.
struct Deliveries(mpsc::Sender<(usize, Placed)>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        let placed = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        // The receiver goes only when the program has failed.
        self.0.send((*index, placed)).ok();
    }
}

fn produce(args: &Args) -> Done {
    let topic = args.text("topic")?;
    let (report, reports) = mpsc::channel();
    let producer: ThreadedProducer<Deliveries> = args
        .config()?
        .set("compression.codec", args.text("codec")?)
        .set("acks", args.text("acks")?)
        .set("enable.idempotence", args.text("idempotent")?)
        .set("linger.ms", "5")
        .create_with_context(Deliveries(report))?;
    let mut count = 0;
    for line in io::stdin().lines() {
        let given: Value = serde_json::from_str(&line?)?;
        let mut headers = OwnedHeaders::new();
        for pair in given["h"].as_array().into_iter().flatten() {
            headers = headers.insert(Header { key: pair[0].as_str().unwrap_or(""), value: pair[1].as_str() });
        }
        let mut record: BaseRecord<'_, str, str, Box<usize>> = BaseRecord::with_opaque_to(topic, Box::new(count))
            .partition(i32::try_from(given["p"].as_i64().ok_or("no partition")?)?)
            .timestamp(given["t"].as_i64().ok_or("no time")?)
            .headers(headers);
        if let Some(key) = given["k"].as_str() {
            record = record.key(key);
        }
        if let Some(value) = given["v"].as_str() {
            record = record.payload(value);
        }
        producer.send(record).map_err(|(error, _)| error)?;
        count += 1;
    }
    producer.flush(PATIENCE)?;
    let mut offsets = vec![Value::Null; count];
    for _ in 0..count {
        let (index, placed) = reports.recv_timeout(PATIENCE)?;
        offsets[index] = json!(placed?);
    }
    tell(&json!({ "offsets": offsets }))
}

// ---- consume

fn text(bytes: Option<&[u8]>) -> Value {
    bytes.map_or(Value::Null, |bytes| String::from_utf8_lossy(bytes).into())
}

fn consume(args: &Args) -> Done {
    let topic = args.text("topic")?;
    let mut config = args.config()?;
    config.set("group.id", "unused").set("enable.auto.commit", "false");
    if let Ok(wait) = args.number::<u32>("wait") {
        config.set("fetch.wait.max.ms", wait.to_string()).set("socket.timeout.ms", (wait + 30_000).to_string());
    }
    let consumer: BaseConsumer = config.create()?;
    let from = if args.text("offset").is_ok() { Offset::Offset(args.number("offset")?) } else { Offset::Beginning };
    let mut parts = TopicPartitionList::new();
    for partition in 0..args.number("partitions")? {
        parts.add_partition_offset(topic, partition, from)?;
    }
    consumer.assign(&parts)?;
    let mut left: u64 = args.number("count")?;
    while left > 0 {
        let Some(polled) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = polled?;
        let headers: Vec<Value> = message
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter())
            .map(|header| json!([header.key, text(header.value)]))
            .collect();
        tell(&json!({
            "p": message.partition(), "o": message.offset(), "t": message.timestamp().to_millis(),
            "k": text(message.key()), "v": text(message.payload()), "h": headers,
        }))?;
        left -= 1;
    }
    Ok(())
}

// ---- group

/// Tells the whole assignment after each change of it.
struct Assignments;

impl ClientContext for Assignments {}

impl ConsumerContext for Assignments {
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        let own = match consumer.assignment() {
            // The client is being closed.
            Err(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerDestroy)) => return,
            own => own,
        };
        let told = own.map_err(Box::from).and_then(|own| {
            let mut partitions: Vec<i32> = own.elements().iter().map(|part| part.partition()).collect();
            partitions.sort_unstable();
            tell(&json!({ "e": "assigned", "p": partitions }))
        });
        if let Err(error) = told {
            eprintln!("the assignment cannot be told: {error}");
            std::process::exit(1);
        }
    }
}

fn group(args: &Args) -> Done {
    let topic = args.text("topic")?;
    let consumer: BaseConsumer<Assignments> = args
        .config()?
        .set("group.id", args.text("group")?)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("heartbeat.interval.ms", "300")
        .set("session.timeout.ms", "10000")
        .create_with_context(Assignments)?;
    consumer.subscribe(&[topic])?;
    let input = thread::spawn(|| io::copy(&mut io::stdin(), &mut io::sink()));
    while !input.is_finished() {
        let Some(polled) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = match polled {
            Ok(message) => message,
            Err(error) => {
                tell(&json!({ "e": "failed", "error": error.to_string() }))?;
                continue;
            }
        };
        let (partition, offset) = (message.partition(), message.offset());
        tell(&json!({ "e": "record", "p": partition, "o": offset }))?;
        let told = match consumer.commit_message(&message, CommitMode::Sync) {
            Ok(()) => json!({ "e": "committed", "o": [[partition, offset + 1]] }),
            Err(error) => json!({ "e": "failed", "error": error.to_string() }),
        };
        tell(&told)?;
    }
    // Closes it, which leaves the group.
    drop(consumer);
    tell(&json!({ "e": "closed" }))
}

// ---- admin

/// The code of an error that the broker answered; any other error is returned.
fn coded(answered: Result<Vec<TopicResult>, KafkaError>) -> Done<Value> {
    let code = match answered?.pop() {
        Some(Ok(_)) => 0,
        Some(Err((_, code))) => code as i32,
        None => return Err("an answer without a topic".into()),
    };
    if code < 0 { Err(format!("error {code}").into()) } else { Ok(json!({ "error": code })) }
}

fn admin(args: &Args) -> Done {
    let client: AdminClient<DefaultClientContext> = args.config()?.create()?;
    let consumer: BaseConsumer = args.config()?.set("group.id", "unused").create()?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words.as_slice() {
            ["create", topic, partitions, configs @ ..] => {
                let mut new = NewTopic::new(topic, partitions.parse()?, TopicReplication::Fixed(1));
                for (name, value) in configs.iter().filter_map(|pair| pair.split_once('=')) {
                    new = new.set(name, value);
                }
                coded(block_on(client.create_topics([&new], &options)))?
            }
            ["grow", topic, partitions] => {
                let grown = NewPartitions::new(topic, partitions.parse()?);
                coded(block_on(client.create_partitions([&grown], &options)))?
            }
            ["delete", topic] => coded(block_on(client.delete_topics(&[topic], &options)))?,
            ["topics"] => {
                let metadata = consumer.fetch_metadata(None, PATIENCE)?;
                let topics =
                    metadata.topics().iter().map(|topic| (topic.name().into(), topic.partitions().len().into()));
                json!({ "error": 0, "topics": topics.collect::<serde_json::Map<_, _>>() })
            }
            ["offsets", topic, time] => json!({ "error": 0, "offsets": offsets(&consumer, topic, time.parse()?)? }),
            _ => return Err(format!("unknown command {line}").into()),
        };
        tell(&answer)?;
    }
    Ok(())
}

fn offsets(consumer: &BaseConsumer, topic: &str, time: i64) -> Done<Vec<i64>> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let count = metadata.topics().first().ok_or("no such topic")?.partitions().len();
    let mut found = Vec::new();
    for partition in 0..i32::try_from(count)? {
        if time < 0 {
            let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
            found.push(if time == -1 { high } else { low });
            continue;
        }
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(topic, partition, Offset::Offset(time))?;
        let answer = consumer.offsets_for_times(asked, PATIENCE)?;
        let part = answer.find_partition(topic, partition).ok_or("an answer without the partition")?;
        found.push(part.offset().to_raw().ok_or("no offset")?);
    }
    Ok(found)
}
