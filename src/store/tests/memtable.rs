//! The memtable over a database reads like one map.

use assert_matches::assert_matches;
use proptest::prelude::*;

use crate::store::{
    backend::{Backend, Op, Record, memory::MemoryBackend},
    integrity::checksum::Checksum,
    memtable::*,
    *,
};

fn memtable(backend: &Arc<MemoryBackend>) -> Memtable {
    let key = StoreKey::random().unwrap();
    let backend: Arc<dyn Backend> = backend.clone();
    Memtable::new(backend, Sealer::of(&key).unwrap(), Checksum::default())
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

fn plain(memtable: &Memtable, key: &[u8], value: RecordValue) -> Vec<u8> {
    match value {
        RecordValue::Plain(plain) => plain.to_vec(),
        RecordValue::Stored(stored) => match memtable.sealer().open(key, &stored) {
            Some(plain) => plain.to_vec(),
            None => stored,
        },
    }
}

fn read(memtable: &Memtable, records: Vec<(Vec<u8>, RecordValue)>) -> Vec<Record> {
    records
        .into_iter()
        .map(|(key, value)| (key.clone(), plain(memtable, &key, value)))
        .collect()
}

/// What a user of the store can do, and what the committer does from time to time.
#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(Vec<u8>, Option<Vec<u8>>, bool)>),
    WriteOut,
    Get(Vec<u8>),
    Scan(Vec<u8>, Option<Vec<u8>>, usize),
    ScanBack(Vec<u8>, Option<Vec<u8>>, usize),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few keys, so that changes collide.
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
        1 => Just(Step::WriteOut),
        2 => key().prop_map(Step::Get),
        2 => scan().prop_map(|(prefix, after, limit)| Step::Scan(prefix, after, limit)),
        2 => scan().prop_map(|(prefix, before, limit)| Step::ScanBack(prefix, before, limit)),
    ]
}

proptest! {
    #[test]
    fn it_reads_like_one_map_whatever_was_written_out(
        steps in prop::collection::vec(step(), 0..40)
    ) {
        let backend = Arc::new(MemoryBackend::default());
        let memtable = memtable(&backend);
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
                    memtable.apply(changes.collect()).unwrap();
                }
                Step::WriteOut => {
                    memtable.write_out().unwrap();
                }
                Step::Get(key) => {
                    let found = memtable.get(&key).unwrap().map(|v| plain(&memtable, &key, v));
                    prop_assert_eq!(memtable.contains(&key).unwrap(), found.is_some());
                    prop_assert_eq!(found, model.get(&key).unwrap());
                }
                Step::Scan(prefix, after, limit) => {
                    let found = memtable.scan(&prefix, after.as_deref(), limit).unwrap();
                    let expected = model.scan(&prefix, after.as_deref(), limit).unwrap();
                    prop_assert_eq!(read(&memtable, found), expected);
                }
                Step::ScanBack(prefix, before, limit) => {
                    let found = memtable.scan_back(&prefix, before.as_deref(), limit).unwrap();
                    let expected = model.scan_back(&prefix, before.as_deref(), limit).unwrap();
                    prop_assert_eq!(read(&memtable, found), expected);
                }
            }
        }
        memtable.write_out().unwrap();
        let mut stored = backend.scan(&[], None, 1000).unwrap();
        if let Some(checksum) = Checksum::load(&*backend).unwrap() {
            checksum.verify(&*backend, Path::new("x")).unwrap();
        }
        stored.retain(|(key, _)| key[0] != table::META_ID);
        let stored: Vec<Record> = stored
            .into_iter()
            .map(|(key, value)| (key.clone(), plain(&memtable, &key, RecordValue::Stored(value))))
            .collect();
        prop_assert_eq!(stored, model.scan(&[], None, 1000).unwrap());
    }
}

#[test]
fn a_record_that_comes_and_goes_between_two_flushes_never_reaches_the_database() {
    let backend = Arc::new(MemoryBackend::default());
    let memtable = memtable(&backend);
    let first = memtable.write_out().unwrap();
    memtable.apply(vec![seal(b"\x0aqueue", b"words")]).unwrap();
    memtable.apply(vec![delete(b"\x0aqueue")]).unwrap();
    assert_eq!(memtable.write_out().unwrap(), first, "there is no batch");
    assert!(backend.scan(&[], None, 9).unwrap().is_empty());

    memtable.apply(vec![put(b"\x0akept", b"1")]).unwrap();
    assert_eq!(memtable.write_out().unwrap(), first + 1);
    memtable.apply(vec![delete(b"\x0akept")]).unwrap();
    assert_eq!(memtable.write_out().unwrap(), first + 2);
    assert_eq!(backend.get(b"\x0akept").unwrap(), None);
}

#[test]
fn secrets_are_sealed_on_their_way_to_the_database() {
    let backend = Arc::new(MemoryBackend::default());
    let memtable = memtable(&backend);
    memtable.apply(vec![seal(b"\x0ak", b"secret")]).unwrap();
    let copied = memtable.scan_stored(&[], None, 9).unwrap();
    assert_ne!(
        copied[0].1, b"secret",
        "a reader of stored values does not see them either"
    );
    memtable.write_out().unwrap();
    let sealed = backend.get(b"\x0ak").unwrap().unwrap();
    let opened = memtable.sealer().open(b"\x0ak", &sealed).unwrap();
    assert_eq!(opened.as_slice(), b"secret");
}

#[test]
fn the_size_of_the_memtable_is_bounded() {
    let backend = Arc::new(MemoryBackend::default());
    let memtable = memtable(&backend);
    let value = vec![0; 1024 * 1024];
    for n in 0..4u8 {
        memtable.apply(vec![put(&[10, n], &value)]).unwrap();
    }
    assert!(
        backend.get(&[10, 0]).unwrap().is_some(),
        "more than four megabytes are written out without a flush"
    );
    // A record that is overwritten again and again counts once.
    for _ in 0..8 {
        memtable.apply(vec![put(&[11], &value)]).unwrap();
    }
    assert_eq!(backend.get(&[11]).unwrap(), None);
}

/// A database that refuses every batch, with an error or a panic.
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
fn after_a_batch_that_was_refused_no_newer_one_is_written_out() {
    let key = StoreKey::random().unwrap();
    let full = Arc::new(Full::default());
    let memtable = Memtable::new(full, Sealer::of(&key).unwrap(), Checksum::default());
    memtable.apply(vec![put(b"\x0aa", b"1")]).unwrap();
    assert_matches!(memtable.write_out(), Err(StoreError::Full { .. }));
    assert_matches!(memtable.write_out(), Err(StoreError::Stopped(_)));
    assert_matches!(
        memtable.apply(vec![put(b"\x0ab", b"2")]),
        Err(StoreError::Stopped(_))
    );
    assert!(memtable.contains(b"\x0aa").unwrap());
}

#[test]
fn after_a_panic_no_newer_batch_is_written_out() {
    let key = StoreKey::random().unwrap();
    let full = Arc::new(Full(MemoryBackend::default(), true));
    let memtable = Memtable::new(full, Sealer::of(&key).unwrap(), Checksum::default());
    memtable.apply(vec![put(b"\x0aa", b"1")]).unwrap();
    let write_out = std::panic::AssertUnwindSafe(|| memtable.write_out());
    std::panic::catch_unwind(write_out).unwrap_err();
    memtable.apply(vec![put(b"\x0ab", b"2")]).unwrap();
    assert_matches!(memtable.write_out(), Err(StoreError::Stopped(_)));
    assert_matches!(memtable.apply(Vec::new()), Err(StoreError::Stopped(_)));
}
