//! The tests that every backend must pass. A new backend adds a module below.

use std::sync::Arc;

use super::{Backend, Op, Record, split::PIECE_BYTES};
use crate::store::{KEY_BYTES_MAX, StoreOptions, VALUE_BYTES_MAX};

fn put(key: &[u8], value: &[u8]) -> Op {
    Op::Put(key.to_vec(), value.to_vec())
}

fn keys(records: &[Record]) -> Vec<&[u8]> {
    records.iter().map(|(key, _)| key.as_slice()).collect()
}

fn a_record_is_there_until_it_is_deleted(backend: &dyn Backend) {
    assert_eq!(backend.get(b"a").unwrap(), None);
    backend
        .apply(vec![put(b"a", b"1"), put(b"b", b""), put(b"c", b"3")])
        .unwrap();
    assert_eq!(backend.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(
        backend.get(b"b").unwrap().as_deref(),
        Some(&b""[..]),
        "an empty value is a value"
    );
    backend
        .apply(vec![
            Op::Delete(b"a".to_vec()),
            Op::Delete(b"never".to_vec()),
        ])
        .unwrap();
    assert_eq!(backend.get(b"a").unwrap(), None);
    assert_eq!(keys(&backend.scan(b"", None, 9).unwrap()), [b"b", b"c"]);
}

fn later_changes_of_a_batch_win(backend: &dyn Backend) {
    backend
        .apply(vec![
            put(b"k", b"1"),
            Op::Delete(b"k".to_vec()),
            put(b"k", b"2"),
        ])
        .unwrap();
    assert_eq!(backend.get(b"k").unwrap().as_deref(), Some(&b"2"[..]));
    backend
        .apply(vec![put(b"k", b"3"), Op::Delete(b"k".to_vec())])
        .unwrap();
    assert_eq!(backend.get(b"k").unwrap(), None);
    backend.apply(Vec::new()).unwrap();
}

fn scans_keep_to_their_prefix_order_bounds_and_limit(backend: &dyn Backend) {
    let all: [&[u8]; 7] = [
        b"a",
        b"b",
        b"b\x00",
        b"b\xFF",
        b"b\xFF\xFF",
        b"c",
        b"\xFE\xFF",
    ];
    backend
        .apply(all.iter().rev().map(|key| put(key, key)).collect())
        .unwrap();
    assert_eq!(keys(&backend.scan(b"", None, 99).unwrap()), all);
    assert_eq!(keys(&backend.scan(b"b", None, 99).unwrap()), all[1..5]);
    assert_eq!(keys(&backend.scan(b"b", None, 2).unwrap()), all[1..3]);
    assert_eq!(
        keys(&backend.scan(b"b", Some(b"b\x00"), 99).unwrap()),
        all[3..5]
    );
    assert_eq!(
        keys(&backend.scan(b"b", Some(b"a"), 99).unwrap()),
        all[1..5],
        "before the prefix"
    );
    assert!(
        backend.scan(b"b", Some(b"c"), 99).unwrap().is_empty(),
        "behind the prefix"
    );
    assert_eq!(keys(&backend.scan(b"\xFE", None, 99).unwrap()), all[6..]);
    assert!(backend.scan(b"", None, 0).unwrap().is_empty());

    let mut back = all;
    back.reverse();
    assert_eq!(keys(&backend.scan_back(b"", None, 99).unwrap()), back);
    assert_eq!(
        keys(&backend.scan_back(b"b", None, 1).unwrap()),
        [b"b\xFF\xFF"]
    );
    assert_eq!(
        keys(&backend.scan_back(b"b", Some(b"b\xFF"), 99).unwrap()),
        [&b"b\x00"[..], b"b"]
    );
    assert_eq!(
        keys(&backend.scan_back(b"b", Some(b"z"), 1).unwrap()),
        [b"b\xFF\xFF"]
    );
    assert!(backend.scan_back(b"b", Some(b"b"), 9).unwrap().is_empty());
    assert_eq!(
        keys(&backend.scan_back(b"\xFE", None, 9).unwrap()),
        all[6..]
    );
}

fn large_records_and_batches_come_back_whole(backend: &dyn Backend) {
    let big = vec![7u8; VALUE_BYTES_MAX + 1024];
    let long = vec![8u8; KEY_BYTES_MAX + 1];
    backend.apply(vec![put(&long, &big)]).unwrap();
    assert_eq!(backend.get(&long).unwrap().as_deref(), Some(&big[..]));
    let many = (0u32..5000)
        .map(|n| put(&n.to_be_bytes(), &[1; 100]))
        .collect();
    backend.apply(many).unwrap();
    assert_eq!(backend.scan(&[0], None, 9999).unwrap().len(), 5000);
    backend.flush().unwrap();
}

/// Returns a value of this length whose bytes depend on `seed`.
fn filled(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|n| (n / 7) as u8 ^ seed).collect()
}

fn values_of_every_length_come_back(backend: &dyn Backend) {
    let step = PIECE_BYTES;
    let lengths = [
        0,
        1,
        step - 1,
        step,
        step + 1,
        2 * step - 8,
        2 * step,
        10 * step + 5,
        VALUE_BYTES_MAX + 1024,
    ];
    let check = |key: &[u8], expected: &[u8]| {
        assert!(backend.get(key).unwrap().as_deref() == Some(expected));
        let record = [(key.to_vec(), expected.to_vec())];
        assert!(backend.scan(key, None, 1).unwrap() == record);
        let last = backend.scan_back(b"k", Some(b"k\x00"), 1).unwrap();
        assert!(key != b"k" || last == record);
    };
    // Each is overwritten by each, and its key is the beginning of the others'.
    for first in lengths {
        for second in lengths {
            let neighbours = [put(b"k\x00", &filled(first, 3)), put(b"l", b"")];
            backend.apply(neighbours.to_vec()).unwrap();
            backend.apply(vec![put(b"k", &filled(first, 1))]).unwrap();
            check(b"k", &filled(first, 1));
            backend.apply(vec![put(b"k", &filled(second, 2))]).unwrap();
            check(b"k\x00", &filled(first, 3));
            check(b"l", b"");
            let all: Vec<_> = backend.scan(b"", None, 9).unwrap();
            assert_eq!(keys(&all), [&b"k"[..], b"k\x00", b"l"]);
            assert!(all[0].1 == filled(second, 2));
        }
    }
    let gone = [&b"k"[..], b"k\x00", b"l"].map(|key| Op::Delete(key.to_vec()));
    backend.apply(gone.to_vec()).unwrap();
    assert!(backend.scan(b"", None, 9).unwrap().is_empty());
    assert!(backend.scan_back(b"", None, 9).unwrap().is_empty());
}

/// A large value is read whole while others replace and delete it, and a scan beside that does not
/// end early.
fn large_values_are_read_whole_beside_a_writer(backend: &Arc<dyn Backend>) {
    let large = |n: u8| filled(20_000 + usize::from(n) * 50, n);
    let last = put(b"c", b"the last one");
    backend.apply(vec![put(b"b", &large(0)), last]).unwrap();
    let writer = backend.clone();
    let writing = std::thread::spawn(move || {
        for n in 1..=200u8 {
            writer.apply(vec![put(b"b", &large(n))]).unwrap();
            if n % 4 == 0 {
                writer.apply(vec![Op::Delete(b"b".to_vec())]).unwrap();
            }
        }
    });
    let is_whole = |value: &[u8]| {
        let n = (value.len() - 20_000) / 50;
        value == large(n as u8)
    };
    while !writing.is_finished() {
        let value = backend.get(b"b").unwrap();
        assert!(value.is_none_or(|value| is_whole(&value)));
        for mut found in [
            backend.scan(b"", None, 2).unwrap(),
            backend.scan_back(b"", None, 2).unwrap(),
        ] {
            found.retain(|(key, value)| key != b"b" || !is_whole(value));
            assert_eq!(keys(&found), [b"c"]);
        }
    }
    writing.join().unwrap();
}

/// A reader sees all of a batch or nothing of it.
fn batches_are_atomic_for_readers(backend: &Arc<dyn Backend>) {
    let pair = |n: u64| {
        let n = n.to_be_bytes();
        vec![put(b"left", &n), put(b"right", &n)]
    };
    backend.apply(pair(0)).unwrap();
    let writer = backend.clone();
    let writing = std::thread::spawn(move || {
        for n in 1..500 {
            writer.apply(pair(n)).unwrap();
        }
    });
    while !writing.is_finished() {
        // Both values grow together, so the left one, which is read first, is never ahead.
        let left = backend.get(b"left").unwrap();
        let right = backend.get(b"right").unwrap();
        assert!(left <= right, "{left:?} {right:?}");
    }
    writing.join().unwrap();
}

macro_rules! conformance {
    ($name:ident, $open:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn every_backend_does_what_the_store_needs() {
                // Each part has its own database.
                a_record_is_there_until_it_is_deleted(&*$open().1);
                later_changes_of_a_batch_win(&*$open().1);
                scans_keep_to_their_prefix_order_bounds_and_limit(&*$open().1);
                large_records_and_batches_come_back_whole(&*$open().1);
                values_of_every_length_come_back(&*$open().1);
                batches_are_atomic_for_readers(&$open().1);
                large_values_are_read_whole_beside_a_writer(&$open().1);
            }
        }
    };
}

type Opened = (Option<tempfile::TempDir>, Arc<dyn Backend>);

conformance!(in_memory, || -> Opened {
    (
        None,
        Arc::new(super::super::memory::MemoryBackend::default()),
    )
});
conformance!(on_sled, || -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let backend = super::super::sled::SledBackend::open(folder.path(), &StoreOptions::default());
    (Some(folder), Arc::new(backend.unwrap()))
});

/// The raw tree, and the files beside the log.
#[test]
fn sled_keeps_no_piece_of_a_deleted_value_and_refuses_its_reserved_keys() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions::default();
    let backend = super::sled::SledBackend::open(folder.path(), &options).unwrap();
    values_of_every_length_come_back(&backend);
    assert_eq!(backend.count_stored().unwrap(), 0);
    let refused = backend.apply(vec![put(b"a", b"1"), put(b"\xFFa", b"1")]);
    assert!(refused.is_err() && backend.get(b"a").unwrap().is_none());
}
