//! Reads a table page by page, so that a large one is never in memory as a whole.

use super::{Entry, Store, StoreError, Table};

/// Maximum number of records in a page.
const PAGE_RECORDS: usize = 256;

/// The pages of a scan, in the order of the keys; see [`Store::pages`].
pub struct Pages<'a, T: Table> {
    store: &'a Store,
    prefix: Vec<u8>,
    after: Option<T::Key>,
    is_at_end: bool,
}

impl Store {
    /// Returns all records whose encoded key begins with `prefix`, a page at a time. Each page is
    /// read when it is asked for and shows the records of that moment. After an error there is no
    /// further page.
    pub fn pages<T: Table>(&self, prefix: &[u8]) -> Pages<'_, T> {
        Pages {
            store: self,
            prefix: prefix.to_vec(),
            after: None,
            is_at_end: false,
        }
    }
}

impl<T: Table> Iterator for Pages<'_, T>
where
    T::Key: Clone,
{
    type Item = Result<Vec<Entry<T>>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_at_end {
            return None;
        }
        let page = match self
            .store
            .scan::<T>(&self.prefix, self.after.as_ref(), PAGE_RECORDS)
        {
            Ok(page) => page,
            Err(error) => {
                self.is_at_end = true;
                return Some(Err(error));
            }
        };
        self.is_at_end = page.len() < PAGE_RECORDS;
        self.after = Some(page.last()?.0.clone());
        Some(Ok(page))
    }
}
