//! A request that waits for all requests of its connection before it, and what it holds meanwhile.
//!
//! Requests to groups' coordinators are answered one after the other on a connection: as in Kafka,
//! one is begun when the one before it has been answered, which may take minutes. So while it waits
//! in line a request is a copy of its bytes, and holds nothing that others need to be read or
//! answered.

use bytes::Bytes;

use crate::runtime::sync::Permit;

use super::session::Session;

/// Requests up to this size wait in line for nothing; a connection has
/// `corelane.connection.pipeline` of them at most.
const SMALL_BYTES: usize = 4 << 10;

/// State of a request while it waits in line.
pub struct InLine {
    session: Session,
    body: Bytes,
    _share: Option<Permit>,
}

impl InLine {
    /// Takes a place in line; the receive memory of `body` may be given back then. An error:
    /// there is no room to wait.
    pub fn new(session: Session, body: &Bytes) -> Result<InLine, Session> {
        let share = match body.len() {
            ..=SMALL_BYTES => None,
            bytes => match session.context.waiting_groups.try_acquire(bytes) {
                Some(share) => Some(share),
                None => return Err(session),
            },
        };
        Ok(InLine { session, body: Bytes::copy_from_slice(body), _share: share })
    }

    /// The request's turn has come: its body, and the session to answer it in. `memory`: how much
    /// a request needs.
    pub async fn begin(self, memory: impl FnOnce(&Session, &Bytes) -> usize) -> (Session, Bytes) {
        let bytes = memory(&self.session, &self.body);
        let working = self.session.context.work(bytes, &self.session.client.room).await;
        let InLine { session, body, .. } = self;
        session.working.set(Some(working));
        (session, body)
    }
}
