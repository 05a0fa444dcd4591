//! A backup holds one moment of a running store, and a damaged one is refused.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use assert_matches::assert_matches;

use crate::store::{
    backend::{Backend, memory::MemoryBackend},
    backup::import::import_into,
    *,
};

struct Numbers;
impl Table for Numbers {
    const ID: u8 = 200;
    const NAME: &'static str = "numbers";
    const SECRET: bool = true;
    type Key = u64;
    type Value = u64;
}

struct Passing;
impl Table for Passing {
    const ID: u8 = 201;
    const NAME: &'static str = "passing";
    const SECRET: bool = false;
    type Key = u64;
    type Value = u64;
}

fn import(bytes: &[u8], key: &StoreKey) -> Result<Store, StoreError> {
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
    import_into(&mut &*bytes, &*backend, key)?;
    Store::start(backend, key.clone(), None, migrate::STEPS)
}

fn filled(count: u64) -> Store {
    let store = Store::in_memory();
    let mut batch = Batch::new();
    for n in 0..count {
        batch.put::<Numbers>(&n, &n).unwrap();
        batch.put::<Passing>(&n, &n).unwrap();
    }
    store.apply(batch).unwrap();
    store
}

#[test]
fn a_backup_is_imported_without_the_tables_left_out() {
    let store = filled(1000);
    let mut extra = Batch::new();
    extra.put::<Numbers>(&7, &70).unwrap();
    extra.put::<Numbers>(&5000, &5000).unwrap();
    let mut file = Vec::new();
    let copied = store.export(&mut file, &[Passing::ID], extra).unwrap();
    assert_eq!(copied.changes, 1002);
    let back = import(&file, &store.inner.key).unwrap();
    let numbers = back.scan::<Numbers>(&[], None, 9999).unwrap();
    assert_eq!(numbers.len(), 1001);
    assert_eq!(numbers[7], (7, 70));
    assert!(back.scan::<Passing>(&[], None, 1).unwrap().is_empty());
    assert!(back.is_restored().unwrap() && back.crashed_before());
    assert!(!store.is_restored().unwrap());
}

/// The writer changes a pair of numbers with a constant sum, and moves another record over keys
/// that the scan has passed and keys that it has not.
#[test]
fn a_backup_of_a_running_store_holds_one_moment() {
    let store = filled(3000);
    let (stop, writes) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let writer = std::thread::spawn({
        let (store, stop, writes) = (store.clone(), stop.clone(), writes.clone());
        move || {
            for n in 1u64.. {
                if stop.load(SeqCst) {
                    return;
                }
                let mut batch = Batch::new();
                batch.put::<Numbers>(&0, &n).unwrap();
                batch.put::<Numbers>(&2999, &(u64::MAX - n)).unwrap();
                batch.delete::<Numbers>(&(1 + n % 2000));
                batch.put::<Numbers>(&(1 + (n + 1) % 2000), &n).unwrap();
                store.apply(batch).unwrap();
                writes.store(n, SeqCst);
            }
        }
    });
    while writes.load(SeqCst) < 10 {
        std::thread::yield_now();
    }
    for _ in 0..5 {
        let from = writes.load(SeqCst);
        let mut file = Vec::new();
        store.export(&mut file, &[], Batch::new()).unwrap();
        let until = writes.load(SeqCst) + 1;
        let back = import(&file, &store.inner.key).unwrap();
        let n = back.get::<Numbers>(&0).unwrap().unwrap();
        assert_eq!(back.get::<Numbers>(&2999).unwrap(), Some(u64::MAX - n));
        assert!(
            (from..=until).contains(&n),
            "{n} is not of {from} to {until}"
        );
        assert_eq!(back.get::<Numbers>(&(1 + (n + 1) % 2000)).unwrap(), Some(n));
        assert_eq!(back.get::<Numbers>(&(1 + n % 2000)).unwrap(), None);
    }
    stop.store(true, SeqCst);
    writer.join().unwrap();
}

#[test]
fn a_damaged_backup_or_another_key_is_refused() {
    let store = filled(3);
    let mut file = Vec::new();
    store.export(&mut file, &[], Batch::new()).unwrap();
    let key = &store.inner.key;
    import(&file, key).unwrap();
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        assert_matches!(import(&damaged, key), Err(_), "byte {at}");
        assert_matches!(
            import(&file[..at], key),
            Err(StoreError::Backup(_)),
            "cut at {at}"
        );
    }
    let error = import(&file, &StoreKey::random().unwrap()).unwrap_err();
    assert!(error.to_string().contains("another store key"), "{error}");
}

#[test]
fn a_failed_restore_leaves_no_store_and_a_store_is_never_overwritten() {
    let store = filled(3);
    let mut file = Vec::new();
    store.export(&mut file, &[], Batch::new()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    let import_file = |bytes: &[u8], path: &Path| {
        Store::import(
            &mut &*bytes,
            path,
            &store.inner.key,
            &StoreOptions::default(),
        )
    };
    assert_matches!(
        import_file(&file[..file.len() - 1], &path),
        Err(StoreError::Backup(_))
    );
    import_file(&file, &path).unwrap();
    assert!(
        import_file(&file, &path)
            .unwrap_err()
            .to_string()
            .contains("a store in")
    );
    let back = Store::open(&path, &store.inner.key, &StoreOptions::default()).unwrap();
    assert_eq!(back.scan::<Numbers>(&[], None, 10).unwrap().len(), 3);
}
