//! Aligned buffers, and how memory that belongs to one shard comes home from others.
//!
//! glommio's buffers are counted by `Rc` and belong to their shard's ring. [`Bytes`] made of them
//! may travel; the last holder, wherever it is, sends the buffer home through a queue that the home
//! shard empties now and then.

use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_queue::SegQueue;
use glommio::io::DmaBuffer;

use super::context;
use super::disk::{ALIGNMENT, MAX_IO_BYTES};

/// Aligned memory.
enum Aligned {
    Registered(DmaBuffer),
    /// Of a simulated shard, which has no ring to register it with.
    #[cfg(any(test, feature = "simulator"))]
    Plain {
        memory: Box<[u8]>,
        begin: usize,
        len: usize,
    },
}

impl Aligned {
    fn alloc(len: usize) -> Aligned {
        #[cfg(any(test, feature = "simulator"))]
        if super::sim::is_current() {
            let memory = vec![0; len + ALIGNMENT as usize].into_boxed_slice();
            let begin = memory.as_ptr().align_offset(ALIGNMENT as usize);
            return Aligned::Plain { memory, begin, len };
        }
        Aligned::Registered(glommio::allocate_dma_buffer(len))
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Aligned::Registered(buffer) => buffer.as_bytes(),
            #[cfg(any(test, feature = "simulator"))]
            Aligned::Plain { memory, begin, len } => &memory[*begin..*begin + *len],
        }
    }

    fn as_bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Aligned::Registered(buffer) => buffer.as_bytes_mut(),
            #[cfg(any(test, feature = "simulator"))]
            Aligned::Plain { memory, begin, len } => &mut memory[*begin..*begin + *len],
        }
    }
}

/// A buffer that may be dropped on its home thread only; not read, kept for its memory.
type Held = Rc<Aligned>;

/// A buffer on its way home. Dropping it elsewhere leaks it, which is what happens when
/// the home shard has ended.
pub(super) struct Returned(ManuallyDrop<Held>);

// SAFETY: a `Returned` is only moved between threads; the value inside is touched by its home
// thread alone (`drain_returns`) and never dropped by another (`ManuallyDrop`).
#[allow(unsafe_code)]
unsafe impl Send for Returned {}

pub(super) type Home = Arc<SegQueue<Returned>>;

/// Frees the buffers that other shards have sent home. Cheap when there are none.
pub fn drain_returns() {
    context::peek(|shard| {
        while let Some(Returned(held)) = shard.home.pop() {
            drop(ManuallyDrop::into_inner(held));
        }
    });
}

/// Owner of the memory behind travelling [`Bytes`].
struct Traveller {
    pointer: *const u8,
    len: usize,
    held: ManuallyDrop<Held>,
    home: Home,
}

// SAFETY: `pointer` and `len` describe memory that nobody writes for as long as `held`
// lives; `held` itself (an `Rc`) is touched by its home thread alone: `drop` elsewhere only
// moves it into the home's queue.
#[allow(unsafe_code)]
unsafe impl Send for Traveller {}

// SAFETY: a shared `Traveller` allows reading the frozen memory and nothing else.
#[allow(unsafe_code)]
unsafe impl Sync for Traveller {}

impl Traveller {
    fn bytes(held: Held) -> Bytes {
        let slice = held.as_bytes();
        let (pointer, len) = (slice.as_ptr(), slice.len());
        if len == 0 {
            return Bytes::new();
        }
        let home = context::with(|shard| shard.home.clone());
        Bytes::from_owner(Traveller { pointer, len, held: ManuallyDrop::new(held), home })
    }
}

impl AsRef<[u8]> for Traveller {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: taken from the slice of `held`, which neither moves nor changes
        // its memory while it lives.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.pointer, self.len)
        }
    }
}

impl Drop for Traveller {
    fn drop(&mut self) {
        // SAFETY: taken once, here; `self` is not used afterwards.
        #[allow(unsafe_code)]
        let held = unsafe { ManuallyDrop::take(&mut self.held) };
        // At the end of a thread its context may be gone already: then nothing is at home, and the
        // value goes to the queue.
        if context::peek(|shard| Arc::ptr_eq(&shard.home, &self.home)).unwrap_or(false) {
            drop(held);
        } else {
            self.home.push(Returned(ManuallyDrop::new(held)));
        }
    }
}

/// A writable aligned buffer. Its contents are arbitrary until written.
pub struct DiskBuf(Aligned);

impl DiskBuf {
    /// `len` must be a multiple of [`ALIGNMENT`], at most [`MAX_IO_BYTES`], not 0. Call on a shard.
    pub fn alloc(len: usize) -> DiskBuf {
        assert!(len > 0 && len <= MAX_IO_BYTES && len.is_multiple_of(ALIGNMENT as usize), "a DiskBuf of {len} bytes");
        drain_returns();
        DiskBuf(Aligned::alloc(len))
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }

    /// Ends writing: the buffer can be written to a file and read by anyone,
    /// and never changes again.
    pub fn freeze(self) -> FrozenBuf {
        FrozenBuf(Rc::new(self.0))
    }
}

/// An aligned buffer that no longer changes.
#[derive(Clone)]
pub struct FrozenBuf(Rc<Aligned>);

impl FrozenBuf {
    /// The whole buffer as shared bytes that may cross shards; the memory goes back to its own
    /// shard when the last holder lets go.
    pub fn bytes(&self) -> Bytes {
        Traveller::bytes(self.0.clone())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::executor::tests::on_shard;

    #[test]
    fn bytes_dropped_on_another_thread_come_home() {
        on_shard(|| async {
            let mut buf = DiskBuf::alloc(8192);
            buf.as_mut_slice().fill(7);
            let frozen = buf.freeze();
            let bytes = frozen.bytes();
            let slice = bytes.slice(100..5000);
            drop(bytes);
            assert_eq!(Rc::strong_count(&frozen.0), 2);
            let sum = std::thread::spawn(move || slice.iter().map(|&b| u64::from(b)).sum::<u64>()).join().unwrap();
            assert_eq!(sum, 7 * 4900);
            assert_eq!(Rc::strong_count(&frozen.0), 2, "the other thread touched the count");
            drain_returns();
            assert_eq!(Rc::strong_count(&frozen.0), 1, "the buffer did not come home");
            drop(frozen.bytes());
            assert_eq!(Rc::strong_count(&frozen.0), 1, "a drop at home frees at once");
        });
    }

    #[test]
    fn bytes_outlive_their_shard() {
        let (sender, receiver) = std::sync::mpsc::channel();
        on_shard(move || {
            let sender = sender.clone();
            async move {
                let mut buf = DiskBuf::alloc(4096);
                buf.as_mut_slice().fill(9);
                let _ = sender.send(buf.freeze().bytes());
            }
        });
        let bytes = receiver.recv().unwrap();
        assert!(bytes.iter().all(|&b| b == 9));
        drop(bytes);
    }
}
