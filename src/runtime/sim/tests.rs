//! The simulator by itself: order, time, what survives.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::{Disk, Fault, Journal, Shard, Simulation, Stopped, fs};
use crate::runtime::buffers::RecvBuf;
use crate::runtime::disk::{DiskBuf, File, FrozenBuf, OpenMode, os_code, space};
use crate::runtime::faults::{self, Op, inject};
use crate::runtime::mapping::{Mapping, PAGE_BYTES};
use crate::runtime::{Yielder, clock, context, spawn_blocking, spawn_local};

fn filled(len: usize, value: u8) -> FrozenBuf {
    let mut buf = DiskBuf::alloc(len);
    buf.as_mut_slice().fill(value);
    buf.freeze()
}

/// Runs `work` on a new shard of the disk, and then takes the process away by
/// `end`, if there is one.
fn on<T: 'static>(disk: &Disk, end: Option<Fault>, work: impl Future<Output = T> + 'static) -> Result<T, Stopped> {
    let simulation = Simulation::new(1);
    let shard = simulation.shard(disk);
    let outcome = simulation.run(&shard, work);
    drop(simulation);
    if let Some(fault) = end {
        disk.stop(fault);
    }
    disk.restart();
    outcome
}

async fn create(path: &str, value: u8) -> File {
    let file = File::open(Path::new(path), OpenMode::CreateNew).await.unwrap();
    file.write_at(&filled(8192, value), 0).await.unwrap();
    file
}

#[test]
fn shards_of_one_thread_share_neither_faults_nor_memory() {
    let simulation = Simulation::new(1);
    let disks = [1, 2].map(|seed| Disk::new(seed, Journal::Ordered));
    let shards: Vec<Shard> = disks.iter().map(|disk| simulation.shard(disk)).collect();
    let buffer = async || {
        let buf = RecvBuf::take(8192);
        let address = buf.filled().as_ptr() as usize;
        clock::sleep(Duration::from_secs(1)).await;
        address
    };
    let faulty = async move {
        inject(Op::Open, "a.log", 0, faults::Fault::Os(5));
        let missing = File::open(Path::new("/a.log"), OpenMode::CreateNew).await.err().unwrap();
        assert_eq!(os_code(&missing), Some(5));
        buffer().await
    };
    let address = simulation.run(&shards[0], faulty).unwrap();
    let other = async move {
        create("/a.log", 7).await;
        let file = File::open(Path::new("/a.log"), OpenMode::Read).await.unwrap();
        let bytes = file.read_at(0, 4096).await.unwrap();
        (bytes, buffer().await)
    };
    let (bytes, elsewhere) = simulation.run(&shards[1], other).unwrap();
    assert_ne!(elsewhere, address, "a buffer of the other shard's pool");
    assert_eq!(simulation.run(&shards[0], async move { buffer().await }), Ok(address), "its own, again");
    assert_eq!(bytes, vec![7; 4096]);
    assert!(!context::peek(|shard| shard.simulated.is_some()).unwrap_or(false), "the thread is its own again");
}

/// Steps of two tasks on each of two shards, in order.
fn order(seed: u64) -> Vec<(u8, u32, Duration)> {
    let simulation = Simulation::new(seed);
    let disk = Disk::new(1, Journal::Ordered);
    let log = Rc::new(RefCell::new(Vec::new()));
    let shards = [simulation.shard(&disk), simulation.shard(&disk)];
    let begun = Rc::new(Cell::new(None));
    for task in 0..4u8 {
        let (log, begun) = (log.clone(), begun.clone());
        simulation.spawn(&shards[usize::from(task % 2)], async move {
            for round in 0..5 {
                match round % 2 {
                    0 => Yielder.pass().await,
                    _ => spawn_blocking(|| ()).await,
                }
                let now = clock::now();
                let first = begun.get().unwrap_or(now);
                begun.set(Some(first));
                log.borrow_mut().push((task, round, now - first));
            }
        });
    }
    simulation.run(&shards[0], clock::sleep(Duration::from_secs(3600))).unwrap();
    assert_eq!(simulation.elapsed(), Duration::from_secs(3600));
    log.take()
}

#[test]
fn a_seed_fixes_the_order_and_the_time() {
    let orders: Vec<_> = (0..6).map(order).collect();
    assert_eq!(orders[0].len(), 20);
    for (seed, expected) in orders.iter().enumerate() {
        assert_eq!(&order(seed as u64), expected);
    }
    assert!(orders[1..].iter().any(|other| other != &orders[0]), "every seed has the same order");
}

#[test]
fn who_waits_for_what_never_comes_is_stopped() {
    let disk = Disk::new(1, Journal::Ordered);
    assert_eq!(on(&disk, None, std::future::pending::<()>()), Err(Stopped::Stalled));
}

#[test]
fn a_kill_keeps_what_was_written_and_a_power_cut_what_was_synced() {
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        for (end, journal) in [(Fault::Kill, Journal::Ordered), (Fault::PowerCut, Journal::Ordered)] {
            let disk = Disk::new(seed, journal);
            let work = async {
                let file = create("/a.log", 1).await;
                file.fdatasync().await.unwrap();
                file.write_at(&filled(8192, 2), 4096).await.unwrap();
            };
            on(&disk, Some(end), work).unwrap();
            let bytes = on(&disk, None, async { fs::read("/a.log").unwrap() }).unwrap();
            assert!(bytes.len() == 8192 || bytes.len() == 12_288, "{} bytes", bytes.len());
            assert!(bytes[..4096].iter().all(|byte| *byte == 1), "synced bytes changed");
            if end == Fault::Kill {
                assert!(bytes.len() == 12_288 && bytes[4096..].iter().all(|byte| *byte == 2));
                continue;
            }
            assert!(bytes[4096..8192].iter().all(|byte| [1, 2].contains(byte)));
            assert!(bytes[8192..].iter().all(|byte| [0, 2].contains(byte)));
            let new = bytes[4096..].iter().filter(|byte| **byte == 2).count();
            match new {
                0 => lost += 1,
                8192 => kept += 1,
                _ => torn += 1,
            }
        }
    }
    assert!(lost > 10 && kept > 10 && torn > 10, "{lost} lost, {kept} kept, {torn} torn");
}

#[test]
fn a_name_is_safe_once_its_directory_is_synced() {
    for journal in [Journal::Ordered, Journal::Loose] {
        let (mut undone, mut done) = (0, 0);
        for seed in 0..100 {
            for synced in [false, true] {
                let disk = Disk::new(seed, journal);
                let work = async move {
                    fs::create_dir_all("/d").unwrap();
                    fs::write("/d/a", "old").unwrap();
                    fs::File::open("/d/a").unwrap().sync_all().unwrap();
                    fs::File::open("/d").unwrap().sync_all().unwrap();
                    fs::File::open("/").unwrap().sync_all().unwrap();
                    let mut file = fs::File::create("/d/b").unwrap();
                    file.write_all(b"new").unwrap();
                    file.sync_all().unwrap();
                    fs::rename("/d/b", "/d/a").unwrap();
                    if synced {
                        fs::File::open("/d").unwrap().sync_all().unwrap();
                    }
                };
                on(&disk, Some(Fault::PowerCut), work).unwrap();
                let text = on(&disk, None, async { fs::read("/d/a").unwrap() }).unwrap();
                match (&text[..], synced) {
                    (b"new", _) => done += 1,
                    (b"old", false) => undone += 1,
                    _ => panic!("{text:?}, synced: {synced}"),
                }
            }
        }
        assert!(undone > 10 && done > 110, "{undone} undone, {done} done");
    }
}

#[test]
fn a_file_that_was_cut_and_written_anew_has_one_of_its_pasts() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let disk = Disk::new(seed, Journal::Ordered);
        let work = async {
            let file = create("/a.log", 1).await;
            file.fdatasync().await.unwrap();
            file.write_at(&filled(4096, 2), 4096).await.unwrap();
            file.truncate(4096).await.unwrap();
            file.write_at(&filled(4096, 3), 4096).await.unwrap();
        };
        on(&disk, Some(Fault::PowerCut), work).unwrap();
        let bytes = on(&disk, None, async { fs::read("/a.log").unwrap() }).unwrap();
        assert!(bytes[..4096].iter().all(|byte| *byte == 1));
        seen.insert((bytes.len(), bytes.get(4096).copied()));
    }
    // Not cut: the old bytes, or either of the later ones. Cut: nothing. Grown
    // again: zeros, or the newest.
    let all = [(4096, None), (8192, Some(0)), (8192, Some(1)), (8192, Some(2)), (8192, Some(3))];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn an_operation_fails_by_its_number() {
    let write = |fault: Option<Fault>| {
        let disk = Disk::new(3, Journal::Ordered);
        if let Some(fault) = fault {
            disk.fail_at(1, fault);
        }
        let work = async {
            let file = File::open(Path::new("/a.log"), OpenMode::CreateNew).await.unwrap();
            let begun = clock::now();
            let outcome = file.write_at(&filled(16_384, 1), 0).await.map_err(|error| os_code(&error));
            (outcome, clock::now() - begun)
        };
        let outcome = on(&disk, None, work);
        (outcome, disk)
    };
    let (outcome, disk) = write(None);
    assert_eq!(outcome.unwrap().0, Ok(()));
    assert_eq!(disk.trace(), ["0 create /a.log", "1 write /a.log"]);
    assert_eq!(write(Some(Fault::Error(28))).0.unwrap().0, Err(Some(28)));
    let (slow, _) = write(Some(Fault::Slow(Duration::from_secs(9))));
    let (outcome, time) = slow.unwrap();
    assert!(outcome.is_ok() && time >= Duration::from_secs(9) && time < Duration::from_secs(10), "{time:?}");
    let (short, disk) = write(Some(Fault::Short));
    assert_eq!(short.unwrap().0, Ok(()), "the rest is written by a second write");
    assert_eq!(disk.operations(), 3);
    for fault in [Fault::Kill, Fault::PowerCut] {
        let (killed, disk) = write(Some(fault));
        assert_eq!(killed, Err(Stopped::Down));
        assert!(!disk.is_down(), "restarted");
    }
}

#[test]
fn a_read_that_ends_early_is_gone_on_with() {
    // A second one leaves less than a block, from which nothing can be gone on with.
    for (short, expected) in [(vec![2], Ok(8192)), (vec![2, 3], Err(std::io::ErrorKind::UnexpectedEof))] {
        let disk = Disk::new(3, Journal::Ordered);
        short.iter().for_each(|number| disk.fail_at(*number, Fault::Short));
        let work = async {
            let file = create("/a.log", 1).await;
            let outcome = file.read_at(0, 8192).await.map(|bytes| bytes.len());
            let past_the_end = file.read_at(8192, 4096).await.map(|bytes| bytes.len());
            (outcome.map_err(|error| error.kind()), past_the_end.ok())
        };
        assert_eq!(on(&disk, None, work).unwrap(), (expected, Some(0)), "{short:?}");
    }
}

#[test]
fn a_write_in_flight_at_a_kill_lands_in_whole_in_part_or_not_at_all() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = Disk::new(seed, Journal::Ordered);
        disk.fail_at(2, Fault::Kill);
        let work = async {
            let file = Rc::new(File::open(Path::new("/a.log"), OpenMode::CreateNew).await.unwrap());
            let writing = file.clone();
            spawn_local(async move { drop(writing.write_at(&filled(12_288, 1), 0).await) });
            Yielder.pass().await;
            Yielder.pass().await;
            let _ = fs::read("/a.log");
            clock::sleep(Duration::from_secs(1)).await;
        };
        assert_eq!(on(&disk, None, work), Err(Stopped::Down));
        seen.insert(on(&disk, None, async { fs::read("/a.log").unwrap().len() }).unwrap());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 4096, 8192, 12_288]);
}

#[test]
fn a_full_disk_says_so() {
    let disk = Disk::new(1, Journal::Ordered);
    disk.set_capacity(Some(32 << 10));
    let work = async {
        let file = create("/a.log", 1).await;
        assert_eq!(space(Path::new("/")).await.unwrap(), (24 << 10, 32 << 10));
        file.preallocate(8192, 16 << 10).await.unwrap();
        let full = file.preallocate(24 << 10, 16 << 10).await.unwrap_err();
        assert_eq!(os_code(&full), Some(libc::ENOSPC));
        fs::write("/b", [0; 100]).unwrap();
        assert_eq!(fs::write("/c", [0; 9000]).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        fs::remove_file("/a.log").unwrap();
        fs::write("/c", [0; 9000]).unwrap();
        let names: Vec<_> = fs::read_dir("/").unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["b", "c"]);
    };
    on(&disk, None, work).unwrap();
}

/// Stores into mapped memory, of which the one with this number is the process's last: bytes filled
/// in the area, bytes of the slot's body, and its word.
fn mapped_until(at: u64, seed: u64) -> (usize, usize, u64) {
    let disk = Disk::new(seed, Journal::Ordered);
    disk.fail_at(at, Fault::Kill);
    let ended = on(&disk, None, async {
        let mapping = Mapping::create(Path::new("/m"), 4 * PAGE_BYTES).unwrap();
        let area = mapping.take(PAGE_BYTES, PAGE_BYTES).unwrap();
        let slots = mapping.take_slots(0, PAGE_BYTES).unwrap();
        area.append(&[7; 1000]);
        slots.write(1, &[8; 56]);
        slots.publish(1, 9);
        area.append(&[7; 1000]);
        slots.publish(1, 0);
    });
    assert_eq!(ended, Err(Stopped::Down));
    let file = on(&disk, None, async { fs::read("/m").unwrap() }).unwrap();
    assert_eq!(file.len(), 4 * PAGE_BYTES);
    let count = |bytes: &[u8], value| bytes.iter().filter(|byte| **byte == value).count();
    let word = u64::from_le_bytes(file[120..128].try_into().unwrap());
    (count(&file[PAGE_BYTES..], 7), count(&file[64..120], 8), word)
}

#[test]
fn mapped_memory_is_what_it_was_when_the_process_ended() {
    let all = |at| (0..30).map(|seed| mapped_until(at, seed)).collect::<BTreeSet<_>>();
    let first = all(1);
    assert!(first.len() > 20 && first.iter().all(|(filled, body, word)| *filled <= 1000 && (*body, *word) == (0, 0)));
    assert_eq!(all(2), BTreeSet::from([(1000, 0, 0)]), "the word before the body");
    let body = all(3);
    assert!(body.len() > 10 && body.iter().all(|(filled, body, word)| (*filled, *word) == (1000, 0) && *body <= 56));
    assert_eq!(all(4), BTreeSet::from([(1000, 56, 0), (1000, 56, 9)]), "a word is stored or not");
    assert!(all(5).iter().all(|(filled, body, word)| (1000..=2000).contains(filled) && (*body, *word) == (56, 9)));
    assert_eq!(all(6), BTreeSet::from([(2000, 56, 0), (2000, 56, 9)]));
}

#[test]
fn of_mapped_memory_a_power_cut_keeps_what_it_likes() {
    let kept = |seed| {
        let disk = Disk::new(seed, Journal::Ordered);
        on(&disk, Some(Fault::PowerCut), async {
            fs::File::open("/").unwrap().sync_all().unwrap();
            let mapping = Mapping::create(Path::new("/m"), 4 * PAGE_BYTES).unwrap();
            fs::File::open("/").unwrap().sync_all().unwrap();
            mapping.take(PAGE_BYTES, 2 * PAGE_BYTES).unwrap().append(&[7; 8192]);
        })
        .unwrap();
        assert_eq!(disk.power_cuts(), 1);
        on(&disk, None, async { fs::read("/m").map(|file| file.iter().filter(|byte| **byte == 7).count()) }).unwrap()
    };
    let kept: Vec<usize> = (0..30).filter_map(|seed| kept(seed).ok()).collect();
    assert!(kept.contains(&0) && kept.contains(&8192) && kept.contains(&4096), "{kept:?}");
}
