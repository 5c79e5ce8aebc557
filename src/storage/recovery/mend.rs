//! Damage that a start meets: judged, told, set aside or cut off.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use super::scan::Scan;
use super::{FoundSegment, Recovery};
use crate::runtime::{fs, spawn_blocking};
use crate::storage::as_is::begins_beyond;
use crate::storage::compaction::named;
use crate::storage::damage;
use crate::storage::rot::{self, Bounds, Evidence, Stretch, Verdict};
use crate::storage::segment::Segment;

/// A log that was not closed ends in zeros that were reserved ahead. Further than this nothing is
/// looked for behind zeros.
const ZEROS_SEARCHED: u64 = 4 << 20;
/// Damaged bytes that are looked through for sectors that were never written.
const DAMAGE_SEARCHED: u64 = 8 << 20;

/// The outcome of a segment's scan.
pub enum Outcome {
    /// Everything before the scan's end is sound; what follows goes.
    Sound,
    /// As `Sound`, and the log ends here: a torn tail.
    Ends,
    /// It was written anew without its damage, with this many bytes: scan it again.
    Rewritten(u64),
}

/// The bytes behind the end of a scan.
struct Behind {
    /// From the scan's end on; empty when only zeros follow.
    stretches: Vec<Stretch>,
    never_written: bool,
}

impl Recovery {
    /// Bounds that the segment's batches are held to.
    pub(super) fn bounds(&self, segment: &Segment, bytes: u64, next_sound: Option<i64>) -> Bounds {
        let farthest = segment.base_offset.saturating_add(i64::from(i32::MAX)).saturating_add(1);
        let end_offset = match next_sound {
            Some(next) => next.min(farthest),
            // After a clean stop there is nothing behind the recovery point.
            None if self.clean_stop && self.recovery_point > 0 => self.recovery_point.min(farthest),
            None => farthest,
        };
        let gap_at_end = self.config.cleanup_compact || self.set_aside_before || self.gaps;
        Bounds {
            size: bytes,
            from_offset: self.next_offset.max(segment.base_offset),
            end_offset,
            end_known: end_offset < farthest,
            gap_at_end,
            reserved: !self.clean_stop,
        }
    }

    /// The first offset of the next segment that has a sound batch at its start. A file's name
    /// proves nothing.
    pub(super) async fn next_sound_segment(&self, rest: &[FoundSegment]) -> io::Result<Option<i64>> {
        for found in rest {
            let segment = Segment::found(self.dir.clone(), found.base, found.bytes);
            let (path, size, base) = (segment.path("log"), found.bytes, found.base);
            let bounds = Bounds {
                size,
                from_offset: base,
                end_offset: i64::MAX,
                end_known: false,
                gap_at_end: true,
                reserved: true,
            };
            let first = spawn_blocking(move || rot::batch_at(&open(&path)?, 0, bounds)).await?;
            if let Some(first) = first {
                return Ok(Some(first.base()));
            }
        }
        Ok(None)
    }

    /// Sets a segment file aside whose name says that it begins amid the segments before it.
    pub(super) async fn set_aside_overlap(&mut self, found: &FoundSegment) -> io::Result<()> {
        self.note_damage().await?;
        tracing::error!(
            dir = %self.dir.display(), base = found.base, bytes = found.bytes, next_offset = self.next_offset,
            "a segment file begins before the one before it ends (a copy?): it is set aside as damaged, nothing of it is served"
        );
        let (dir, base, bytes) = (self.dir.to_path_buf(), found.base, found.bytes);
        let whole = Stretch { sound: false, bytes: 0..bytes, offsets: self.next_offset..self.next_offset };
        spawn_blocking(move || rot::set_aside(&dir, base, &[whole], 0, 1)).await?;
        self.remove(base).await
    }

    /// Notes, before anything is changed, that records are missing.
    pub(super) async fn note_damage(&mut self) -> io::Result<()> {
        self.damaged = true;
        if std::mem::take(&mut self.notes_damage) {
            damage::mark(&self.dir).await?;
        }
        Ok(())
    }

    /// Says that no segment holds the offsets from `end` up to `base`, where the log goes on.
    pub(super) fn note_gap(&mut self, end: i64, base: i64) {
        // A log that starts with this segment misses nothing, unless the checkpoint knows better.
        let known = !self.segments.is_empty() || self.recovery_point > 0;
        // Nothing tells where the first segment of a log with gaps begins.
        let beyond = self.segments.back().is_none_or(|last| begins_beyond(last.base_offset, base));
        if known && base > end && !(self.gaps && beyond) {
            self.damaged = true;
            tracing::error!(
                dir = %self.dir.display(), first_offset = end, end_offset = base,
                "records of offsets [{end}, {base}) are missing: no segment holds them. What follows is kept; restore the segment \
                 files from a copy if there is one"
            );
        }
    }

    /// Offsets below the recovery point, and of records that were set aside, are not given again.
    pub(super) fn keep_given_offsets(&mut self) {
        if self.next_offset >= self.reserved {
            return;
        }
        self.damaged = true;
        tracing::error!(
            dir = %self.dir.display(), first_offset = self.next_offset, end_offset = self.reserved,
            "records of offsets [{}, {}) were synced and are missing at the end of the log. The offsets are not given again; \
             restore the segment files from a copy if there is one",
            self.next_offset, self.reserved
        );
        self.next_offset = self.reserved;
    }

    /// Says that the log went on in a segment whose file is gone; where it ended is not known.
    pub(super) fn note_lost_segment(&mut self, base: Option<i64>) {
        let Some(base) = base.filter(|base| *base >= self.next_offset) else { return };
        self.damaged = true;
        tracing::error!(
            dir = %self.dir.display(), base,
            "the segment file of offset {base} is missing, its index is there: records from offset {} on are lost. The log goes \
             on from offset {base}; restore the file from a copy if there is one before anything is written",
            self.next_offset
        );
        self.next_offset = base;
    }

    /// Looks at what follows the last sound batch of a scan, and mends it.
    pub(super) async fn examine(
        &mut self,
        segment: &Rc<Segment>,
        scan: &Scan,
        bounds: Bounds,
        rest: &[FoundSegment],
        next_sound: Option<i64>,
    ) -> io::Result<Outcome> {
        // Bytes that were synced, or landed before a later segment was sealed, were acknowledged.
        let synced = scan.next_offset < self.recovery_point || rest.iter().any(|found| found.has_index);
        let all_counts = synced || self.clean_stop;
        let behind = self.behind(segment, scan, bounds, all_counts).await?;
        let gap = next_sound.is_some_and(|next| match self.gaps {
            true => Self::ended_later(segment, scan, rest),
            false => next > scan.next_offset,
        });
        if behind.stretches.is_empty() && (!gap || all_counts) {
            return Ok(Outcome::Sound);
        }
        let last_sound = behind.stretches.iter().rfind(|stretch| stretch.sound).map(|stretch| stretch.bytes.end);
        let later: u64 = if next_sound.is_some() { rest.iter().map(|found| found.bytes).sum() } else { 0 };
        let verdict = rot::judge(Evidence {
            clean_stop: self.clean_stop,
            synced,
            sound_behind: last_sound.is_some() || gap,
            reach: last_sound.unwrap_or(scan.position) - scan.position + later,
            in_flight: self.in_flight,
            never_written: behind.never_written,
        });
        match verdict {
            Verdict::TornTail => {
                self.tell_torn_tail(segment, scan, &behind, rest, last_sound.is_some() || gap).await?;
                Ok(Outcome::Ends)
            }
            Verdict::Rot if behind.stretches.is_empty() => Ok(Outcome::Sound),
            Verdict::Rot => self.set_aside(segment, bounds, scan.position).await,
        }
    }

    /// True if the segment had more batches when the next one was begun.
    fn ended_later(segment: &Segment, scan: &Scan, rest: &[FoundSegment]) -> bool {
        let beyond = |base| begins_beyond(segment.base_offset, base);
        rest.first().is_some_and(|next| next.base > scan.next_offset && !beyond(next.base))
    }

    /// Looks at the bytes between the end of the scan and the end of the file.
    async fn behind(&self, segment: &Rc<Segment>, scan: &Scan, bounds: Bounds, to_the_end: bool) -> io::Result<Behind> {
        if scan.position >= bounds.size {
            return Ok(Behind { stretches: Vec::new(), never_written: true });
        }
        let (path, from) = (segment.path("log"), scan.position);
        let bounds = Bounds { from_offset: scan.next_offset, ..bounds };
        // Before a known end of the log, zeros are records that are gone.
        let reserved = bounds.reserved || bounds.from_offset >= bounds.end_offset;
        if reserved && scan.only_zeros_follow {
            return Ok(Behind { stretches: Vec::new(), never_written: true });
        }
        spawn_blocking(move || {
            let file = open(&path)?;
            let searched = if to_the_end { bounds.size } else { bounds.size.min(from + ZEROS_SEARCHED) };
            if reserved && only_zeros(&file, from..searched)? {
                return Ok(Behind { stretches: Vec::new(), never_written: true });
            }
            let stretches = rot::survey(&file, from, bounds)?;
            let damage = stretches.iter().find(|stretch| !stretch.sound).map(|stretch| stretch.bytes.clone());
            let never_written = match damage {
                Some(bytes) => {
                    let mut damage = vec![0; (bytes.end - bytes.start).min(DAMAGE_SEARCHED) as usize];
                    file.read_exact_at(&mut damage, bytes.start)?;
                    rot::never_written(&damage, bytes.start)
                }
                None => false,
            };
            Ok(Behind { stretches, never_written })
        })
        .await
    }

    /// Takes all damage out of the segment.
    async fn set_aside(&mut self, segment: &Rc<Segment>, bounds: Bounds, sound_end: u64) -> io::Result<Outcome> {
        self.note_damage().await?;
        segment.forget_file();
        let (path, dir, base) = (segment.path("log"), self.dir.to_path_buf(), segment.base_offset);
        let interval = self.config.index_interval_bytes;
        let (rewritten, missing) = spawn_blocking(move || {
            let stretches = rot::survey(&open(&path)?, 0, bounds)?;
            let missing = stretches.iter().filter(|s| !s.sound).map(|s| s.offsets.end).max();
            let rewritten = rot::set_aside(&dir, base, &stretches, sound_end, interval)?;
            let bytes = if rewritten { Some(fs::metadata(&path)?.len()) } else { None };
            io::Result::Ok((bytes, missing))
        })
        .await?;
        self.reserved = self.reserved.max(missing.unwrap_or(0));
        Ok(rewritten.map_or(Outcome::Sound, Outcome::Rewritten))
    }

    async fn tell_torn_tail(
        &mut self,
        segment: &Rc<Segment>,
        scan: &Scan,
        behind: &Behind,
        rest: &[FoundSegment],
        sound_behind: bool,
    ) -> io::Result<()> {
        let end = behind.stretches.last().map_or(scan.position, |stretch| stretch.bytes.end);
        let mut kept_in = None;
        if sound_behind {
            let mut parts = vec![(segment.base_offset, scan.position..end)];
            parts.extend(rest.iter().map(|found| (found.base, 0..found.bytes)));
            let dir = self.dir.to_path_buf();
            kept_in = Some(spawn_blocking(move || rot::copy_tail(&dir, &parts)).await?);
        }
        tracing::warn!(
            file = %segment.path("log").display(), position = scan.position, bytes = end - scan.position,
            end_offset = scan.next_offset, kept_in = ?kept_in,
            "cut off a torn write: the log ends at offset {}; what was being written behind it when the broker ended was not \
             acknowledged",
            scan.next_offset
        );
        Ok(())
    }

    /// Segments behind a torn tail cannot be reached by acknowledged records; they go.
    pub(super) async fn drop_rest(&mut self, rest: &[FoundSegment]) -> io::Result<()> {
        for found in rest {
            tracing::warn!(
                dir = %self.dir.display(), base = found.base, bytes = found.bytes,
                "removing a segment that lies behind a torn write"
            );
            self.remove(found.base).await?;
        }
        Ok(())
    }
}

/// Errors name the file.
fn open(path: &Path) -> io::Result<fs::File> {
    fs::File::open(path).map_err(|error| named("open", path, error))
}

fn only_zeros(file: &fs::File, bytes: Range<u64>) -> io::Result<bool> {
    let mut buffer = vec![0; 64 << 10];
    let mut position = bytes.start;
    while position < bytes.end {
        let wanted = (bytes.end - position).min(buffer.len() as u64) as usize;
        let read = file.read_at(&mut buffer[..wanted], position)?;
        if read == 0 {
            break;
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        position += read as u64;
    }
    Ok(true)
}
