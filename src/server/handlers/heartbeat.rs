//! Heartbeat: a member of a classic group is still there.

use kafka_protocol::messages::{ApiKey, HeartbeatRequest as WireRequest, HeartbeatResponse};

use crate::groups::api::{HeartbeatReply, HeartbeatRequest};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{instance_id, named_group};

pub const API: ApiSpec = ApiSpec::new(ApiKey::Heartbeat, 0, 4).in_line();

pub async fn handle(session: &Session, Call { request, .. }: Call<WireRequest>) -> HeartbeatResponse {
    let reply = match convert(request) {
        Ok(request) => session.ask(request).await,
        Err(code) => Err(code),
    };
    respond(reply)
}

fn convert(request: WireRequest) -> Result<HeartbeatRequest, ErrorCode> {
    Ok(HeartbeatRequest {
        group: named_group(&request.group_id)?,
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        instance_id: instance_id(request.group_instance_id)?,
    })
}

/// While its group is being loaded a member is taken to be alive, as in Kafka: sessions
/// begin anew when it has been.
fn respond(reply: Result<HeartbeatReply, ErrorCode>) -> HeartbeatResponse {
    let code = match reply {
        Ok(reply) => reply.error,
        Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
        Err(code) => code,
    };
    HeartbeatResponse::default().with_error_code(code.code())
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::through_the_wire;
    use super::super::shared::{text, wire_group_id};
    use super::*;

    #[test]
    fn both_directions_in_every_version() {
        for version in API.min..=API.max {
            let request = WireRequest::default()
                .with_group_id(wire_group_id("g"))
                .with_generation_id(3)
                .with_member_id(text("m"))
                .with_group_instance_id((version >= 3).then(|| text("i")));
            let asked = convert(request.clone()).unwrap();
            assert_eq!((&*asked.group, asked.generation, &*asked.member_id), ("g", 3, "m"));
            assert_eq!(asked.instance_id.as_deref(), (version >= 3).then_some("i"));
            let nameless = convert(request.with_group_id(wire_group_id("")));
            assert_eq!(nameless.err(), Some(ErrorCode::InvalidGroupId));
            for (reply, code) in [
                (Ok(HeartbeatReply { error: ErrorCode::None }), 0),
                (Ok(HeartbeatReply { error: ErrorCode::RebalanceInProgress }), 27),
                (Err(ErrorCode::NotCoordinator), 16),
                (Err(ErrorCode::CoordinatorLoadInProgress), 0),
            ] {
                assert_eq!(through_the_wire(API.key, version, &respond(reply)).error_code, code);
            }
        }
    }
}
