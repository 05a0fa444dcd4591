//! Detects transactions between which events may have been lost.
//!
//! When Synapse restarts on SQLite, it counts transactions from 1 again. On PostgreSQL it continues
//! to count, although it has lost the events that had no number yet. A failed transaction is sent
//! again under its number. So a transaction that does not have the next number follows a gap, and so
//! does one with the next number that may come from another process than the last one.
//!
//! Synapse keeps several connections and uses them by turns, and all of them break when it stops. So
//! it is the same process as long as one of them is open. Synapse closes a connection that was idle
//! for two minutes. Then nothing was queued, so nothing was lost, and a new connection says nothing.
//! A false alarm costs a look at the active rooms.
//!
//! A reverse proxy may open a connection for each request. Once connections have told nothing a few
//! times in a row, the numbers decide alone, until a connection carries two transactions.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The shortest and the longest time after which Synapse closes an idle connection, which it does
/// after 120 s.
const IDLE_MIN: Duration = Duration::from_secs(115);
const IDLE_MAX: Duration = Duration::from_secs(130);

/// How many transactions in a row are taken for gaps because each came on a new connection and none
/// was left of those before. From then on connections are taken for ones that nobody keeps.
const UNKEPT: u32 = 3;

/// The connection that a request came on.
#[derive(Clone, Debug)]
pub(super) struct Connection(Arc<Life>);

/// When a connection was last used and, if it was closed, when that was.
#[derive(Debug)]
struct Life {
    used: Mutex<Instant>,
    closed: OnceLock<Instant>,
}

impl Connection {
    fn opened_at(at: Instant) -> Self {
        Self(Arc::new(Life {
            used: Mutex::new(at),
            closed: OnceLock::new(),
        }))
    }

    /// Notes that an authorised request came on it.
    pub(super) fn note_use(&self) {
        self.note_use_at(Instant::now());
    }

    fn note_use_at(&self, at: Instant) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    fn used_at(&self) -> Instant {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, other: &Connection) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn is_open(&self) -> bool {
        self.0.closed.get().is_none()
    }

    /// Returns whether the homeserver closed it because it was idle.
    fn was_closed_as_idle(&self) -> bool {
        let closed = self.0.closed.get();
        closed.is_some_and(|closed| {
            (IDLE_MIN..=IDLE_MAX).contains(&closed.saturating_duration_since(self.used_at()))
        })
    }
}

/// A connection that is open until this is dropped.
#[derive(Debug)]
pub(super) struct OpenConnection(Connection);

impl OpenConnection {
    /// Returns a connection that was just opened.
    pub(super) fn new() -> Self {
        Self(Connection::opened_at(Instant::now()))
    }

    /// Returns the connection, for its requests.
    pub(super) fn connection(&self) -> Connection {
        self.0.clone()
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        // Nothing else sets it.
        let _ = self.0.0.closed.set(Instant::now());
    }
}

/// The number of the last transaction, and the connections of the homeserver. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct TransactionOrder(Arc<Mutex<Order>>);

#[derive(Debug, Default)]
struct Order {
    last: Option<u64>,
    /// The connections that transactions of the present process came on and that are open, and the
    /// one of the last transaction, in the order in which transactions last came on them.
    used: Vec<Connection>,
    /// How many transactions in a row had the next number, and a connection that said nothing.
    unkept: u32,
}

impl TransactionOrder {
    /// Returns whether this transaction directly follows the last one, and remembers it as the
    /// last. Without a connection its number decides.
    pub(super) fn follows(&self, connection: Option<&Connection>, txn: &str) -> bool {
        self.follows_at(Instant::now(), connection, txn)
    }

    fn follows_at(&self, now: Instant, connection: Option<&Connection>, txn: &str) -> bool {
        let number = txn.parse::<u64>().ok();
        let mut order = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = order.last.and_then(|last| last.checked_add(1));
        let is_next = number.is_some() && number == expected;
        order.last = number;
        let Some(connection) = connection else {
            return is_next;
        };
        connection.note_use_at(now);
        let is_of_same_process = order.is_of_same_process(now, connection);
        if order.used.iter().any(|used| used.is(connection)) {
            order.unkept = 0;
        } else if is_next && !is_of_same_process {
            order.unkept = order.unkept.saturating_add(1);
        }
        let follows = is_next && (is_of_same_process || order.unkept > UNKEPT);
        order.note(connection, follows);
        follows
    }
}

impl Order {
    /// Returns whether a connection belongs to the process that sent the last transaction.
    fn is_of_same_process(&self, now: Instant, connection: &Connection) -> bool {
        // One that is idle for longer is left over from a host that crashed.
        let proves = |used: &Connection| {
            used.is(connection)
                || used.is_open() && now.saturating_duration_since(used.used_at()) <= IDLE_MAX
        };
        self.used.iter().any(proves) || self.used.last().is_some_and(Connection::was_closed_as_idle)
    }

    /// Notes that a transaction came on a connection, of the same process as those before it or of
    /// another.
    fn note(&mut self, connection: &Connection, is_of_same_process: bool) {
        self.used
            .retain(|used| is_of_same_process && used.is_open() && !used.is(connection));
        self.used.push(connection.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_number_of_the_same_process_follows() {
        let (one, two) = (OpenConnection::new(), OpenConnection::new());
        let order = TransactionOrder::default();
        let follows = |from: &OpenConnection, txn| order.follows(Some(&from.connection()), txn);
        for (txn, expected) in [
            ("7", false),
            ("8", true),
            ("9", true),
            // Sent again, because the first time was not answered.
            ("9", false),
            ("10", true),
            ("12", false),
        ] {
            assert_eq!(follows(&one, txn), expected, "{txn}");
        }
        // Synapse uses its connections by turns.
        for (from, txn) in [(&two, "13"), (&one, "14"), (&two, "15"), (&one, "16")] {
            assert!(follows(from, txn), "{txn}");
        }
        // It was restarted, on PostgreSQL and on SQLite.
        drop((one, two));
        let three = OpenConnection::new();
        for (txn, expected) in [
            ("17", false),
            ("18", true),
            ("1", false),
            ("2", true),
            ("abc", false),
            ("3", false),
            ("4", true),
        ] {
            assert_eq!(follows(&three, txn), expected, "{txn}");
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_connection_that_was_idle_for_two_minutes_says_nothing_when_it_is_closed() {
        let start = Instant::now();
        for (idle, expected) in [(60, false), (120, true), (150, false)] {
            let order = TransactionOrder::default();
            let (one, two) = (OpenConnection::new(), OpenConnection::new());
            order.follows_at(start, Some(&one.connection()), "1");
            one.0
                .0
                .closed
                .set(start + Duration::from_secs(idle))
                .unwrap();
            let follows = order.follows_at(start + HOUR, Some(&two.connection()), "2");
            assert_eq!(follows, expected, "closed after {idle} s");
        }
    }

    #[test]
    fn a_connection_that_a_crashed_host_left_behind_hides_no_restart() {
        let order = TransactionOrder::default();
        let start = Instant::now();
        let (one, two) = (OpenConnection::new(), OpenConnection::new());
        let follows = |after, from: &OpenConnection, txn| {
            let now = start + Duration::from_secs(after);
            order.follows_at(now, Some(&from.connection()), txn)
        };
        assert!(!follows(0, &one, "1"));
        assert!(!follows(131, &two, "2"));
        assert!(follows(132, &two, "3"));
        // A transaction that comes on it shows that it is alive.
        assert!(follows(300, &two, "4"));
    }

    #[test]
    fn pings_keep_a_connection_in_use() {
        let start = Instant::now();
        for pinged in [true, false] {
            let order = TransactionOrder::default();
            let (one, two) = (OpenConnection::new(), OpenConnection::new());
            order.follows_at(start, Some(&one.connection()), "1");
            // A quiet hour. The homeserver answers our pings on its connections by turns.
            for minute in 1..=60 {
                let by_turns = if minute % 2 == 0 { &one } else { &two };
                let at = start + Duration::from_secs(60 * minute);
                if pinged {
                    by_turns.connection().note_use_at(at);
                }
            }
            let follows = order.follows_at(start + HOUR, Some(&two.connection()), "2");
            assert_eq!(follows, pinged);
        }
    }

    #[test]
    fn where_no_connection_is_kept_the_numbers_decide() {
        let order = TransactionOrder::default();
        let follows = |txn: u32| {
            let connection = OpenConnection::new();
            order.follows(Some(&connection.connection()), &txn.to_string())
        };
        let gaps: Vec<u32> = (1..=20).filter(|txn| !follows(*txn)).collect();
        assert_eq!(gaps, [1, 2, 3, 4]);
        for (txn, expected) in [(21, true), (23, false), (24, true), (1, false), (2, true)] {
            assert_eq!(follows(txn), expected, "{txn}");
        }
        // Connections are kept again, so one that breaks tells something.
        let kept = OpenConnection::new();
        assert!(order.follows(Some(&kept.connection()), "3"));
        assert!(order.follows(Some(&kept.connection()), "4"));
        drop(kept);
        assert!(!follows(5));
    }
}
