//! Rot or a torn tail: two causes of bytes that are no batch, with opposite cures. Pure.
//!
//! Writes of one log are in flight side by side, so a crash may leave a later group on the device
//! without an earlier one. None of them was acknowledged: a group is acknowledged only after every
//! group before it has landed. So batches behind a group that never landed go with it, or a
//! producer that sends its batches again would find its later ones there before its earlier ones.
//! Rot, on the other hand, may strike between acknowledged batches; those behind it stay.
//!
//! They differ so:
//! - Before the recovery point everything was synced once: damage there is rot. So is all damage
//!   after a clean stop, and damage in front of a segment that has index files: they are written
//!   when everything before has landed.
//! - Batches that are further behind the damage than all writes in flight together can reach were
//!   acknowledged: rot. (After a power cut, when the device reordered its writes, they are kept for
//!   the same reason: they were acknowledged.)
//! - A write that did not land leaves blocks as they were: zeros, which the file is extended with.
//!   Damage without a sector of zeros was written: rot.
//! - With nothing sound behind the damage there is nothing to keep: a torn tail.

/// The unit in which a device may tear a write, bytes.
const SECTOR: u64 = 512;
/// Zeros that a batch may well hold are no sign of a write that is missing.
const FEW_ZEROS: u64 = 64;

/// Evidence about the first damaged bytes of a log.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    /// The last stop was clean.
    pub clean_stop: bool,
    /// The damage begins before the recovery point.
    pub synced: bool,
    /// Sound batches lie behind it, in this segment or a later one.
    pub sound_behind: bool,
    /// From the damage to the end of the last sound batch, bytes.
    pub reach: u64,
    /// All writes of a log in flight together, bytes.
    pub in_flight: u64,
    /// A sector of the damage may never have been written; see [`never_written`].
    pub never_written: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The damage goes aside, everything else stays.
    Rot,
    /// The log ends where the damage begins.
    TornTail,
}

pub fn judge(evidence: Evidence) -> Verdict {
    let Evidence { clean_stop, synced, sound_behind, reach, in_flight, never_written } = evidence;
    if clean_stop || synced || (sound_behind && (reach > in_flight || !never_written)) {
        return Verdict::Rot;
    }
    Verdict::TornTail
}

/// True if `damage`, which begins at `position` of its file, has a sector that reads as if nothing
/// was ever written to it.
pub fn never_written(damage: &[u8], position: u64) -> bool {
    if damage.iter().all(|byte| *byte == 0) {
        return true;
    }
    let mut rest = damage;
    let mut first = SECTOR - position % SECTOR;
    while !rest.is_empty() {
        let length = usize::try_from(first).unwrap_or(rest.len()).min(rest.len());
        let (sector, others) = rest.split_at(length);
        if sector.len() as u64 >= FEW_ZEROS && sector.iter().all(|byte| *byte == 0) {
            return true;
        }
        (rest, first) = (others, SECTOR);
    }
    false
}
