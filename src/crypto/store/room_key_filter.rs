//! The filter of room keys. A key that it refuses is never written to disk.

use std::sync::Arc;

use matrix_sdk_crypto::store::types::Changes;
use ruma::RoomId;

/// A predicate that tells whether the keys of a room are kept.
#[derive(Clone)]
pub(in crate::crypto) struct RoomKeyFilter(
    pub(in crate::crypto) Arc<dyn Fn(&RoomId) -> bool + Send + Sync>,
);

impl std::fmt::Debug for RoomKeyFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoomKeyFilter")
    }
}

/// Removes the room keys that are not kept from the changes.
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
