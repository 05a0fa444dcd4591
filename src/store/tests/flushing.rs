//! Flushes: what is durable, and how often the database flushes.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use super::*;

/// Every file of a folder, by name.
fn bytes_of(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(bytes_of(&path));
        } else {
            all.extend(std::fs::read(&path).unwrap());
        }
    }
    all
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[tokio::test]
async fn flushed_records_survive_a_restart_and_secrets_are_not_in_clear() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let store = open(folder.path(), &key).unwrap();
    let mut batch = Batch::new();
    batch
        .put::<Names>(&name("sam", 1), &"in the open".to_owned())
        .unwrap();
    batch
        .put::<Tokens>(&"t".to_owned(), &token("hush hush hush"))
        .unwrap();
    store.commit(batch).await.unwrap();
    assert!(store.size_on_disk().unwrap() > 0);
    drop(store);

    let bytes = bytes_of(folder.path());
    assert!(contains(&bytes, b"in the open"));
    assert!(!contains(&bytes, b"hush hush"));

    let store = open(folder.path(), &key).unwrap();
    assert_eq!(
        store.get::<Names>(&name("sam", 1)).unwrap().as_deref(),
        Some("in the open")
    );
    assert_eq!(
        store.get::<Tokens>(&"t".to_owned()).unwrap(),
        Some(token("hush hush hush"))
    );
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the flusher's thread is not tokio's"
)]
fn a_write_that_nobody_waits_for_is_flushed() {
    let backend = Arc::new(SlowBackend::default());
    let store = over(&backend);
    let before = backend.flushes.load(SeqCst);
    let mut batch = Batch::new();
    batch.put::<Names>(&name("w", 1), &String::new()).unwrap();
    store.apply(batch).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while backend.flushes.load(SeqCst) == before {
        assert!(Instant::now() < deadline, "it was never flushed");
        std::thread::yield_now();
    }
    let after = backend.flushes.load(SeqCst);
    store.flush_blocking().unwrap();
    assert_eq!(
        backend.flushes.load(SeqCst),
        after,
        "a flush without changes does not reach the database"
    );
}

#[tokio::test]
async fn many_writers_share_a_flush_and_readers_do_not_wait_for_it() {
    let backend = Arc::new(SlowBackend::default());
    let store = over(&backend);
    let before = backend.flushes.load(SeqCst);
    backend.hold_flushes();
    let waiting: Vec<_> = (0..100)
        .map(|n| {
            let mut batch = Batch::new();
            batch.put::<Names>(&name("w", n), &String::new()).unwrap();
            store.apply(batch).unwrap();
            store.inner.committer.request_flush()
        })
        .collect();
    assert_eq!(store.scan::<Names>(&[], None, 1000).unwrap().len(), 100);
    assert!(backend.release_flushes());
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
    let flushes = backend.flushes.load(SeqCst) - before;
    assert!(
        (1..=2).contains(&flushes),
        "{flushes} flushes for 100 writers"
    );
}

#[tokio::test]
async fn applied_batches_are_durable_after_a_flush_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), &StoreKey::random().unwrap()).unwrap();
    for round in 1..=3 {
        let mut batch = Batch::new();
        batch
            .put::<Names>(&name("sam", round), &"x".to_owned())
            .unwrap();
        let before = store.applied();
        store.apply(batch).unwrap();
        let applied = store.applied();
        assert_eq!(applied, before + 1);
        store.flush().await.unwrap();
        assert_eq!(store.durable(), applied);
    }
    assert_eq!(store.applied(), store.durable());
}
