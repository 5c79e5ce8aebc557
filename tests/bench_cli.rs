//! `corelane bench` as its users run it, against the broker as a process: every mode's
//! result is plausible, what was produced is found again, and a broker that stalls,
//! dies or falls behind shows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/broker.rs"]
mod broker;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use broker::Broker;
use serde_json::Value;

/// The exit code of a run that did not keep its rate.
const VOID: i32 = 3;

fn start(port: u16, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_corelane"))
        .arg("bench")
        .args(arguments)
        .args(["--format", "json", "--bootstrap", &format!("127.0.0.1:{port}")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn result(output: Output) -> (i32, Value, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), json, said)
}

fn bench(port: u16, arguments: &[&str]) -> (i32, Value, String) {
    result(start(port, arguments).wait_with_output().unwrap())
}

/// A run that is watched while it goes on, line by line of what it says.
struct Watched {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
}

impl Watched {
    fn start(port: u16, arguments: &[&str]) -> Watched {
        let mut child = start(port, arguments);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Watched { child, stderr, said: String::new() }
    }

    /// The next line that `wanted` takes.
    fn hear(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        loop {
            let before = self.said.len();
            let n = self.stderr.read_line(&mut self.said).unwrap();
            assert!(n > 0, "it ended: {}", self.said);
            if wanted(&self.said[before..]) {
                return;
            }
        }
    }

    /// Waits until it has gone on for a second.
    fn runs(&mut self) {
        self.hear(|line| line.contains("records/s"));
    }

    fn end(mut self) -> (i32, Value, String) {
        self.stderr.read_to_string(&mut self.said).unwrap();
        let (code, json, _) = result(self.child.wait_with_output().unwrap());
        (code, json, self.said)
    }
}

/// Of a run at a rate, which a busy machine may miss: that is told and no failure.
fn at_a_rate(port: u16, arguments: &[&str]) -> Value {
    let (code, json, said) = bench(port, arguments);
    assert!(code == 0 || (code == VOID && json["void"] == true), "{arguments:?}: {code} {json}\n{said}");
    println!("{arguments:?}: {} of the rate {}", json["rate"]["achieved"], json["rate"]["asked"]);
    json
}

/// Of a run that must go well.
fn good(port: u16, arguments: &[&str]) -> Value {
    let (code, json, said) = bench(port, arguments);
    assert_eq!(code, 0, "{arguments:?}: {json}\n{said}");
    json
}

/// Runs longer and longer until `enough` says so: how much a second brings depends on
/// how busy the machine is.
fn long_enough(port: u16, arguments: &[&str], enough: fn(&Value) -> bool) {
    for duration in ["1", "10", "60"] {
        let (code, json, said) = bench(port, &[arguments, &["--duration", duration]].concat());
        if code == 0 && enough(&json) {
            return;
        }
        assert!(duration != "60", "{arguments:?}: {code} {json}\n{said}");
    }
}

fn number(json: &Value, path: &str) -> f64 {
    json.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number {path} in {json}"))
}

/// The first second of the run is over.
fn wait_for_a_line(run: &mut Child) {
    let (said, mut byte) = (run.stderr.as_mut().unwrap(), [0]);
    while said.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {}
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

#[test]
fn what_is_produced_at_a_rate_is_found_again() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("latencies.hgrm");
    let arguments = ["produce", "--topic", "t", "--partitions", "3", "--connections", "2", "--rate", "1"];
    let log = dir.path().join("intervals.hlog");
    let more = ["--batch-bytes", "16384", "--duration", "2", "--hgrm", file.to_str().unwrap()];
    let more = [&more[..], &["--interval-log", log.to_str().unwrap(), "--quiet"]].concat();
    let json = at_a_rate(broker.port, &[&arguments[..], &more].concat());
    let (p50, max) = (number(&json, "/latency_ms/p50"), number(&json, "/latency_ms/max"));
    assert!(p50 > 0.0 && p50 <= max && number(&json, "/seconds") == 2.0, "{json}");
    let (records, requests) = (number(&json, "/records"), number(&json, "/requests"));
    assert!(requests > 0.0 && requests <= 130.0 && records == requests * 15.0, "{json}");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.starts_with("#[Histogram log format version 1.3]\n"), "{log}");
    let intervals: Vec<&str> = log.lines().filter(|line| !line.starts_with('#')).collect();
    // What was due in the last moment may be answered after it.
    assert!(intervals.len() >= 2 && intervals[1].starts_with("1.000,1.000,"), "{log}");
    assert!(std::fs::read_to_string(file).unwrap().contains(&format!("{requests}]")));

    for partitions in [&["--connections", "1"][..], &["--connections", "2", "--threads", "2"]] {
        let found = good(broker.port, &[&["consume", "--topic", "t", "--verify"], partitions].concat());
        assert_eq!((number(&found, "/records"), number(&found, "/bytes")), (records, number(&json, "/bytes")));
    }
}

#[test]
fn saturation_requests_and_acks_0_give_results() {
    let broker = Broker::start();
    let single = good(broker.port, &["requests", "--duration", "1", "--warmup", "0.5", "--topic", "single"]);
    assert!(number(&single, "/requests") > 0.0 && single["requests"] == single["records"], "{single}");
    let all = good(broker.port, &["produce", "--duration", "1", "--record-size", "10000", "--topic", "all"]);
    assert!(number(&all, "/mb_per_s") > 0.0 && number(&all, "/client_cpu_s") > 0.0, "{all}");
    let unasked = at_a_rate(
        broker.port,
        &["produce", "--duration", "1", "--acks", "0", "--rate", "0.5", "--topic", "unasked", "--batch-bytes", "4096"],
    );
    assert!(number(&unasked, "/records") > 0.0, "{unasked}");
}

#[test]
fn every_codec_is_taken_and_found_again() {
    let broker = Broker::start();
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let json = at_a_rate(
            broker.port,
            &[
                "produce",
                "--codec",
                codec,
                "--rate",
                "0.5",
                "--duration",
                "1",
                "--topic",
                codec,
                "--batch-bytes",
                "8192",
            ],
        );
        let (bytes, raw) = (number(&json, "/bytes"), number(&json, "/uncompressed_bytes"));
        assert!((0.49..0.8).contains(&(bytes / raw)), "{codec}: {json}");
        let found = good(broker.port, &["consume", "--topic", codec, "--verify"]);
        assert_eq!((number(&found, "/records"), number(&found, "/bytes")), (number(&json, "/records"), bytes));
    }
}

/// The null broker as a process; ends with this value.
struct Null {
    child: Child,
    port: u16,
    said: BufReader<ChildStderr>,
}

impl Null {
    fn start(arguments: &[&str]) -> Null {
        let mut child = Command::new(env!("CARGO_BIN_EXE_corelane"))
            .args(["bench", "null", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        Null { child, port: port.unwrap_or_else(|| panic!("no port in {line:?}")), said }
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_null_broker_takes_and_gives_whatever_is_asked() {
    let mut null = Null::start(&["--partitions", "3", "--record-size", "100", "--batch-bytes", "10000"]);
    let all = ["--connections", "2", "--duration", "1"];
    for batch_bytes in ["100", "5000", "65536", "1000000"] {
        for acks in ["0", "1"] {
            let more = ["--batch-bytes", batch_bytes, "--acks", acks, "--threads", "2"];
            let json = good(null.port, &[&["produce"], &all[..], &more].concat());
            assert!(number(&json, "/mb_per_s") > 0.0, "{json}");
        }
    }
    let single = good(null.port, &[&["requests"], &all[..]].concat());
    assert!(number(&single, "/requests_per_s") > 0.0, "{single}");
    let read = good(null.port, &[&["consume", "--verify", "--partition-max-bytes", "100000"], &all[..]].concat());
    // One or two partitions a connection, nine batches of 10,000 bytes from each.
    assert!((88_000.0..200_000.0).contains(&number(&read, "/bytes_per_request")), "{read}");
    let read = good(null.port, &[&["consume", "--from", "end", "--max-bytes", "15000"], &all[..]].concat());
    assert!((9_000.0..=10_000.0).contains(&number(&read, "/bytes_per_request")), "{read}");

    let connect = || TcpStream::connect(("127.0.0.1", null.port)).unwrap();
    let mut noise = Vec::from([0; 12]);
    noise.extend((0..100_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8));
    for bad in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &noise, &[0, 0, 0, 9, 0, 0, 0, 99, 1, 1, 1, 1, 1]] {
        let mut stream = connect();
        let _ = stream.write_all(bad);
        let _ = stream.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    // Lengths that never come, and ends in mid-frame.
    let mut held = connect();
    held.write_all(&[0x05, 0, 0, 0, 0, 0, 0, 9]).unwrap();
    drop(connect());
    good(null.port, &[&["requests"], &all[..]].concat());
    signal(null.child.id(), "INT");
    assert_eq!(null.child.wait().unwrap().code(), Some(0));
    let mut said = String::new();
    null.said.read_to_string(&mut said).unwrap();
    assert!(said.contains("a connection was ended: a frame declares"), "{said}");
}

#[test]
fn a_null_broker_that_receives_answers_the_same() {
    let null = Null::start(&["--partitions", "3", "--receive"]);
    for work in [&["produce", "--batch-bytes", "5000"][..], &["produce", "--batch-bytes", "1000000"], &["requests"]] {
        long_enough(null.port, &[work, &["--connections", "2"]].concat(), |json| number(json, "/requests") > 0.0);
    }
}

#[test]
fn a_null_broker_that_writes_behind_writes_what_it_acknowledged() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("behind");
    let null = Null::start(&["--write-behind", file.to_str().unwrap()]);
    // Groups of 1 MiB: all but the last have left.
    long_enough(null.port, &["produce", "--batch-bytes", "65536"], |json| number(json, "/bytes") > 2e6);
    let (mut first, deadline) = ([0; 4096], Instant::now() + Duration::from_secs(60));
    while first == [0; 4096] && Instant::now() < deadline {
        // Its length may be that of what was written.
        let _ = File::open(&file).unwrap().read(&mut first).unwrap();
    }
    assert!(first != [0; 4096], "nothing was written");
}

#[test]
fn idle_connections_are_held_and_lost_ones_are_counted() {
    let broker = Broker::start();
    let json = good(broker.port, &["idle", "--connections", "600", "--duration", "1.5", "--quiet"]);
    assert_eq!((number(&json, "/opened"), number(&json, "/open_at_end")), (600.0, 600.0), "{json}");
    assert!(number(&json, "/seconds") >= 1.5, "{json}");

    let mut null = Null::start(&[]);
    let mut run = Watched::start(null.port, &["idle", "--connections", "100", "--duration", "600"]);
    run.hear(|line| line.contains("100 connections open"));
    null.child.kill().unwrap();
    // Nothing interrupts it: there is nothing left to hold.
    let (code, json, said) = run.end();
    assert!(code == 1 && said.contains("100 connections open"), "{code} {json}\n{said}");
    assert_eq!((number(&json, "/opened"), number(&json, "/open_at_end")), (100.0, 0.0), "{json}");
    assert!(json["interrupted"] == true && number(&json, "/seconds") < 500.0, "{json}");
    assert_eq!(json["errors"], serde_json::json!({ "connections that the broker has ended": 100 }));
    let (code, json, _) = bench(null.port, &["idle", "--connections", "2"]);
    assert!(code == 1 && json["errors"].to_string().contains("cannot connect"), "{code} {json}");
}

#[test]
fn every_partition_is_read_as_often_as_asked() {
    let broker = Broker::start();
    let produce = ["produce", "--topic", "t", "--partitions", "3", "--rate", "2", "--duration", "1"];
    let json = at_a_rate(broker.port, &produce);
    let all = ["consume", "--topic", "t", "--fan-out", "4", "--connections", "2", "--verify"];
    let read = good(broker.port, &all);
    assert_eq!(number(&read, "/records"), 4.0 * number(&json, "/records"), "{read}");
    assert_eq!(number(&read, "/settings/connections"), 8.0);
    let each = number(&read, "/bytes") / number(&read, "/requests");
    assert!((number(&read, "/bytes_per_request") / each - 1.0).abs() < 1e-9, "{read}");

    // At the tail, while more is written; each of the two readers gets nearly all of it.
    let tail = ["consume", "--topic", "t", "--from", "end", "--fan-out", "2", "--duration", "600", "--verify"];
    let more = ["--fetch-min-bytes", "100000", "--fetch-max-wait-ms", "300"];
    let mut run = Watched::start(broker.port, &[&tail[..], &more].concat());
    run.runs();
    let json = at_a_rate(broker.port, &produce);
    let mut left = 2.0 * number(&json, "/records");
    run.hear(|line| {
        let records = line.split_once("records/s").and_then(|(head, _)| head.split_whitespace().last());
        left -= records.and_then(|records| records.parse::<f64>().ok()).unwrap_or_default();
        left <= 0.0
    });
    signal(run.child.id(), "INT");
    let (code, read, said) = run.end();
    assert_eq!((code, number(&read, "/records")), (0, 2.0 * number(&json, "/records")), "{read} {said}");
    // 2 MB a second over three partitions, 65 KB a batch, the broker waits for
    // two of them or 300 ms.
    println!("{} bytes a fetch at the tail", number(&read, "/bytes_per_request"));
}

#[test]
fn a_batch_that_rotted_fails_a_verifying_consumer() {
    let mut broker = Broker::start();
    at_a_rate(broker.port, &["produce", "--topic", "t", "--rate", "2", "--duration", "1"]);
    let log = broker.data().join("t-0/00000000000000000000.log");
    broker.restart(|| {
        let mut bytes = std::fs::read(&log).unwrap();
        bytes[100_000] ^= 0x10;
        std::fs::write(&log, bytes).unwrap();
    });
    good(broker.port, &["consume", "--topic", "t"]);
    let (code, json, said) = bench(broker.port, &["consume", "--topic", "t", "--verify"]);
    let errors = json["errors"].to_string();
    // The broker sets the rotten batch aside; a wrong CRC that is served is what
    // the null broker below has.
    assert!(code == 1 && errors.contains("gaps between offsets"), "{json}\n{said}");
    // All else is read and found to be good.
    let (code, json, _) = bench(broker.port, &["consume", "--topic", "t", "--verify", "--tolerate"]);
    assert_eq!((code, json["errors"].as_object().unwrap().len()), (0, 1), "{json}");
}

#[test]
fn lost_and_repeated_batches_fail_a_verifying_consumer() {
    for (spoil, error) in
        [("crc", "wrong CRC"), ("gap", "gaps between offsets"), ("repeat", "twice there or out of order")]
    {
        let null = Null::start(&["--spoil", spoil, "--batch-bytes", "10000"]);
        let all = ["consume", "--from", "end", "--duration", "600"];
        let (code, json, said) = bench(null.port, &[&all[..], &["--verify"]].concat());
        assert!(code == 1 && json["errors"].to_string().contains(error), "{spoil}: {code} {json}\n{said}");
        assert!(number(&json, "/seconds") < 300.0, "{json}");
    }
}

#[test]
fn a_broker_that_stalls_for_a_second_shows_it() {
    let broker = Broker::start();
    let mut run = Watched::start(broker.port, &["e2e", "--rate", "1000", "--duration", "4", "--topic", "timed"]);
    run.runs();
    signal(broker.pid(), "STOP");
    sleep(Duration::from_millis(1000));
    signal(broker.pid(), "CONT");
    let (code, json, said) = run.end();
    assert!(code == 0 || (code == VOID && json["void"] == true), "{json}\n{said}");
    assert!(number(&json, "/latency_ms/max") >= 900.0 && number(&json, "/latency_ms/p99_9") >= 900.0, "{json}");
    // A fifth of the run: whoever was to be sent in that second counts, not only
    // the one who was on the way.
    assert!(number(&json, "/latency_ms/p90") >= 300.0, "{json}");
    assert_eq!(number(&json, "/records"), number(&json, "/latency_ms/count"), "{json}");
    assert!(said.lines().filter(|line| line.contains("p99")).count() >= 2, "{said}");
}

#[test]
fn ctrl_c_gives_the_result_so_far() {
    let broker = Broker::start();
    let mut run = Watched::start(broker.port, &["e2e", "--rate", "100", "--duration", "600", "--topic", "long"]);
    run.runs();
    run.runs();
    signal(run.child.id(), "INT");
    let (code, json, said) = run.end();
    assert!(code == 0 || (code == VOID && json["void"] == true), "{json}\n{said}");
    let seconds = number(&json, "/seconds");
    assert!(json["interrupted"] == true && seconds > 0.5 && seconds < 300.0, "{json}");
    assert!(number(&json, "/records") > 0.0 && number(&json, "/records") < seconds * 100.0 + 10.0, "{json}");
}

#[test]
fn what_cannot_be_or_was_not_done_has_its_exit_code() {
    let mut broker = Some(Broker::start());
    let port = broker.as_ref().unwrap().port;
    let (code, _, said) = bench(port, &["consume", "--topic", "absent"]);
    assert!(code == 1 && said.contains("no topic absent"), "{code} {said}");
    // Far more than one request at a time can carry.
    let (code, json, _) =
        bench(port, &["produce", "--rate", "100000", "--in-flight", "1", "--duration", "1", "--topic", "fast"]);
    assert_eq!((code, &json["void"]), (3, &Value::Bool(true)), "{json}");
    // Larger than the broker takes: its refusal is counted and named.
    let large = ["produce", "--batch-bytes", "3000000", "--duration", "1", "--topic", "large"];
    let (code, json, _) = bench(port, &large);
    assert!(code == 1 && json["errors"].to_string().contains("MessageTooLarge (10)"), "{code} {json}");
    let (code, json, _) = bench(port, &[&large[..], &["--rate", "10", "--tolerate"]].concat());
    assert!(code == 3 && number(&json, "/seconds") == 1.0, "{code} {json}");
    // A broker that dies in mid-run: what is reported is the time until then,
    // and the rate of that time.
    let runs = [
        &["e2e", "--rate", "100"][..],
        &["produce", "--rate", "0.1", "--batch-bytes", "1000"],
        &["produce", "--rate", "0.1", "--batch-bytes", "1000", "--tolerate"],
        &["produce", "--batch-bytes", "1000", "--in-flight", "1"],
        &["requests", "--in-flight", "1"],
        &["consume", "--from", "end"],
    ];
    let topics: Vec<String> = (0..runs.len()).map(|number| format!("dies-{number}")).collect();
    topics.iter().for_each(|topic| drop(good(port, &["requests", "--duration", "0.1", "--topic", topic])));
    let end = ["--duration", "600", "--topic"];
    let run = |(arguments, topic): (&&[&str], &String)| start(port, &[arguments, &end[..], &[topic.as_str()]].concat());
    let mut started: Vec<Child> = runs.iter().zip(&topics).map(run).collect();
    started.iter_mut().for_each(wait_for_a_line);
    drop(broker.take());
    for (arguments, run) in runs.iter().zip(started) {
        let (code, json, said) = result(run.wait_with_output().unwrap());
        let wanted = if arguments.contains(&"--tolerate") { [0, 3] } else { [1, 1] };
        assert!(wanted.contains(&code), "{arguments:?}: {code} {json}\n{said}");
        assert!(json["errors"].to_string().contains("connection"), "{arguments:?}: {json}\n{said}");
        assert!(number(&json, "/seconds") < 500.0, "{arguments:?}: {json}");
    }
    let (code, _, said) = bench(port, &["requests"]);
    assert!(code == 1 && said.contains("cannot connect"), "{code} {said}");
}
