//! Which room keys are kept at all. What is turned away here never touches the disk.

use std::sync::Arc;

use matrix_sdk_crypto::store::types::Changes;
use ruma::RoomId;

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
