//! The store as other folders use it, in memory and on disk.

mod backup;
mod crash;
mod damage;
mod failure;
mod flushing;
mod large;
mod memtable;
mod opening;
mod power_cut;
mod record_cache;
mod records;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use serde::{Deserialize, Serialize};

use super::{
    backend::{Backend, Op, memory::MemoryBackend},
    testing::{SlowBackend, over},
    *,
};

struct Names;
impl Table for Names {
    const ID: u8 = 200;
    const NAME: &'static str = "names";
    const SECRET: bool = false;
    type Key = (String, u64);
    type Value = String;
}

struct Tokens;
impl Table for Tokens {
    const ID: u8 = 201;
    const NAME: &'static str = "tokens";
    const SECRET: bool = true;
    type Key = String;
    type Value = Token;
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Token {
    token: String,
}

fn token(text: &str) -> Token {
    Token {
        token: text.to_owned(),
    }
}

fn name(owner: &str, number: u64) -> (String, u64) {
    (owner.to_owned(), number)
}

fn open(folder: &Path, key: &StoreKey) -> Result<Store, StoreError> {
    Store::open(
        folder,
        key,
        &StoreOptions {
            cache_bytes: 1024 * 1024,
        },
    )
}

/// Returns the folder and key of a closed store with a thousand records, flushed in ten parts.
fn filled() -> (tempfile::TempDir, StoreKey) {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let store = open(folder.path(), &key).unwrap();
    for part in 0..10u64 {
        let mut batch = Batch::new();
        for n in 0..100 {
            batch
                .put::<Names>(&name("n", part * 100 + n), &"x".repeat(500))
                .unwrap();
        }
        store.apply(batch).unwrap();
        store.flush_blocking().unwrap();
    }
    drop(store);
    (folder, key)
}

/// Opens a store and reads everything, in every way. Returns the number of records.
fn read_all(folder: &Path, key: &StoreKey) -> Result<usize, StoreError> {
    let store = open(folder, key)?;
    let count = store.scan::<Names>(&[], None, 10_000)?.len();
    assert_eq!(
        store.scan_back::<Names>(&[], None, 10_000)?.len(),
        count,
        "backwards"
    );
    for n in 0..1000 {
        assert!(
            store.contains::<Names>(&name("n", n))? || count < 1000,
            "{n}"
        );
    }
    Ok(count)
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
