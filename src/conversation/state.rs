//! The state of a conversation, its inputs and its effects.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use super::Notice;
use crate::clock::Timestamp;

/// A conversation with a masked person: several rooms that show the same messages.
///
/// The people without a mask are in the **origin**, a room that one of them created. Each masked
/// person has a **portal**, in which everybody else is a ghost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// 16 random bytes in hexadecimal digits. Marks the portals.
    pub id: String,
    /// The room that one of the people created; `None` while nobody is there.
    pub origin: Option<OwnedRoomId>,
    /// Whether it has two people, one in the origin and one in a portal.
    pub direct: bool,
    /// The secret that pseudonyms are derived from.
    pub secret: Secret,
    /// All present and former participants. An index into this list never changes its person.
    pub people: Vec<Participant>,
    /// The time when it began.
    pub started_at: Timestamp,
    /// The time when the asker was last sent back to the room that they already have.
    pub last_return_at: Option<Timestamp>,
    /// The rooms that have been told that MatrixRTC calls cannot cross rooms.
    #[serde(default)]
    pub rtc_notice_sent_in: Vec<RoomRole>,
    /// Whether it is over, and its rooms are being left.
    pub ended: bool,
}

/// 32 random bytes that are never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::ZeroizeOnDrop)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(_)")
    }
}

/// A present or former participant of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Their Matrix ID: known to the service, and shown in no room but their own.
    pub user: OwnedUserId,
    /// The ghost that shows them in the rooms of the others.
    pub ghost: OwnedUserId,
    /// The name of that ghost.
    pub name: String,
    /// Whether the ghost was made for this conversation only and is deleted with it.
    pub is_alias: bool,
    /// Where they are themselves.
    pub home: Home,
    /// The names that they had in their own room whenever another room was named after it. A person
    /// who has left has no name there, but the room may still be called by one.
    #[serde(default)]
    pub former_names: Vec<String>,
}

/// Where a participant is themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Home {
    /// In the origin.
    Origin {
        /// Whether they are there now.
        is_present: bool,
    },
    /// In a portal of their own.
    Portal {
        /// The room, once it exists.
        room: Option<OwnedRoomId>,
        /// The owner's relation to it.
        status: PortalStatus,
    },
}

/// The relation of an owner to their portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortalStatus {
    /// Nothing has happened yet that they would be invited for.
    NotInvited,
    /// The portal is being created, or its owner is being invited again.
    InvitePending,
    /// They are invited.
    Invited,
    /// They have joined.
    Joined,
    /// They have left after joining. The next message invites them again.
    Left,
    /// They are out of the conversation.
    Closed,
}

/// Which room of a conversation a room is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RoomRole {
    /// The room that one of the people created.
    Origin,
    /// The portal of this participant.
    Portal(usize),
}

impl Home {
    /// Whether it is a portal that is closed for its owner.
    pub fn is_closed(&self) -> bool {
        matches!(
            self,
            Self::Portal {
                status: PortalStatus::Closed,
                ..
            }
        )
    }
}

impl Participant {
    /// Returns the room in which they are themselves.
    pub fn room_role(&self, index: usize) -> RoomRole {
        match self.home {
            Home::Origin { .. } => RoomRole::Origin,
            Home::Portal { .. } => RoomRole::Portal(index),
        }
    }

    /// Whether they are in the origin now.
    pub fn is_in_origin(&self) -> bool {
        matches!(self.home, Home::Origin { is_present: true })
    }

    /// Whether they are masked and take part now.
    pub fn is_masked(&self) -> bool {
        matches!(self.home, Home::Portal { .. }) && self.takes_part()
    }

    /// Whether they take part now, so that the others have to see their ghost.
    pub fn takes_part(&self) -> bool {
        match self.home {
            Home::Origin { is_present } => is_present,
            Home::Portal { status, .. } => status != PortalStatus::Closed,
        }
    }
}

impl Conversation {
    /// Returns the portal of a participant who has one, and its status.
    pub(super) fn portal_mut(
        &mut self,
        person: usize,
    ) -> Option<(&mut Option<OwnedRoomId>, &mut PortalStatus)> {
        match &mut self.people.get_mut(person)?.home {
            Home::Portal { room, status } => Some((room, status)),
            Home::Origin { .. } => None,
        }
    }

    /// Returns the room with this role, if it exists.
    pub fn room(&self, role: RoomRole) -> Option<&OwnedRoomId> {
        match role {
            RoomRole::Origin => self.origin.as_ref(),
            RoomRole::Portal(index) => match &self.people.get(index)?.home {
                Home::Portal { room, .. } => room.as_ref(),
                Home::Origin { .. } => None,
            },
        }
    }

    /// Returns the role of a room.
    pub fn role_of(&self, room: &ruma::RoomId) -> Option<RoomRole> {
        let portals = (0..self.people.len()).map(RoomRole::Portal);
        std::iter::once(RoomRole::Origin)
            .chain(portals)
            .find(|role| self.room(*role).is_some_and(|known| known == room))
    }

    /// Whether a ghost stands for a person who takes part.
    pub fn needs(&self, ghost: &UserId) -> bool {
        self.people
            .iter()
            .any(|person| person.ghost == *ghost && person.takes_part())
    }

    /// Returns the room in which a participant is themselves.
    pub fn home_of(&self, person: usize) -> RoomRole {
        self.people
            .get(person)
            .map_or(RoomRole::Portal(person), |it| it.room_role(person))
    }

    /// Returns the participant who is themselves in this room, under this Matrix ID.
    pub fn person_at(&self, role: RoomRole, user: &UserId) -> Option<usize> {
        self.people
            .iter()
            .enumerate()
            .find(|(index, person)| person.user == user && person.room_role(*index) == role)
            .map(|(index, _)| index)
    }

    /// Returns the participants whom this room shows as ghosts and who take part now.
    pub fn ghosts_at(&self, role: RoomRole) -> impl Iterator<Item = &Participant> {
        self.people
            .iter()
            .enumerate()
            .filter(move |(index, person)| person.room_role(*index) != role && person.takes_part())
            .map(|(_, person)| person)
    }

    /// Returns the user that shows a participant in this room.
    pub fn shown_as(&self, index: usize, role: RoomRole) -> Option<&OwnedUserId> {
        let person = self.people.get(index)?;
        Some(if person.room_role(index) == role {
            &person.user
        } else {
            &person.ghost
        })
    }

    /// Returns the rooms that an event of this room is forwarded to.
    pub fn targets_of(&self, source: RoomRole) -> Vec<RoomRole> {
        let mut targets = Vec::new();
        let is_inhabited = self.people.iter().any(Participant::is_in_origin);
        if source != RoomRole::Origin && self.origin.is_some() && is_inhabited {
            targets.push(RoomRole::Origin);
        }
        for (index, person) in self.people.iter().enumerate() {
            let role = RoomRole::Portal(index);
            if person.is_masked() && role != source {
                targets.push(role);
            }
        }
        targets
    }

    /// Returns the ghosts that were made for this conversation only.
    pub fn alias_ghosts(&self) -> impl Iterator<Item = &OwnedUserId> {
        self.people
            .iter()
            .filter(|person| person.is_alias)
            .map(|person| &person.ghost)
    }
}

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
        /// The user who invited the ghost.
        by: OwnedUserId,
        /// The messages that this user sent there before, in order.
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
        /// If the user is new: the ghost that shows them to the others, its name, and whether it is
        /// made for this conversation only.
        ghost: Option<(OwnedUserId, String, bool)>,
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
    /// An event was not forwarded, or not completely.
    NotForwarded {
        /// The room where it was sent.
        role: RoomRole,
        /// The event.
        event: OwnedEventId,
        /// What its sender is told.
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
        /// The user who upgraded it.
        by: OwnedUserId,
    },
    /// The conversation goes on in the room that has replaced its origin.
    UpgradeFollowed {
        /// The new origin.
        room: OwnedRoomId,
    },
    /// The conversation cannot go on in the room that has replaced its origin.
    UpgradeFailed {
        /// The new room.
        to: OwnedRoomId,
        /// The user who upgraded the origin.
        by: OwnedUserId,
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
    /// All our users have left one of the rooms.
    RoomLeft {
        /// The room.
        role: RoomRole,
    },
    /// A masked handle was released or has changed its mode, or its owner has blocked a
    /// participant. Other masked people go on without them.
    HandleClosed {
        /// The handle's ghost.
        ghost: OwnedUserId,
    },
    /// The conversation is over.
    End,
}

/// The kind of an event, as far as it shows without decryption.
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
    /// An event of a MatrixRTC call, which cannot cross rooms.
    MatrixRtc,
    /// A new name or topic of the room.
    RoomInfo,
}

/// Something that the actor of one room has to do. Effects are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Create a portal or find it, bring the ghosts of the others into it and invite its owner.
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
    /// Send a notice of the service to this room, encrypted.
    SendNotice {
        /// The notice.
        notice: Notice,
        /// The cause of the notice: no notice is sent twice for one cause.
        cause: String,
    },
    /// Give the ghost of a person the name that they have now.
    SetGhostName {
        /// The person.
        person: usize,
    },
    /// Go on in the room that has replaced the origin, if that is possible.
    FollowUpgrade {
        /// The new room.
        to: OwnedRoomId,
        /// The user who upgraded the origin.
        by: OwnedUserId,
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
        /// Whether another user sent the ghost away: then it is no longer there, unless it was
        /// invited again.
        sent_away: bool,
    },
    /// Let all ghosts of this conversation leave this room and destroy its keys.
    LeaveRoom,
    /// Delete the ghosts that were made for this conversation.
    DeleteGhosts {
        /// The ghosts.
        ghosts: Vec<OwnedUserId>,
    },
}

impl Effect {
    /// Whether its only effect is that an event shows in another room.
    pub fn is_forward(&self) -> bool {
        matches!(self, Self::ForwardEvent { .. })
    }

    /// Returns a name without any content, for logs and transaction ids.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::EnsurePortal { .. } => "furnish",
            Self::ForwardEvent { .. } => "carry",
            Self::RedactCopy { .. } => "carry-take-back",
            Self::SendNotice { .. } => "relay-say",
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

/// The outcome of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The new state; `None` when nothing of the conversation is left.
    pub state: Option<Conversation>,
    /// The effects with the room that each belongs to, in order.
    pub effects: Vec<(OwnedRoomId, Effect)>,
}
