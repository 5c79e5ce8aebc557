//! From the brokers to standard output.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_lite::future::or;

use super::begin::{From, Wanted, positions};
use super::printer::{More, Printer};
use super::shape::Shape;
use crate::cli::connect::Reach;
use crate::cli::parse::Indexes;
use crate::cli::report::say;
use crate::cli::topic::one_to_use;
use crate::client::ClusterClient;
use crate::client::consumer::Isolation;
use crate::client::consumer::{Consumer, Position, Settings};
use crate::client::group_member::GroupMember;
use crate::runtime::clock;
use crate::runtime::process::{self, StopFlag};

/// Time between two commits of a group's offsets.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// A person waits for the end.
const LAST_COMMIT_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Command {
    pub topic: String,
    pub from: From,
    pub partitions: Option<Indexes>,
    pub count: Option<u64>,
    pub until_end: bool,
    pub group: Option<String>,
    pub shape: Shape,
    pub isolation: Isolation,
    pub timeout: Duration,
}

pub(super) fn main(reach: &Reach, command: Command) -> ExitCode {
    let stop = StopFlag::default();
    if let Err(error) = process::stop_in_background(&stop) {
        say(&format!("signals cannot be watched: {error}"));
        return ExitCode::FAILURE;
    }
    match reach.ask((command, stop), consume) {
        Ok(failed) if failed.is_empty() => ExitCode::SUCCESS,
        Ok(failed) => {
            failed.iter().for_each(|line| say(line));
            ExitCode::FAILURE
        }
        Err(message) => {
            say(&message);
            ExitCode::FAILURE
        }
    }
}

async fn consume(mut client: ClusterClient, (command, stop): (Command, StopFlag)) -> Result<Vec<String>, String> {
    let topic = one_to_use(&mut client, &command.topic).await?;
    let all: Vec<i32> = topic.partitions.iter().map(|partition| partition.index).collect();
    let chosen = match &command.partitions {
        None => all.clone(),
        Some(Indexes(chosen)) => match chosen.iter().find(|index| !all.contains(index)) {
            None => chosen.clone(),
            Some(index) => {
                return Err(format!("topic {} has no partition {index}; it has {}", command.topic, all.len()));
            }
        },
    };
    let mut reader = Reader::new(client, command, stop);
    let outcome = match reader.member {
        Some(_) => reader.read().await,
        None => match reader.begin(&chosen, BTreeMap::new()).await {
            Ok(()) => reader.read().await,
            Err(error) => Err(error),
        },
    };
    let mut failed: Vec<String> = outcome.err().into_iter().collect();
    failed.extend(Box::pin(reader.end()).await);
    Ok(failed)
}

struct Reader {
    client: ClusterClient,
    command: Command,
    stop: StopFlag,
    consumer: Consumer,
    printer: Printer,
    member: Option<GroupMember>,
    /// Where each partition ended when it was first read.
    ends: BTreeMap<i32, i64>,
    /// Printed and not committed: the next offset of each partition.
    printed: BTreeMap<i32, i64>,
    committed_at: Instant,
}

impl Reader {
    fn new(client: ClusterClient, command: Command, stop: StopFlag) -> Reader {
        let settings = Settings {
            topic: command.topic.clone(),
            isolation: command.isolation,
            timeout: command.timeout,
            grows: command.group.is_none() && command.partitions.is_none() && !command.until_end,
        };
        let member = command.group.clone();
        Reader {
            consumer: Consumer::new(client.sibling(), settings),
            printer: Printer::new(command.topic.clone(), command.shape.clone(), command.count),
            member: member.map(|group| GroupMember::new(client.sibling(), group, command.topic.clone())),
            client,
            command,
            stop,
            ends: BTreeMap::new(),
            printed: BTreeMap::new(),
            committed_at: clock::now(),
        }
    }

    /// Finds out where to begin in these partitions.
    async fn begin(&mut self, partitions: &[i32], committed: BTreeMap<i32, i64>) -> Result<(), String> {
        let Command { topic, from, isolation, until_end, .. } = &self.command;
        let (from, isolation, until_end) = (*from, *isolation, *until_end);
        let wanted = Wanted { topic, partitions, from, isolation, until_end, committed };
        let mut found: BTreeMap<i32, Position> = positions(&mut self.client, &wanted).await?;
        for (index, position) in &mut found {
            position.end = position.end.map(|end| *self.ends.entry(*index).or_insert(end));
        }
        self.consumer.assign(&found);
        Ok(())
    }

    /// Until the end, if there is one, or until nobody wants more.
    async fn read(&mut self) -> Result<(), String> {
        while !self.stop.is_set() {
            if self.member.as_ref().is_some_and(GroupMember::must_join) && !self.join().await? {
                return Ok(());
            }
            if let Some(failed) = self.member.as_ref().and_then(GroupMember::failed) {
                return Err(failed);
            }
            // Dropped in mid-way it is of no use any more, and need not be.
            match or(async { Some(self.consumer.turn().await) }, stopped(&self.stop)).await {
                None => return Ok(()),
                Some(outcome) => outcome?,
            }
            self.consumer.notes().iter().for_each(|line| say(line));
            while let Some(chunk) = self.consumer.take() {
                let printed = &mut self.printed;
                let more = self
                    .printer
                    .print(chunk, |partition, next| {
                        printed.insert(partition, next);
                    })
                    .await?;
                if more == More::No || self.stop.is_set() {
                    return Ok(());
                }
                self.commit_in_time().await;
                // The rest may be another member's by now.
                if self.member.as_ref().is_some_and(GroupMember::must_join) {
                    break;
                }
            }
            if self.command.until_end && self.consumer.is_done() {
                return Ok(());
            }
            if let Some(member) = &mut self.member {
                member.topic_has(self.consumer.partition_count());
            }
            self.commit_in_time().await;
            or(self.consumer.changed(), clock::sleep(StopFlag::POLL)).await;
        }
        Ok(())
    }

    /// Joins the group, again if its members or partitions have changed. `false`: it shall stop.
    async fn join(&mut self) -> Result<bool, String> {
        // Printed records are committed while their partitions are still this member's.
        self.commit().await.iter().for_each(|line| say(line));
        self.consumer.assign(&BTreeMap::new());
        let Some(member) = &mut self.member else { return Ok(true) };
        let joined = or(async { Some(member.join().await) }, stopped(&self.stop)).await;
        let Some(joined) = joined else { return Ok(false) };
        let partitions = joined.map_err(|e| e.to_string())?;
        let committed = member.committed().await.map_err(|e| e.to_string())?;
        self.begin(&partitions, committed).await?;
        Ok(true)
    }

    async fn commit_in_time(&mut self) {
        if clock::now().saturating_duration_since(self.committed_at) > COMMIT_INTERVAL {
            self.commit().await.iter().for_each(|line| say(line));
        }
    }

    /// Commits for the group what has been printed; what went wrong.
    async fn commit(&mut self) -> Vec<String> {
        self.committed_at = clock::now();
        let printed = std::mem::take(&mut self.printed);
        let Some(member) = self.member.as_mut().filter(|_| !printed.is_empty()) else { return Vec::new() };
        let again = |index: &i32| {
            let offset = printed.get(index).copied().unwrap_or(0);
            format!("what was printed of {}-{index} before offset {offset} may be read again", self.command.topic)
        };
        match member.commit(&printed).await {
            Ok(refused) => {
                refused.iter().map(|(index, refusal)| format!("not committed: {refusal}; {}", again(index))).collect()
            }
            Err(error) => {
                let all: Vec<String> = printed.keys().map(again).collect();
                let line = format!("not committed: {error}; {}", all.join("; "));
                // The next commit may have more luck.
                self.printed = printed;
                vec![line]
            }
        }
    }

    /// Commits and leaves the group; what went wrong.
    async fn end(mut self) -> Vec<String> {
        let late =
            || vec!["not committed: the coordinator does not answer; what was printed may be read again".to_owned()];
        let failed = clock::until(clock::now() + LAST_COMMIT_WITHIN, self.commit()).await.unwrap_or_else(late);
        if let Some(member) = self.member {
            member.leave().await;
        }
        failed
    }
}

/// Nothing, once it shall stop.
async fn stopped<T>(stop: &StopFlag) -> Option<T> {
    while !stop.is_set() {
        clock::sleep(StopFlag::POLL).await;
    }
    None
}
