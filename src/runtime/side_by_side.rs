//! Blocking work on many items before the shards run, or on a thread of their own.

use std::iter;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Does blocking `work` on each of `items`, on up to `threads` of them; what
/// became of them in their order.
pub fn side_by_side<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let turn = || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        items.get(number).map(|item| (number, work(item)))
    };
    let take = || iter::from_fn(turn).collect::<Vec<_>>();
    let mut done = thread::scope(|scope| {
        // With fewer threads it takes longer.
        let spawned =
            (1..threads.min(items.len())).map_while(|_| thread::Builder::new().spawn_scoped(scope, take).ok());
        let threads: Vec<_> = spawned.collect();
        let mut done = take();
        for thread in threads {
            done.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_in_the_order_of_the_items() {
        for (count, threads) in [(0, 4), (1, 4), (100, 1), (1000, 8)] {
            let items: Vec<usize> = (0..count).collect();
            let expected: Vec<usize> = items.iter().map(|item| item * item).collect();
            assert_eq!(side_by_side(&items, threads, |item| item * item), expected);
        }
    }
}
