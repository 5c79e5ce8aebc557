use super::*;
use crate::model::testing;
use crate::runtime::scratch;

/// A batch of three records at `base`.
fn batch(base: i64, payload: usize, timestamp: i64) -> Vec<u8> {
    let records = testing::records(3, payload, || 7);
    let mut batch = testing::batch(testing::header(3, timestamp), &records).to_vec();
    batch[..8].copy_from_slice(&base.to_be_bytes());
    batch
}

/// Two segments, of four batches and of one, with their indexes; where the
/// batches of the first one begin.
fn partition(root: &Path) -> (PathBuf, Vec<u64>) {
    let dir = root.join("t-x-3");
    std::fs::create_dir(&dir).unwrap();
    let batches: Vec<Vec<u8>> = (0..4).map(|n| batch(100 + n * 3, 50 * n as usize + 10, 5000 + n)).collect();
    let starts: Vec<u64> = (0..4).map(|n| batches[..n].iter().map(|batch| batch.len() as u64).sum()).collect();
    let mut log = batches.concat();
    log.resize(log.len() + 5000, 0);
    std::fs::write(dir.join("00000000000000000100.log"), log).unwrap();
    let entry = |n: usize| [(n as u32 * 3 + 2).to_be_bytes(), (starts[n] as u32).to_be_bytes()].concat();
    std::fs::write(dir.join("00000000000000000100.index"), [entry(1), entry(3), vec![0; 800]].concat()).unwrap();
    let entry = |n: i64| [&(5000 + n).to_be_bytes()[..], &(n as u32 * 3 + 2).to_be_bytes()].concat();
    std::fs::write(dir.join("00000000000000000100.timeindex"), [entry(1), entry(3)].concat()).unwrap();
    std::fs::write(dir.join("00000000000000000112.log"), batch(112, 10, 9000)).unwrap();
    (dir, starts)
}

fn damage(dir: &Path, base: i64) -> Vec<Damage> {
    let found = find_partitions(dir).unwrap();
    found[0].verify(base, true).unwrap().damage
}

#[test]
fn a_segment_a_partition_and_a_data_directory_are_found() {
    let root = scratch();
    let (dir, _) = partition(root.path());
    for other in ["t-x-3.0123456789abcdef0123456789abcdef-delete", "corelane-arena", "t-x-10"] {
        std::fs::create_dir(root.path().join(other)).unwrap();
    }
    std::fs::create_dir(root.path().join("broker-1")).unwrap();
    std::fs::write(root.path().join("t-x-10/partition.metadata"), "version: 0").unwrap();
    let names =
        |path: &Path| find_partitions(path).unwrap().into_iter().map(|f| (f.dir, f.segments)).collect::<Vec<_>>();
    assert_eq!(names(&dir), [(dir.clone(), vec![100, 112])]);
    assert_eq!(names(&dir.join("00000000000000000112.log")), [(dir.clone(), vec![112])]);
    let ten = root.path().join("t-x-10");
    assert_eq!(names(root.path()), [(dir.clone(), vec![100, 112]), (ten.clone(), vec![])]);
    assert_eq!(names(&ten), [(ten, vec![])], "an empty one is one all the same");
    let wrong = find_partitions(&dir.join("00000000000000000100.index")).unwrap_err().to_string();
    assert!(wrong.contains("named by its base offset"), "{wrong}");
    assert_eq!(find_partitions(Path::new("/nowhere")).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn what_is_sound_is_counted() {
    let root = scratch();
    let (dir, _) = partition(root.path());
    let files = &find_partitions(&dir).unwrap()[0];
    let first = files.verify(100, true).unwrap();
    assert_eq!((first.batches, first.records, first.first_offset, first.next_offset), (4, 12, Some(100), 112));
    assert_eq!(first.damage, []);
    let mut seen = Vec::new();
    files
        .walk(100, &mut |piece| {
            let Piece::Batch { header, bytes, .. } = piece else { panic!("damage") };
            seen.push((header.base(), bytes.len()));
            if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seen.iter().map(|(base, _)| *base).collect::<Vec<_>>(), [100, 103]);
}

#[test]
fn every_flipped_byte_of_a_batch_is_named() {
    let root = scratch();
    let (dir, starts) = partition(root.path());
    let path = dir.join("00000000000000000100.log");
    let sound = std::fs::read(&path).unwrap();
    for at in starts[1] as usize..starts[2] as usize {
        // The leader epoch is free.
        if (12..16).contains(&(at - starts[1] as usize)) {
            continue;
        }
        let mut bytes = sound.clone();
        bytes[at] ^= 0x40;
        std::fs::write(&path, bytes).unwrap();
        let found = damage(&dir, 100);
        let [damage] = found.as_slice() else { panic!("byte {at}: {found:?}") };
        assert_eq!((&damage.path, damage.rebuilt), (&path, false));
        assert_eq!((damage.bytes.clone(), damage.offsets.clone()), (starts[1]..starts[2], 103..106), "byte {at}");
    }
}

#[test]
fn records_that_cannot_be_read_are_named() {
    let root = scratch();
    let (dir, starts) = partition(root.path());
    let path = dir.join("00000000000000000100.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let second = &mut bytes[starts[1] as usize..starts[2] as usize];
    // A record's length, and a CRC that goes with it.
    second[HEADER_BYTES] = 2;
    testing::seal(second);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(find_partitions(&dir).unwrap()[0].verify(100, false).unwrap().damage, []);
    let found = damage(&dir, 100);
    assert!(found.len() == 1 && found[0].why.contains("cannot be read") && found[0].offsets == (103..106), "{found:?}");
}

#[test]
fn wrong_index_entries_are_named() {
    let root = scratch();
    let (dir, starts) = partition(root.path());
    let (index, times) = (dir.join("00000000000000000100.index"), dir.join("00000000000000000100.timeindex"));
    let entry = |offset: u32, position: u64| [offset.to_be_bytes(), (position as u32).to_be_bytes()].concat();
    let time = |timestamp: i64, offset: u32| [&timestamp.to_be_bytes()[..], &offset.to_be_bytes()].concat();
    let sound = (std::fs::read(&index).unwrap(), std::fs::read(&times).unwrap());
    let offsets = [
        (entry(5, starts[1] + 1), "no batch begins"),
        (entry(2, starts[1]), "leads to the batch of 103 to 105"),
        ([entry(8, starts[2]), entry(5, starts[1])].concat(), "out of order"),
        (vec![1; 9], "multiple of 8"),
    ];
    for (bytes, why) in offsets {
        std::fs::write(&index, bytes).unwrap();
        let found = damage(&dir, 100);
        assert!(found.len() == 1 && found[0].why.contains(why) && found[0].path == index, "{why}: {found:?}");
        assert!(found[0].rebuilt);
    }
    std::fs::write(&index, &sound.0).unwrap();
    let times_of = [
        (time(5000, 5), "passes over a record of 5001 ms"),
        ([time(5001, 5), time(5000, 8)].concat(), "out of order"),
        (vec![1; 13], "multiple of 12"),
    ];
    for (bytes, why) in times_of {
        std::fs::write(&times, bytes).unwrap();
        let found = damage(&dir, 100);
        assert!(found.len() == 1 && found[0].why.contains(why) && found[0].path == times, "{why}: {found:?}");
    }
    std::fs::write(&times, &sound.1).unwrap();
    assert_eq!(damage(&dir, 100), []);
}

#[test]
fn a_large_batch_and_one_that_ends_in_zeros_are_damaged_for_what_they_are() {
    let root = scratch();
    let dir = root.path().join("large-0");
    std::fs::create_dir(&dir).unwrap();
    let path = dir.join("00000000000000000000.log");
    for (payload, tail) in [(CHUNK + 70_000, 0), (300, 0), (300, 9000)] {
        let mut bytes = batch(0, payload, 5000);
        let sound = bytes.len();
        assert_eq!(bytes.last(), Some(&0), "no headers");
        bytes[200] ^= 1;
        bytes.resize(sound + tail, 0);
        std::fs::write(&path, bytes).unwrap();
        let found = damage(&dir, 0);
        assert!(found.len() == 1 && found[0].why.contains("CRC"), "{payload} {tail}: {found:?}");
    }
    std::fs::write(&path, [vec![0; 2 << 20], b"garbage".repeat(20)].concat()).unwrap();
    assert!(damage(&dir, 0)[0].why.starts_with("zeros"));
}

#[test]
fn what_is_no_file_is_not_read_and_links_are_followed() {
    let root = scratch();
    let (dir, _) = partition(root.path());
    let data = root.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(&dir, data.join("linked-0")).unwrap();
    let found = find_partitions(&data).unwrap();
    assert_eq!(found.iter().map(|found| found.segments.len()).collect::<Vec<_>>(), [2]);
    let endless = dir.join("00000000000000000112.log");
    std::fs::remove_file(&endless).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
    let error = find_partitions(&dir).unwrap()[0].verify(112, false).unwrap_err().to_string();
    assert_eq!(error, "it is no regular file");
}
