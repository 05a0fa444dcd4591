//! Damage to the files of a store is an error, and never a smaller store.

use std::os::unix::fs::{FileExt, MetadataExt};

use assert_matches::assert_matches;

use super::*;
use crate::store::{
    backend::{sled::SledBackend, sled_log},
    integrity::checksum::Checksum,
};

/// Damage at the end of a segment loses the last batches, with everything in them.
#[test]
fn a_confirmed_batch_cannot_be_lost_together_with_the_checksum_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let store = open(folder.path(), &key).unwrap();
    let checksum = [table::META_ID, b'h'];
    let database = store.inner.memtable.backend();
    let before = database.get(&checksum).unwrap().unwrap();
    let number = Checksum::load(database).unwrap().unwrap().batches();
    let mut batch = Batch::new();
    batch.put::<Names>(&name("n", 1), &String::new()).unwrap();
    store.apply(batch).unwrap();
    store.flush_blocking().unwrap();
    drop(store);

    let options = StoreOptions::default();
    let backend = SledBackend::open(&folder.path().join("sled"), &options).unwrap();
    let (lost, _) = backend.scan(&[Names::ID], None, 1).unwrap()[0].clone();
    let back = vec![Op::Delete(lost), Op::Put(checksum.to_vec(), before)];
    backend.apply(back).unwrap();
    backend.flush().unwrap();
    drop(backend);
    let error = read_all(folder.path(), &key).unwrap_err();
    assert_matches!(
        error,
        StoreError::LostWrites { found, expected, .. } if (found, expected) == (number, number + 1)
    );
}

#[test]
fn a_database_cut_short_is_an_error_and_never_a_smaller_database() {
    let (folder, key) = filled();
    let log = folder.path().join("sled/db");
    let length = std::fs::metadata(&log).unwrap().len();
    let copy = tempfile::tempdir().unwrap();
    for keep in [
        0,
        1,
        100,
        length / 4,
        length / 2,
        length * 3 / 4,
        length - 1,
    ] {
        let place = copy.path().join(keep.to_string());
        copy_folder(folder.path(), &place);
        let file = std::fs::File::options()
            .write(true)
            .open(place.join("sled/db"))
            .unwrap();
        file.set_len(keep).unwrap();
        match read_all(&place, &key) {
            Ok(count) => assert_eq!(count, 1000, "cut to {keep} of {length}: silent loss"),
            Err(error) => assert!(error.is_fatal(), "{error}"),
        }
    }
    // Without any file, sled would make a new, empty database.
    let place = copy.path().join("empty");
    copy_folder(folder.path(), &place);
    std::fs::remove_dir_all(place.join("sled")).unwrap();
    assert_matches!(
        read_all(&place, &key),
        Err(StoreError::LostWrites { found: 0, .. })
    );
    assert_eq!(read_all(folder.path(), &key).unwrap(), 1000);
}

#[test]
fn a_damaged_byte_is_an_error_and_never_a_smaller_database() {
    let (folder, key) = filled();
    let copy = tempfile::tempdir().unwrap();
    let length = std::fs::metadata(folder.path().join("sled/db"))
        .unwrap()
        .len();
    let mut loud = 0;
    for part in 0..24u64 {
        let place = copy.path().join(part.to_string());
        copy_folder(folder.path(), &place);
        let file = std::fs::File::options()
            .write(true)
            .open(place.join("sled/db"))
            .unwrap();
        let random = random().unwrap();
        let (from, size) = random.as_slice().split_first_chunk().unwrap();
        let within = u64::from(u32::from_be_bytes(*from)) % (length / 24);
        let at = (part * length / 24 + within).min(length - 256);
        file.write_all_at(&[0xA5; 256][..=usize::from(size[0])], at)
            .unwrap();
        // Opening a database repairs it. The second start must not accept it as sound.
        let outcomes = [read_all(&place, &key), read_all(&place, &key)];
        for (time, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(count) => assert_eq!(
                    count, 1000,
                    "damage at {at} of {length}: silent loss at opening {time}"
                ),
                Err(error) => {
                    assert!(error.is_fatal(), "{error}");
                    loud += 1;
                }
            }
        }
    }
    assert!(loud > 0, "no damage was ever found");
}

#[test]
fn a_database_that_skipped_something_is_rebuilt_even_after_a_crash() {
    let (folder, key) = filled();
    let (place, old) = (folder.path().join("sled"), folder.path().join("sled.old"));
    let mark = || std::fs::write(place.join("needs-repair"), "something was skipped").unwrap();
    let inode = || std::fs::metadata(&place).unwrap().ino();
    mark();
    await_sled(&place);
    let before = inode();
    let wrong = open(folder.path(), &StoreKey::random().unwrap()).unwrap_err();
    assert_matches!(wrong, StoreError::WrongKey { .. });
    await_sled(&place);
    assert!(place.join("needs-repair").exists());
    assert_eq!(inode(), before, "rebuilt with another key");
    assert_eq!(read_all(folder.path(), &key).unwrap(), 1000);
    assert_ne!(inode(), before, "not rebuilt");
    let is_rebuilt = || !place.join("needs-repair").exists() && !old.exists();
    assert!(is_rebuilt() && !folder.path().join("sled.new").exists());

    // A crash after the old database was moved aside, before the new one was in its place.
    mark();
    std::fs::rename(&place, &old).unwrap();
    std::fs::create_dir(folder.path().join("sled.new")).unwrap();
    assert_eq!(read_all(folder.path(), &key).unwrap(), 1000);
    assert!(is_rebuilt());
    // A crash after the new database was in its place, before the old one was removed.
    copy_folder(&place, &old);
    assert_eq!(read_all(folder.path(), &key).unwrap(), 1000);
    assert!(is_rebuilt());
    assert_eq!(open(folder.path(), &key).unwrap().run().number, 5);
}

/// Waits until the threads of a database that was closed have written everything: they hold the lock
/// until then.
fn await_sled(place: &Path) {
    let log = std::fs::File::open(place.join("db")).unwrap();
    log.lock().unwrap();
}

/// A sound database is not verified, since every start would read everything.
#[test]
fn a_sound_database_is_opened_without_verification() {
    let mut skipped = Vec::new();
    for _ in 0..5 {
        let (folder, _) = filled();
        await_sled(&folder.path().join("sled"));
        skipped.extend(sled_log::skipped(&folder.path().join("sled")).unwrap());
    }
    assert!(skipped.is_empty(), "{skipped:?}");
}

#[test]
fn an_older_copy_of_the_database_is_noticed() {
    let (folder, key) = filled();
    let copy = tempfile::tempdir().unwrap();
    let old = copy.path().join("old");
    copy_folder(&folder.path().join("sled"), &old);
    for n in 0..3 {
        let store = open(folder.path(), &key).unwrap();
        let mut batch = Batch::new();
        batch
            .put::<Names>(&name("later", n), &String::new())
            .unwrap();
        store.apply(batch).unwrap();
        store.flush_blocking().unwrap();
    }
    std::fs::remove_dir_all(folder.path().join("sled")).unwrap();
    copy_folder(&old, &folder.path().join("sled"));
    assert_matches!(
        open(folder.path(), &key),
        Err(StoreError::LostWrites { .. })
    );
}
