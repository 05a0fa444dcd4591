//! What is to be pushed to the application service, with Synapse's ways of losing it.
//!
//! * One transaction at a time, 100 of each kind at most.
//! * Room events of a transaction are written down when it is made; to-device messages, receipts,
//!   typing and device lists are not, and are gone when it fails.
//! * While the service counts as down, every event becomes a transaction of its own and everything
//!   else is dropped.
//! * What is queued and in no transaction yet is gone after a restart, and ids begin again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, value::RawValue};

/// So many of each kind go into one transaction.
const AT_ONCE: usize = 100;

/// An event that waits to be pushed.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its id.
    pub id: String,
    /// Its room.
    pub room: String,
    /// As it is pushed.
    pub json: Box<RawValue>,
    /// A user of the service whom it names and who does not exist.
    pub unknown: Option<String>,
}

/// The queue, and the transactions that have been made of it.
#[derive(Debug, Default)]
pub struct Queue {
    events: VecDeque<Waiting>,
    ephemeral: VecDeque<Value>,
    to_device: VecDeque<Value>,
    changed: BTreeSet<String>,
    /// Transactions that have not been acknowledged, in the database.
    rows: BTreeMap<u64, Vec<Waiting>>,
    last_id: u64,
    /// Whether nothing is pushed, and so nothing queued.
    pub is_off: bool,
    /// Whether the service counts as down.
    pub down: bool,
    /// Whether somebody tries again while it is down.
    pub recovering: bool,
}

/// One transaction.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// Its id.
    pub id: u64,
    /// Room events.
    pub events: Vec<Waiting>,
    /// Typing and receipts.
    pub ephemeral: Vec<Value>,
    /// To-device messages.
    pub to_device: Vec<Value>,
    /// Whose devices changed.
    pub changed: Vec<String>,
}

fn some<T>(from: &mut VecDeque<T>) -> Vec<T> {
    let count = from.len().min(AT_ONCE);
    from.drain(..count).collect()
}

impl Queue {
    /// Queues a room event.
    pub fn push_event(
        &mut self,
        id: &str,
        room: &str,
        json: Box<RawValue>,
        unknown: Option<String>,
    ) {
        let waiting = Waiting {
            id: id.to_owned(),
            room: room.to_owned(),
            json,
            unknown,
        };
        if self.is_off {
            return;
        }
        if self.down {
            // Only a room event makes a restarted homeserver try again.
            self.recovering = true;
            self.row(vec![waiting]);
        } else {
            self.events.push_back(waiting);
        }
    }

    /// Queues typing or a receipt.
    pub fn push_ephemeral(&mut self, event: Value) {
        if self.takes() {
            self.ephemeral.push_back(event);
        }
    }

    /// Queues a to-device message.
    pub fn push_message(&mut self, message: Value) {
        if self.takes() {
            self.to_device.push_back(message);
        }
    }

    /// Queues that somebody's devices changed.
    pub fn push_device_list(&mut self, user: &str) {
        if self.takes() {
            self.changed.insert(user.to_owned());
        }
    }

    /// Returns whether what a restart loses is queued at all.
    fn takes(&self) -> bool {
        !self.is_off && !self.down
    }

    fn row(&mut self, events: Vec<Waiting>) -> u64 {
        self.last_id += 1;
        self.rows.insert(self.last_id, events);
        self.last_id
    }

    /// Whether there is anything to push now.
    pub fn has_work(&self) -> bool {
        if self.down {
            self.recovering
        } else {
            !self.is_empty()
        }
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.ephemeral.is_empty()
            && self.to_device.is_empty()
            && self.changed.is_empty()
    }

    /// Makes the next transaction, if the service is up and there is anything.
    pub fn take_next(&mut self) -> Option<Transaction> {
        if self.down || self.is_empty() {
            return None;
        }
        let events = some(&mut self.events);
        Some(Transaction {
            id: self.row(events.clone()),
            events,
            ephemeral: some(&mut self.ephemeral),
            to_device: some(&mut self.to_device),
            changed: std::mem::take(&mut self.changed).into_iter().collect(),
        })
    }

    /// The oldest transaction that has not been acknowledged, as it is sent again: its events and
    /// nothing else.
    pub fn oldest(&self) -> Option<Transaction> {
        let (id, events) = self.rows.first_key_value()?;
        Some(Transaction {
            id: *id,
            events: events.clone(),
            ..Transaction::default()
        })
    }

    /// A transaction has been acknowledged.
    pub fn done(&mut self, id: u64) {
        self.rows.remove(&id);
        if self.down && self.rows.is_empty() {
            self.down = false;
            self.recovering = false;
        }
    }

    /// A transaction failed: the service is down.
    pub fn failed(&mut self) {
        self.down = true;
        self.recovering = true;
        while !self.events.is_empty() {
            let events = some(&mut self.events);
            self.row(events);
        }
        self.forget_the_rest();
    }

    /// The homeserver restarts. `in_order`: what was under way counts as failed; otherwise it
    /// stays where it is until the service fails and recovers the next time.
    pub fn restart(&mut self, in_order: bool) {
        self.events.clear();
        self.forget_the_rest();
        self.down |= in_order && !self.rows.is_empty();
        self.recovering = false;
        self.last_id = self.rows.last_key_value().map_or(0, |(id, _)| *id);
    }

    fn forget_the_rest(&mut self) {
        self.ephemeral.clear();
        self.to_device.clear();
        self.changed.clear();
    }

    /// Whether everything that was queued has been acknowledged.
    pub fn is_idle(&self) -> bool {
        self.is_empty() && self.rows.is_empty()
    }
}
