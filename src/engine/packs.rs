//! What is known of messages for weeks: a record for each while they are young, later one for many.
//! `inbox/arrivals.rs` says why.

use std::collections::BTreeMap;

use ruma::OwnedEventId;
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

use crate::{clock::Timestamp, store::Digest};

/// Something that has arrived. Written without the names of its fields, like all records of which
/// there is one for each message. A to-device message counts as handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub(in crate::engine) struct SeenEvent {
    pub at: Timestamp,
    pub handled: bool,
}

/// What arrived in a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub(in crate::engine) struct SeenPack {
    /// When the first of them arrived.
    pub since: Timestamp,
    /// Each arrival, how many milliseconds after `since` it came, and whether it was handled.
    pub arrivals: Vec<(Digest, u64, bool)>,
}

impl SeenPack {
    /// Returns the pack of these arrivals.
    pub(in crate::engine) fn of(arrivals: &BTreeMap<Digest, SeenEvent>) -> Self {
        let times = arrivals.values().map(|seen| seen.at);
        let since = times.min().unwrap_or_default();
        let after = |at: Timestamp| at.0.saturating_sub(since.0);
        let arrivals = arrivals.iter();
        Self {
            since,
            arrivals: arrivals
                .map(|(digest, seen)| (*digest, after(seen.at), seen.handled))
                .collect(),
        }
    }

    /// Returns the arrivals in it.
    pub(in crate::engine) fn iter(&self) -> impl Iterator<Item = (Digest, SeenEvent)> {
        self.arrivals.iter().map(|(digest, after, handled)| {
            let at = Timestamp(self.since.0.saturating_add(*after));
            let handled = *handled;
            (*digest, SeenEvent { at, handled })
        })
    }

    /// Returns what is known of an arrival.
    pub(in crate::engine) fn find(&self, digest: &Digest) -> Option<SeenEvent> {
        let mut arrivals = self.iter();
        arrivals.find_map(|(it, seen)| (it == *digest).then_some(seen))
    }
}

/// The copy of an event in another room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub(in crate::engine) struct Copy {
    pub event: OwnedEventId,
    /// The room of the copy.
    pub there: Digest,
    pub copy: OwnedEventId,
    /// The index of its author among the people of the conversation.
    pub by: u32,
    /// When it was made.
    pub at: Timestamp,
}

/// Copies of a room's events, in the order in which they were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub(in crate::engine) struct CopyPack {
    /// The number of the newest of these events.
    pub until: u64,
    pub copies: Vec<Copy>,
}
