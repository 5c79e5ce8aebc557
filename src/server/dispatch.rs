//! From a frame to its handler. One table of APIs feeds both this and the ApiVersions response.

use std::future::ready;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_lite::future::or;
use kafka_protocol::messages::ApiKey;

use crate::model::ErrorCode;
use crate::observe::client_line;
use crate::protocol::guard::{self, RequestBody};
use crate::protocol::respond::{self, ResponseBody};
use crate::protocol::{ApiSpec, Malformed, Mode, Prefix, parse_prefix, parse_rest};
use crate::runtime::clock::Moment;
use crate::runtime::sync::{Permit, oneshot};
use crate::runtime::{spawn_local, waits};

use super::context::{ServerContext, SizeClass};
use super::errors::Errors;
use super::handlers::{self, api_versions};
use super::in_line::InLine;
use super::peer::Client;
use super::pipeline::{Answer, Reply};
use super::quotas::{Throttled, Timed, settled};
use super::session::{Call, Session};

/// A request for a handler with a codec of its own.
pub struct UnreadCall {
    pub prefix: Prefix,
    /// When the request's last byte had come.
    pub received: Moment,
    pub body: Bytes,
    /// Size of the request with its header.
    pub frame_bytes: usize,
    /// The request's share of receive memory; to be dropped with the last of its bytes.
    pub permit: Permit,
}

/// The largest request other than Produce. Of their elements, some as small as two bytes,
/// structures and answers of some hundred bytes are made.
pub const MAX_OTHER_REQUEST_BYTES: usize = 4 << 20;

/// How much memory a byte of a request stands for while it is answered; the records of a Produce
/// request for nothing more than themselves, which the receive budget has.
fn memory_factor(key: ApiKey) -> usize {
    match key {
        ApiKey::Produce => 0,
        // The options of a topic, for its name.
        ApiKey::DescribeConfigs | ApiKey::CreateTopics => 512,
        _ => 64,
    }
}

/// An encoded answer takes so many times its size while it is made.
const MADE_OF: usize = 4;

/// The largest request other than Produce where `receive_memory` is less than usual: about what it
/// is made into has to fit.
fn max_other_request(receive_memory: usize) -> usize {
    (receive_memory / 16).clamp(64 << 10, MAX_OTHER_REQUEST_BYTES)
}

/// Refuses a frame that is too large for what it asks.
fn check_size(key: ApiKey, bytes: usize, allowed: usize) -> Result<(), Malformed> {
    if key == ApiKey::Produce || bytes <= allowed {
        return Ok(());
    }
    Err(Malformed(format!("{key:?} request of {bytes} bytes; those other than Produce have at most {allowed}")))
}

/// Declares the table: the modules of all handlers, those with a codec of their own first.
macro_rules! apis {
    (own_codec: $($own:ident),* ; $($module:ident),* $(,)?) => {
        /// Every API served.
        pub const APIS: &[ApiSpec] = &[$(handlers::$own::API,)* $(handlers::$module::API,)*];

        /// Answers a request of an API without a codec of its own.
        fn answer<'a>(session: &'a Session, key: ApiKey, prefix: Prefix, body: Bytes) -> Answering<'a> {
            match key {
                $(key if key == handlers::$module::API.key => {
                    Box::pin(answer_by(session, key, prefix, body, handlers::$module::handle))
                })*
                key => Box::pin(ready(Err(without_handler(key)))),
            }
        }
    };
}

apis!(
    own_codec: produce,
    fetch,
    write_txn_markers;
    list_offsets,
    offset_for_leader_epoch,
    describe_configs,
    incremental_alter_configs,
    alter_configs,
    delete_records,
    describe_log_dirs,
    alter_replica_log_dirs,
    describe_producers,
    list_config_resources,
    elect_leaders,
    alter_partition_reassignments,
    update_features,
    describe_acls,
    create_acls,
    delete_acls,
    list_partition_reassignments,
    describe_client_quotas,
    alter_client_quotas,
    describe_user_scram_credentials,
    sasl_handshake,
    add_partitions_to_txn,
    add_offsets_to_txn,
    end_txn,
    describe_transactions,
    list_transactions,
    api_versions,
    create_topics,
    delete_topics,
    create_partitions,
    metadata,
    describe_topic_partitions,
    find_coordinator,
    describe_cluster,
    init_producer_id,
    join_group,
    sync_group,
    heartbeat,
    leave_group,
    offset_commit,
    offset_fetch,
    offset_delete,
    txn_offset_commit,
    describe_groups,
    list_groups,
    delete_groups,
    consumer_group_heartbeat,
    consumer_group_describe,
);

fn without_handler(key: ApiKey) -> Malformed {
    Malformed(format!("{key:?} has no handler"))
}

/// The work on one request, each as large as its own API takes: those in line may be there for
/// minutes.
type Answering<'a> = Pin<Box<dyn Future<Output = Result<Reply, Malformed>> + 'a>>;

/// Has a request read, handled, settled with the client's quota, and encoded once there is memory
/// for the answer.
async fn answer_by<R: RequestBody, A: ResponseBody + Errors + Throttled>(
    session: &Session,
    key: ApiKey,
    Prefix { version, correlation_id, .. }: Prefix,
    body: Bytes,
    handle: impl AsyncFn(&Session, Call<R>) -> A,
) -> Result<Reply, Malformed> {
    let size = SizeClass::of(key, version, &body);
    let call = read(key, version, body)?;
    let response = &settled(session.quota.as_ref(), handle(session, call).await);
    let context = &session.context;
    let metrics = context.link.metrics.api(key as i16);
    response.each(&mut |code| metrics.note_error(code));
    let bytes = respond::size(key, version, response)?;
    context.answer_sizes.note(key as i16, size, bytes);
    let share = context.shard.answers.share(bytes, &session.client.room).await;
    Ok(Reply::Held(vec![respond::encode(key, version, correlation_id, response)?], vec![share]))
}

/// The handler works on a copy: nothing of the body is kept while it waits.
fn read<R: RequestBody>(key: ApiKey, version: i16, mut body: Bytes) -> Result<Call<R>, Malformed> {
    Ok(Call { version, request: guard::decode(key, version, &mut body)? })
}

/// True of requests, by their first bytes, that are begun when all answers before have been sent:
/// all but Produce, which clients pipeline. Kafka does so with every request. A connection then has
/// one such request, and one such answer, at a time.
pub fn waits_for_answers(head: &[u8]) -> bool {
    head.first_chunk().map(|bytes| i16::from_be_bytes(*bytes)) != Some(ApiKey::Produce as i16)
}

/// Memory in which a request is answered: what it is made into, or what the answer
/// is, as far as others tell.
fn working_bytes(context: &ServerContext, key: ApiKey, size: SizeClass, request: usize) -> usize {
    match key {
        // Records are not made.
        ApiKey::Fetch => request,
        _ => request.max(MADE_OF * context.answer_sizes.expected(key as i16, size)),
    }
}

fn spec_of(api_key: i16) -> Option<&'static ApiSpec> {
    APIS.iter().find(|spec| spec.key as i16 == api_key)
}

/// Takes one request as far as its place in the order is fixed; what is left is in the answer. An
/// error: the bytes make no sense or ask for what ApiVersions does not offer, and the connection is
/// to be closed, as Kafka does. `client`: with when the last byte had come.
pub async fn dispatch(
    context: &Rc<ServerContext>,
    frame: Bytes,
    permit: Permit,
    (client, received): (Rc<Client>, Moment),
) -> Result<Answer, Malformed> {
    let prefix = parse_prefix(&frame)?;
    let Prefix { api_key, version, correlation_id } = prefix;
    let spec = spec_of(api_key).ok_or_else(|| Malformed(format!("API key {api_key} is not served")))?;
    if !spec.supports(version) {
        if spec.key == ApiKey::ApiVersions {
            let metrics = context.link.metrics.api(api_key);
            metrics.note_request(version, frame.len());
            metrics.note_error(ErrorCode::UnsupportedVersion.code());
            return Ok(Answer::Now(Reply::Frame(api_versions::refuse_version(version, correlation_id)?)));
        }
        let ApiSpec { key, min, max, .. } = spec;
        return Err(Malformed(format!("{key:?} v{version} is not served; versions {min} to {max} are")));
    }
    check_size(spec.key, frame.len(), max_other_request(context.shard.config.receive_memory_bytes))?;
    context.link.metrics.api(api_key).note_request(version, frame.len());
    let (client_id, body_start) = parse_rest(&frame, spec.is_flexible(version))?;
    let client_id = client.id(client_id);
    if !client.is_introduced() && !api_versions::tells_software(spec.key, version) {
        client.introduce();
    }
    let quota = context.quotas.call(&client, client_id.as_deref());
    let session = Session::new(context.clone(), client, client_id, quota.clone());
    let (frame_bytes, body) = (frame.len(), frame.slice(body_start..));
    drop(frame);
    let call = UnreadCall { prefix, received, body, frame_bytes, permit };
    let Some(quota) = quota else { return begin(session, spec, call).await };
    match Timed::new(quota.clone(), begin(session, spec, call)).await? {
        Answer::Later(rest) => Ok(Answer::Later(Box::pin(Timed::new(quota, rest)))),
        now => Ok(now),
    }
}

/// As [`dispatch`], once it is known what is asked for, and by whom.
async fn begin(session: Session, spec: &'static ApiSpec, call: UnreadCall) -> Result<Answer, Malformed> {
    let factor = memory_factor(spec.key);
    if factor > 0 && spec.mode != Mode::InLine {
        let size = SizeClass::of(spec.key, call.prefix.version, &call.body);
        let bytes = working_bytes(&session.context, spec.key, size, call.frame_bytes * factor);
        session.working.set(Some(session.context.work(bytes, &session.client.room).await));
    }
    match (spec.mode, spec.key) {
        (Mode::OwnCodec, ApiKey::Produce) => handlers::produce::handle(session, call).await,
        (Mode::OwnCodec, ApiKey::Fetch) => handlers::fetch::handle(session, call),
        (Mode::OwnCodec, ApiKey::WriteTxnMarkers) => handlers::write_txn_markers::handle(session, call),
        (Mode::OwnCodec, key) => Err(without_handler(key)),
        (Mode::InLine, _) => later(session, spec.key, call).await,
        (Mode::AtOnce, key) => {
            let UnreadCall { prefix, body, permit, .. } = call;
            let reply = answer(&session, key, prefix, body).await?;
            drop(permit);
            Ok(Answer::Now(reply))
        }
    }
}

/// Takes a request for a group's coordinator as far as its place in line; without room to
/// wait it is refused at once.
async fn later(session: Session, key: ApiKey, call: UnreadCall) -> Result<Answer, Malformed> {
    let UnreadCall { prefix, body, permit, .. } = call;
    // A malformed request is found now, while the reader can end the connection for it.
    guard::check(key, prefix.version, &body)?;
    let factor = memory_factor(key);
    let quota = session.quota.clone();
    let in_line = match InLine::new(session, &body) {
        Ok(in_line) => in_line,
        Err(session) => {
            let session = session.refuse();
            let _working = session.context.work(body.len() * factor, &session.client.room).await;
            let reply = answer(&session, key, prefix, body).await?;
            drop(permit);
            return Ok(Answer::Now(reply));
        }
    };
    drop((body, permit));
    Ok(Answer::Later(Box::pin(async move {
        let (sender, receiver) = oneshot();
        let (_wanted, unwanted) = oneshot::<()>();
        // A task of its own: nobody looks at an answer while those before it are being sent, which
        // a client can hold up, and what this takes to be worked on must not be held up with it. It
        // ends with this future, so with the connection.
        let work = async move {
            let work = async {
                let memory = |session: &Session, body: &Bytes| {
                    let size = SizeClass::of(key, prefix.version, body);
                    working_bytes(&session.context, key, size, body.len() * factor)
                };
                let (session, body) = in_line.begin(memory).await;
                let answered = answer(&session, key, prefix, body).await;
                answered.unwrap_or_else(|error| {
                    client_line!(warn, asker = %session, "closing the connection: {error}");
                    Reply::Close
                })
            };
            let work = async { sender.send(waits::traced(work).await) };
            or(work, async { unwanted.recv().await.unwrap_or_default() }).await;
        };
        match quota {
            None => spawn_local(work),
            Some(quota) => spawn_local(Timed::new(quota, work)),
        };
        let (reply, notes) = receiver.recv().await.unzip();
        waits::merge(notes.unwrap_or_default());
        reply.unwrap_or(Reply::Close)
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_is_served_once_within_what_the_decoders_know() {
        for (i, spec) in APIS.iter().enumerate() {
            assert!(spec.min <= spec.max && spec.advertised_min <= spec.min, "{spec:?}");
            assert!(APIS[..i].iter().all(|other| other.key != spec.key), "{spec:?} twice");
            if spec.mode != Mode::OwnCodec {
                let known = guard::versions(spec.key).unwrap();
                assert!(*known.start() <= spec.min && spec.max <= *known.end(), "{spec:?}, the guard knows {known:?}");
            }
        }
    }

    #[test]
    fn only_produce_requests_may_be_large() {
        let allowed = max_other_request(64 << 20);
        assert_eq!(allowed, MAX_OTHER_REQUEST_BYTES);
        assert_eq!(check_size(ApiKey::Produce, 100 << 20, allowed), Ok(()));
        assert_eq!(check_size(ApiKey::Metadata, allowed, allowed), Ok(()));
        let error = check_size(ApiKey::Metadata, allowed + 1, allowed).unwrap_err();
        assert!(error.0.contains("4194305") && error.0.contains("4194304"), "{error}");
        assert_eq!(max_other_request(4 << 20), 256 << 10, "little memory, small requests");
        assert_eq!(max_other_request(1 << 20), 64 << 10);
    }

    #[test]
    fn only_produce_is_begun_before_the_answers_before_were_sent() {
        let waits = |key: ApiKey| waits_for_answers(&(key as i16).to_be_bytes());
        assert!(!waits(ApiKey::Produce));
        assert!(
            waits(ApiKey::Fetch) && waits(ApiKey::JoinGroup) && waits(ApiKey::Metadata) && waits(ApiKey::ApiVersions)
        );
        assert!(waits_for_answers(&[]) && waits_for_answers(&[0x7f, 0xff, 0]), "nothing known of it");
    }

    /// Which versions there are, the reference holds to Kafka's.
    #[test]
    fn produce_alone_advertises_versions_that_it_refuses() {
        for spec in APIS {
            let advertised = if spec.key == ApiKey::Produce { 0 } else { spec.min };
            assert_eq!(spec.advertised_min, advertised, "{spec:?}");
        }
        assert_eq!(spec_of(ApiKey::Produce as i16).map(|spec| spec.min), Some(3));
        assert_eq!(spec_of(-1), None);
    }
}
