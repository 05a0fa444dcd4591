//! What has arrived is found in whatever form it is written.

use ruma::OwnedEventId;

use super::*;
use crate::testing::{self, TestEngine};

const EVENTS: usize = 3000;

fn event(n: usize) -> OwnedEventId {
    format!("$event{n}").try_into().unwrap()
}

/// Marks events as arrived, a batch for each, and packs what can be packed.
fn arrive(engine: &Engine, events: impl Iterator<Item = usize>, handled: bool) {
    for n in events {
        let mut batch = Batch::new();
        engine.mark_seen(&event(n), handled, &mut batch).unwrap();
        engine.store().apply(batch).unwrap();
        engine.pack_arrivals().unwrap();
    }
}

/// Returns how many arrivals have records of their own, and how many packs there are.
fn records(store: &Store) -> (usize, usize) {
    let loose = store.scan::<Seen>(&[], None, 9999).unwrap().len();
    let packs = store.scan::<SeenPacks>(&[], None, 9999).unwrap().len();
    (loose, packs)
}

fn is_handled(engine: &Engine, n: usize) -> Option<bool> {
    engine.seen(&event(n)).unwrap().map(|seen| seen.handled)
}

#[tokio::test]
async fn what_arrived_is_known_when_it_is_packed_and_after_a_restart() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    arrive(&engine, 0..EVENTS, false);
    let (loose, packs) = records(&store);
    assert!(
        loose <= (LOOSE_BLOCKS as usize + 1) * BLOCK_ARRIVALS,
        "{loose}"
    );
    assert_eq!(packs, (EVENTS - loose).div_ceil(BLOCK_ARRIVALS));
    // Some that are packed, and some that are not.
    arrive(&engine, (0..EVENTS).step_by(3), true);
    drop(engine);
    for _ in 0..2 {
        let engine = testing::engine().store(&store).build().await.engine;
        for n in 0..EVENTS {
            assert_eq!(is_handled(&engine, n), Some(n % 3 == 0), "{n}");
        }
        assert_eq!(is_handled(&engine, EVENTS), None);
        arrive(&engine, 5000..5200, true);
    }
}

#[tokio::test]
async fn what_is_handled_soon_takes_no_second_record() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    arrive(&engine, 0..1000, false);
    let before = records(&store);
    arrive(&engine, 0..1000, true);
    assert_eq!(records(&store), before);
    assert_eq!(engine.0.arrivals.count(), 1000);
}

/// A room may hold its batch for long before it applies it.
#[tokio::test]
async fn what_is_written_to_a_block_that_is_packed_counts_and_is_packed_too() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    arrive(&engine, 0..10, false);
    let mut late = Batch::new();
    engine.mark_seen(&event(7), true, &mut late).unwrap();
    arrive(&engine, 10..2000, false);
    assert_eq!(is_handled(&engine, 7), Some(false));
    store.apply(late).unwrap();
    assert_eq!(is_handled(&engine, 7), Some(true));
    let (loose, packs) = records(&store);
    engine.forget_old_arrivals().await.unwrap();
    assert_eq!(records(&store), (loose - 1, packs));
    assert_eq!(is_handled(&engine, 7), Some(true));
    assert_eq!(is_handled(&engine, 8), Some(false));
}

#[tokio::test]
async fn what_is_marked_again_and_not_written_is_known_as_it_was() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    arrive(&engine, 0..EVENTS, false);
    assert!(
        store.get::<SeenPacks>(&1).unwrap().is_some(),
        "it is packed"
    );
    let mut dropped = Batch::new();
    engine.mark_seen(&event(0), true, &mut dropped).unwrap();
    assert_eq!(is_handled(&engine, 0), Some(false), "not yet");
    drop(dropped);
    assert_eq!(is_handled(&engine, 0), Some(false));
    arrive(&engine, 0..1, true);
    assert_eq!(is_handled(&engine, 0), Some(true));
}
