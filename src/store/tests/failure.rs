//! The failure of a store: what stops it, and who hears of it.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use assert_matches::assert_matches;

use super::*;

/// Waits for the failure of the store.
async fn failure_of(store: &Store) -> StoreError {
    tokio::time::timeout(Duration::from_secs(20), store.failure().happened())
        .await
        .expect("the store has failed")
}

#[tokio::test]
async fn after_a_failed_flush_the_store_is_stopped() {
    let backend = Arc::new(SlowBackend::default());
    let store = over(&backend);
    backend.failing.store(true, SeqCst);
    let mut batch = Batch::new();
    batch.put::<Names>(&name("w", 1), &String::new()).unwrap();
    assert_matches!(store.commit(batch).await, Err(StoreError::Full { .. }));
    backend.failing.store(false, SeqCst);
    // The disk works again, but the write that it dropped is not on it.
    assert_matches!(store.flush().await, Err(StoreError::Stopped(_)));
    assert_matches!(store.apply(Batch::new()), Err(StoreError::Stopped(_)));
    assert_matches!(
        store.get::<Names>(&name("w", 1)),
        Err(StoreError::Stopped(_))
    );
}

#[tokio::test]
async fn a_failure_is_reported_even_if_nobody_waits_for_a_flush() {
    let backend = Arc::new(SlowBackend::default());
    let store = over(&backend);
    assert!(store.failure().get().is_none());
    backend.failing.store(true, SeqCst);
    let mut batch = Batch::new();
    batch.put::<Names>(&name("w", 1), &String::new()).unwrap();
    store.apply(batch).unwrap();
    assert_matches!(failure_of(&store).await, StoreError::Full { .. });
}

#[tokio::test]
async fn a_panic_of_the_flush_thread_is_a_failure_of_the_store() {
    let backend = Arc::new(SlowBackend::default());
    let store = over(&backend);
    backend.panicking.store(true, SeqCst);
    let mut batch = Batch::new();
    batch.put::<Names>(&name("w", 1), &String::new()).unwrap();
    store.commit(batch).await.unwrap_err();
    assert_matches!(failure_of(&store).await, StoreError::Stopped(_));
    assert_matches!(store.apply(Batch::new()), Err(StoreError::Stopped(_)));
}

#[tokio::test]
async fn a_record_that_the_disk_cannot_read_is_a_failure_of_the_store() {
    let backend = Arc::new(SlowBackend::default());
    let store = over(&backend);
    backend.unreadable.store(true, SeqCst);
    assert_matches!(
        store.get::<Names>(&name("w", 1)),
        Err(StoreError::Io { .. })
    );
    assert_matches!(failure_of(&store).await, StoreError::Io { .. });
    backend.unreadable.store(false, SeqCst);
    assert_matches!(
        store.get::<Names>(&name("w", 1)),
        Err(StoreError::Stopped(_))
    );
}

#[tokio::test]
async fn a_store_that_is_closed_has_not_failed() {
    let store = Store::in_memory();
    let failure = store.failure();
    store.shut_down().await.unwrap();
    assert_matches!(store.apply(Batch::new()), Err(StoreError::Closed));
    drop(store);
    assert!(failure.get().is_none(), "{failure:?}");
}
