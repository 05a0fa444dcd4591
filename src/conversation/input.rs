//! The inputs of a conversation.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};

use super::{Participant, RoomRole};
use crate::{
    clock::Timestamp,
    ids::{Ghost, Person},
};

/// Something that happened in or to a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The handle's ghost is in the origin, and the conversation begins.
    Started {
        /// The messages that were sent there before, in order.
        earlier: Vec<OwnedEventId>,
    },
    /// Another masked person takes part: their handle's ghost has joined the origin.
    Added {
        /// The masked person.
        person: Box<Participant>,
        /// The person who invited the ghost.
        by: Person,
        /// When they did. A masked person may be invited again after they were gone.
        invited_at: Timestamp,
        /// The messages that this person sent there before, in order.
        earlier: Vec<OwnedEventId>,
    },
    /// A person who started a new chat was sent back to the room that they already have.
    ReturnedToRoom {
        /// The time.
        at: Timestamp,
        /// The person. Invited again if they have left their portal.
        person: usize,
    },
    /// An event was sent.
    Event {
        /// The room.
        role: RoomRole,
        /// The sender.
        sender: OwnedUserId,
        /// The event.
        event: OwnedEventId,
        /// The kind of event.
        kind: EventKind,
    },
    /// A user's membership of one of the rooms changed.
    Member {
        /// The room.
        role: RoomRole,
        /// The user.
        user: OwnedUserId,
        /// `join`, `invite`, `leave` or `ban`.
        membership: String,
        /// Whether another user changed it.
        by_others: bool,
        /// Whether a moderator who removed them has also deleted what they have said.
        redacts: bool,
        /// If the user is new: the ghost that shows them to the others, its name, and whether it is
        /// made for this conversation only.
        ghost: Option<(Ghost, String, bool)>,
    },
    /// The owner of a portal is about to be invited, perhaps again.
    InvitingOwner {
        /// The owner.
        person: usize,
    },
    /// A portal is complete: its owner is invited, and the ghosts of the others are in it.
    PortalReady {
        /// The owner.
        person: usize,
    },
    /// The room of a portal was created.
    PortalCreated {
        /// The owner.
        person: usize,
        /// The room.
        room: OwnedRoomId,
    },
    /// The asker came back with another room.
    OriginReplaced {
        /// The new origin.
        room: OwnedRoomId,
        /// The messages that were sent there before, in order.
        earlier: Vec<OwnedEventId>,
    },
    /// A moderator redacted, in the origin, what a masked person has said, before it was in another
    /// room.
    RedactedOnItsWay {
        /// The room that the event comes from.
        role: RoomRole,
        /// The person who sent it.
        person: usize,
        /// The redaction.
        event: OwnedEventId,
        /// The redacted event, in the room that it comes from.
        of: OwnedEventId,
        /// The room in which there is no copy yet.
        target: RoomRole,
    },
    /// An event was not forwarded, or not completely.
    NotForwarded {
        /// The room where it was sent.
        role: RoomRole,
        /// The event.
        event: OwnedEventId,
        /// The notice to the sender.
        text: String,
    },
    /// What was deleted in a room could not be deleted in another one.
    NotDeleted {
        /// The room where it was deleted.
        role: RoomRole,
        /// The cause of the notice: no notice is sent twice for one cause.
        cause: String,
        /// The notice to those who deleted it.
        text: String,
    },
    /// A person has chosen another name for this conversation.
    Renamed {
        /// The person.
        person: usize,
        /// The name.
        name: String,
    },
    /// A person has this display name in their own room.
    NameSeen {
        /// The person.
        person: usize,
        /// The name.
        name: String,
    },
    /// A room was replaced by another one (`m.room.tombstone`).
    RoomUpgraded {
        /// The room.
        role: RoomRole,
        /// The room that replaces it.
        to: OwnedRoomId,
        /// The person who upgraded it.
        by: Person,
    },
    /// The conversation has moved to the successor of its origin.
    UpgradeFollowed {
        /// The new origin, which is the successor.
        room: OwnedRoomId,
    },
    /// The conversation cannot move to the successor of its origin.
    UpgradeFailed {
        /// The new room.
        to: OwnedRoomId,
        /// The person who upgraded the origin.
        by: Person,
    },
    /// A portal has none of our users left, or was replaced by a room that is not ours.
    PortalLost {
        /// The owner.
        person: usize,
    },
    /// The origin has the name that the owner of a portal has given to the conversation.
    OriginRenamed {
        /// The owner.
        person: usize,
    },
    /// A portal cannot be created, or its owner cannot be invited.
    PortalFailed {
        /// The owner.
        person: usize,
    },
    /// The owner of a portal in a group cannot read what was forwarded to them: nothing could be
    /// encrypted for them.
    CannotRead {
        /// The room from which it was forwarded.
        role: RoomRole,
        /// The owner.
        person: usize,
        /// The day, counted from 1970: the people in that room are told once a day.
        day: u64,
    },
    /// All our users have left one of the rooms.
    RoomLeft {
        /// The room. The conversation may have moved on from it.
        room: OwnedRoomId,
    },
    /// A masked handle was released or has changed its mode, or its owner has blocked a
    /// participant. Other masked people go on without them.
    HandleClosed {
        /// The handle's ghost.
        ghost: Ghost,
    },
    /// The conversation is over.
    End,
}

/// The kind of an event, as far as its unencrypted part shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// An encrypted event or a reaction.
    Forwardable,
    /// The redaction of an earlier event.
    Redaction {
        /// The redacted event.
        of: OwnedEventId,
    },
    /// A message that is not encrypted.
    Unencrypted,
    /// A request to verify the keys of a user.
    Verification {
        /// The user.
        of: Option<OwnedUserId>,
    },
    /// An event of a MatrixRTC call, which cannot cross rooms.
    MatrixRtc,
    /// A new name or topic of the room.
    RoomInfo,
    /// Pinned messages or a widget, which stay in their room.
    RoomOnly,
}
