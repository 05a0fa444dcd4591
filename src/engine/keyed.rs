//! Locks and semaphores by key: only callers with the same key wait for each other.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, PoisonError, Weak},
};

use tokio::sync::{Mutex, OwnedMutexGuard};

/// Values by key that live as long as somebody uses them. Unused entries are removed when a new key
/// is added.
#[derive(Debug)]
pub(super) struct Keyed<K, T>(std::sync::Mutex<HashMap<K, Weak<T>>>);

impl<K, T> Default for Keyed<K, T> {
    fn default() -> Self {
        Self(std::sync::Mutex::default())
    }
}

impl<K: Eq + Hash, T> Keyed<K, T> {
    /// Returns the value of a key; makes it if nobody uses it.
    pub(super) fn get(&self, key: K, make: impl FnOnce() -> T) -> Arc<T> {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = values.get(&key).and_then(Weak::upgrade) {
            return value;
        }
        values.retain(|_, value| value.strong_count() > 0);
        let value = Arc::new(make());
        values.insert(key, Arc::downgrade(&value));
        value
    }
}

/// One lock per key.
pub(super) type KeyedLocks<K> = Keyed<K, Mutex<()>>;

impl<K: Eq + Hash> KeyedLocks<K> {
    /// Waits for the lock of a key.
    pub(super) async fn lock(&self, key: K) -> OwnedMutexGuard<()> {
        self.get(key, Mutex::default).lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_one_key_wait_for_each_other_and_for_nobody_else() {
        let locks = KeyedLocks::default();
        let (one, same) = (locks.get(1, Mutex::default), locks.get(1, Mutex::default));
        let _busy = one.try_lock().unwrap();
        assert!(same.try_lock().is_err());
        assert!(locks.get(2, Mutex::default).try_lock().is_ok());
    }

    #[test]
    fn keys_that_nobody_uses_are_forgotten() {
        let locks = KeyedLocks::default();
        let used = locks.get(0, Mutex::default);
        for key in 1..100 {
            drop(locks.get(key, Mutex::default));
        }
        assert_eq!(locks.0.lock().unwrap().len(), 2);
        assert!(Arc::ptr_eq(&used, &locks.get(0, Mutex::default)));
    }
}
