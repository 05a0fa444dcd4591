//! What the store consists of, read record by record.

use std::collections::BTreeMap;

use super::{Store, StoreError};

/// How many records are read at once.
const PAGE_RECORDS: usize = 256;

/// The records of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSize {
    /// How many there are.
    pub records: u64,
    /// Size of their keys and values in bytes, without what the database adds.
    pub bytes: u64,
}

impl Store {
    /// Reads every record once, so that damage is found, and counts them. Blocks.
    pub fn count_records(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        self.read_all(|_, _| count += 1)?;
        Ok(count)
    }

    /// Returns the size of each table, by its [`Table::ID`](super::Table::ID). Reads every record, and
    /// blocks.
    pub fn table_sizes(&self) -> Result<BTreeMap<u8, TableSize>, StoreError> {
        let mut sizes: BTreeMap<u8, TableSize> = BTreeMap::new();
        self.read_all(|key, value| {
            let size = sizes.entry(key.first().copied().unwrap_or_default());
            let size = size.or_default();
            size.records += 1;
            size.bytes += (key.len() + value.len()) as u64;
        })?;
        Ok(sizes)
    }

    fn read_all(&self, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        self.inner.memtable.write_out()?;
        let database = self.inner.memtable.backend();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = database.scan(&[], after.as_deref(), PAGE_RECORDS)?;
            for (key, value) in &page {
                each(key, value);
            }
            let Some((last, _)) = page.into_iter().next_back() else {
                return Ok(());
            };
            after = Some(last);
        }
    }
}

#[cfg(test)]
impl super::Store {
    /// Returns the tables in which a text occurs, in a key or in a value, sealed or not.
    pub(crate) fn tables_with(&self, text: &str) -> std::collections::BTreeSet<u8> {
        let sealer = self.inner.memtable.sealer();
        let mut found = std::collections::BTreeSet::new();
        let holds = |bytes: &[u8]| memchr::memmem::find(bytes, text.as_bytes()).is_some();
        self.read_all(|key, value| {
            let plain = sealer.open(key, value);
            if holds(key) || holds(value) || plain.is_some_and(|plain| holds(&plain)) {
                found.extend(key.first());
            }
        })
        .unwrap();
        found
    }
}
