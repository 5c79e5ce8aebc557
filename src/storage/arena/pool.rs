//! Which pages of an arena are whose: slabs of the largest chunk's size, each cut into chunks of
//! one size while any is in use.

use crate::runtime::mapping::PAGE_BYTES;

use super::layout::CHUNK_MAX_BYTES;

/// Pages of a slab.
const SLAB_PAGES: usize = CHUNK_MAX_BYTES / PAGE_BYTES;
/// Pages of a chunk, by size.
const SIZES: [usize; 5] = [1, 4, 16, 64, SLAB_PAGES];
// They rise, and a slab holds a whole number of each.
const _: () = {
    let mut at = 0;
    while at < SIZES.len() {
        assert!(SLAB_PAGES.is_multiple_of(SIZES[at]) && (at == 0 || SIZES[at - 1] < SIZES[at]));
        at += 1;
    }
};
/// Chunks that readers still have, looked at before others are asked for.
const TRIES: usize = 8;

/// A size of chunks: an index into the sizes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u8);

impl Size {
    pub const SMALLEST: Size = Size(0);
    pub const LARGEST: Size = Size(SIZES.len() as u8 - 1);

    /// The smallest size of at least `bytes`, or the largest there is.
    pub fn of(bytes: usize) -> Size {
        let at = SIZES.iter().position(|pages| pages * PAGE_BYTES >= bytes);
        at.map_or(Size::LARGEST, |at| Size(at as u8))
    }

    pub fn larger(self) -> Size {
        Size((self.0 + 1).min(Size::LARGEST.0))
    }

    pub fn smaller(self) -> Size {
        Size(self.0.saturating_sub(1))
    }

    /// The other sizes: smaller ones, the largest first, then larger ones.
    pub fn nearest_first(size: Size) -> impl Iterator<Item = Size> {
        let smaller = (0..size.0).rev();
        smaller.chain(size.0 + 1..SIZES.len() as u8).map(Size)
    }

    pub fn bytes(self) -> usize {
        self.pages() * PAGE_BYTES
    }

    fn pages(self) -> usize {
        SIZES[usize::from(self.0)]
    }
}

#[derive(Clone, Copy)]
struct Slab {
    size: Size,
    /// Chunks in use.
    used: usize,
    /// Listed among the empty ones.
    listed: bool,
}

/// Chunks by their first page.
pub struct Pool {
    slabs: Vec<Slab>,
    free: [Vec<usize>; SIZES.len()],
    /// Slabs that had no chunk in use when they were listed.
    empty: Vec<usize>,
}

impl Pool {
    pub fn new(pages: usize) -> Pool {
        let slabs = pages / SLAB_PAGES;
        let whole = || (0..slabs).rev().map(|slab| slab * SLAB_PAGES).collect();
        Pool {
            slabs: vec![Slab { size: Size::LARGEST, used: 0, listed: true }; slabs],
            free: std::array::from_fn(|size| if size + 1 == SIZES.len() { whole() } else { Vec::new() }),
            empty: (0..slabs).rev().collect(),
        }
    }

    /// Takes a chunk of `size` whose pages `take` gets: (first page, outcome). `take` fails where
    /// a reader still has them.
    pub fn take<T>(&mut self, size: Size, mut take: impl FnMut(usize) -> Option<T>) -> Option<(usize, T)> {
        if let Some(taken) = self.take_listed(size, &mut take) {
            return Some(taken);
        }
        let mut passed = Vec::new();
        let mut found = None;
        while found.is_none() && passed.len() < TRIES {
            let Some(slab) = self.pop_empty() else { break };
            self.cut(slab, size);
            found = self.take_listed(size, &mut take);
            if self.slabs[slab].used == 0 {
                passed.push(slab);
            }
        }
        for slab in passed {
            self.slabs[slab].listed = true;
            self.empty.insert(0, slab);
        }
        found
    }

    fn take_listed<T>(&mut self, size: Size, take: &mut impl FnMut(usize) -> Option<T>) -> Option<(usize, T)> {
        let list = &mut self.free[usize::from(size.0)];
        let (page, taken) = (0..list.len().min(TRIES)).find_map(|n| {
            let at = list.len() - 1 - n;
            let page = list[at];
            let taken = take(page)?;
            list.swap_remove(at);
            Some((page, taken))
        })?;
        self.slabs[page / SLAB_PAGES].used += 1;
        Some((page, taken))
    }

    fn pop_empty(&mut self) -> Option<usize> {
        while let Some(slab) = self.empty.pop() {
            self.slabs[slab].listed = false;
            if self.slabs[slab].used == 0 {
                return Some(slab);
            }
        }
        None
    }

    /// Cuts an empty slab into chunks of `size`.
    fn cut(&mut self, slab: usize, size: Size) {
        let (first, before) = (slab * SLAB_PAGES, self.slabs[slab].size);
        self.free[usize::from(before.0)].retain(|page| page / SLAB_PAGES != slab);
        self.slabs[slab].size = size;
        self.free[usize::from(size.0)].extend((first..first + SLAB_PAGES).step_by(size.pages()));
    }

    /// Gives a chunk back by its first page.
    pub fn give_back(&mut self, page: usize) {
        let number = page / SLAB_PAGES;
        let slab = &mut self.slabs[number];
        slab.used -= 1;
        self.free[usize::from(slab.size.0)].push(page);
        if slab.used == 0 && !slab.listed {
            slab.listed = true;
            self.empty.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn chunks_never_overlap_and_all_memory_comes_back_for_every_size() {
        let mut pool = Pool::new(4 * SLAB_PAGES + 3);
        let mut held: BTreeMap<usize, usize> = BTreeMap::new();
        let mut seed = 7u64;
        let mut next = |limit: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % limit
        };
        for _ in 0..20_000 {
            let size = Size(next(SIZES.len()) as u8);
            if next(3) == 0 && !held.is_empty() {
                let page = *held.keys().nth(next(held.len())).unwrap();
                held.remove(&page);
                pool.give_back(page);
            } else if let Some((page, ())) = pool.take(size, |_| Some(())) {
                let end = page + size.pages();
                assert!(end <= 4 * SLAB_PAGES);
                assert!(held.range(..end).next_back().is_none_or(|(start, pages)| start + pages <= page), "overlap");
                held.insert(page, size.pages());
            }
        }
        for page in held.into_keys() {
            pool.give_back(page);
        }
        for size in [Size::LARGEST, Size(0), Size(2), Size(1), Size::LARGEST] {
            let wanted = 4 * SLAB_PAGES / size.pages();
            let taken: Vec<usize> =
                std::iter::from_fn(|| pool.take(size, |_| Some(()))).map(|(page, ())| page).collect();
            assert_eq!(taken.len(), wanted, "{size:?}");
            taken.into_iter().for_each(|page| pool.give_back(page));
        }
    }

    #[test]
    fn chunks_that_a_reader_has_are_passed_over() {
        let mut pool = Pool::new(2 * SLAB_PAGES);
        let (first, ()) = pool.take(Size::LARGEST, |_| Some(())).unwrap();
        pool.give_back(first);
        let (second, ()) = pool.take(Size::LARGEST, |page| (page != first).then_some(())).unwrap();
        assert_ne!(first, second);
        assert!(pool.take(Size::LARGEST, |page| (page != first).then_some(())).is_none());
        assert_eq!(pool.take(Size::LARGEST, |_| Some(())).map(|(page, ())| page), Some(first), "its reader has let go");
    }

    #[test]
    fn sizes_cover_what_is_wanted() {
        assert_eq!((Size::of(1), Size::of(4097).bytes(), Size::of(1 << 20)), (Size(0), 16 << 10, Size::LARGEST));
        assert_eq!(
            (Size::LARGEST.larger(), Size::SMALLEST.smaller(), Size(1).larger().bytes()),
            (Size::LARGEST, Size::SMALLEST, 64 << 10)
        );
        assert_eq!(Size::nearest_first(Size(2)).collect::<Vec<_>>(), [Size(1), Size(0), Size(3), Size(4)]);
    }
}
