//! The filter of room keys. A key that it refuses is never written to disk.

use std::sync::Arc;

use matrix_sdk_crypto::{olm::InboundGroupSession, store::types::Changes};
use ruma::RoomId;

use crate::clock::Clock;

/// What is done with the keys of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::crypto) enum RoomKeyFate {
    Keep,
    /// Put them aside for a few minutes: the ghost may be invited there in a moment.
    Park,
    Refuse,
}

/// Decides about the keys of each room.
#[derive(Clone)]
pub(in crate::crypto) struct RoomKeyFilter {
    pub(in crate::crypto) judge: Arc<dyn Fn(&RoomId) -> RoomKeyFate + Send + Sync>,
    pub(in crate::crypto) clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for RoomKeyFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoomKeyFilter")
    }
}

/// Removes the room keys that are not kept from the changes. Returns those to be parked.
pub(super) fn filter_room_keys(
    filter: &RoomKeyFilter,
    changes: &mut Changes,
) -> Vec<InboundGroupSession> {
    let mut parked = Vec::new();
    changes.inbound_group_sessions.retain(|session| {
        if session.has_been_imported() {
            return false;
        }
        let fate = (filter.judge)(session.room_id());
        if fate == RoomKeyFate::Park {
            parked.push(session.clone());
        }
        fate == RoomKeyFate::Keep
    });
    changes.withheld_session_info.clear();
    changes.received_room_key_bundles.clear();
    changes.rooms_pending_key_bundle.clear();
    parked
}
