//! Write-behind: batches are appended to chunks of an arena, where they survive the process, and
//! written from there in large pieces, later.
//!
//! A log's chunks leave together, in one write: once they hold the most that a write takes, when
//! the oldest of it is `corelane.write.behind.max.ms` old, when half of the arena waits to leave
//! and this log for longest, or when the segment has rolled. Whole blocks leave; the unfinished one
//! at the end leaves with them where nothing has come for half of that time, else with the next
//! ones, or alone when it has not filled within half a second, or somebody waits for `written`. So
//! no block is written twice at rates that matter, and no write is made of memory that still
//! changes: whole blocks go from the chunk itself, an unfinished one from a copy.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::appender::Pending;
use super::arena::layout::Entry;
use super::arena::pool::Size;
use super::arena::{Arena, Chunk, PartitionKey};
use super::ends::LogPosition;
use super::kept::KeptOfLog;
use super::log::Log;
use super::segment::Segment;
use super::slices::Slices;
use crate::runtime::disk::{ALIGNMENT, DiskBuf, File, MAX_IO_BYTES, align_down, align_up};
use crate::runtime::{clock, spawn_local};

/// How long a log waits for memory before it takes a chunk of any size.
const PATIENCE: Duration = Duration::from_millis(50);

/// A chunk of the log. Positions within it are bytes from its front.
struct HeldChunk {
    chunk: Chunk,
    segment: Rc<Segment>,
    /// Where its front belongs in the segment's file.
    position: u64,
    /// Bytes at its front that are of what was written before.
    carried: usize,
    /// Bytes appended to the log's chunks before it.
    before: u64,
    opened: Instant,
    /// No whole block of it that is not sent is older.
    unsent_since: Cell<Instant>,
    /// Takes no more, although there is room.
    closed: Cell<bool>,
    sent: Cell<usize>,
    written: Cell<usize>,
    /// Mentioned to the arena as written.
    mentioned: Cell<bool>,
}

impl HeldChunk {
    fn filled(&self) -> usize {
        self.chunk.filled()
    }

    fn takes_more(&self) -> bool {
        !self.closed.get() && self.chunk.room() > 0
    }

    /// It was left with room, because the log went on in another segment.
    fn has_rolled(&self) -> bool {
        self.closed.get() && self.chunk.room() > 0
    }

    fn is_written(&self) -> bool {
        self.written.get() == self.filled()
    }

    /// Bytes appended to the log's chunks up to `place` of this one.
    fn total(&self, place: usize) -> u64 {
        self.before + (place - self.carried) as u64
    }

    fn end(&self) -> u64 {
        self.position + self.filled() as u64
    }
}

/// A write on its way.
struct Flight {
    number: u64,
    pieces: Rc<[Piece]>,
    landed: bool,
}

/// `[from, upto)` of a chunk, whole blocks but for its end.
struct Piece {
    held: Rc<HeldChunk>,
    from: usize,
    upto: usize,
}

impl Piece {
    /// It reaches to the end of a chunk that is full.
    fn is_whole_chunk(&self) -> bool {
        self.upto == self.held.filled() && self.held.chunk.room() == 0
    }

    /// True if the front of `next` continues the piece in the file.
    fn goes_on_in(&self, next: &HeldChunk) -> bool {
        Rc::ptr_eq(&self.held.segment, &next.segment)
            && self.held.position + self.upto as u64 == next.position
            && next.sent.get() == 0
    }
}

/// One log's chunks and their writer's state.
pub struct Behind {
    arena: Rc<Arena>,
    key: PartitionKey,
    /// Writes of the log in flight together.
    depth: usize,
    /// Oldest first; those at the front may be written already, and are kept for readers.
    chunks: RefCell<VecDeque<Rc<HeldChunk>>>,
    /// Copies of chunks that were dropped while a consumer had them before it.
    kept: KeptOfLog,
    /// Chunks dropped from the front so far.
    dropped: Cell<u64>,
    /// Number of the first chunk that is not known to be sent, dropped ones counted.
    sending: Cell<u64>,
    /// Bytes appended to chunks so far.
    total: Cell<u64>,
    /// Up to this total whole blocks are to leave.
    whole_target: Cell<u64>,
    /// Up to this total everything is to leave.
    all_target: Cell<u64>,
    /// Ends of batches in chunks that are not written yet, with their totals.
    batch_ends: RefCell<VecDeque<(u64, LogPosition)>>,
    flights: RefCell<VecDeque<Flight>>,
    next_flight: Cell<u64>,
    /// Writes that have not returned, also of a log that has failed meanwhile.
    writing: Cell<usize>,
    running: Cell<bool>,
    /// Batches that found no memory.
    waiting: RefCell<VecDeque<Pending>>,
    /// The first of them waits since then.
    waits_since: Cell<Option<Instant>>,
    size: Cell<Size>,
    /// Where the next chunk begins, and the bytes of the unfinished block before it; only
    /// while no chunk holds them.
    resume: RefCell<Option<(i64, u64, Vec<u8>)>>,
    /// The clock of the arena will have whole blocks written.
    timed: Cell<bool>,
    /// The block at the end has bytes since then.
    block_since: Cell<Instant>,
    /// Up to this total everything leaves when the clock of the arena looks for unfinished blocks;
    /// and since when it has bytes.
    unfinished: Cell<Option<(u64, Instant)>>,
}

impl Behind {
    pub fn is_busy(&self) -> bool {
        self.running.get() || self.writing.get() > 0
    }

    pub fn commit_delay(&self) -> Duration {
        self.arena.commit_delay()
    }

    pub fn drop_waiting(&self) {
        self.waiting.borrow_mut().clear();
    }

    fn chunk(&self, number: u64) -> Option<Rc<HeldChunk>> {
        let index = usize::try_from(number.checked_sub(self.dropped.get())?).ok()?;
        self.chunks.borrow().get(index).cloned()
    }

    /// The next write that may leave: pieces of chunks that follow one another in the file.
    fn next_write(&self) -> Option<Vec<Piece>> {
        if self.flights.borrow().len() >= self.depth {
            return None;
        }
        self.sending.set(self.sending.get().max(self.dropped.get()));
        while let Some(held) = self.chunk(self.sending.get())
            && held.sent.get() == held.filled()
            && !held.takes_more()
        {
            self.sending.set(self.sending.get() + 1);
        }
        let is_enough =
            !self.waiting.borrow().is_empty() || self.total.get() - self.total_sent() >= MAX_IO_BYTES as u64;
        let (mut pieces, mut bytes) = (Vec::<Piece>::new(), 0);
        for number in self.sending.get().. {
            let Some(held) = self.chunk(number) else { break };
            let Some(piece) = self.piece_to_write(held, is_enough) else { break };
            bytes += align_up(piece.upto as u64) as usize - piece.from;
            if pieces.last().is_some_and(|last| !last.goes_on_in(&piece.held)) || bytes > MAX_IO_BYTES {
                break;
            }
            let is_last = !piece.is_whole_chunk();
            pieces.push(piece);
            if is_last {
                break;
            }
        }
        (!pieces.is_empty()).then_some(pieces)
    }

    /// The part of a chunk that may leave; `is_enough`: whole blocks need not wait for more, which
    /// would fill another write or finds no memory.
    fn piece_to_write(&self, held: Rc<HeldChunk>, is_enough: bool) -> Option<Piece> {
        let (filled, sent) = (held.filled(), held.sent.get());
        let reached = held.total(sent);
        let all = held.has_rolled() || reached < self.all_target.get();
        if !all && !is_enough && reached >= self.whole_target.get() {
            return None;
        }
        let upto = if all { filled } else { align_down(filled as u64) as usize };
        let from = align_down(sent as u64) as usize;
        // A block whose copy is in flight is written again only after that.
        let in_flight = from < sent && held.written.get() < sent;
        (upto > sent && !in_flight).then_some(Piece { held, from, upto })
    }

    /// The first chunk with something that is not sent.
    fn first_unsent(&self) -> Option<Rc<HeldChunk>> {
        let chunks = self.chunks.borrow();
        let sending = self.sending.get().saturating_sub(self.dropped.get()) as usize;
        chunks.range(sending.min(chunks.len())..).find(|held| held.sent.get() < held.filled()).cloned()
    }

    /// When the first whole block that is not sent is to leave.
    fn whole_blocks_due(&self) -> Option<Instant> {
        self.first_unsent().map(|held| held.unsent_since.get() + self.arena.delay())
    }

    fn total_sent(&self) -> u64 {
        self.first_unsent().map_or(self.total.get(), |held| held.total(held.sent.get()))
    }

    /// Bytes appended to chunks but for those in the unfinished block at the end.
    fn total_in_whole_blocks(&self) -> u64 {
        let unfinished = self.chunks.borrow().back().map_or(0, |held| {
            let whole = (align_down(held.filled() as u64) as usize).max(held.carried);
            held.filled() - whole
        });
        self.total.get() - unfinished as u64
    }

    /// Whole blocks leave now, and nothing has come for half of the time that they wait: one write
    /// takes the unfinished block along, which would otherwise leave in another soon after.
    fn rests(&self) -> bool {
        let rested = clock::now().saturating_duration_since(self.block_since.get());
        rested * 2 >= self.arena.delay() && self.total_in_whole_blocks() > self.total_sent()
    }

    /// The block that ended at `upto`, with bytes from `since` on, is full now, and leaves with the
    /// others about as soon as it would have alone.
    fn leaves_whole(&self, upto: u64, since: Instant) -> bool {
        let in_time = since + self.arena.delay() + self.arena.unfinished_delay();
        upto <= self.total_in_whole_blocks() && self.whole_blocks_due().is_some_and(|due| due <= in_time)
    }

    /// Copies what it can of the batch into chunks; `true`: all of it is there.
    fn copy(&self, log: &Log, pending: &mut Pending) -> bool {
        while !pending.is_taken() {
            let open = self.chunks.borrow().back().cloned();
            let open = match open {
                Some(held) if held.takes_more() && Rc::ptr_eq(&held.segment, &pending.segment) => held,
                last => match self.new_chunk(log, last, pending) {
                    Some(held) => held,
                    None => return false,
                },
            };
            let before = open.filled() as u64;
            let copied = pending.copy_some(open.chunk.room(), |bytes| open.chunk.append(bytes));
            if before.is_multiple_of(ALIGNMENT) || align_down(before) < align_down(open.filled() as u64) {
                self.block_since.set(clock::now());
            }
            open.chunk.publish();
            self.total.set(self.total.get() + copied as u64);
            self.arena.note_unsent(copied);
        }
        true
    }

    /// `None`: there is no memory for it, or the log has failed.
    fn new_chunk(&self, log: &Log, last: Option<Rc<HeldChunk>>, pending: &Pending) -> Option<Rc<HeldChunk>> {
        let now = clock::now();
        if let Some(last) = &last {
            last.closed.set(true);
            let age = now.saturating_duration_since(last.opened);
            if last.chunk.room() == 0 && age <= self.arena.delay() {
                self.size.set(self.size.get().larger());
            } else if age > self.arena.delay() * 8 {
                self.size.set(self.size.get().smaller());
            }
        }
        let start = pending.place();
        let position = align_down(start);
        let carried = (start - position) as usize;
        let entry = Entry {
            partition: self.key,
            capacity: 0,
            segment: pending.segment.base_offset,
            position: u32::try_from(position).ok()?,
            begins: u32::try_from(pending.position).ok()?,
            first_offset: pending.base_offset(),
            carried: carried as u16,
            first_crc: pending.crc() as u16,
            gaps: log.gaps.get(),
        };
        let size = self.size.get().max(Size::of(carried + pending.left()));
        let size = self.arena.fair_size(size);
        let in_vain = self.waits_since.get().is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE);
        let chunk = self.arena.take(size, in_vain, entry)?;
        // Looked for only now: taking memory may have taken the last chunk of this very log.
        let resumed = self.resume.borrow_mut().take_if(|(segment, end, _)| (*segment, *end) == (entry.segment, start));
        if carried > 0 {
            match &resumed {
                Some((_, _, block)) if block.len() == carried => chunk.append(block),
                // Blocks are only left unfinished at the end of a chunk that was dropped, or of
                // the log as it was opened.
                _ => {
                    log.broken(format_args!("the unfinished block before {start} of {} is not known", entry.segment));
                    return None;
                }
            }
        }
        let held = Rc::new(HeldChunk {
            chunk,
            segment: pending.segment.clone(),
            position,
            carried,
            before: self.total.get(),
            opened: now,
            unsent_since: Cell::new(now),
            closed: Cell::new(false),
            sent: Cell::new(carried),
            written: Cell::new(carried),
            mentioned: Cell::new(false),
        });
        self.chunks.borrow_mut().push_back(held.clone());
        Some(held)
    }

    /// Takes the oldest chunk away, if all of it is written.
    fn take_oldest(&self) -> Option<Rc<HeldChunk>> {
        let mut chunks = self.chunks.borrow_mut();
        let oldest = chunks.front()?;
        if !oldest.is_written() {
            oldest.mentioned.set(false);
            return None;
        }
        if oldest.takes_more() {
            let end = oldest.end();
            let block = oldest.chunk.as_slice()[align_down(oldest.filled() as u64) as usize..].to_vec();
            *self.resume.borrow_mut() = Some((oldest.segment.base_offset, end, block));
        }
        self.dropped.set(self.dropped.get() + 1);
        chunks.pop_front()
    }

    /// Appends to `out` what chunks and their copies hold of `[start, end)` of the segment, from
    /// the first byte that they hold without a gap; returns where that is, `end` for nothing.
    pub fn collect(&self, segment: i64, start: u64, end: u64, out: &mut Slices) -> u64 {
        if self.kept.is_empty() {
            return self.collect_chunks(segment, start, end, out);
        }
        let mut newest = Slices::default();
        let from = self.collect_chunks(segment, start, end, &mut newest);
        let from = if from > start { self.kept.collect(segment, start, from, out) } else { from };
        out.extend(newest);
        from
    }

    pub fn kept(&self) -> &KeptOfLog {
        &self.kept
    }

    fn collect_chunks(&self, segment: i64, start: u64, end: u64, out: &mut Slices) -> u64 {
        let chunks = self.chunks.borrow();
        let first = chunks.partition_point(|held| (held.segment.base_offset, held.end()) <= (segment, start));
        let mut from = end;
        for held in chunks.iter().skip(first) {
            let begin = held.position + held.carried as u64;
            if held.segment.base_offset != segment || begin >= end {
                break;
            }
            let (low, high) = (begin.max(start), held.end().min(end));
            if from == end {
                from = low;
            }
            let range = (low - held.position) as usize..(high - held.position) as usize;
            let is_small = range.len() < Slices::copied_below(held.filled());
            if is_small || !self.arena.may_lend(held.chunk.capacity()) {
                out.push_copy(&held.chunk.as_slice()[range]);
            } else {
                out.push_lent(held.chunk.bytes(range));
            }
        }
        from
    }
}

impl Log {
    /// Has appends go through `arena` from now on, in which `key` names the log.
    /// Before the first append.
    pub fn write_behind(&self, arena: Rc<Arena>, key: PartitionKey) {
        let resume = self.appender.take_resume();
        let behind = Behind {
            arena,
            key,
            depth: self.context.limits.write_queue_depth.max(1),
            chunks: RefCell::default(),
            kept: self.context.kept.of_log(),
            dropped: Cell::new(0),
            sending: Cell::new(0),
            total: Cell::new(0),
            whole_target: Cell::new(0),
            all_target: Cell::new(0),
            batch_ends: RefCell::default(),
            flights: RefCell::default(),
            next_flight: Cell::new(0),
            writing: Cell::new(0),
            running: Cell::new(false),
            waiting: RefCell::default(),
            waits_since: Cell::new(None),
            size: Cell::new(Size::SMALLEST),
            resume: RefCell::new(resume),
            timed: Cell::new(false),
            block_since: Cell::new(clock::now()),
            unfinished: Cell::new(None),
        };
        let _ = self.behind.set(behind);
    }

    /// Counts the time that batches wait for memory.
    pub(super) fn note_arena(&self, behind: &Behind) {
        let (waiting, counted) = (!behind.waiting.borrow().is_empty(), self.delays.arena.is_running());
        match (waiting, counted) {
            (true, false) => self.delays.arena.begin(),
            (false, true) => self.delays.arena.end(),
            _ => {}
        }
    }

    /// Appends to the arena, or queues for it.
    pub(super) fn hold(self: &Rc<Self>, behind: &Behind, mut pending: Pending) {
        let first_in_line = behind.waiting.borrow().is_empty();
        if first_in_line && behind.copy(self, &mut pending) {
            return self.held(behind, pending);
        }
        if self.failure.borrow().is_some() {
            return;
        }
        behind.waiting.borrow_mut().push_back(pending);
        self.note_arena(behind);
        if first_in_line {
            behind.waits_since.set(Some(clock::now()));
            behind.arena.wait_for_memory(self);
        }
    }

    /// Tries again what found no memory; `false`: some of it still finds none.
    pub(super) fn append_waiting(self: &Rc<Self>) -> bool {
        let Some(behind) = self.behind.get() else { return true };
        loop {
            let Some(mut pending) = behind.waiting.borrow_mut().pop_front() else {
                behind.waits_since.set(None);
                self.note_arena(behind);
                return true;
            };
            if self.failure.borrow().is_some() {
                continue;
            }
            if !behind.copy(self, &mut pending) {
                behind.waiting.borrow_mut().push_front(pending);
                self.wake_behind(behind);
                return false;
            }
            self.held(behind, pending);
            behind.waits_since.set(Some(clock::now()));
        }
    }

    /// A whole batch stands in the arena.
    fn held(self: &Rc<Self>, behind: &Behind, pending: Pending) {
        let at = pending.log_position();
        behind.batch_ends.borrow_mut().push_back((behind.total.get(), at.clone()));
        if !behind.timed.replace(true) {
            behind.arena.write_by(clock::now() + behind.arena.delay(), self);
        }
        let has_room = self.has_room_for(&at, behind);
        if !has_room || self.flush_is_due(at.offset) {
            behind.all_target.set(behind.total.get());
        }
        self.note_sent(at, has_room);
        self.wake_behind(behind);
    }

    /// Nothing that counts as held may lack room when it is written: blocks are reserved
    /// for it, or there is plenty.
    fn has_room_for(&self, at: &LogPosition, behind: &Behind) -> bool {
        at.position <= at.segment.allocated.get() || self.disk.has_twice(behind.arena.reach())
    }

    /// Has everything appended so far leave for the device.
    pub(super) fn write_everything(self: &Rc<Self>) {
        if let Some(behind) = self.behind.get() {
            behind.all_target.set(behind.total.get());
            self.wake_behind(behind);
        }
    }

    /// Has whole blocks leave, if any is old enough, or `pressed`; how many bytes.
    pub(super) fn write_whole_blocks(self: &Rc<Self>, pressed: bool) -> u64 {
        let Some(behind) = self.behind.get() else { return 0 };
        let before = behind.total_sent().max(behind.whole_target.get());
        match behind.whole_blocks_due() {
            Some(due) if due > clock::now() && !pressed => {
                behind.arena.write_by(due, self);
                return 0;
            }
            Some(_) if behind.rests() => {
                behind.timed.set(false);
                self.write_everything();
                return behind.total.get().saturating_sub(before);
            }
            Some(_) => {
                behind.whole_target.set(behind.total_in_whole_blocks());
                self.wake_behind(behind);
            }
            None => {}
        }
        behind.timed.set(false);
        if behind.unfinished.get().is_none() {
            self.write_unfinished_later(behind);
        }
        behind.whole_target.get().saturating_sub(before)
    }

    fn write_unfinished_later(self: &Rc<Self>, behind: &Behind) {
        behind.unfinished.set(Some((behind.total.get(), behind.block_since.get())));
        behind.arena.write_unfinished_later(self);
    }

    /// Has everything leave, if the block that was unfinished when this was asked for has not left.
    pub(super) fn write_unfinished(self: &Rc<Self>) {
        let Some(behind) = self.behind.get() else { return };
        let Some((upto, since)) = behind.unfinished.take() else { return };
        let sent = behind.total_sent();
        if sent >= upto {
            if sent < behind.total.get() {
                self.write_unfinished_later(behind);
            }
        } else if !behind.leaves_whole(upto, since) {
            self.write_everything();
        }
    }

    /// Gives the memory of the oldest chunk back, if all of it is written.
    pub(super) fn drop_oldest_chunk(&self) -> bool {
        let Some(behind) = self.behind.get() else { return false };
        let Some(oldest) = behind.take_oldest() else { return false };
        let start = (oldest.segment.base_offset, oldest.position + oldest.carried as u64);
        self.keep_for_readers(&behind.kept, start, &oldest.chunk.as_slice()[oldest.carried..]);
        true
    }

    /// Has appends go on at `end` of `segment`, whose unfinished block holds `last_block`.
    /// Everything appended before is written.
    pub(super) fn resume_at(&self, segment: i64, end: u64, last_block: &[u8]) {
        match self.behind.get() {
            None => self.appender.resume(segment, end, last_block),
            Some(behind) => {
                self.drop_chunks(true);
                *behind.resume.borrow_mut() = Some((segment, end, last_block.to_vec()));
            }
        }
    }

    /// Drops every chunk, and what waits; `written`: nothing in them needs to be taken
    /// over by a start any more.
    pub(super) fn drop_chunks(&self, written: bool) {
        let Some(behind) = self.behind.get() else { return };
        behind.drop_waiting();
        behind.kept.forget();
        self.note_arena(behind);
        let chunks = behind.chunks.take();
        behind.dropped.set(behind.dropped.get() + chunks.len() as u64);
        for held in &chunks {
            behind.arena.note_sent(held.filled() - held.sent.replace(held.filled()));
            if written || held.is_written() {
                held.chunk.retire();
            }
        }
    }

    /// Bytes of each chunk that is not written, in order, with the segment and
    /// place that they belong to.
    pub(super) fn unwritten_chunks(&self) -> Vec<(Rc<Segment>, u64, Vec<u8>)> {
        let Some(behind) = self.behind.get() else { return Vec::new() };
        let chunks = behind.chunks.borrow();
        let unwritten = chunks.iter().filter(|held| !held.is_written());
        unwritten
            .map(|held| {
                let new = held.chunk.as_slice()[held.carried..].to_vec();
                (held.segment.clone(), held.position + held.carried as u64, new)
            })
            .collect()
    }

    #[cfg(test)]
    pub(super) fn chunk_writes(&self) -> u64 {
        self.behind.get().map_or(0, |behind| behind.next_flight.get())
    }

    fn wake_behind(self: &Rc<Self>, behind: &Behind) {
        if self.failure.borrow().is_none() && behind.next_write().is_some() && !behind.running.replace(true) {
            spawn_local(self.clone().write_chunks());
        }
    }

    /// Runs while a write may leave; those that land start it again.
    async fn write_chunks(self: Rc<Self>) {
        let Some(behind) = self.behind.get() else { return };
        while self.failure.borrow().is_none()
            && let Some(pieces) = behind.next_write()
        {
            if let Err(error) = self.send_pieces(behind, &pieces).await {
                self.fail("a write", &error);
            }
        }
        behind.running.set(false);
    }

    async fn send_pieces(self: &Rc<Self>, behind: &Behind, pieces: &[Piece]) -> io::Result<()> {
        let Some(last) = pieces.last() else { return Ok(()) };
        let segment = last.held.segment.clone();
        let file = self.file_of(&segment).await?;
        self.ensure_allocated(&segment, &file, align_up(last.held.end())).await?;
        if self.failure.borrow().is_some() {
            return Ok(());
        }
        // More may have gathered meanwhile.
        let (pieces, end) = loop {
            let Some(pieces) = behind.next_write() else { return Ok(()) };
            let end = pieces.last().map_or(0, |last| last.held.position + last.upto as u64);
            if !segment.ahead.blocks(end) {
                break (pieces, end);
            }
            self.progress.notified().await;
            if self.failure.borrow().is_some() {
                return Ok(());
            }
        };
        let mut bytes = 0;
        for Piece { held, upto, .. } in &pieces {
            let end = align_up(held.position + *upto as u64);
            held.segment.allocated.set(held.segment.allocated.get().max(end));
            bytes += *upto - held.sent.replace(*upto);
            held.unsent_since.set(clock::now());
        }
        behind.arena.note_sent(bytes);
        self.appender.note_group(bytes as u64);
        self.sent_to(&segment, &file, end);
        let number = behind.next_flight.replace(behind.next_flight.get() + 1);
        let pieces: Rc<[Piece]> = pieces.into();
        behind.flights.borrow_mut().push_back(Flight { number, pieces: pieces.clone(), landed: false });
        behind.writing.set(behind.writing.get() + 1);
        let log = self.clone();
        spawn_local(async move {
            let outcome = write(&pieces, &file).await;
            let Some(behind) = log.behind.get() else { return };
            behind.writing.set(behind.writing.get() - 1);
            match outcome {
                Ok(()) => log.chunks_landed(behind, number),
                Err(error) => log.fail("a write", &error),
            }
            log.wake_behind(behind);
        });
        Ok(())
    }

    /// Notes that a write has reached the device; the written point moves over every
    /// write that has, in order.
    fn chunks_landed(self: &Rc<Self>, behind: &Behind, number: u64) {
        if self.failure.borrow().is_some() {
            return;
        }
        if let Some(flight) = behind.flights.borrow_mut().iter_mut().find(|flight| flight.number == number) {
            flight.landed = true;
        }
        let (mut moved, mut any) = (None, false);
        while let Some(flight) = behind.flights.borrow_mut().pop_front_if(|flight| flight.landed) {
            for piece in flight.pieces.iter() {
                moved = self.piece_written(behind, piece).or(moved);
                any |= self.retire_written(behind, &piece.held);
            }
        }
        match moved {
            Some(at) => {
                self.note_written(at);
                self.after_write();
            }
            None => self.progress.notify_all(),
        }
        if any {
            behind.arena.retry_waiting();
        }
    }

    /// Returns the end of the last batch that is written with this piece.
    fn piece_written(&self, behind: &Behind, Piece { held, upto, .. }: &Piece) -> Option<LogPosition> {
        held.written.set(*upto);
        let end = held.position + *upto as u64;
        let before = held.segment.written.replace(end);
        let unsynced = &self.context.unsynced_bytes;
        unsynced.set(unsynced.get() + (end - before));
        let total = held.total(*upto);
        let mut moved = None;
        while let Some((_, at)) = behind.batch_ends.borrow_mut().pop_front_if(|(end, _)| *end <= total) {
            moved = Some(at);
        }
        moved
    }

    /// Gives up the entry of a chunk that is written; `true`: its memory may be had.
    fn retire_written(self: &Rc<Self>, behind: &Behind, held: &HeldChunk) -> bool {
        if !held.is_written() {
            return false;
        }
        held.chunk.retire();
        let is_new = !held.mentioned.replace(true);
        if is_new {
            behind.arena.note_written(self);
        }
        is_new
    }
}

/// Writes pieces that follow one another: whole blocks from the chunks themselves, an unfinished
/// one at the end from a copy.
async fn write(pieces: &[Piece], file: &Rc<File>) -> io::Result<()> {
    let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return Ok(()) };
    let whole = align_down(last.upto as u64) as usize;
    let blocks = pieces.iter().map(|piece| piece.held.chunk.bytes(piece.from..align_down(piece.upto as u64) as usize));
    let mut blocks: Vec<Bytes> = blocks.filter(|bytes| !bytes.is_empty()).collect();
    if last.upto > whole {
        let mut block = DiskBuf::alloc(ALIGNMENT as usize);
        let (filled, padding) = block.as_mut_slice().split_at_mut(last.upto - whole);
        filled.copy_from_slice(&last.held.chunk.as_slice()[whole..last.upto]);
        padding.fill(0);
        blocks.push(block.freeze().bytes());
    }
    file.write_slices(blocks.into(), first.held.position + first.from as u64).await
}
