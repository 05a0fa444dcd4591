//! A backend for tests, of the store and of what stands on it.

use std::{
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use super::{
    Store, StoreError, StoreKey,
    backend::{Backend, Op, Record, memory::MemoryBackend},
};

/// A backend whose flushes can be held and can fail.
#[derive(Debug, Default)]
pub(crate) struct SlowBackend {
    map: MemoryBackend,
    pub(super) flushes: AtomicUsize,
    is_held: Mutex<bool>,
    released: Condvar,
    pub(super) failing: AtomicBool,
    pub(super) panicking: AtomicBool,
    pub(super) unreadable: AtomicBool,
}

impl SlowBackend {
    /// Lets flushes wait from now on.
    pub(crate) fn hold_flushes(&self) {
        *self.is_held.lock().unwrap() = true;
    }

    /// Lets flushes go on. Returns `true` if they were held.
    pub(crate) fn release_flushes(&self) -> bool {
        let were_held = std::mem::take(&mut *self.is_held.lock().unwrap());
        self.released.notify_all();
        were_held
    }
}

impl Backend for SlowBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if self.unreadable.load(SeqCst) {
            let error = std::io::Error::other("a bad sector");
            return Err(StoreError::io("use", Path::new("/disk"), &error));
        }
        self.map.get(key)
    }
    fn scan(&self, a: &[u8], b: Option<&[u8]>, c: usize) -> Result<Vec<Record>, StoreError> {
        self.map.scan(a, b, c)
    }
    fn scan_back(&self, a: &[u8], b: Option<&[u8]>, c: usize) -> Result<Vec<Record>, StoreError> {
        self.map.scan_back(a, b, c)
    }
    fn apply(&self, ops: Vec<Op>) -> Result<(), StoreError> {
        self.map.apply(ops)
    }
    fn flush(&self) -> Result<(), StoreError> {
        let is_held = self.is_held.lock().unwrap();
        drop(self.released.wait_while(is_held, |held| *held).unwrap());
        self.flushes.fetch_add(1, SeqCst);
        assert!(!self.panicking.load(SeqCst), "the flush panics");
        if self.failing.load(SeqCst) {
            let path = Path::new("/disk").to_owned();
            return Err(StoreError::Full {
                path,
                why: "full".to_owned(),
            });
        }
        Ok(())
    }
    fn size_on_disk(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}

/// Makes a store over a backend.
pub(crate) fn over(backend: &Arc<SlowBackend>) -> Store {
    Store::start(backend.clone(), StoreKey::random().unwrap(), None, &[]).unwrap()
}
