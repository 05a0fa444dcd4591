//! Detects transactions between which events may have been lost.
//!
//! When Synapse restarts on SQLite, it counts transactions from 1 again. On PostgreSQL it continues
//! to count, although it has lost the events that had no number yet. In both cases it comes on a
//! new connection, as it does after every failed transaction. So a transaction that does not have
//! the next number on the same connection may follow a gap. A false alarm costs a look at the
//! active rooms.

use std::sync::{Arc, Mutex, PoisonError};

/// The connection that a request came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionId(pub u64);

/// The connection and the number of the last transaction. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct TransactionOrder(Arc<Mutex<Option<(Option<ConnectionId>, u64)>>>);

impl TransactionOrder {
    /// Returns whether this transaction directly follows the last one, and remembers it as the
    /// last.
    pub(super) fn follows(&self, connection: Option<ConnectionId>, txn: &str) -> bool {
        let number = txn.parse::<u64>().ok();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = number.map(|number| (connection, number));
        let follows = match (*last, now) {
            (Some((before, number)), Some((connection, next))) => {
                before == connection && number.checked_add(1) == Some(next)
            }
            _ => false,
        };
        *last = now;
        follows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_number_on_the_same_connection_follows() {
        let (one, two) = (Some(ConnectionId(1)), Some(ConnectionId(2)));
        let known = TransactionOrder::default();
        for (connection, txn, follows) in [
            (one, "7", false),
            (one, "8", true),
            (one, "9", true),
            // Sent again, because the first time was not answered.
            (one, "9", false),
            (one, "10", true),
            (one, "12", false),
            // Synapse was restarted.
            (two, "13", false),
            (two, "14", true),
            (two, "1", false),
            (two, "2", true),
            (two, "abc", false),
            (two, "3", false),
            (two, "4", true),
        ] {
            assert_eq!(
                known.follows(connection, txn),
                follows,
                "{connection:?} {txn}"
            );
        }
    }
}
