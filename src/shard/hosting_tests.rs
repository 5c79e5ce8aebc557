//! Directories of partitions: names, leftovers, what stays.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::runtime::{disk, on_shard, scratch};
use crate::storage::{Log, StorageContext, StorageLimits, is_deleted_dir, partition_dir, remove_dir};

const TAG: &str = "0123456789abcdef0123456789abcdef";

fn names(root: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The longest topic names leave no room for a suffix: the directory of a deleted one must
/// leave its place all the same.
#[test]
fn a_partition_of_the_longest_name_is_put_aside_and_removed() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            disk::prime_device(&path).await.unwrap();
            for length in [213, 214, 249] {
                let dir = partition_dir(&path, &"t".repeat(length), 0);
                fs::create_dir(&dir).unwrap();
                let context = StorageContext::new(StorageLimits::default());
                let opened = Log::open(context, &dir, Default::default(), &mut |_| {}, &mut |_| {}).await.unwrap();
                let aside = opened.log.retire(TAG).await.unwrap().unwrap();
                assert!(is_deleted_dir(aside.file_name().unwrap().to_str().unwrap()));
                remove_dir(&aside).await.unwrap();
                assert_eq!(names(&path), Vec::<String>::new());
            }
            crate::runtime::clock::sleep(Duration::from_millis(1)).await;
        }
    });
}

/// A directory that cannot be named would be one of no topic at the next start.
#[test]
fn a_directory_that_finds_no_room_for_its_name_is_removed() {
    let root = scratch();
    let (made, found) = (root.path().join("t-0"), root.path().join("t-1"));
    fs::create_dir(&found).unwrap();
    fs::write(found.join("00000000000000000000.log"), "records").unwrap();
    faults::inject(faults::Op::Small, PARTITION_METADATA, 0, faults::Fault::Os(28));
    for dir in [&made, &found] {
        assert!(is_full(&take_directory(dir, Uuid::from_u128(1), Claim::New).unwrap_err()));
    }
    faults::clear();
    assert_eq!(names(root.path()), ["t-1"]);
    assert_eq!(names(&found), ["00000000000000000000.log"]);
    assert_eq!(take_directory(&made, Uuid::from_u128(1), Claim::New).unwrap(), Taken::Made);
    assert_eq!(take_directory(&found, Uuid::from_u128(1), Claim::New).unwrap(), Taken::Named);
    assert_eq!(take_directory(&made, Uuid::from_u128(1), Claim::New).unwrap(), Taken::Found);
}
