//! Power cuts: whatever was not synced is thrown away, at a random moment under load.

use std::sync::{Mutex, RwLock, atomic::AtomicU64};

use super::{
    crash::{SLOTS, WRITERS, check_values_written_over, next_change, write_over},
    *,
};
use crate::store::backend::{Record, sled::SledBackend};

/// A sled database, and what a power cut would leave of it.
///
/// A flush that is confirmed also writes this remainder: the log as it is after the sync, the files
/// that sled syncs itself, and every other file empty, with nothing but its name. After the power
/// cut every flush fails.
#[derive(Debug)]
struct Unsynced {
    sled: SledBackend,
    folder: PathBuf,
    /// The folder of what is left.
    left: PathBuf,
    /// Locked for writing during a flush, so that nothing newer gets into the remainder.
    applying: RwLock<()>,
    flushes: AtomicU64,
    /// The flush with which the power fails.
    last_flush: u64,
    is_cut: Mutex<bool>,
}

impl Unsynced {
    fn keep_what_is_synced(&self) {
        let (from, to) = (self.folder.join("sled"), self.left.join("sled"));
        std::fs::create_dir_all(to.join("blobs")).unwrap();
        for entry in std::fs::read_dir(&from).unwrap() {
            let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
            let text = name.to_string_lossy();
            let is_synced = text == "db" || text == "conf" || text.starts_with("snap.");
            if is_synced && !text.ends_with("generating") {
                std::fs::copy(path, to.join(name)).unwrap();
            } else if path.is_file() {
                std::fs::write(to.join(name), "").unwrap();
            }
        }
        for entry in std::fs::read_dir(from.join("blobs")).unwrap() {
            let name = entry.unwrap().file_name();
            std::fs::write(to.join("blobs").join(name), "").unwrap();
        }
        // It is not synced, and may be as old as one likes.
        let _ = std::fs::copy(self.folder.join("progress"), self.left.join("progress"));
    }
}

impl Backend for Unsynced {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.sled.get(key)
    }
    fn scan(&self, a: &[u8], b: Option<&[u8]>, c: usize) -> Result<Vec<Record>, StoreError> {
        self.sled.scan(a, b, c)
    }
    fn scan_back(&self, a: &[u8], b: Option<&[u8]>, c: usize) -> Result<Vec<Record>, StoreError> {
        self.sled.scan_back(a, b, c)
    }
    fn apply(&self, ops: Vec<Op>) -> Result<(), StoreError> {
        let _no_flush = self.applying.read().unwrap();
        self.sled.apply(ops)
    }
    fn flush(&self) -> Result<(), StoreError> {
        let _nothing_newer = self.applying.write().unwrap();
        let mut is_cut = self.is_cut.lock().unwrap();
        if *is_cut {
            return Err(StoreError::Stopped("the power is off".to_owned()));
        }
        self.sled.flush()?;
        if self.flushes.fetch_add(1, SeqCst) + 1 == self.last_flush {
            self.keep_what_is_synced();
            *is_cut = true;
        }
        Ok(())
    }
    fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.sled.size_on_disk()
    }
}

/// Returns a writer's `n`th value, of 0 bytes to 300 KB.
fn value(writer: u64, n: u64) -> Vec<u8> {
    let mixed = (writer * 1000 + n).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let length = match mixed % 40 {
        0 => 300_000,
        1..4 => 45_000,
        4..10 => mixed % 10_000,
        _ => mixed % 700,
    };
    vec![(writer + n) as u8; length as usize]
}

/// Writes until the power fails. Returns the last change that was confirmed.
fn write_until_the_cut(store: &Store, writer: u64) -> Option<u64> {
    let mut confirmed = None;
    for n in next_change(store, writer).. {
        let batch = write_over(writer, n, &value(writer, n));
        if store.apply(batch).is_err() {
            break;
        }
        if n % 3 == writer % 3 {
            if store.flush_blocking().is_err() {
                break;
            }
            confirmed = Some(n);
        }
    }
    confirmed
}

/// `STONECHAT_KILL_ROUNDS` sets the number of power cuts, 10 by default.
#[test]
fn what_was_confirmed_survives_a_power_cut() {
    let rounds = std::env::var("STONECHAT_KILL_ROUNDS").map_or(10, |text| text.parse().unwrap());
    let all = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let mut folder = all.path().join("0");
    std::fs::create_dir(&folder).unwrap();
    let mut confirmed = vec![None; WRITERS as usize];
    for round in 1..=rounds {
        let left = all.path().join(round.to_string());
        std::fs::create_dir(&left).unwrap();
        let options = StoreOptions {
            cache_bytes: 1 << 20,
        };
        let lock = Lock::take(&folder).unwrap();
        let progress = Progress::open(&folder).unwrap();
        let backend = Unsynced {
            sled: SledBackend::open(&folder.join("sled"), &options).unwrap(),
            folder: folder.clone(),
            left: left.clone(),
            applying: RwLock::default(),
            flushes: AtomicU64::default(),
            last_flush: 2 + rand::random_range(0..60),
            is_cut: Mutex::default(),
        };
        let place = Some((&*folder, lock, progress));
        let store = Store::start(Arc::new(backend), key.clone(), place, &[]).unwrap();
        std::thread::scope(|scope| {
            let store = &store;
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| scope.spawn(move || write_until_the_cut(store, writer)))
                .collect();
            for (confirmed, writer) in confirmed.iter_mut().zip(writers) {
                *confirmed = writer.join().unwrap().or(*confirmed);
            }
        });
        drop(store);
        let store = open(&left, &key).unwrap_or_else(|e| panic!("round {round}: {e}"));
        check_values_written_over(&store, &confirmed, &format!("round {round}"), value);
        drop(store);
        std::fs::remove_dir_all(&folder).unwrap();
        folder = left;
    }
    assert!(confirmed.iter().flatten().sum::<u64>() > SLOTS);
}
