//! Requests to the servers, in their order, and the answers, which come in the same.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use zookeeper_client::{
    Acls, AddWatchMode, Client, CreateMode, Error, MultiReadResult, MultiWriteError, MultiWriteResult,
    PersistentWatcher, Stat,
};

use super::connect::WATCHED;
use super::plan::{Plan, Refusal, Step};
use super::tree::{Read, What, Znode};
use crate::cluster::store::commit::{Lifetime, Outcome};
use crate::cluster::store::engine::CommitId;

/// The answer to a read.
#[derive(Debug)]
pub enum Found {
    Znode(Znode),
    Children(Vec<String>),
    Nothing,
    Refused(Error),
}

#[derive(Debug)]
pub enum Answer {
    Synced(Result<(), Error>),
    RoundTrip(Result<(), Error>),
    /// The watch on one of the paths, by its place among them.
    Watching(usize, Result<PersistentWatcher, Error>),
    Read {
        audit: bool,
        reads: Vec<Read>,
        found: Result<Vec<Found>, Error>,
    },
    Commit(CommitId, Outcome),
}

type Request = Pin<Box<dyn Future<Output = Answer>>>;

/// Requests on their way. A connection answers them in order, so only the first is looked at.
#[derive(Default)]
pub struct Pipeline {
    requests: VecDeque<Request>,
}

impl Pipeline {
    pub fn sync(&mut self, client: &Client) {
        let client = client.clone();
        self.push(async move { Answer::Synced(client.sync("/").await) });
    }

    /// As a sync, asked for by the store's client.
    pub fn round_trip(&mut self, client: &Client) {
        let client = client.clone();
        self.push(async move { Answer::RoundTrip(client.sync("/").await) });
    }

    /// Watches everything once more. The client library (0.11.2) leaves persistent watches out when
    /// it sets those of a connection that was lost.
    pub fn watch(&mut self, client: &Client) {
        for (place, path) in WATCHED.into_iter().enumerate() {
            let client = client.clone();
            self.push(
                async move { Answer::Watching(place, client.watch(path, AddWatchMode::PersistentRecursive).await) },
            );
        }
    }

    pub fn read(&mut self, client: &Client, reads: Vec<Read>, audit: bool) {
        let client = client.clone();
        self.push(async move {
            let found = read(&client, &reads).await;
            Answer::Read { audit, reads, found }
        });
    }

    pub fn commit(&mut self, client: &Client, id: CommitId, plan: Plan) {
        let client = client.clone();
        self.push(async move {
            let result = write(&client, &plan).await;
            Answer::Commit(id, outcome(&plan, result))
        });
    }

    /// An outcome that stands without the servers, behind those of the commits before it.
    pub fn settled(&mut self, id: CommitId, outcome: Outcome) {
        self.push(std::future::ready(Answer::Commit(id, outcome)));
    }

    /// The next answer; pending also when nothing is under way.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Answer> {
        let Some(first) = self.requests.front_mut() else { return Poll::Pending };
        let answer = std::task::ready!(first.as_mut().poll(context));
        self.requests.pop_front();
        Poll::Ready(answer)
    }

    /// Forgets what is under way. It may be carried out all the same.
    pub fn clear(&mut self) {
        self.requests.clear();
    }

    fn push(&mut self, request: impl Future<Output = Answer> + 'static) {
        let mut request: Request = Box::pin(request);
        // The first poll sends it; the answer is waited for by another.
        let request = match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Box::pin(std::future::ready(answer)),
            Poll::Pending => request,
        };
        self.requests.push_back(request);
    }
}

async fn read(client: &Client, reads: &[Read]) -> Result<Vec<Found>, Error> {
    let mut reader = client.new_multi_reader();
    for read in reads {
        match read.what {
            What::Data => reader.add_get_data(&read.path)?,
            What::Children => reader.add_get_children(&read.path)?,
        }
    }
    let results = reader.commit().await?;
    if results.len() != reads.len() {
        return Err(Error::UnexpectedError(format!("{} answers to {} reads", results.len(), reads.len())));
    }
    Ok(results.into_iter().map(found).collect())
}

fn found(result: MultiReadResult) -> Found {
    match result {
        MultiReadResult::Data { data, stat } => Found::Znode(znode(data, &stat)),
        MultiReadResult::Children { children } => Found::Children(children),
        MultiReadResult::Error { err: Error::NoNode } => Found::Nothing,
        MultiReadResult::Error { err } => Found::Refused(err),
        other => Found::Refused(Error::UnexpectedError(format!("{other:?}"))),
    }
}

fn znode(bytes: Vec<u8>, stat: &Stat) -> Znode {
    let (version, created) = (stat.version, stat.czxid);
    Znode { bytes, version, created, modified: stat.mzxid, children_modified: stat.pzxid }
}

async fn write(client: &Client, plan: &Plan) -> Result<Vec<MultiWriteResult>, MultiWriteError> {
    let mut writer = client.new_multi_writer();
    for (step, _) in &plan.0 {
        match step {
            Step::Check(path, version) => writer.add_check_version(path, *version)?,
            Step::Set(path, bytes, version) => writer.add_set_data(path, bytes, Some(*version))?,
            Step::Delete(path, version) => writer.add_delete(path, *version)?,
            Step::Create(path, bytes, lifetime) => {
                let mode = match lifetime {
                    Lifetime::Persistent => CreateMode::Persistent,
                    Lifetime::Ephemeral => CreateMode::Ephemeral,
                };
                writer.add_create(path, bytes, &mode.with_acls(Acls::anyone_all()))?;
            }
        }
    }
    writer.commit().await
}

fn outcome(plan: &Plan, result: Result<Vec<MultiWriteResult>, MultiWriteError>) -> Outcome {
    let (index, error) = match result {
        Ok(_) => return Outcome::Done,
        Err(MultiWriteError::OperationFailed { index, source }) => (Some(index), source),
        Err(MultiWriteError::RequestFailed { source }) => (None, source),
    };
    let refusal = match error {
        Error::NoNode => Refusal::Missing,
        Error::NodeExists => Refusal::Exists,
        Error::BadVersion => Refusal::OtherVersion,
        Error::NotEmpty => Refusal::HasChildren,
        // Said by a server, or before anything was sent.
        Error::NoAuth
        | Error::InvalidAcl
        | Error::NoChildrenForEphemerals
        | Error::QuotaExceeded
        | Error::Throttled
        | Error::NotReadOnly
        | Error::BadArguments(_) => {
            let at = index.and_then(|index| plan.0.get(index)).map(|(_, key)| format!(" at {key:?}"));
            return Outcome::Failed(format!("ZooKeeper has refused the commit{}: {error}", at.unwrap_or_default()));
        }
        _ => return Outcome::Unknown,
    };
    index.map_or(Outcome::Unknown, |index| plan.conflict(index, refusal))
}
