//! The record cache agrees with the store.

use serde::{Deserialize, Serialize};

use crate::store::*;

#[derive(Debug, PartialEq, Clone, Serialize, Deserialize)]
struct Colour(String);

struct Colours;
impl Table for Colours {
    const ID: u8 = 210;
    const NAME: &'static str = "colours";
    const SECRET: bool = true;
    type Key = u8;
    type Value = Colour;
}

fn paint(store: &Store, number: u8, colour: &str) {
    let mut batch = Batch::new();
    batch
        .put::<Colours>(&number, &Colour(colour.to_owned()))
        .unwrap();
    store.apply(batch).unwrap();
}

fn cached(store: &Store, number: u8) -> Option<String> {
    let colour = store.get_cached::<Colours>(&number).unwrap();
    assert_eq!(
        store.get::<Colours>(&number).unwrap().as_ref(),
        colour.as_deref()
    );
    colour.map(|colour| colour.0.clone())
}

#[test]
fn a_cached_record_is_the_one_written_last() {
    let store = Store::in_memory();
    assert_eq!(cached(&store, 1), None);
    paint(&store, 1, "red");
    assert_eq!(cached(&store, 1).as_deref(), Some("red"));
    let one = store.get_cached::<Colours>(&1).unwrap().unwrap();
    let same = store.get_cached::<Colours>(&1).unwrap().unwrap();
    assert!(Arc::ptr_eq(&one, &same), "it is decoded once");
    store.flush_blocking().unwrap();
    paint(&store, 2, "blue");
    let same = store.get_cached::<Colours>(&1).unwrap().unwrap();
    assert!(
        Arc::ptr_eq(&one, &same),
        "a write to another record leaves this one cached"
    );
    paint(&store, 1, "green");
    assert_eq!(cached(&store, 1).as_deref(), Some("green"));
    let mut batch = Batch::new();
    batch.delete::<Colours>(&1);
    store.apply(batch).unwrap();
    assert_eq!(cached(&store, 1), None);
}

/// A reader that runs beside a writer may find the older value, but never after the write is done.
#[test]
fn a_record_read_during_a_write_is_not_cached() {
    let store = Store::in_memory();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let store = store.clone();
                scope.spawn(move || {
                    let mut last = 0;
                    while last < 2000 {
                        let seen = store.get_cached::<Colours>(&1).unwrap();
                        let seen = seen.map_or(0, |colour| colour.0.parse().unwrap());
                        assert!(seen >= last, "{seen} after {last}");
                        last = seen;
                    }
                })
            })
            .collect();
        for number in 1..=2000 {
            paint(&store, 1, &number.to_string());
            assert_eq!(
                store.get_cached::<Colours>(&1).unwrap().unwrap().0,
                number.to_string()
            );
            if number % 100 == 0 {
                store.flush_blocking().unwrap();
            }
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
