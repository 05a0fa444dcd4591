//! What is pending and what is in the database are one store to whoever reads.

use std::collections::BTreeMap;

use assert_matches::assert_matches;
use proptest::prelude::*;

use crate::store::{
    backend::{Backend, Op, Record, memory::MemoryBackend},
    integrity::checksum,
    memtable::*,
    *,
};

fn pending(backend: &Arc<MemoryBackend>) -> Pending {
    let key = StoreKey::random().unwrap();
    let backend: Arc<dyn Backend> = backend.clone();
    Pending::new(backend, Sealer::of(&key).unwrap(), checksum::Sum::default())
}

fn put(key: &[u8], value: &[u8]) -> Change {
    Change::Put {
        key: key.to_vec(),
        value: value.to_vec(),
    }
}

fn seal(key: &[u8], value: &[u8]) -> Change {
    Change::Seal {
        key: key.to_vec(),
        plain: value.to_vec().into(),
    }
}

fn delete(key: &[u8]) -> Change {
    Change::Delete { key: key.to_vec() }
}

fn plain(pending: &Pending, key: &[u8], value: Value) -> Vec<u8> {
    match value {
        Value::Plain(plain) => plain.to_vec(),
        Value::Stored(stored) => match pending.sealer().open(key, &stored) {
            Some(plain) => plain.to_vec(),
            None => stored,
        },
    }
}

fn read(pending: &Pending, records: Vec<(Vec<u8>, Value)>) -> Vec<Record> {
    records
        .into_iter()
        .map(|(key, value)| (key.clone(), plain(pending, &key, value)))
        .collect()
}

/// What a user of the store can do, and what the committer does now and then.
#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(Vec<u8>, Option<Vec<u8>>, bool)>),
    HandOver,
    Get(Vec<u8>),
    Scan(Vec<u8>, Option<Vec<u8>>, usize),
    ScanBack(Vec<u8>, Option<Vec<u8>>, usize),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few, so that changes meet.
    prop::collection::vec(prop_oneof![Just(7u8), Just(8), Just(255)], 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..3));
    let scan = || {
        let prefix = prop::collection::vec(prop_oneof![Just(7u8), Just(255)], 1..3);
        (prefix, prop::option::of(key()), 0usize..6)
    };
    prop_oneof![
        4 => prop::collection::vec((key(), value, any::<bool>()), 0..5).prop_map(Step::Apply),
        1 => Just(Step::HandOver),
        2 => key().prop_map(Step::Get),
        2 => scan().prop_map(|(prefix, after, limit)| Step::Scan(prefix, after, limit)),
        2 => scan().prop_map(|(prefix, before, limit)| Step::ScanBack(prefix, before, limit)),
    ]
}

proptest! {
    #[test]
    fn it_reads_like_one_map_whatever_was_handed_over(
        steps in prop::collection::vec(step(), 0..40)
    ) {
        let backend = Arc::new(MemoryBackend::default());
        let pending = pending(&backend);
        let model = MemoryBackend::default();
        for step in steps {
            match step {
                Step::Apply(changes) => {
                    let ops = changes.iter().cloned().map(|(key, value, _)| match value {
                        Some(value) => Op::Put(key, value),
                        None => Op::Delete(key),
                    });
                    model.apply(ops.collect()).unwrap();
                    let changes = changes.iter().map(|(key, value, secret)| match value {
                        Some(value) if *secret => seal(key, value),
                        Some(value) => put(key, value),
                        None => delete(key),
                    });
                    pending.apply(changes.collect()).unwrap();
                }
                Step::HandOver => {
                    pending.hand_over().unwrap();
                }
                Step::Get(key) => {
                    let found = pending.get(&key).unwrap().map(|v| plain(&pending, &key, v));
                    prop_assert_eq!(pending.contains(&key).unwrap(), found.is_some());
                    prop_assert_eq!(found, model.get(&key).unwrap());
                }
                Step::Scan(prefix, after, limit) => {
                    let found = pending.scan(&prefix, after.as_deref(), limit).unwrap();
                    let expected = model.scan(&prefix, after.as_deref(), limit).unwrap();
                    prop_assert_eq!(read(&pending, found), expected);
                }
                Step::ScanBack(prefix, before, limit) => {
                    let found = pending.scan_back(&prefix, before.as_deref(), limit).unwrap();
                    let expected = model.scan_back(&prefix, before.as_deref(), limit).unwrap();
                    prop_assert_eq!(read(&pending, found), expected);
                }
            }
        }
        pending.hand_over().unwrap();
        let mut stored: BTreeMap<_, _> = backend.scan(&[], None, 1000).unwrap().into_iter().collect();
        let kept = checksum::Sum::kept(&*backend).unwrap();
        prop_assert!(kept.is_none_or(|sum| sum.verify(&*backend, Path::new("x")).is_ok()));
        stored.retain(|key, _| key[0] != meta::ID);
        let stored: Vec<Record> = stored
            .into_iter()
            .map(|(key, value)| (key.clone(), plain(&pending, &key, Value::Stored(value))))
            .collect();
        prop_assert_eq!(stored, model.scan(&[], None, 1000).unwrap());
    }
}

#[test]
fn what_comes_and_goes_between_two_flushes_never_reaches_the_database() {
    let backend = Arc::new(MemoryBackend::default());
    let pending = pending(&backend);
    let first = pending.hand_over().unwrap();
    pending.apply(vec![seal(b"\x0aqueue", b"words")]).unwrap();
    pending.apply(vec![delete(b"\x0aqueue")]).unwrap();
    assert_eq!(pending.hand_over().unwrap(), first, "there is no batch");
    assert!(backend.scan(&[], None, 9).unwrap().is_empty());

    pending.apply(vec![put(b"\x0akept", b"1")]).unwrap();
    assert_eq!(pending.hand_over().unwrap(), first + 1);
    pending.apply(vec![delete(b"\x0akept")]).unwrap();
    assert_eq!(pending.hand_over().unwrap(), first + 2);
    assert_eq!(backend.get(b"\x0akept").unwrap(), None);
}

#[test]
fn secrets_are_sealed_on_their_way_to_the_database() {
    let backend = Arc::new(MemoryBackend::default());
    let pending = pending(&backend);
    pending.apply(vec![seal(b"\x0ak", b"secret")]).unwrap();
    let copied = pending.scan_stored(&[], None, 9).unwrap();
    assert_ne!(
        copied[0].1, b"secret",
        "nor does anybody see them who copies records"
    );
    pending.hand_over().unwrap();
    let sealed = backend.get(b"\x0ak").unwrap().unwrap();
    let opened = pending.sealer().open(b"\x0ak", &sealed).unwrap();
    assert_eq!(opened.as_slice(), b"secret");
}

#[test]
fn what_gathers_has_a_bound() {
    let backend = Arc::new(MemoryBackend::default());
    let pending = pending(&backend);
    let value = vec![0; 1024 * 1024];
    for n in 0..4u8 {
        pending.apply(vec![put(&[10, n], &value)]).unwrap();
    }
    assert!(
        backend.get(&[10, 0]).unwrap().is_some(),
        "four megabytes and more were handed over without being asked for"
    );
    // The same record over and over takes the room of one.
    for _ in 0..8 {
        pending.apply(vec![put(&[11], &value)]).unwrap();
    }
    assert_eq!(backend.get(&[11]).unwrap(), None);
}

/// A database that takes nothing in, and says so or panics.
#[derive(Debug, Default)]
struct Full(MemoryBackend, bool);

impl Backend for Full {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }
    fn scan(&self, a: &[u8], b: Option<&[u8]>, c: usize) -> Result<Vec<Record>, StoreError> {
        self.0.scan(a, b, c)
    }
    fn scan_back(&self, a: &[u8], b: Option<&[u8]>, c: usize) -> Result<Vec<Record>, StoreError> {
        self.0.scan_back(a, b, c)
    }
    fn apply(&self, _: Vec<Op>) -> Result<(), StoreError> {
        assert!(!self.1, "the database gave up");
        Err(StoreError::Full {
            path: "/disk".into(),
            why: "full".to_owned(),
        })
    }
    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
    fn size_on_disk(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[test]
fn after_a_batch_that_was_not_taken_in_nothing_younger_is() {
    let key = StoreKey::random().unwrap();
    let full = Arc::new(Full::default());
    let pending = Pending::new(full, Sealer::of(&key).unwrap(), checksum::Sum::default());
    pending.apply(vec![put(b"\x0aa", b"1")]).unwrap();
    assert_matches!(pending.hand_over(), Err(StoreError::Full { .. }));
    assert_matches!(pending.hand_over(), Err(StoreError::Stopped(_)));
    assert_matches!(
        pending.apply(vec![put(b"\x0ab", b"2")]),
        Err(StoreError::Stopped(_))
    );
    assert!(pending.contains(b"\x0aa").unwrap());
}

#[test]
fn after_a_panic_nothing_younger_takes_the_place_of_what_was_lost() {
    let key = StoreKey::random().unwrap();
    let full = Arc::new(Full(MemoryBackend::default(), true));
    let pending = Pending::new(full, Sealer::of(&key).unwrap(), checksum::Sum::default());
    pending.apply(vec![put(b"\x0aa", b"1")]).unwrap();
    let handing_over = std::panic::AssertUnwindSafe(|| pending.hand_over());
    std::panic::catch_unwind(handing_over).unwrap_err();
    pending.apply(vec![put(b"\x0ab", b"2")]).unwrap();
    assert_matches!(pending.hand_over(), Err(StoreError::Stopped(_)));
    assert_matches!(pending.apply(Vec::new()), Err(StoreError::Stopped(_)));
}

#[derive(Debug, PartialEq, Clone, serde::Serialize, serde::Deserialize)]
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
