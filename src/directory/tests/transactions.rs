//! Transactions: their lock, their batch, their reads.

use proptest::prelude::*;
use ruma::user_id;

use super::*;
use crate::store::Batch;

#[tokio::test]
async fn a_transaction_that_is_dropped_writes_nothing_and_frees_the_lock() {
    let directory = directory();
    let mut tx = directory.begin().await;
    tx.claim(sam(), &handle("sam"), ClaimedBy::Person, NOW)
        .unwrap();
    assert!(tx.lookup(&handle("SAM")).unwrap().is_some());
    assert_eq!(tx.handles_of(sam()).unwrap().len(), 1);
    assert_eq!(directory.lookup(&handle("sam")).unwrap(), None);
    drop(tx);
    assert_eq!(directory.lookup(&handle("sam")).unwrap(), None);
    claim(&directory, kim(), "sam", NOW).await.unwrap();
}

#[tokio::test]
async fn the_caller_can_write_a_transaction_with_records_of_their_own() {
    let directory = directory();
    let mut tx = directory.begin().await;
    tx.claim(sam(), &handle("sam"), ClaimedBy::Person, NOW)
        .unwrap();
    let mut batch = Batch::new();
    let lock = tx.stage(&mut batch);
    directory.store().apply(batch).unwrap();
    drop(lock);
    let record = directory.lookup(&handle("sam")).unwrap().unwrap();
    assert_eq!((&record.owner, record.generation), (sam(), 1));
    let ghost = user_id!("@_dm_sam:example.org");
    assert_eq!(directory.by_ghost(ghost).unwrap(), Some(record));
    for other in [
        "@_dm_sam:elsewhere.org",
        "@_dm_.bot:example.org",
        "@sam:example.org",
    ] {
        let other = UserId::parse(other).unwrap();
        assert_eq!(directory.by_ghost(&other).unwrap(), None, "{other}");
    }
}

proptest! {
    /// A transaction reads the same records before its commit as the store does after it.
    #[test]
    fn a_transaction_reads_what_it_will_have_written(
        stored in prop::collection::vec(("[ab]{0,2}", 0u32..9), 0..8),
        pending in prop::collection::vec(("[ab]{0,2}", prop::option::of(0u32..9)), 0..8),
        limit in 0usize..6,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = directory();
            write(&directory, |tx| {
                for (key, value) in &stored {
                    tx.put::<tables::Generations>(key, value)?;
                }
                Ok(())
            })
            .await
            .unwrap();
            let mut tx = directory.begin().await;
            for (key, value) in &pending {
                match value {
                    Some(value) => tx.put::<tables::Generations>(key, value).unwrap(),
                    None => tx.delete::<tables::Generations>(key),
                }
            }
            let all = tx.scan::<tables::Generations>(&[], limit).unwrap();
            let some = tx.scan::<tables::Generations>(b"a", limit).unwrap();
            let each: Vec<_> = ["", "a", "ab", "bb"]
                .map(|key| tx.get::<tables::Generations>(&key.to_owned()).unwrap())
                .into();
            tx.commit().await.unwrap();
            let store = directory.store();
            assert_eq!(all, store.scan::<tables::Generations>(&[], None, limit).unwrap());
            assert_eq!(some, store.scan::<tables::Generations>(b"a", None, limit).unwrap());
            let written: Vec<_> = ["", "a", "ab", "bb"]
                .map(|key| store.get::<tables::Generations>(&key.to_owned()).unwrap())
                .into();
            assert_eq!(each, written);
        });
    }
}
