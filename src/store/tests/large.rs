//! Large values, and many small ones: all of them are in sled's log, which is what a flush syncs.

use std::os::unix::fs::MetadataExt;

use assert_matches::assert_matches;

use super::*;
use crate::store::backend::{sled::wait_until_closed, sled_log};

/// Returns the names of the files that sled has written beside its log.
fn files_beside_the_log(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder.join("sled/blobs")).unwrap();
    files
        .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// Closes a store, and checks that the next start does not rewrite the database: nothing in the log
/// looks damaged, and the folder stays the same.
fn reopen_unchanged(store: Store, folder: &Path, key: &StoreKey) -> Store {
    let database = folder.join("sled");
    drop(store);
    wait_until_closed(&database);
    assert_eq!(sled_log::skipped(&database).unwrap(), None);
    let before = std::fs::metadata(&database).unwrap().ino();
    let store = open(folder, key).unwrap();
    assert_eq!(std::fs::metadata(&database).unwrap().ino(), before);
    store
}

fn write(store: &Store, owner: &str, number: u64, length: usize) {
    let mut batch = Batch::new();
    let value = "x".repeat(length);
    batch.put::<Names>(&name(owner, number), &value).unwrap();
    store.apply(batch).unwrap();
}

#[test]
fn no_value_is_written_beside_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let mut store = open(folder.path(), &key).unwrap();
    for round in 0..3 {
        for n in 0..12 {
            for neighbour in 0..40 {
                write(&store, "n", neighbour, 40_000 + n);
            }
            write(&store, "large", 1, 1024 * 1024 - 100 - n);
            store.flush_blocking().unwrap();
            assert!(files_beside_the_log(folder.path()).is_empty(), "{round}");
        }
        store = reopen_unchanged(store, folder.path(), &key);
        assert!(files_beside_the_log(folder.path()).is_empty(), "{round}");
    }
    let last = store.get::<Names>(&name("large", 1)).unwrap().unwrap();
    assert_eq!(last.len(), 1024 * 1024 - 100 - 11);
    assert_eq!(store.scan::<Names>(&[], None, 100).unwrap().len(), 41);
}

/// `STONECHAT_WRITES` says how many; a million take ten times as long.
#[test]
fn after_many_writes_of_mixed_sizes_the_store_opens_as_it_was_closed() {
    let writes = std::env::var("STONECHAT_WRITES").ok();
    let writes: u64 = writes.map_or(100_000, |writes| writes.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let mut store = open(folder.path(), &key).unwrap();
    let length = |n: u64| match n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40 {
        mixed if mixed % 1000 == 0 => 200_000,
        mixed if mixed % 50 == 0 => 5000 + (mixed % 9000) as usize,
        mixed => (mixed % 200) as usize,
    };
    for n in 0..writes {
        write(&store, "many", n % 30_000, length(n));
        if n % 500 == 0 {
            store.flush_blocking().unwrap();
        }
        if n % 25_000 == 24_999 {
            assert!(files_beside_the_log(folder.path()).is_empty());
            store = reopen_unchanged(store, folder.path(), &key);
        }
    }
    assert!(files_beside_the_log(folder.path()).is_empty());
    let found = store.scan::<Names>(&[], None, 100_000).unwrap();
    assert_eq!(found.len(), 30_000);
    for ((_, slot), value) in found {
        let newest = writes - 1 - (writes - 1 - slot) % 30_000;
        assert_eq!(value.len(), length(newest));
    }
}

/// Index pages hold up to 257 keys. Of the longest Matrix ids, differing late, they stay in the log.
#[test]
fn long_ids_that_differ_late_stay_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), &StoreKey::random().unwrap()).unwrap();
    for n in 0..20_000u64 {
        let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let room = format!("!{:0>240}:hs.example", mixed % 500);
        write(&store, &format!("{room}${mixed:043}"), n, 10);
        if n % 1000 == 0 {
            store.flush_blocking().unwrap();
        }
    }
    store.flush_blocking().unwrap();
    assert!(files_beside_the_log(folder.path()).is_empty());
}

/// Longer keys than any of ours: sled writes index pages beside its log after all.
#[test]
fn nothing_is_lost_when_sled_writes_a_page_beside_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let store = open(folder.path(), &key).unwrap();
    for n in 0..8000u64 {
        let room = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 500;
        write(&store, &format!("{room:0>250}{n:0>1200}"), n, 10);
        if n % 1000 == 0 {
            store.flush_blocking().unwrap();
        }
    }
    store.flush_blocking().unwrap();
    assert!(!files_beside_the_log(folder.path()).is_empty());
    drop(store);
    for _ in 0..2 {
        let store = open(folder.path(), &key).unwrap();
        assert_eq!(store.scan::<Names>(&[], None, 9000).unwrap().len(), 8000);
        let back = store.scan_back::<Names>(&[], None, 9000).unwrap();
        assert_eq!(back.len(), 8000);
    }
}

#[test]
fn a_restored_store_that_lost_its_records_is_not_taken_for_a_new_one() {
    let (folder, key) = filled();
    let store = open(folder.path(), &key).unwrap();
    let mut file = Vec::new();
    store.export(&mut file, &[], Batch::new()).unwrap();
    drop(store);
    let options = StoreOptions::default();
    let restored = folder.path().join("restored");
    Store::restore(&mut &*file, &restored, &key, &options, None).unwrap();
    let copy = folder.path().join("copy");
    copy_folder(&restored, &copy);
    let log = std::fs::File::options();
    let log = log.clone().write(true).open(restored.join("sled/db"));
    log.unwrap().set_len(0).unwrap();
    for entry in std::fs::read_dir(restored.join("sled")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("snap.") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let error = open(&restored, &key).unwrap_err();
    assert_matches!(
        error,
        StoreError::LostWrites {
            found: 0,
            expected: 0,
            ..
        }
    );
    assert!(error.to_string().contains("its database is empty"));
    assert_eq!(read_all(&copy, &key).unwrap(), 1000);
}
