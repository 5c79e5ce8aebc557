//! Admin requests on metadata that brokers share, on the controller's shard of the broker that got
//! them: checked against its image, committed against the versions that the image was made of, and
//! answered when every shard shows the result. What somebody else has changed meanwhile is decided
//! again. While this broker takes no part in the cluster, requests wait for that, as those that a
//! broker of Kafka forwards wait for a controller.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::api::TopicRef;
use super::control::{control_error, stopping};
use super::member::Member;
use super::state::{CONTROLLER, Shard};
use crate::cluster::admin::{self, NotElected, Stale};
use crate::cluster::controller::{self, AlterTopic, ControlError, CreateTopic, GrowTopic};
use crate::cluster::rules::{ReassignError, View};
use crate::cluster::store::{Commit, Key, Outcome, Phase, Record};
use crate::cluster::{MetadataImage, TopicImage};
use crate::model::{BrokerId, ErrorCode, encode_id};
use crate::observe::client_line;
use crate::observe::metrics::Cause;
use crate::runtime::sync::{Budget, oneshot};
use crate::runtime::{clock, spawn_local, waits};

/// Wait for a change to be committed and shown, where a client names none.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Times that a change is decided when others get in its way.
const TRIES: usize = 20;
/// Changes of one request under way at a time.
const AT_ONCE: usize = 64;

/// A decision on a request.
pub(super) enum Try<R> {
    /// Nothing has to be changed.
    Answered(Result<R, ControlError>),
    /// The answer once this is committed and shown.
    Commit(Commit, R),
    Stale,
}

impl<R> From<Stale> for Try<R> {
    fn from(_: Stale) -> Try<R> {
        Try::Stale
    }
}

/// Where a partition's replicas are to be; `None`: where they were before the
/// reassignment under way.
#[derive(Clone, Debug)]
pub struct Reassignment {
    pub topic: String,
    pub partition: i32,
    pub target: Option<Vec<i32>>,
    /// Their number may be another than it was (KIP-860).
    pub may_change_factor: bool,
}

/// A partition that is to have another leader.
#[derive(Clone, Debug)]
pub struct LeaderElection {
    pub topic: String,
    pub partition: i32,
    /// Any replica that is left, not the preferred one.
    pub unclean: bool,
}

impl Shard {
    /// Decides on a request and carries the decision out, again and again while others get
    /// in its way. `decide` gets the image, the view that it was made of, and if an earlier
    /// try may have taken effect.
    pub(super) async fn request<R>(
        self: &Rc<Self>,
        member: &Rc<Member>,
        deadline: Instant,
        mut decide: impl FnMut(&MetadataImage, &View, bool) -> Try<R>,
    ) -> Result<R, ControlError> {
        let (mut unknown, mut tries) = (false, 0);
        while tries < TRIES && member.until_taking_part(deadline).await {
            let tried = {
                let node = member.node.borrow();
                decide(&self.image(), node.view(), unknown)
            };
            let (commit, result) = match tried {
                Try::Answered(result) => return result,
                Try::Commit(commit, result) => (commit, result),
                Try::Stale if member.until_moved(deadline).await => continue,
                Try::Stale => break,
            };
            if let Some(why) = admin::oversized(&commit) {
                return Err(control_error(ErrorCode::InvalidPartitions, why));
            }
            tries += 1;
            let settled = member.commit(commit).await;
            let revision = settled.revision.unwrap_or_default();
            match settled.outcome {
                Outcome::Done if member.until_shown(revision, deadline).await => return Ok(result),
                Outcome::Done => break,
                Outcome::Conflict(_) if member.until_shown(revision, deadline).await => {}
                Outcome::Conflict(_) => break,
                Outcome::Unknown => unknown = true,
                Outcome::Failed(why) => {
                    client_line!(error, %why, "changing metadata failed");
                    return Err(control_error(ErrorCode::UnknownServerError, why));
                }
            }
        }
        let message = match tries {
            0 if !member.node.borrow().is_active() => {
                "the broker does not take part in the cluster; nothing was changed"
            }
            _ => "ZooKeeper did not take the change in time; it may have happened, or may yet",
        };
        Err(control_error(ErrorCode::RequestTimedOut, message))
    }

    /// Carries out several requests side by side; the results in their order.
    async fn side_by_side<P: 'static, R: 'static>(
        self: &Rc<Self>,
        requests: Vec<P>,
        work: impl AsyncFn(Rc<Shard>, P) -> Result<R, ControlError> + 'static,
    ) -> Vec<Result<R, ControlError>> {
        let (slots, work) = (Budget::new(AT_ONCE), Rc::new(work));
        let mut running = Vec::with_capacity(requests.len());
        for request in requests {
            let slot = slots.acquire(1).await;
            let (shard, work, (sender, receiver)) = (self.clone(), work.clone(), oneshot());
            spawn_local(async move {
                sender.send(work(shard, request).await);
                drop(slot);
            });
            running.push(receiver);
        }
        let mut results = Vec::with_capacity(running.len());
        for receiver in running {
            results.push(receiver.recv().await.unwrap_or_else(|| Err(stopping())));
        }
        results
    }

    pub(super) async fn create_shared(
        self: &Rc<Self>,
        member: Rc<Member>,
        requests: Vec<CreateTopic>,
        validate_only: bool,
        patience: Duration,
    ) -> Vec<Result<Arc<TopicImage>, ControlError>> {
        let deadline = clock::now() + patience;
        self.side_by_side(requests, async move |shard: Rc<Shard>, request| {
            let made = shard.create_one(&member, &request, validate_only, deadline).await?;
            if !validate_only {
                client_line!(info, topic = %made.name, id = %made.id, partitions = made.partitions.len(), "created topic");
            }
            Ok(made)
        })
        .await
    }

    async fn create_one(
        self: &Rc<Self>,
        member: &Rc<Member>,
        request: &CreateTopic,
        validate_only: bool,
        deadline: Instant,
    ) -> Result<Arc<TopicImage>, ControlError> {
        let id = Uuid::new_v4();
        let made = self
            .request(member, deadline, |image, view, _| {
                if let Some(made) = image.topic_by_id(id) {
                    return Try::Answered(Ok(made.clone()));
                }
                let planned = plan(image, |brokers| controller::create_topic(brokers, &self.settings(), request, id));
                let topic = match planned {
                    Ok(topic) => Arc::new(topic),
                    Err(tried) => return tried,
                };
                if validate_only {
                    return Try::Answered(Ok(topic));
                }
                admin::create(view, &topic).map_or_else(Try::from, |commit| Try::Commit(commit, topic))
            })
            .await?;
        if validate_only {
            return Ok(made);
        }
        // The controller makes the states of many partitions.
        loop {
            match self.image().topic_by_id(id) {
                Some(topic) if topic.partitions.iter().all(|partition| partition.version >= 0) => {
                    return Ok(topic.clone());
                }
                _ if member.until_moved(deadline).await => {}
                Some(topic) => return Ok(topic.clone()),
                None => return Ok(made),
            }
        }
    }

    pub(super) async fn grow_shared(
        self: &Rc<Self>,
        member: Rc<Member>,
        requests: Vec<GrowTopic>,
        validate_only: bool,
        patience: Duration,
    ) -> Vec<Result<(), ControlError>> {
        let deadline = clock::now() + patience;
        self.side_by_side(requests, async move |shard: Rc<Shard>, request: GrowTopic| {
            controller::check_may_grow(&request.name)?;
            let wanted = usize::try_from(request.count).unwrap_or(0);
            let decide = |image: &MetadataImage, view: &View, unknown: bool| {
                let before = image.topic(&request.name).cloned();
                if unknown && before.as_ref().is_some_and(|topic| topic.partitions.len() == wanted) {
                    return Try::Answered(Ok(()));
                }
                let grown = plan(image, |brokers| controller::grow_topic(brokers, &shard.settings(), &request));
                match (grown, before) {
                    (Err(tried), _) => tried,
                    (Ok(_), _) if validate_only => Try::Answered(Ok(())),
                    (Ok(_), None) => Try::Stale,
                    (Ok(grown), Some(before)) => {
                        admin::grow(view, &before, &grown).map_or_else(Try::from, |commit| Try::Commit(commit, ()))
                    }
                }
            };
            shard.request(&member, deadline, decide).await?;
            if !validate_only {
                client_line!(info, topic = %request.name, partitions = request.count, "added partitions");
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn alter_shared(
        self: &Rc<Self>,
        member: Rc<Member>,
        requests: Vec<AlterTopic>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        // One after the other: several may be about one topic.
        let mut results = Vec::with_capacity(requests.len());
        for request in requests {
            let decide = |image: &MetadataImage, view: &View, _: bool| {
                let altered = controller::alter_topic(image, &self.settings(), &request);
                match (altered, image.topic(&request.name)) {
                    (Err(why), _) => Try::Answered(Err(why)),
                    (Ok(_), _) if validate_only => Try::Answered(Ok(())),
                    (Ok(_), None) => Try::Stale,
                    (Ok(altered), Some(before)) => match admin::configure(view, before, &altered.overrides) {
                        Ok(None) => Try::Answered(Ok(())),
                        Ok(Some(commit)) => Try::Commit(commit, ()),
                        Err(stale) => stale.into(),
                    },
                }
            };
            let outcome = self.request(&member, clock::now() + PATIENCE, decide).await;
            if outcome.is_ok() && !validate_only {
                client_line!(info, topic = %request.name, "altered options");
            }
            results.push(outcome);
        }
        results
    }

    pub(super) async fn delete_shared(
        self: &Rc<Self>,
        member: Rc<Member>,
        wanted: Vec<TopicRef>,
        patience: Duration,
    ) -> Vec<Result<Arc<TopicImage>, ControlError>> {
        let deadline = clock::now() + patience;
        self.side_by_side(wanted, async move |shard: Rc<Shard>, wanted: TopicRef| {
            let mut found: Option<Arc<TopicImage>> = None;
            let decide = |image: &MetadataImage, view: &View, unknown: bool| {
                let (topic, code) = match &wanted {
                    TopicRef::Name(name) => (image.topic(name), ErrorCode::UnknownTopicOrPartition),
                    TopicRef::Id(id) => (image.topic_by_id(*id), ErrorCode::UnknownTopicId),
                };
                let before = found.clone().filter(|before| unknown && topic.is_none_or(|topic| topic.id != before.id));
                match (topic, before) {
                    (_, Some(before)) => Try::Answered(Ok(before)),
                    (None, None) => Try::Answered(Err(control_error(code, "there is no such topic"))),
                    (Some(topic), None) => {
                        found = Some(topic.clone());
                        match admin::delete(view, topic) {
                            Ok(Some(commit)) => Try::Commit(commit, topic.clone()),
                            // The image does not show it yet.
                            Ok(None) | Err(Stale) => Try::Stale,
                        }
                    }
                }
            };
            let topic = shard.request(&member, deadline, decide).await?;
            client_line!(info, topic = %topic.name, id = %encode_id(topic.id), "deleted topic");
            Ok(topic)
        })
        .await
    }

    /// Moves replicas to other brokers, or ends the moving (KIP-455). Only in a cluster.
    pub async fn reassign_partitions(
        self: &Rc<Self>,
        wanted: Vec<Reassignment>,
        patience: Duration,
    ) -> Vec<Result<(), ControlError>> {
        let deadline = clock::now() + patience;
        self.on_member(wanted, async move |shard: Rc<Shard>, member, wanted| {
            let mut results = Vec::with_capacity(wanted.len());
            // One after the other: partitions of one topic share a node.
            for one in wanted {
                results.push(shard.reassign_one(&member, &one, deadline).await);
            }
            results
        })
        .await
    }

    /// Runs `change` with what is `wanted` of a cluster where this broker takes part in it.
    async fn on_member<P: Send + 'static>(
        self: &Rc<Self>,
        wanted: Vec<P>,
        change: impl AsyncFnOnce(Rc<Shard>, Rc<Member>, Vec<P>) -> Vec<Result<(), ControlError>> + Send + 'static,
    ) -> Vec<Result<(), ControlError>> {
        let count = wanted.len();
        let change_all = async move |shard: Rc<Shard>| match shard.member() {
            Some(member) => change(shard, member, wanted).await,
            None => vec![Err(stopping()); count],
        };
        let done = self.on_shard(CONTROLLER, move |shard| waits::waiting(Cause::Metadata, change_all(shard)));
        done.await.unwrap_or_else(|_| vec![Err(stopping()); count])
    }

    async fn reassign_one(
        self: &Rc<Self>,
        member: &Rc<Member>,
        wanted: &Reassignment,
        deadline: Instant,
    ) -> Result<(), ControlError> {
        let decide = |image: &MetadataImage, view: &View, _: bool| {
            let topic = match find(image, &wanted.topic, wanted.partition) {
                Ok(topic) => topic,
                Err(why) => return Try::Answered(Err(why)),
            };
            let target: Option<Vec<BrokerId>> =
                wanted.target.as_ref().map(|ids| ids.iter().copied().map(BrokerId).collect());
            let before = usize::try_from(wanted.partition).ok().and_then(|at| topic.partitions.get(at));
            let before = before.map_or(&[][..], |partition| &partition.replicas);
            let check = |ids: &Vec<i32>| controller::check_assignment(image, ids, before);
            if let Some(Err(why)) = wanted.target.as_ref().map(check) {
                return Try::Answered(Err(why));
            }
            match admin::reassign(view, topic, wanted.partition, target.as_deref(), wanted.may_change_factor) {
                Ok(Ok(Some(commit))) => Try::Commit(commit, ()),
                Ok(Ok(None)) => Try::Answered(Ok(())),
                Ok(Err(why)) => Try::Answered(Err(refused(why))),
                Err(stale) => stale.into(),
            }
        };
        self.request(member, deadline, decide).await?;
        client_line!(info, topic = %wanted.topic, partition = wanted.partition, replicas = ?wanted.target, "reassigned");
        Ok(())
    }

    /// Elects leaders. Only in a cluster.
    pub async fn elect_leaders(
        self: &Rc<Self>,
        wanted: Vec<LeaderElection>,
        patience: Duration,
    ) -> Vec<Result<(), ControlError>> {
        let deadline = clock::now() + patience;
        self.on_member(wanted, async move |shard: Rc<Shard>, member, wanted| {
            let elect =
                async move |shard: Rc<Shard>, one: LeaderElection| shard.elect_one(&member, &one, deadline).await;
            shard.side_by_side(wanted, elect).await
        })
        .await
    }

    async fn elect_one(
        self: &Rc<Self>,
        member: &Rc<Member>,
        wanted: &LeaderElection,
        deadline: Instant,
    ) -> Result<(), ControlError> {
        let decide = |image: &MetadataImage, view: &View, _: bool| {
            let topic = match find(image, &wanted.topic, wanted.partition) {
                Ok(topic) => topic,
                Err(why) => return Try::Answered(Err(why)),
            };
            match admin::elect(view, topic, wanted.partition, wanted.unclean) {
                Ok(Ok(commit)) => Try::Commit(commit, ()),
                Ok(Err(why)) => Try::Answered(Err(not_elected(why))),
                Err(stale) => stale.into(),
            }
        };
        self.request(member, deadline, decide).await
    }

    /// The first of `count` producer ids that no broker gives away but this one.
    pub(super) async fn take_shared_producer_ids(
        self: &Rc<Self>,
        member: &Rc<Member>,
        count: u32,
    ) -> Result<i64, ControlError> {
        let deadline = clock::now() + PATIENCE;
        self.request(member, deadline, |_, _, _| {
            let node = member.node.borrow();
            let next = node.mirror().node(&Key::ProducerIds).and_then(|node| match &node.record {
                Record::ProducerIds(next) => Some((*next, node.version)),
                _ => None,
            });
            match admin::take_producer_ids(next, i64::from(count)) {
                Some((first, commit)) => Try::Commit(commit, first),
                None => {
                    Try::Answered(Err(control_error(ErrorCode::UnknownServerError, "there are no producer ids left")))
                }
            }
        })
        .await
    }
}

/// Places new replicas on the brokers that take part. Too early if those that have registered and
/// are about to take part make the difference: after a start they do within a moment.
fn plan<T, R>(image: &MetadataImage, place: impl Fn(&MetadataImage) -> Result<T, ControlError>) -> Result<T, Try<R>> {
    let on = |phases: &[Phase]| {
        let mut planning = image.clone();
        planning.brokers.retain(|broker| phases.contains(&broker.phase));
        place(&planning)
    };
    on(&[Phase::Active]).map_err(|why| {
        let lacks_brokers =
            matches!(why.code, ErrorCode::InvalidReplicationFactor | ErrorCode::InvalidReplicaAssignment);
        if lacks_brokers && on(&[Phase::Active, Phase::Joining]).is_ok() { Try::Stale } else { Try::Answered(Err(why)) }
    })
}

/// The topic, which has the partition.
fn find<'a>(image: &'a MetadataImage, name: &str, index: i32) -> Result<&'a Arc<TopicImage>, ControlError> {
    let unknown = |message: String| control_error(ErrorCode::UnknownTopicOrPartition, message);
    let topic = image.topic(name).ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
    let there = usize::try_from(index).is_ok_and(|at| at < topic.partitions.len());
    if there { Ok(topic) } else { Err(unknown(format!("Unable to find partition {name}:{index}."))) }
}

fn refused(why: ReassignError) -> ControlError {
    match why {
        ReassignError::NotInProgress => {
            control_error(ErrorCode::NoReassignmentInProgress, "No partition reassignment is in progress.")
        }
        changed @ ReassignError::FactorChanged { .. } => {
            control_error(ErrorCode::InvalidReplicationFactor, changed.to_string())
        }
        other => control_error(ErrorCode::InvalidReplicaAssignment, other.to_string()),
    }
}

fn not_elected(why: NotElected) -> ControlError {
    match why {
        NotElected::NotNeeded => {
            control_error(ErrorCode::ElectionNotNeeded, "Leader election not needed for topic partition.")
        }
        NotElected::PreferredNotAvailable => {
            control_error(ErrorCode::PreferredLeaderNotAvailable, "The preferred leader was not available.")
        }
        NotElected::NoneEligible => {
            control_error(ErrorCode::EligibleLeadersNotAvailable, "Eligible topic partition leaders are not available.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::image::BrokerImage;

    fn image(phases: &[Phase]) -> MetadataImage {
        let mut image = MetadataImage::default();
        image.brokers = phases
            .iter()
            .zip(1..)
            .map(|(phase, id)| BrokerImage {
                id: BrokerId(id),
                endpoints: Vec::new(),
                rack: None,
                epoch: 1,
                phase: *phase,
                incarnation: 0,
                cordoned: false,
                offline: Arc::default(),
            })
            .collect();
        image
    }

    /// The ids that three replicas are placed on; `None`: too early; or the code of the refusal.
    fn placed(phases: &[Phase]) -> Result<Vec<i32>, Option<ErrorCode>> {
        let three = |image: &MetadataImage| {
            let ids: Vec<i32> = image.brokers.iter().map(|broker| broker.id.0).collect();
            let lacks = || control_error(ErrorCode::InvalidReplicationFactor, "too few");
            if ids.len() < 3 { Err(lacks()) } else { Ok(ids) }
        };
        plan(&image(phases), three).map_err(|tried: Try<()>| match tried {
            Try::Answered(Err(why)) => Some(why.code),
            _ => None,
        })
    }

    #[test]
    fn replicas_are_placed_on_brokers_that_take_part_and_wait_for_those_that_are_about_to() {
        use Phase::{Active, Draining, Joining};
        let too_few = Err(Some(ErrorCode::InvalidReplicationFactor));
        assert_eq!(placed(&[Active, Active, Active]), Ok(vec![1, 2, 3]));
        assert_eq!(placed(&[Active, Joining, Active, Active]), Ok(vec![1, 3, 4]));
        assert_eq!(placed(&[Active, Joining, Active]), Err(None));
        assert_eq!(placed(&[Joining, Joining, Joining]), Err(None));
        // One that stops does not count, now or later.
        assert_eq!(placed(&[Active, Active, Draining]), too_few);
        assert_eq!(placed(&[Active, Joining, Draining]), too_few);
    }

    #[test]
    fn an_assignment_waits_for_brokers_that_are_about_to_take_part() {
        use Phase::{Active, Joining};
        let code = |phases: &[Phase], ids: &[i32]| {
            let tried: Result<(), Try<()>> =
                plan(&image(phases), |image| controller::check_assignment(image, ids, &[]));
            tried.map_err(|tried| match tried {
                Try::Answered(Err(why)) => Some(why.code),
                _ => None,
            })
        };
        assert_eq!(code(&[Active, Active], &[1, 2]), Ok(()));
        assert_eq!(code(&[Active, Joining], &[1, 2]), Err(None), "too early");
        assert_eq!(code(&[Active, Joining], &[1, 3]), Err(Some(ErrorCode::InvalidReplicaAssignment)));
        assert_eq!(code(&[Active, Joining], &[1, 1]), Err(Some(ErrorCode::InvalidReplicaAssignment)));
    }

    #[test]
    fn other_refusals_do_not_wait() {
        let refuse = |_: &MetadataImage| Err::<(), _>(control_error(ErrorCode::InvalidConfig, "no"));
        let tried: Result<(), Try<()>> = plan(&image(&[Phase::Active, Phase::Joining]), refuse);
        assert!(matches!(tried, Err(Try::Answered(Err(why))) if why.code == ErrorCode::InvalidConfig));
    }
}
