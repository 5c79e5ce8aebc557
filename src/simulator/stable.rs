//! Transactions in a simulated replica: verified on their way in, ended by markers, and what
//! readers of committed records see. The rules are the broker's own.

use zerocopy::FromZeros;

use super::checker::Mark;
use super::disk::Batch;
use super::net::{Address, Consume, Io, Payload, Produce, Records};
use super::place::OFFSETS;
use super::replica::{Replica, Role, Waiting};
use super::transactor::transactional_id;
use crate::groups;
use crate::groups::api::CommitRequest;
use crate::model::record_batch::BatchHeader;
use crate::model::{EndMarker, ErrorCode, Marker, MarkerKind};
use crate::partition::{ProducerStates, Transactions, Verifications, Verified, is_final, last_stable_offset};
use crate::transactions::Reply;
use crate::transactions::api::{AddPartitionsRequest, Producer};

/// A verification without an answer is given up after this, ms.
const PATIENCE_MS: i64 = 1_200;
/// Batches of an answer to a consumer.
const MOST: usize = 8;
/// Ids of markers; producers' batches have smaller ones, coordinators' larger ones.
const MARKER: u64 = 1 << 59;

/// The transactions of one replica.
#[derive(Debug, Default)]
pub struct Stable {
    transactions: Transactions,
    pub verifications: Verifications,
    /// Those that were aborted, in the order of their markers.
    aborted: Vec<Aborted>,
    verifying: Vec<Verifying>,
}

#[derive(Clone, Copy, Debug)]
struct Aborted {
    producer: i64,
    first: i64,
    /// Of the marker.
    last: i64,
}

/// A batch that is to become part of a transaction.
#[derive(Debug)]
enum Part {
    Produce(Produce),
    /// With the number of the transactional id.
    Commit(Box<CommitRequest>, usize),
}

impl Part {
    fn transactor(&self) -> Option<usize> {
        match self {
            Part::Produce(produce) => produce.transactor,
            Part::Commit(_, transactor) => Some(*transactor),
        }
    }

    fn producer(&self) -> Option<Producer> {
        let (id, epoch) = match self {
            Part::Produce(produce) => produce.producer.map(|(id, epoch, _)| (id, epoch)),
            Part::Commit(request, _) => request.producer,
        }?;
        Some(Producer { id, epoch })
    }
}

/// A batch, or offsets, that wait for their transaction's coordinator.
#[derive(Debug)]
struct Verifying {
    client: Address,
    number: u64,
    part: Part,
    verified: Verified,
    /// Of the question, once it has left.
    asked: Option<u64>,
    until: i64,
}

/// The header that a batch of an idempotent producer has.
pub fn header_of(batch: &Batch) -> Option<BatchHeader> {
    let (id, epoch, sequence) = batch.producer?;
    let mut header = BatchHeader::new_zeroed();
    header.producer_id.set(id);
    header.producer_epoch.set(epoch);
    header.base_sequence.set(sequence);
    header.last_offset_delta.set(batch.count - 1);
    match batch.marker {
        Some(_) => header.set_control(),
        None if batch.in_txn => header.set_transactional(),
        None => {}
    }
    Some(header)
}

/// The header of offsets in a transaction, which have no sequence.
fn own(request: &CommitRequest) -> Option<BatchHeader> {
    let (id, epoch) = request.producer?;
    header_of(&Batch { count: 1, producer: Some((id, epoch, -1)), in_txn: true, ..Batch::default() })
}

/// The change that a batch makes to a transaction.
pub enum Noted {
    Nothing,
    Begins,
    /// Its first offset.
    Ends(i64, EndMarker),
}

/// Takes note of a batch that stands in the log.
pub fn note(batch: &Batch, producers: &mut ProducerStates) -> Noted {
    let Some(header) = header_of(batch) else { return Noted::Nothing };
    match batch.marker {
        Some(end) => match producers.note_marker(&header, end, batch.base, 0) {
            Some(first) => Noted::Ends(first, end),
            None => Noted::Nothing,
        },
        None if producers.note(&header, batch.base, 0) => Noted::Begins,
        None => Noted::Nothing,
    }
}

impl Stable {
    /// Takes note of a batch that was appended.
    pub fn note(&mut self, batch: &Batch, producers: &mut ProducerStates) {
        let producer = batch.producer.map_or(-1, |(id, ..)| id);
        let noted = note(batch, producers);
        if batch.marker.is_some() || matches!(noted, Noted::Begins) {
            self.verifications.end(producer);
        }
        match noted {
            Noted::Nothing => {}
            Noted::Begins => self.transactions.begin(batch.base, producer),
            Noted::Ends(first, end) => {
                if end.kind == MarkerKind::Abort {
                    self.aborted.push(Aborted { producer, first, last: batch.base });
                }
                self.transactions.end(first, batch.base);
            }
        }
    }

    /// Everything before `high_watermark` is committed.
    pub fn committed(&mut self, high_watermark: i64) {
        self.transactions.committed(high_watermark);
    }

    /// The log ends at `end`, and the producers are as they are then.
    pub fn cut(&mut self, end: i64, producers: &ProducerStates) {
        self.transactions.cut(end, producers.open_transactions().into_iter());
        self.aborted.retain(|aborted| aborted.last < end);
    }
}

impl Replica {
    /// Everything before this is committed and decided.
    pub fn last_stable(&self) -> i64 {
        let (hw, start) = (self.marks.high_watermark(), self.disk.ends.start);
        last_stable_offset(hw, self.stable.transactions.first_unstable(), start)
    }

    /// Some batches for a consumer.
    pub fn read(&self, consume: &Consume) -> Records {
        if !consume.committed {
            let batches = self.disk.read(consume.offset, self.marks.high_watermark(), MOST);
            return Records { batches, aborted: Vec::new() };
        }
        let batches = self.disk.read(consume.offset, self.last_stable(), MOST);
        let end = batches.last().map_or(consume.offset, Batch::next);
        let among = |aborted: &&Aborted| aborted.last >= consume.offset && aborted.first < end;
        let aborted = self.stable.aborted.iter().filter(among).map(|aborted| (aborted.producer, aborted.first));
        Records { batches, aborted: aborted.collect() }
    }

    // ---- verification

    /// The verification of a batch; `None`: the coordinator is to be asked, and
    /// it waits until then.
    pub fn verify(
        &mut self,
        client: Address,
        number: u64,
        produce: &Produce,
        io: &Io,
    ) -> Result<Option<Verified>, ErrorCode> {
        if produce.transactor.is_none() {
            return Ok(Some(Verified::Unasked));
        }
        let Role::Leader(_) = &self.role else { return Err(ErrorCode::NotLeaderOrFollower) };
        let batch = Batch { count: produce.count, producer: produce.producer, in_txn: true, ..Batch::default() };
        let Some(header) = header_of(&batch) else { return Err(ErrorCode::InvalidRequest) };
        let verified = self.stable.verifications.ask(&header, true, &self.producers, io.now)?;
        if matches!(verified, Verified::By(_)) {
            let (part, until) = (Part::Produce(*produce), io.now + PATIENCE_MS);
            self.stable.verifying.push(Verifying { client, number, part, verified, asked: None, until });
            return Ok(None);
        }
        Ok(Some(verified))
    }

    /// Questions for the coordinator that have not left yet, with their numbers.
    pub fn questions(&mut self, io: &mut Io) -> Vec<(u64, AddPartitionsRequest)> {
        let partition = super::place::place_of(self.partition);
        let unasked = self.stable.verifying.iter_mut().filter(|verifying| verifying.asked.is_none());
        let ask = |verifying: &mut Verifying| {
            let (id, producer) = (transactional_id(verifying.part.transactor()?), verifying.part.producer()?);
            let number = *verifying.asked.insert(io.number());
            let request = AddPartitionsRequest {
                id,
                producer,
                partitions: [partition.clone()].into(),
                verify_only: false,
                version: crate::transactions::VERSION,
            };
            Some((number, request))
        };
        unasked.filter_map(ask).collect()
    }

    /// This replica has asked the coordinator with this number.
    pub fn has_asked(&self, number: u64) -> bool {
        self.stable.verifying.iter().any(|verifying| verifying.asked == Some(number))
    }

    /// The coordinator answers.
    pub fn verified(&mut self, number: u64, reply: &Result<Reply, ErrorCode>, apart: bool, io: &mut Io) {
        let at = self.stable.verifying.iter().position(|verifying| verifying.asked == Some(number));
        let Some(at) = at else { return };
        let Verifying { client, number, part, verified, .. } = self.stable.verifying.remove(at);
        let code = match reply {
            Ok(Reply::Partitions(Ok(outcomes))) => {
                outcomes.iter().map(|(_, code)| *code).find(|code| *code != ErrorCode::None).unwrap_or(ErrorCode::None)
            }
            Ok(Reply::Partitions(Err(code))) | Err(code) => *code,
            Ok(_) => ErrorCode::UnknownServerError,
        };
        if is_final(code)
            && let (Verified::By(guard), Some(Producer { id, .. })) = (verified, part.producer())
        {
            io.checker.mark(Mark::VerificationRefused);
            self.stable.verifications.refused(id, guard);
        }
        let verified = match code {
            ErrorCode::None => Ok(verified),
            ErrorCode::ProducerFenced => Err(ErrorCode::InvalidProducerEpoch),
            ErrorCode::CoordinatorLoadInProgress | ErrorCode::NotCoordinator => Err(ErrorCode::NotEnoughReplicas),
            code => Err(code),
        };
        self.take_part(client, number, part, verified, apart, io);
    }

    fn take_part(
        &mut self,
        client: Address,
        number: u64,
        part: Part,
        verified: Result<Verified, ErrorCode>,
        apart: bool,
        io: &mut Io,
    ) {
        match part {
            Part::Produce(produce) => self.take(client, number, produce, verified, apart, io),
            Part::Commit(request, _) => {
                if let Err(code) = verified.and_then(|verified| self.check_own(&request, verified)) {
                    return self.refuse::<groups::Coordinator>(client, number, code, io);
                }
                self.ask::<groups::Coordinator>(client, number, (*request).into(), io);
            }
        }
    }

    // ---- offsets in transactions

    /// Commits offsets in a transaction, once its coordinator has said that the
    /// partition takes part.
    pub fn commit_offsets(
        &mut self,
        client: Address,
        number: u64,
        request: Box<CommitRequest>,
        transactor: usize,
        io: &mut Io,
    ) {
        let begun = match &self.groups {
            Some(hosted) => hosted.admit(),
            None => Err(ErrorCode::NotCoordinator),
        };
        let asked = begun.and_then(|()| {
            let header = own(&request).ok_or(ErrorCode::InvalidRequest)?;
            self.stable.verifications.ask(&header, false, &self.producers, io.now)
        });
        match asked {
            Ok(verified @ Verified::By(_)) => {
                let (part, until) = (Part::Commit(request, transactor), io.now + PATIENCE_MS);
                self.stable.verifying.push(Verifying { client, number, part, verified, asked: None, until });
            }
            verified => self.take_part(client, number, Part::Commit(request, transactor), verified, false, io),
        }
    }

    /// Refuses what would not be appended.
    fn check_own(&self, request: &CommitRequest, verified: Verified) -> Result<(), ErrorCode> {
        let header = own(request).ok_or(ErrorCode::InvalidRequest)?;
        self.producers.check_epoch(&header)?;
        self.stable.verifications.admit(&header, verified, &self.producers)
    }

    /// Refuses what has waited for a coordinator for too long.
    pub fn give_up_verifications(&mut self, io: &mut Io) {
        let late = |verifying: &mut Verifying| io.now >= verifying.until;
        let given_up: Vec<Verifying> = self.stable.verifying.extract_if(.., late).collect();
        for Verifying { client, number, part, .. } in given_up {
            self.take_part(client, number, part, Err(ErrorCode::NotEnoughReplicas), false, io);
        }
    }

    // ---- markers

    /// Has a transaction end here.
    pub fn write_marker(&mut self, from: Address, number: u64, marker: Marker, io: &mut Io) {
        if let Err(code) = self.accept_marker(from, number, &marker, io) {
            io.note(|| format!("broker {}: partition {} refuses {marker:?}: {code}", self.broker, self.partition));
            io.send(self.me(), from, self.partition, number, Payload::MarkerWritten(Err(code)));
        }
    }

    fn accept_marker(&mut self, client: Address, number: u64, marker: &Marker, io: &mut Io) -> Result<(), ErrorCode> {
        let epoch = self.may_append(true, io)?.0;
        if self.partition == OFFSETS && self.groups.as_ref().is_none_or(|hosted| hosted.admit().is_err()) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        self.producers.check_marker(marker)?;
        let id = MARKER | io.number();
        let batch = Batch {
            base: self.disk.ends.appended,
            count: 1,
            epoch,
            id,
            producer: Some((marker.producer_id, marker.producer_epoch, -1)),
            in_txn: true,
            marker: Some(EndMarker { kind: marker.kind, coordinator_epoch: marker.coordinator_epoch }),
            chain: 0,
        };
        io.checker.ends(self.partition, marker);
        let batch = self.append(batch, io);
        let (base, next, cuts) = (batch.base, batch.next(), self.cuts.count());
        if let Some(hosted) = &mut self.groups {
            hosted.marked(next, marker.producer_id, marker.kind == MarkerKind::Commit);
        }
        self.waiting.push(Waiting { client, number, id, base, next, all: true, in_txn: true, is_marker: true, cuts });
        self.moved(io);
        Ok(())
    }
}
