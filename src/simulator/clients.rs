//! Producers, idempotent and plain.

use std::collections::BTreeMap;

use super::net::{Address, Io, Payload, Produce};
use super::place::FIRST;
use crate::model::{ErrorCode, LeaderEpoch};

/// Where a partition's leader is believed to be.
pub type Leaders = [Option<(usize, LeaderEpoch)>];

pub const TIMEOUT_MS: i64 = 700;

/// A batch on its way.
#[derive(Clone, Copy, Debug)]
struct Sending {
    partition: usize,
    produce: Produce,
    number: u64,
    /// Sent again then.
    until: i64,
}

pub struct Producer {
    index: usize,
    idempotent: bool,
    all: bool,
    epoch: i16,
    /// The next sequence, by partition.
    sequences: BTreeMap<usize, i32>,
    sending: Option<Sending>,
    next_at: i64,
    sent: u64,
}

impl Producer {
    pub fn new(index: usize, io: &mut Io) -> Producer {
        Producer {
            index,
            idempotent: io.rng.chance(70),
            all: index == 0 || io.rng.chance(80),
            epoch: 0,
            sequences: BTreeMap::new(),
            sending: None,
            next_at: 0,
            sent: 0,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.sending.is_none()
    }

    /// Begins the next batch, or sends the one on its way again. `leaders`: where each partition's
    /// leader is believed to be. `more`: new batches are wanted.
    pub fn tick(&mut self, leaders: &Leaders, more: bool, io: &mut Io) {
        match &mut self.sending {
            Some(sending) if io.now >= sending.until => {
                let mut again = *sending;
                again.number = io.number();
                self.send(again, leaders, io);
            }
            None if more && io.now >= self.next_at => {
                let partition = io.rng.between(FIRST as i64, leaders.len() as i64 - 1) as usize;
                let count = io.rng.between(1, 3) as i32;
                self.sent += 1;
                let id = (self.index as u64 + 1) << 32 | self.sent;
                let sequence = self.sequences.entry(partition).or_insert(0);
                let producer = self.idempotent.then_some((self.index as i64 + 1, self.epoch, *sequence));
                *sequence += count;
                let produce = Produce { id, count, producer, all: self.all, transactor: None };
                let sending = Sending { partition, produce, number: io.number(), until: 0 };
                self.send(sending, leaders, io);
            }
            _ => {}
        }
    }

    fn send(&mut self, mut sending: Sending, leaders: &Leaders, io: &mut Io) {
        sending.until = io.now + TIMEOUT_MS;
        self.sending = Some(sending);
        if let Some((leader, _)) = leaders[sending.partition] {
            let (from, to) = (Address::Producer(self.index), Address::Broker(leader));
            io.send(from, to, sending.partition, sending.number, Payload::Produce(sending.produce));
        }
    }

    pub fn answered(&mut self, number: u64, result: Result<i64, ErrorCode>, epoch: LeaderEpoch, io: &mut Io) {
        let Some(sending) = self.sending.filter(|sending| sending.number == number) else { return };
        match result {
            Ok(_) => {
                self.sending = None;
                self.next_at = io.now + io.rng.between(2, 60);
            }
            // A leader that is none any more may well lack what was written elsewhere.
            Err(ErrorCode::OutOfOrderSequenceNumber | ErrorCode::InvalidProducerEpoch)
                if io.checker.is_current(sending.partition, epoch) =>
            {
                if !io.checker.has_lost(sending.partition) && self.all {
                    let what = format!("producer {}: {sending:?} {result:?}", self.index);
                    io.checker.broken("I7: a sequence is out of order that is not", what);
                }
                // Its earlier records are lost: it begins anew.
                self.epoch += 1;
                self.sequences.clear();
                self.sending = None;
            }
            Err(_) => {
                let until = io.now + io.rng.between(20, 150);
                self.sending = Some(Sending { until, ..sending });
            }
        }
    }
}
