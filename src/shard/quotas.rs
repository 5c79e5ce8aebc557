//! Changes of client quotas (KIP-546), and whether there are any.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::control::control_error;
use super::requests::{PATIENCE, Try};
use super::state::Shard;
use crate::cluster::MetadataImage;
use crate::cluster::controller::ControlError;
use crate::cluster::image_diff::ImageUpdate;
use crate::cluster::quota_requests::{self, AlterQuotas, NamedEntity};
use crate::cluster::store::Commit;
use crate::model::ErrorCode;
use crate::observe::client_line;
use crate::runtime::clock;
use crate::shard::member::Member;

/// Entities of a request, each once, and whether their quotas were altered.
pub type AlteredQuotas = Vec<(NamedEntity, Result<(), ControlError>)>;

/// Flag that the data path looks at before it looks at the quotas themselves.
#[derive(Debug, Default)]
pub struct QuotaFlag {
    set: Cell<bool>,
    changes: Cell<u64>,
}

impl QuotaFlag {
    /// There are quotas.
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    /// Changes of quotas that have reached this shard.
    pub fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// The shard shows `after` from here on.
    pub(super) fn follow(&self, before: &MetadataImage, after: &MetadataImage) {
        if !Arc::ptr_eq(&before.quotas, &after.quotas) {
            self.set.set(!after.quotas.is_empty());
            self.changes.set(self.changes.get() + 1);
        }
    }

    pub(super) fn of(image: &MetadataImage) -> Rc<QuotaFlag> {
        Rc::new(QuotaFlag { set: Cell::new(!image.quotas.is_empty()), changes: Cell::new(0) })
    }
}

impl Shard {
    pub fn quota_flag(&self) -> &Rc<QuotaFlag> {
        &self.quota_flag
    }

    /// Alters quotas; they are stored and in force on every shard of this broker when the answer is
    /// there. An error: nothing was altered, or it is not known.
    pub async fn alter_quotas(
        self: &Rc<Self>,
        requests: Vec<AlterQuotas>,
        validate_only: bool,
    ) -> Result<AlteredQuotas, ControlError> {
        let altered = self.on_controller(vec![requests], async move |shard: &Rc<Shard>, batch| {
            let mut results = Vec::with_capacity(batch.len());
            for requests in batch {
                let altered = match shard.member() {
                    Some(member) => shard.alter_shared_quotas(&member, &requests, validate_only).await,
                    None => shard.alter_own_quotas(requests, validate_only).await,
                };
                for (entity, _) in altered.iter().flatten().filter(|(_, outcome)| outcome.is_ok() && !validate_only) {
                    let part = |(kind, name): (&String, &Option<String>)| {
                        format!("{kind}={}", name.as_deref().unwrap_or("<default>"))
                    };
                    let entity = entity.iter().map(part).collect::<Vec<_>>().join(",");
                    client_line!(info, %entity, "altered client quotas");
                }
                results.push(altered);
            }
            results
        });
        altered.await.pop().unwrap_or_else(|| Err(control_error(ErrorCode::UnknownServerError, "nothing was altered")))
    }

    async fn alter_own_quotas(
        self: &Rc<Self>,
        requests: Vec<AlterQuotas>,
        validate_only: bool,
    ) -> Result<AlteredQuotas, ControlError> {
        let limited = self.with_keeper(move |keeper| keeper.limit(&requests, validate_only)).await;
        let (planned, others) = limited.map_err(|why| {
            client_line!(error, %why, "writing metadata failed");
            control_error(ErrorCode::KafkaStorageError, why)
        })?;
        if let Some((quotas, revision)) = others {
            self.publish(ImageUpdate::limited(&self.image(), Arc::new(quotas), revision)).await;
        }
        Ok(planned.outcomes)
    }

    async fn alter_shared_quotas(
        self: &Rc<Self>,
        member: &Rc<Member>,
        requests: &[AlterQuotas],
        validate_only: bool,
    ) -> Result<AlteredQuotas, ControlError> {
        self.request(member, clock::now() + PATIENCE, |_, _, _| {
            let node = member.node.borrow();
            let mirror = node.mirror();
            let planned = quota_requests::plan(requests, &mirror.quotas(), |entity| mirror.quota_options(entity));
            let writes = mirror.quota_writes(&planned);
            if validate_only || writes.is_empty() {
                return Try::Answered(Ok(planned.outcomes));
            }
            Try::Commit(Commit { checks: Vec::new(), writes }, planned.outcomes)
        })
        .await
    }
}
