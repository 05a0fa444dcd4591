//! Which room keys are kept at all. What is turned away here never touches the disk.

use std::sync::Arc;

use matrix_sdk_crypto::store::types::Changes;
use ruma::RoomId;

use super::GhostStore;

/// Says of a room whether its keys are kept.
#[derive(Clone)]
pub(in crate::crypto) struct RoomKeyFilter(
    pub(in crate::crypto) Arc<dyn Fn(&RoomId) -> bool + Send + Sync>,
);

impl std::fmt::Debug for RoomKeyFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoomKeyFilter")
    }
}

impl GhostStore {
    /// The same for a machine that has nothing to sign any more. The private half of an identity is
    /// needed while a device is made, and never after: what is not in memory cannot be taken from
    /// it, and it was the largest part of a machine.
    pub(in crate::crypto) fn without_identity(mut self) -> Self {
        self.signs = false;
        self
    }

    /// Whether a machine on it gets the private half of its identity.
    pub(in crate::crypto) fn signs(&self) -> bool {
        self.signs
    }

    /// From now on only keys of these rooms are kept, only those that came from the device that
    /// made them, and no bundles of a room's history: what others pass on proves nothing about who
    /// wrote a message.
    pub(in crate::crypto) fn set_room_key_filter(&self, filter: RoomKeyFilter) {
        *self
            .ghost
            .room_key_filter
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(filter);
    }
}

/// Takes out of the changes what is not kept.
pub(super) fn filter_room_keys(filter: &RoomKeyFilter, changes: &mut Changes) {
    changes
        .inbound_group_sessions
        .retain(|session| (filter.0)(session.room_id()) && !session.has_been_imported());
    changes
        .withheld_session_info
        .retain(|room, _| (filter.0)(room));
    changes.received_room_key_bundles.clear();
    changes.rooms_pending_key_bundle.clear();
}
