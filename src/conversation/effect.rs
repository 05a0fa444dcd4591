//! The effects of a conversation.

use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use super::{Notice, RoomRole};
use crate::ids::{Ghost, Person};

/// Something that the actor of one room has to do. Effects are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Create or find a portal, join the ghosts of the others to it, and invite its owner.
    EnsurePortal {
        /// The owner.
        person: usize,
    },
    /// Forward an event of this room into another one.
    ForwardEvent {
        /// The event.
        event: OwnedEventId,
        /// The person who sent it.
        sender: usize,
        /// The room that it goes to.
        target: RoomRole,
        /// Whether this is the last room that the event is forwarded to.
        is_last: bool,
    },
    /// Redact, in another room, the copy of an event that was redacted in this one.
    RedactCopy {
        /// The redaction.
        event: OwnedEventId,
        /// The redacted event.
        of: OwnedEventId,
        /// The person who redacted it.
        sender: usize,
        /// The room of the copy.
        target: RoomRole,
    },
    /// Redact, in another room, the copies of all events of this room that a person has sent.
    RedactCopiesOf {
        /// The person.
        person: usize,
        /// The room of the copies.
        target: RoomRole,
    },
    /// Send a notice of the service to this room, encrypted.
    SendNotice {
        /// The notice.
        notice: Notice,
        /// The cause of the notice: no notice is sent twice for one cause.
        cause: String,
    },
    /// Decline a request to verify the keys of a ghost.
    DeclineVerification {
        /// The request.
        event: OwnedEventId,
        /// The ghost.
        ghost: Ghost,
    },
    /// Give the ghost of a person the name that they have now.
    SetGhostName {
        /// The person.
        person: usize,
    },
    /// Move to the successor of the origin, if that is possible.
    FollowUpgrade {
        /// The new room.
        to: OwnedRoomId,
        /// The person who upgraded the origin.
        by: Person,
    },
    /// Give a portal the name and topic of the origin.
    SyncPortalInfo {
        /// The owner.
        person: usize,
        /// The event that changed them, if a person did.
        cause: Option<OwnedEventId>,
    },
    /// Give the origin the name that the owner of this portal has given it.
    RenameOrigin {
        /// The event that changed it.
        event: OwnedEventId,
    },
    /// Let the ghost of a person who no longer takes part leave this room and destroy its keys from
    /// there.
    RemoveGhost {
        /// The person.
        person: usize,
    },
    /// Let all ghosts of this conversation leave this room and destroy its keys.
    LeaveRoom,
    /// Delete the ghosts that were made for this conversation.
    DeleteGhosts {
        /// The ghosts.
        ghosts: Vec<Ghost>,
    },
}

impl Effect {
    /// Returns whether its only effect is that another room shows an event.
    pub fn is_forward(&self) -> bool {
        matches!(self, Self::ForwardEvent { .. })
    }

    /// Returns a name without any content, for logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::EnsurePortal { .. } => "furnish",
            Self::ForwardEvent { .. } => "carry",
            Self::RedactCopy { .. } => "carry-take-back",
            Self::RedactCopiesOf { .. } => "carry-take-back-all",
            Self::SendNotice { .. } => "relay-say",
            Self::DeclineVerification { .. } => "decline-verification",
            Self::SetGhostName { .. } => "call",
            Self::FollowUpgrade { .. } => "follow",
            Self::SyncPortalInfo { .. } => "dress",
            Self::RenameOrigin { .. } => "rename",
            Self::RemoveGhost { .. } => "leave",
            Self::LeaveRoom => "depart",
            Self::DeleteGhosts { .. } => "retire",
        }
    }
}
