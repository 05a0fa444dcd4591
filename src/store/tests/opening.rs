//! Opening a store: keys, locks, runs, schema versions, and folders that cannot be used.

use assert_matches::assert_matches;

use super::*;
use crate::store::backend::sled::SledBackend;

#[test]
fn another_key_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    drop(open(folder.path(), &key).unwrap());
    let wrong = open(folder.path(), &StoreKey::random().unwrap()).unwrap_err();
    assert_matches!(wrong, StoreError::WrongKey { .. });
    let store = open(folder.path(), &key).unwrap();
    assert_eq!(
        store.run().number,
        2,
        "the refused start does not count as a run"
    );
}

#[test]
fn a_store_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let first = open(folder.path(), &key).unwrap();
    assert_matches!(open(folder.path(), &key), Err(StoreError::InUse { .. }));
    drop(first);
    open(folder.path(), &key).unwrap();
}

#[tokio::test]
async fn a_run_without_a_clean_end_is_noticed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let run = |number, trusted_since| (number, trusted_since);
    let seen = |store: &Store| run(store.run().number, store.run().trusted_since);

    let first = open(folder.path(), &key).unwrap();
    assert!(!first.crashed_before());
    assert_eq!(seen(&first), run(1, 1));
    first.shut_down().await.unwrap();
    let mut batch = Batch::new();
    batch
        .put::<Names>(&name("late", 1), &String::new())
        .unwrap();
    assert_matches!(first.apply(batch), Err(StoreError::Closed));
    first.shut_down().await.unwrap();
    drop(first);

    let second = open(folder.path(), &key).unwrap();
    assert!(!second.crashed_before());
    assert_eq!(seen(&second), run(2, 1));
    drop(second);

    let third = open(folder.path(), &key).unwrap();
    assert!(third.crashed_before());
    assert_eq!(seen(&third), run(3, 3));
    third.shut_down().await.unwrap();
    drop(third);

    let fourth = open(folder.path(), &key).unwrap();
    assert!(!fourth.crashed_before());
    assert_eq!(
        seen(&fourth),
        run(4, 3),
        "records from before the crash stay uncertain"
    );
}

#[test]
fn a_newer_schema_is_refused_and_an_older_one_is_migrated() {
    fn add_one(backend: &dyn Backend) -> Result<Vec<Op>, StoreError> {
        let old = backend.get(&[200, 1])?.unwrap_or_default();
        Ok(vec![Op::Put(vec![200, 1], [old, vec![1]].concat())])
    }
    fn add_two(backend: &dyn Backend) -> Result<Vec<Op>, StoreError> {
        let old = backend.get(&[200, 1])?.unwrap_or_default();
        Ok(vec![Op::Put(vec![200, 1], [old, vec![2]].concat())])
    }
    fn fail(_: &dyn Backend) -> Result<Vec<Op>, StoreError> {
        Err(StoreError::Backup("no".to_owned()))
    }
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
    let key = StoreKey::random().unwrap();
    let start = |steps| Store::start(backend.clone(), key.clone(), None, steps);

    drop(start(&[]).unwrap());
    assert_matches!(
        start(&[add_one, fail]),
        Err(StoreError::Migration { from, .. }) if from == migrate::OLDEST + 1
    );
    assert_eq!(
        backend.get(&[200, 1]).unwrap(),
        Some(vec![1]),
        "the first step is kept"
    );
    drop(start(&[add_one, add_two]).unwrap());
    assert_eq!(backend.get(&[200, 1]).unwrap(), Some(vec![1, 2]));
    drop(start(&[add_one, add_two]).unwrap());
    assert_eq!(
        backend.get(&[200, 1]).unwrap(),
        Some(vec![1, 2]),
        "each step runs once"
    );

    let error = start(&[]).unwrap_err();
    assert_matches!(
        error,
        StoreError::NewerSchema { found, newest, .. }
            if found == migrate::OLDEST + 2 && newest == migrate::OLDEST
    );
    assert!(error.to_string().contains("run a newer stonechat"));
}

#[test]
fn a_store_from_before_the_first_release_is_refused_with_words() {
    let (folder, key) = filled();
    let options = StoreOptions::default();
    let backend = SledBackend::open(&folder.path().join("sled"), &options).unwrap();
    let version = migrate::OLDEST - 1;
    backend.apply(vec![migrate::version_op(version)]).unwrap();
    backend.flush().unwrap();
    drop(backend);
    let error = read_all(folder.path(), &key).unwrap_err();
    assert_matches!(
        error,
        StoreError::OlderSchema { found, oldest, .. }
            if found == version && oldest == migrate::OLDEST
    );
    assert!(error.to_string().contains("begin with an empty folder"));
}

#[test]
fn a_folder_with_something_else_in_its_database_is_refused() {
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
    backend
        .apply(vec![Op::Put(b"foreign".to_vec(), b"data".to_vec())])
        .unwrap();
    let error = Store::start(backend, StoreKey::random().unwrap(), None, &[]).unwrap_err();
    assert_matches!(error, StoreError::Damaged { .. });
}

#[test]
fn a_place_where_nothing_can_be_written_is_refused_with_words() {
    let key = StoreKey::random().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert_matches!(open(&file, &key), Err(StoreError::Io { .. }));
    let kinds = [
        (std::io::ErrorKind::ReadOnlyFilesystem, "write access"),
        (std::io::ErrorKind::PermissionDenied, "write access"),
        (std::io::ErrorKind::StorageFull, "free some space"),
        (std::io::ErrorKind::QuotaExceeded, "free some space"),
    ];
    for (kind, words) in kinds {
        let error = StoreError::io("open", Path::new("/x"), &std::io::Error::from(kind));
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.is_fatal());
    }
}

#[test]
fn a_read_only_folder_is_refused_with_words() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (folder, key) = filled();
    let read_only = std::fs::Permissions::from_mode(0o500);
    std::fs::set_permissions(folder.path(), read_only.clone()).unwrap();
    std::fs::set_permissions(folder.path().join("lock"), read_only).unwrap();
    let outcome = open(folder.path(), &key);
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    // Permissions do not apply to root.
    if std::fs::metadata(folder.path()).unwrap().uid() == 0 {
        assert_eq!(outcome.unwrap().count_records().unwrap(), 1000 + 4);
    } else {
        assert_matches!(outcome, Err(StoreError::NotWritable { .. }));
    }
}
