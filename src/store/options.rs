//! Options of the store.

/// Options of the store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Maximum memory of the database's cache, in bytes. The process takes about twice as much for
    /// it.
    pub cache_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 * 1024 * 1024,
        }
    }
}
