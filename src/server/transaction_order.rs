//! Whether something may have been lost between two transactions.
//!
//! Synapse numbers them from 1 again when it restarts on SQLite, and on PostgreSQL goes on counting,
//! although it has lost the events that it had not given a number yet. But it comes on another
//! connection then, as after every transaction that failed. So whatever does not follow on the same
//! connection under the next number comes after a gap, as far as anybody can tell; to believe so
//! once too often costs a look at rooms in which something is going on.

use std::sync::{Arc, Mutex, PoisonError};

/// Which connection a request came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionId(pub u64);

/// Where the last transaction came from, and its number. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct TransactionOrder(Arc<Mutex<Option<(Option<ConnectionId>, u64)>>>);

impl TransactionOrder {
    /// Whether this transaction follows the last one with nothing lost between.
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
            // Sent again: the first time was not answered.
            (one, "9", false),
            (one, "10", true),
            (one, "12", false),
            // Restarted.
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
