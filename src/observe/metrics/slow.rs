//! The slowest requests of this minute and of those before it, with their stages
//! and what they waited for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clients::ClientKind;
use super::counters::Level;
use super::waits::Waits;

/// Requests of a minute that are kept, for each shard.
pub const KEPT: usize = 16;
/// Minutes whose requests are kept, this one included.
pub const MINUTES: usize = 15;
const MINUTE_MS: i64 = 60_000;
/// Names that clients choose are cut to so many bytes.
const NAME_BYTES: usize = 100;

/// A stage of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Not read to its end, or not begun: its client is muted, or there is no memory.
    HeldBack,
    /// Produce: until its batches had their places in the logs.
    Append,
    /// Produce: from there until they were acknowledged.
    Acknowledge,
    /// Fetch: until it began to read.
    LookUp,
    /// Fetch: for records to be there.
    Wait,
    /// Fetch: reading.
    Read,
    /// Any other: until the answer was made.
    Handle,
    /// Until the kernel had the answer.
    Send,
}

impl Step {
    pub fn name(self) -> &'static str {
        match self {
            Step::HeldBack => "held_back",
            Step::Append => "append",
            Step::Acknowledge => "acknowledge",
            Step::LookUp => "look_up",
            Step::Wait => "wait",
            Step::Read => "read",
            Step::Handle => "handle",
            Step::Send => "send",
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Step::HeldBack => "held back",
            Step::Append => "appended",
            Step::Acknowledge => "acknowledged",
            Step::LookUp => "looked up",
            Step::Wait => "waited for records",
            Step::Read => "read",
            Step::Handle => "handled",
            Step::Send => "sent",
        }
    }
}

/// Partitions that a request is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// How many; 0: none, or they are not counted.
    pub partitions: u32,
    /// Index of the first that there is; less than 0: there is none.
    index: i32,
    /// Id of its topic.
    topic: [u8; 16],
}

impl Target {
    pub fn new(partitions: usize, first: Option<(u128, i32)>) -> Target {
        let (topic, index) = first.map_or(([0; 16], -1), |(topic, index)| (topic.to_ne_bytes(), index));
        Target { partitions: u32::try_from(partitions).unwrap_or(u32::MAX), index, topic }
    }

    /// Topic id and index of the first that there is.
    pub fn first(&self) -> Option<(u128, i32)> {
        (self.partitions > 0 && self.index >= 0).then(|| (u128::from_ne_bytes(self.topic), self.index))
    }
}

/// A request that took long.
#[derive(Clone, Debug)]
pub struct SlowRequest {
    /// When its answer was given to the kernel, in ms since 1970.
    pub at_ms: i64,
    /// Of its API.
    pub key: i16,
    pub version: i16,
    pub client_id: Option<Box<str>>,
    pub client: Option<Arc<ClientKind>>,
    pub listener: Box<str>,
    pub peer: Option<SocketAddr>,
    pub target: Target,
    /// Of the first partition.
    pub topic: Option<Arc<str>>,
    pub request_bytes: usize,
    pub response_bytes: usize,
    /// In their order; they make up all of its time.
    pub steps: Vec<(Step, Duration)>,
    pub waits: Waits,
}

impl SlowRequest {
    /// A client's name for itself, as it is kept.
    pub fn name(text: &str) -> Box<str> {
        text[..text.floor_char_boundary(NAME_BYTES)].into()
    }

    /// From its last byte, or from when it was held back, until the kernel had the answer.
    pub fn total(&self) -> Duration {
        self.steps.iter().map(|(_, time)| *time).sum()
    }

    /// The part that was slowness.
    pub fn slow(&self) -> Duration {
        self.total().saturating_sub(Duration::from_nanos(self.waits.expected()))
    }

    fn sending(&self) -> Duration {
        self.steps.iter().filter(|(step, _)| *step == Step::Send).map(|(_, time)| *time).sum()
    }

    /// Causes of its waits by name, and in words, the longest first. Time that is in none of these
    /// it took itself, or others that had the CPU.
    pub fn waited(&self) -> Vec<(&'static str, &'static str, Duration)> {
        let noted = self.waits.longest_first().into_iter().map(|(cause, time)| (cause.name(), cause.in_words(), time));
        let mut waited: Vec<_> = noted.collect();
        let sending = self.sending();
        if !sending.is_zero() {
            waited.push(("client", "the client to take the answer", sending));
        }
        waited.sort_by_key(|(_, _, time)| std::cmp::Reverse(*time));
        waited
    }

    /// The reason for most of its slowness: one of [`waited`](Self::waited), or `cpu`.
    pub fn waited_for(&self) -> (&'static str, &'static str, Duration) {
        let expected =
            |name: &str| super::waits::Cause::ALL.iter().any(|cause| cause.is_expected() && cause.name() == name);
        let reasons: Vec<_> = self.waited().into_iter().filter(|(name, ..)| !expected(name)).collect();
        let rest = self.slow().saturating_sub(reasons.iter().map(|(_, _, time)| *time).sum());
        let longest = reasons.into_iter().next().filter(|(_, _, time)| *time >= rest);
        longest.unwrap_or(("cpu", "its own work, or that of others on its shard", rest))
    }

    /// The stages as a line shows them.
    pub fn stages_in_words(&self) -> String {
        let shown = |(step, time): &(Step, Duration)| format!("{} {}", step.in_words(), ms(*time));
        self.steps.iter().map(shown).collect::<Vec<_>>().join(", ")
    }

    /// Its waits, as a line shows them.
    pub fn waits_in_words(&self) -> String {
        let (_, reason, time) = self.waited_for();
        let others = self.waited().into_iter().filter(|(_, words, time)| *words != reason && *time >= SHOWN);
        let all = std::iter::once((reason, time)).chain(others.map(|(_, words, time)| (words, time)));
        all.map(|(words, time)| format!("{} for {words}", ms(time))).collect::<Vec<_>>().join(", ")
    }
}

/// Shorter waits are not told of in words.
const SHOWN: Duration = Duration::from_millis(1);

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Requests of one minute.
#[derive(Clone, Debug, Default)]
pub struct Minute {
    /// Minutes since 1970; 0: never used.
    number: i64,
    /// The slowest first.
    requests: Vec<(Duration, SlowRequest)>,
}

impl Minute {
    /// Its begin, ms since 1970.
    pub fn begin_ms(&self) -> i64 {
        self.number * MINUTE_MS
    }

    pub fn requests(&self) -> impl Iterator<Item = &SlowRequest> {
        self.requests.iter().map(|(_, request)| request)
    }
}

/// The newest minutes, each at the place of its number.
#[derive(Debug)]
struct Ring {
    newest: i64,
    minutes: [Minute; MINUTES],
    thresholds: SlowThresholds,
}

impl Default for Ring {
    fn default() -> Ring {
        let minute = |_| Minute { number: 0, requests: Vec::with_capacity(KEPT + 1) };
        Ring { newest: 0, minutes: std::array::from_fn(minute), thresholds: SlowThresholds::default() }
    }
}

impl Ring {
    fn of(&mut self, number: i64) -> &mut Minute {
        &mut self.minutes[number.rem_euclid(MINUTES as i64) as usize]
    }

    /// Goes on to the minute of `at_ms`, also back, as the clock may. What is older than the ring,
    /// or newer than now, goes.
    fn roll(&mut self, at_ms: i64) -> bool {
        let number = at_ms.div_euclid(MINUTE_MS);
        if number == self.newest {
            return false;
        }
        self.newest = number;
        let oldest = number - (MINUTES as i64 - 1);
        for minute in &mut self.minutes {
            if !(oldest..=number).contains(&minute.number) {
                minute.requests.clear();
            }
        }
        let minute = self.of(number);
        if minute.number != number {
            minute.requests.clear();
            minute.number = number;
        }
        true
    }
}

/// How long a request takes that is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowThresholds {
    /// `corelane.slow.request.threshold.ms`: what took less is not kept.
    pub kept: Duration,
    /// `corelane.slow.request.ms`: what took less is not logged; the longest there is: nothing is.
    pub logged: Duration,
}

impl SlowThresholds {
    /// As the options say it, ms.
    pub fn of_ms(kept: u64, logged: u64) -> SlowThresholds {
        let logged = if logged == 0 { Duration::MAX } else { Duration::from_millis(logged) };
        SlowThresholds { kept: Duration::from_millis(kept), logged }
    }

    /// Threshold above which requests are logged, ms; 0: none are.
    pub fn logged_ms(&self) -> u64 {
        if self.logged == Duration::MAX { 0 } else { u64::try_from(self.logged.as_millis()).unwrap_or(u64::MAX) }
    }
}

impl Default for SlowThresholds {
    fn default() -> SlowThresholds {
        SlowThresholds::of_ms(0, 0)
    }
}

/// Of one shard.
#[derive(Debug, Default)]
pub struct SlowRequests {
    /// A request that took no longer is neither among the slowest of this minute nor logged, ns.
    floor: Level,
    ring: Mutex<Ring>,
}

impl SlowRequests {
    /// True if a request that took so many ns may be among the slowest, or one to log.
    #[inline]
    pub fn wants(&self, ns: u64) -> bool {
        ns > self.floor.get()
    }

    pub fn note(&self, request: SlowRequest) {
        let mut ring = self.ring();
        ring.roll(request.at_ms);
        let (newest, slow) = (ring.newest, request.slow());
        if slow < ring.thresholds.kept {
            return;
        }
        let requests = &mut ring.of(newest).requests;
        let at = requests.partition_point(|(other, _)| *other >= slow);
        if at >= KEPT {
            return;
        }
        requests.insert(at, (slow, request));
        requests.truncate(KEPT);
        self.set_floor(&mut ring);
    }

    /// Begins a new minute where it is time.
    pub fn tick(&self, now_ms: i64) {
        let mut ring = self.ring();
        if ring.roll(now_ms) {
            self.set_floor(&mut ring);
        }
    }

    pub fn thresholds(&self) -> SlowThresholds {
        self.ring().thresholds
    }

    /// Holds for requests to come.
    pub fn set_thresholds(&self, thresholds: SlowThresholds) {
        let mut ring = self.ring();
        ring.thresholds = thresholds;
        self.set_floor(&mut ring);
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_floor(&self, ring: &mut Ring) {
        let (newest, SlowThresholds { kept, logged }) = (ring.newest, ring.thresholds);
        let least = ring.of(newest).requests.get(KEPT - 1).map(|(last, _)| *last);
        // A request that takes as long as a threshold is wanted; one that takes as long as one of
        // those that are kept is not.
        let below = |threshold: Duration| threshold.saturating_sub(Duration::from_nanos(1));
        let floor = below(kept).max(least.unwrap_or_default()).min(below(logged));
        self.floor.set(u64::try_from(floor.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The minutes up to that of `now_ms`, the newest first; one of them for each, also
    /// where nothing is kept of it.
    pub fn minutes(&self, now_ms: i64) -> Vec<Minute> {
        let mut ring = self.ring();
        let newest = now_ms.div_euclid(MINUTE_MS);
        let minute = |number| {
            let minute = ring.of(number);
            if minute.number == number { minute.clone() } else { Minute { number, requests: Vec::new() } }
        };
        (0..MINUTES as i64).map(|back| newest - back).map(minute).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::waits::Cause;
    use super::*;

    fn request(at_ms: i64, steps: &[(Step, u64)], waits: &[(Cause, u64)]) -> SlowRequest {
        let mut noted = Waits::default();
        waits.iter().for_each(|(cause, ms)| noted.add(*cause, ms * 1_000_000));
        SlowRequest {
            at_ms,
            key: 0,
            version: 13,
            client_id: None,
            client: None,
            listener: "PLAINTEXT".into(),
            peer: None,
            target: Target::default(),
            topic: None,
            request_bytes: 1,
            response_bytes: 1,
            steps: steps.iter().map(|(step, ms)| (*step, Duration::from_millis(*ms))).collect(),
            waits: noted,
        }
    }

    fn took(ms: u64, at_ms: i64) -> SlowRequest {
        request(at_ms, &[(Step::Append, ms)], &[])
    }

    /// Times of what is kept, by minute, without empty minutes at the end.
    fn kept(slow: &SlowRequests, now_ms: i64) -> Vec<Vec<u128>> {
        let times = |minute: &Minute| minute.requests().map(|request| request.total().as_millis()).collect();
        let mut minutes: Vec<Vec<u128>> = slow.minutes(now_ms).iter().map(times).collect();
        assert_eq!(minutes.len(), MINUTES);
        while minutes.last().is_some_and(Vec::is_empty) {
            minutes.pop();
        }
        minutes
    }

    #[test]
    fn the_slowest_of_a_minute_are_kept() {
        let slow = SlowRequests::default();
        let now = 1_764_000_000_000;
        for ms in 1..=100 {
            let ms = (ms * 37) % 101;
            if slow.wants(ms * 1_000_000) {
                slow.note(took(ms, now + 5));
            }
        }
        assert_eq!(kept(&slow, now), [(85..=100).rev().collect::<Vec<u128>>()]);
        assert!(!slow.wants(85_000_000) && slow.wants(86_000_000));
        slow.tick(now + 59_999);
        assert!(!slow.wants(3_000_000));
        slow.tick(now + 60_000);
        assert!(slow.wants(3_000_000), "a new minute");
        slow.note(took(3, now + 60_001));
        let minutes = kept(&slow, now + 60_001);
        assert_eq!((&minutes[0][..], minutes[1].len()), (&[3][..], KEPT));
    }

    #[test]
    fn what_takes_less_than_the_threshold_is_not_kept() {
        let (slow, now, ms) = (SlowRequests::default(), 1_764_000_000_000, 1_000_000);
        slow.set_thresholds(SlowThresholds::of_ms(10, 50));
        assert!(!slow.wants(10 * ms - 1) && slow.wants(10 * ms));
        slow.note(took(9, now));
        assert_eq!(kept(&slow, now), Vec::<Vec<u128>>::new());
        for _ in 0..KEPT {
            slow.note(took(100, now));
        }
        assert!(!slow.wants(50 * ms - 1) && slow.wants(50 * ms), "it is logged, whatever is kept");
        slow.set_thresholds(SlowThresholds::of_ms(200, 0));
        assert!(!slow.wants(200 * ms - 1) && slow.wants(200 * ms));
        slow.tick(now + 60_000);
        assert!(!slow.wants(100 * ms), "also in a new minute");
        assert_eq!([SlowThresholds::of_ms(0, 0), SlowThresholds::of_ms(0, 7)].map(|all| all.logged_ms()), [0, 7]);
    }

    #[test]
    fn minutes_leave_the_ring_in_their_time() {
        let slow = SlowRequests::default();
        let at = |minute: i64| 1_764_000_000_000 + minute * MINUTE_MS;
        for minute in [0, 1, 4] {
            slow.note(took(10 + minute as u64, at(minute)));
        }
        assert_eq!(kept(&slow, at(4)), [vec![14], vec![], vec![], vec![11], vec![10]]);
        assert_eq!(slow.minutes(at(4))[1].begin_ms(), at(3));
        slow.note(took(7, at(MINUTES as i64)));
        let minutes = kept(&slow, at(MINUTES as i64));
        assert_eq!((minutes.len(), &minutes[0][..], &minutes[MINUTES - 1][..]), (MINUTES, &[7][..], &[11][..]));
        slow.tick(at(1000));
        assert_eq!(kept(&slow, at(1000)), Vec::<Vec<u128>>::new());
        // The clock was set back.
        slow.note(took(8, at(900)));
        assert_eq!(kept(&slow, at(900)), [[8]]);
    }

    #[test]
    fn memory_is_bounded_however_many_requests_come() {
        let slow = SlowRequests::default();
        for n in 0..10_000u64 {
            slow.note(took(n, 1_764_000_000_000 + (n as i64) * 1000));
        }
        let ring = slow.ring.lock().unwrap();
        assert!(
            ring.minutes.iter().all(|minute| minute.requests.len() <= KEPT && minute.requests.capacity() == KEPT + 1)
        );
        assert_eq!(SlowRequest::name(&"ä".repeat(1000)).len(), NAME_BYTES);
    }

    #[test]
    fn waiting_for_records_is_no_slowness() {
        let fetch = request(
            0,
            &[(Step::LookUp, 1), (Step::Wait, 500), (Step::Read, 30), (Step::Send, 2)],
            &[(Cause::Records, 500), (Cause::Device, 28)],
        );
        assert_eq!((fetch.total().as_millis(), fetch.slow().as_millis()), (533, 33));
        assert_eq!(fetch.waited_for().0, "device");
        assert_eq!(fetch.stages_in_words(), "looked up 1.0 ms, waited for records 500.0 ms, read 30.0 ms, sent 2.0 ms");
        let words = fetch.waits_in_words();
        assert!(words.starts_with("28.0 ms for the disk, 500.0 ms for records"), "{words}");
    }

    #[test]
    fn the_longest_wait_is_named_or_the_cpu() {
        let of = |steps: &[(Step, u64)], waits: &[(Cause, u64)]| request(0, steps, waits).waited_for().0;
        assert_eq!(of(&[(Step::Append, 90), (Step::Acknowledge, 5)], &[(Cause::Helper, 80)]), "helper");
        assert_eq!(
            of(&[(Step::Append, 5), (Step::Acknowledge, 90)], &[(Cause::Device, 50), (Cause::Followers, 40)]),
            "device"
        );
        assert_eq!(of(&[(Step::Append, 90), (Step::Acknowledge, 5)], &[(Cause::Device, 4)]), "cpu");
        assert_eq!(of(&[(Step::Handle, 5), (Step::Send, 90)], &[]), "client");
        assert_eq!(of(&[(Step::HeldBack, 90), (Step::Handle, 5)], &[(Cause::Quota, 90)]), "quota");
    }
}
