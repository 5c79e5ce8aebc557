//! From a frame to its handler. One table of APIs feeds both this and the ApiVersions response.

use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use futures_lite::future::or;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::Encodable;

use crate::model::ErrorCode;
use crate::observe::client_line;
use crate::protocol::{ApiSpec, Malformed, Prefix, guard, parse_prefix, parse_rest, respond};
use crate::runtime::clock::Moment;
use crate::runtime::sync::{Permit, oneshot};
use crate::runtime::{SendRoom, spawn_local};

use super::context::{ServerContext, SizeClass};
use super::errors::Errors;
use super::group_call::{GroupCall, InLine, caller};
use super::handlers::{self, api_versions};
use super::peer::Client;
use super::pipeline::{Answer, Reply};
use super::quotas::{QuotaCall, Timed, settled};

/// The sender of a request.
#[derive(Clone, Debug)]
pub struct Asker {
    pub client: Rc<Client>,
    pub client_id: Option<Rc<str>>,
    /// When the request's last byte had come.
    pub received: Moment,
    /// `None`: the client has no quota.
    pub quota: Option<Rc<QuotaCall>>,
}

/// For the log: the address, and the name that the client gives itself, cut and with what would not be a line's escaped.
impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.client.peer.0 {
            Some(_) => self.client.peer.fmt(f)?,
            None => f.write_str("a client without an address")?,
        }
        match &self.client_id {
            Some(id) => write!(f, " ({:?})", &id[..id.floor_char_boundary(MAX_LOGGED_CLIENT_ID_BYTES)]),
            None => Ok(()),
        }
    }
}

const MAX_LOGGED_CLIENT_ID_BYTES: usize = 100;

/// What a handler with a codec of its own is given.
pub struct Call {
    pub version: i16,
    pub correlation_id: i32,
    pub asker: Asker,
    pub body: Bytes,
    /// Size of the request with its header.
    pub frame_bytes: usize,
    /// The request's share of receive memory; to be dropped with the last of its bytes.
    pub permit: Permit,
    /// Memory in which the request is answered; none for Produce.
    pub working: Option<Permit>,
}

/// The largest request other than Produce. Of their elements, some as small as two bytes, structures and answers of some
/// hundred bytes are made.
pub const MAX_OTHER_REQUEST_BYTES: usize = 4 << 20;

/// How much memory a byte of a request stands for while it is answered; the records of a Produce request for nothing more
/// than themselves, which the receive budget has.
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

/// The largest request other than Produce where `receive_memory` is less than usual: about what it is made into has to fit.
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

/// Declares the table: APIs whose handlers take and give messages of kafka-protocol, by the handler's module. Those of
/// `at_once` are answered before the next request is looked at, as are those of `by_asker`, which are told who asks; those of
/// `in_line` when the requests before have been answered.
macro_rules! apis {
    (at_once: $($module:ident),* ; by_asker: $($asked_module:ident),* ; in_line: $($group_module:ident),* $(,)?) => {
        /// Every API served.
        pub const APIS: &[ApiSpec] = &[
            handlers::produce::API,
            handlers::fetch::API,
            $(handlers::$module::API,)*
            $(handlers::$asked_module::API,)*
            $(handlers::$group_module::API,)*
        ];

        fn waits_in_line(key: ApiKey) -> bool {
            [$(handlers::$group_module::API.key),*].contains(&key)
        }

        /// Answers what is for a group's coordinator.
        async fn answer_group(
            call: GroupCall,
            (room, quota): (&SendRoom, Option<&Rc<QuotaCall>>),
            spec: &ApiSpec,
            prefix: Prefix,
            mut body: Bytes,
        ) -> Result<Reply, Malformed> {
            let size = SizeClass::of(spec.key, prefix.version, &body);
            let Prefix { version, .. } = prefix;
            match spec.key {
                $(key if key == handlers::$group_module::API.key => {
                    let request = guard::decode(key, version, &mut body)?;
                    // What the handler makes of the request is a copy: nothing of the body is kept while it waits.
                    drop(body);
                    let response = Box::pin(handlers::$group_module::handle(&call, version, request)).await;
                    let response = settled(quota, response);
                    encode(&call.context, room, key, (prefix, size), &response).await
                })*
                key => Err(Malformed(format!("{key:?} has no handler"))),
            }
        }

        /// Answers every other API but Produce and Fetch.
        async fn answer(
            context: &Rc<ServerContext>,
            asker: &Asker,
            spec: &ApiSpec,
            prefix: Prefix,
            mut body: Bytes,
        ) -> Result<Reply, Malformed> {
            let size = SizeClass::of(spec.key, prefix.version, &body);
            let Prefix { version, .. } = prefix;
            match spec.key {
                $(key if key == handlers::$module::API.key => {
                    let request = guard::decode(key, version, &mut body)?;
                    let response = handlers::$module::handle(context, version, request).await;
                    let response = settled(asker.quota.as_ref(), response);
                    encode(context, &asker.client.room, key, (prefix, size), &response).await
                })*
                $(key if key == handlers::$asked_module::API.key => {
                    let request = guard::decode(key, version, &mut body)?;
                    let response = handlers::$asked_module::handle(context, asker, version, request).await;
                    let response = settled(asker.quota.as_ref(), response);
                    encode(context, &asker.client.room, key, (prefix, size), &response).await
                })*
                key => Err(Malformed(format!("{key:?} has no handler"))),
            }
        }
    };
}

apis!(
    at_once: list_offsets,
    offset_for_leader_epoch,
    describe_configs,
    incremental_alter_configs,
    alter_configs,
    delete_records,
    describe_log_dirs,
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
    sasl_handshake;
    by_asker: api_versions,
    create_topics,
    delete_topics,
    create_partitions,
    metadata,
    describe_topic_partitions,
    find_coordinator,
    describe_cluster,
    init_producer_id;
    in_line: join_group,
    sync_group,
    heartbeat,
    leave_group,
    offset_commit,
    offset_fetch,
    offset_delete,
    describe_groups,
    list_groups,
    delete_groups,
    consumer_group_heartbeat,
    consumer_group_describe,
);

/// True of requests, by their first bytes, that are begun when all answers before have been sent: all but Produce, which clients
/// pipeline. Kafka does so with every request. A connection then has one such request, and one such answer, at a time.
pub fn waits_for_answers(head: &[u8]) -> bool {
    head.first_chunk().map(|bytes| i16::from_be_bytes(*bytes)) != Some(ApiKey::Produce as i16)
}

/// Memory in which a request is answered: what it is made into, or what the answer is, as far as others tell.
fn working_bytes(context: &ServerContext, key: ApiKey, size: SizeClass, request: usize) -> usize {
    match key {
        // Records are not made.
        ApiKey::Fetch => request,
        _ => request.max(MADE_OF * context.answer_sizes.expected(key as i16, size)),
    }
}

/// Encodes an answer once there is memory for it.
async fn encode<T: Encodable + Errors>(
    context: &ServerContext,
    room: &SendRoom,
    key: ApiKey,
    (Prefix { version, correlation_id, .. }, size): (Prefix, SizeClass),
    response: &T,
) -> Result<Reply, Malformed> {
    let metrics = context.link.metrics.api(key as i16);
    response.each(&mut |code| metrics.note_error(code));
    let bytes = respond::size(key, version, response)?;
    context.answer_sizes.note(key as i16, size, bytes);
    let share = context.shard.answers.share(bytes, room).await;
    Ok(Reply::Held(vec![respond::encode(key, version, correlation_id, response)?], vec![share]))
}

fn spec_of(api_key: i16) -> Option<&'static ApiSpec> {
    APIS.iter().find(|spec| spec.key as i16 == api_key)
}

/// Takes one request as far as its place in the order is fixed; what is left is in the answer. An error: the bytes make no
/// sense or ask for what ApiVersions does not offer, and the connection is to be closed, as Kafka does. `client`: with when the
/// last byte had come.
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
    let quota = context.quotas.call(client_id.as_deref(), &client.mute);
    let asker = Asker { client_id, client, received, quota: quota.clone() };
    let body = frame.slice(body_start..);
    let frame_bytes = frame.len();
    drop(frame);
    let Some(call) = quota else { return begin(context, (spec, prefix), asker, (body, frame_bytes), permit).await };
    let context = context.clone();
    let work = async move { begin(&context, (spec, prefix), asker, (body, frame_bytes), permit).await };
    match Timed::new(call.clone(), work).await? {
        Answer::Later(rest) => Ok(Answer::Later(Box::pin(Timed::new(call, rest)))),
        now => Ok(now),
    }
}

/// As [`dispatch`], once it is known what is asked for, and by whom.
async fn begin(
    context: &Rc<ServerContext>,
    (spec, prefix): (&'static ApiSpec, Prefix),
    asker: Asker,
    (body, frame_bytes): (Bytes, usize),
    permit: Permit,
) -> Result<Answer, Malformed> {
    let Prefix { version, correlation_id, .. } = prefix;
    let working = match memory_factor(spec.key) {
        0 => None,
        _ if waits_in_line(spec.key) => None,
        factor => {
            let size = SizeClass::of(spec.key, version, &body);
            let bytes = working_bytes(context, spec.key, size, frame_bytes * factor);
            Some(context.work(bytes, &asker.client.room).await)
        }
    };
    match spec.key {
        ApiKey::Produce => {
            let call = Call { version, correlation_id, asker, body, frame_bytes, permit, working: None };
            handlers::produce::handle(context, call).await
        }
        ApiKey::Fetch => handlers::fetch::handle(
            context,
            Call { version, correlation_id, asker, body, frame_bytes, permit, working },
        ),
        key if waits_in_line(key) => later(context, (spec, prefix), asker, body, permit).await,
        _ => {
            let reply = Box::pin(answer(context, &asker, spec, prefix, body)).await?;
            drop((permit, working));
            Ok(Answer::Now(reply))
        }
    }
}

/// Takes a request for a group's coordinator as far as its place in line; without room to wait it is refused at once.
async fn later(
    context: &Rc<ServerContext>,
    (spec, prefix): (&'static ApiSpec, Prefix),
    asker: Asker,
    body: Bytes,
    permit: Permit,
) -> Result<Answer, Malformed> {
    // Who breaks the protocol is to be told apart now, while the reader can end the connection for it.
    guard::check(spec.key, prefix.version, &body)?;
    let factor = memory_factor(spec.key);
    let caller = caller(asker.client_id.as_deref(), asker.client.peer);
    let in_line = match InLine::new(context, caller, &asker.client.tally, &body) {
        Ok(in_line) => in_line,
        Err(caller) => {
            let _working = context.work(body.len() * factor, &asker.client.room).await;
            let refused = GroupCall::refused(context, caller);
            let by = (&asker.client.room, asker.quota.as_ref());
            let reply = Box::pin(answer_group(refused, by, spec, prefix, body)).await?;
            drop(permit);
            return Ok(Answer::Now(reply));
        }
    };
    drop((body, permit));
    let context = context.clone();
    Ok(Answer::Later(Box::pin(async move {
        let (room, quota, (sender, receiver)) = (asker.client.room.clone(), asker.quota.clone(), oneshot());
        let (_wanted, unwanted) = oneshot::<()>();
        // A task of its own: nobody looks at an answer while those before it are being sent, which a client can hold up, and
        // what this takes to be worked on must not be held up with it. It ends with this future, so with the connection.
        let timed = quota.clone();
        let work = async move {
            let work = async {
                let memory = |body: &Bytes| {
                    let size = SizeClass::of(spec.key, prefix.version, body);
                    working_bytes(&context, spec.key, size, body.len() * factor)
                };
                let (call, body) = in_line.begin(memory, &room).await;
                sender.send(answer_group(call, (&room, quota.as_ref()), spec, prefix, body).await);
            };
            or(work, async { unwanted.recv().await.unwrap_or_default() }).await;
        };
        match timed {
            None => spawn_local(work),
            Some(call) => spawn_local(Timed::new(call, work)),
        };
        match receiver.recv().await {
            Some(Ok(reply)) => reply,
            Some(Err(error)) => {
                client_line!(warn, %asker, "closing the connection: {error}");
                Reply::Close
            }
            None => Reply::Close,
        }
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::peer::Peer;
    use crate::server::traffic::Tally;

    #[test]
    fn each_api_is_served_once_within_what_the_decoders_know() {
        for (i, spec) in APIS.iter().enumerate() {
            assert!(spec.min <= spec.max && spec.advertised_min <= spec.min, "{spec:?}");
            assert!(APIS[..i].iter().all(|other| other.key != spec.key), "{spec:?} twice");
            if !matches!(spec.key, ApiKey::Produce | ApiKey::Fetch) {
                let known = guard::versions(spec.key).unwrap();
                assert!(*known.start() <= spec.min && spec.max <= *known.end(), "{spec:?}, the guard knows {known:?}");
            }
        }
    }

    #[test]
    fn who_asks_is_one_word_of_a_log_line() {
        let asker = |peer: Option<&str>, id: Option<String>| Asker {
            client: Rc::new(Client::new(
                "PLAINTEXT".into(),
                Peer(peer.map(|peer| peer.parse().unwrap())),
                SendRoom::default(),
                Tally::default(),
                None,
            )),
            client_id: id.as_deref().map(Rc::from),
            received: Moment::now(),
            quota: None,
        };
        assert_eq!(asker(Some("10.0.0.1:5"), Some("me".into())).to_string(), "10.0.0.1:5 (\"me\")");
        assert_eq!(asker(Some("[::1]:5"), None).to_string(), "[::1]:5");
        let long = asker(None, Some("x\n".repeat(1000))).to_string();
        assert!(!long.contains('\n') && long.len() < 250, "{long}");
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

    #[test]
    fn the_versions_are_those_promised() {
        let served = |key: i16| spec_of(key).map(|spec| (spec.advertised_min, spec.min, spec.max));
        let promised = [
            (0, 0, 3, 13),
            (1, 4, 4, 18),
            (2, 1, 1, 10),
            (3, 0, 0, 13),
            (10, 0, 0, 6),
            (18, 0, 0, 4),
            (19, 2, 2, 7),
            (20, 1, 1, 6),
            (22, 0, 0, 5),
            (23, 2, 2, 4),
            (32, 1, 1, 4),
            (37, 0, 0, 3),
            (44, 0, 0, 1),
            (60, 0, 0, 2),
            (8, 2, 2, 9),
            (9, 1, 1, 9),
            (11, 0, 0, 9),
            (12, 0, 0, 4),
            (13, 0, 0, 5),
            (14, 0, 0, 5),
            (15, 0, 0, 6),
            (16, 0, 0, 5),
            (42, 0, 0, 2),
            (47, 0, 0, 0),
            (68, 0, 0, 1),
            (69, 0, 0, 1),
            (17, 0, 0, 1),
            (29, 1, 1, 3),
            (30, 1, 1, 3),
            (31, 1, 1, 3),
            (46, 0, 0, 0),
            (48, 0, 0, 1),
            (49, 0, 0, 1),
            (50, 0, 0, 0),
            (21, 0, 0, 2),
            (33, 0, 0, 2),
            (35, 1, 1, 4),
            (43, 0, 0, 2),
            (45, 0, 0, 1),
            (57, 0, 0, 2),
            (61, 0, 0, 0),
            (74, 0, 0, 1),
            (75, 0, 0, 0),
        ];
        for (key, advertised, min, max) in promised {
            assert_eq!(served(key), Some((advertised, min, max)), "API {key}");
        }
        assert_eq!(APIS.len(), promised.len());
        assert_eq!(served(-1), None);
    }
}
