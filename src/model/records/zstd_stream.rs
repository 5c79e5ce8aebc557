//! Zstd frames one after the other, by the reference library, with one context per
//! thread that is used again.

use std::cell::RefCell;
use std::io::{self, BufRead, Read};

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

use super::decompress::{MAX_BLOCK_BYTES, read_buffered};

const MAGIC: [u8; 4] = 0xFD2F_B528u32.to_le_bytes();
const SINGLE_SEGMENT: u8 = 0x20;
/// The window descriptor (RFC 8878, 3.1.1.1.2) of [`MAX_BLOCK_BYTES`].
const MAX_WINDOW: u8 = ((MAX_BLOCK_BYTES.ilog2() - 10) << 3) as u8;
const _: () = assert!(MAX_BLOCK_BYTES.is_power_of_two());
/// Magic, frame header descriptor and window descriptor.
const HEAD_BYTES: usize = 6;
/// Output handed out at a time: the largest block of the format.
const OUTPUT_BYTES: usize = 128 << 10;
/// A context that has grown beyond this (by a wide window) is not kept.
const MAX_KEPT_BYTES: usize = 10 << 20;

/// A decompression context and its output buffer.
struct Context {
    zstd: DCtx<'static>,
    output: Vec<u8>,
}

thread_local! {
    /// The context of this thread while nobody uses it.
    static SPARE: RefCell<Option<Context>> = const { RefCell::new(None) };
}

impl Context {
    fn take() -> io::Result<Context> {
        if let Some(context) = SPARE.try_with(|spare| spare.borrow_mut().take()).ok().flatten() {
            return Ok(context);
        }
        let mut zstd = DCtx::try_create().ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        zstd.set_parameter(DParameter::WindowLogMax(MAX_BLOCK_BYTES.ilog2())).map_err(zstd_error)?;
        Ok(Context { zstd, output: vec![0; OUTPUT_BYTES] })
    }

    fn give_back(mut self) {
        if self.zstd.sizeof() <= MAX_KEPT_BYTES && self.zstd.reset(ResetDirective::SessionOnly).is_ok() {
            let _ = SPARE.try_with(|spare| *spare.borrow_mut() = Some(self));
        }
    }
}

pub(super) struct Zstd<'a> {
    /// There until the stream is dropped.
    context: Option<Context>,
    input: &'a [u8],
    in_frame: bool,
    /// The part of the output that was not taken yet.
    taken: usize,
    filled: usize,
}

impl<'a> Zstd<'a> {
    pub fn open(payload: &'a [u8]) -> io::Result<Zstd<'a>> {
        Ok(Zstd { context: Some(Context::take()?), input: payload, in_frame: false, taken: 0, filled: 0 })
    }

    /// Decompresses until there is output, or no frame is left.
    fn refill(&mut self) -> io::Result<()> {
        let Some(context) = &mut self.context else { return Ok(()) };
        (self.taken, self.filled) = (0, 0);
        loop {
            if !self.in_frame {
                if self.input.is_empty() {
                    return Ok(());
                }
                self.in_frame = true;
                // Level 22 without a known size declares a window of 128 MiB for the smallest
                // batch. The window only says how far back the frame may point; held to less, a
                // frame that does point further fails, and no other.
                if let Some((&(mut head), rest)) = self.input.split_first_chunk::<HEAD_BYTES>()
                    && head.starts_with(&MAGIC)
                    && head[4] & SINGLE_SEGMENT == 0
                    && head[5] > MAX_WINDOW
                {
                    head[5] = MAX_WINDOW;
                    let mut from = InBuffer::around(&head);
                    let mut to = OutBuffer::around(&mut context.output[..]);
                    context.zstd.decompress_stream(&mut to, &mut from).map_err(zstd_error)?;
                    self.input = rest;
                }
            }
            let mut from = InBuffer::around(self.input);
            let mut to = OutBuffer::around(&mut context.output[..]);
            let missing = context.zstd.decompress_stream(&mut to, &mut from).map_err(zstd_error)?;
            let (read, written) = (from.pos(), to.pos());
            self.input = self.input.get(read..).unwrap_or_default();
            self.in_frame = missing != 0;
            if written > 0 {
                self.filled = written;
                return Ok(());
            }
            if self.in_frame && self.input.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a zstd frame is cut off"));
            }
        }
    }
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, get_error_name(code))
}

impl Drop for Zstd<'_> {
    fn drop(&mut self) {
        if let Some(context) = self.context.take() {
            context.give_back();
        }
    }
}

impl Read for Zstd<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}

impl BufRead for Zstd<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.filled {
            self.refill()?;
        }
        let output = self.context.as_ref().map(|context| &context.output[self.taken..self.filled]);
        Ok(output.unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.taken = self.filled.min(self.taken + amount);
    }
}
