//! What a conversation knows, what can happen to it, and what it asks for.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use super::Notice;
use crate::clock::Timestamp;

/// A conversation with somebody whose handle is masked: several rooms that show the same.
///
/// The people who need no mask are in the **origin**, the room that one of them made; each masked
/// person has a **portal**, in which everybody else is a ghost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// 16 random bytes in hexadecimal digits; marks the portals.
    pub id: String,
    /// The room that one of the people made; none while nobody is there.
    pub origin: Option<OwnedRoomId>,
    /// Two people, one in the origin and one in a portal.
    pub direct: bool,
    /// From which pseudonyms are derived.
    pub secret: Secret,
    /// Everybody who was ever in it. A place in this list never changes its person.
    pub people: Vec<Participant>,
    /// When it began.
    pub begun_at: Timestamp,
    /// When the asker was last led back to the room they have.
    pub led_back_at: Option<Timestamp>,
    /// In which rooms it was said that calls of one room cannot cross.
    #[serde(default)]
    pub told_of_room_calls: Vec<Place>,
    /// It is over: its rooms are being left.
    pub ended: bool,
}

/// 32 random bytes that are not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::ZeroizeOnDrop)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(_)")
    }
}

/// Somebody in a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Their Matrix ID: known to the service, and shown in no room but their own.
    pub user: OwnedUserId,
    /// The ghost by which the rooms of the others show them.
    pub ghost: OwnedUserId,
    /// How they are called there.
    pub name: String,
    /// The ghost was made for this conversation only, and goes with it.
    pub own_ghost: bool,
    /// Where they are themselves.
    pub seat: Seat,
    /// What they were called in their own room whenever another one was named after it: who has
    /// left has no name there any more, and what the room is called has it still.
    #[serde(default)]
    pub known_as: Vec<String>,
}

/// Where somebody is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seat {
    /// In the origin.
    Origin {
        /// Whether they are still there.
        here: bool,
    },
    /// In a portal of their own.
    Portal {
        /// The room, once there is one.
        room: Option<OwnedRoomId>,
        /// Where they stand with it.
        standing: Standing,
    },
}

/// Where the owner of a portal stands with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Nothing was said yet that they would have to be invited for.
    Unasked,
    /// The portal is being made, or its owner invited again.
    Awaited,
    /// They are invited.
    Invited,
    /// They have joined.
    Joined,
    /// They left it after they had joined; the next message invites them again.
    Left,
    /// It is closed for them.
    Gone,
}

/// One of the rooms of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Place {
    /// The room that one of the people made.
    Origin,
    /// The portal of this participant.
    Portal(usize),
}

impl Seat {
    /// Whether it is a portal that is closed for its owner.
    pub fn is_closed(&self) -> bool {
        matches!(
            self,
            Self::Portal {
                standing: Standing::Gone,
                ..
            }
        )
    }
}

impl Participant {
    /// The room in which they are themselves.
    pub fn place(&self, index: usize) -> Place {
        match self.seat {
            Seat::Origin { .. } => Place::Origin,
            Seat::Portal { .. } => Place::Portal(index),
        }
    }

    /// Whether they take part now, so that the others are to see their ghost.
    pub fn takes_part(&self) -> bool {
        match self.seat {
            Seat::Origin { here } => here,
            Seat::Portal { standing, .. } => standing != Standing::Gone,
        }
    }
}

impl Conversation {
    /// The room of a place, if there is one.
    pub fn room(&self, place: Place) -> Option<&OwnedRoomId> {
        match place {
            Place::Origin => self.origin.as_ref(),
            Place::Portal(index) => match &self.people.get(index)?.seat {
                Seat::Portal { room, .. } => room.as_ref(),
                Seat::Origin { .. } => None,
            },
        }
    }

    /// Which of its rooms this is.
    pub fn place_of(&self, room: &ruma::RoomId) -> Option<Place> {
        let portals = (0..self.people.len()).map(Place::Portal);
        std::iter::once(Place::Origin)
            .chain(portals)
            .find(|place| self.room(*place).is_some_and(|known| known == room))
    }

    /// Whether a ghost stands for somebody who takes part.
    pub fn needs(&self, ghost: &UserId) -> bool {
        let mut people = self.people.iter();
        people.any(|person| person.ghost == *ghost && person.takes_part())
    }

    /// Where somebody is themselves.
    pub fn home(&self, person: usize) -> Place {
        let participant = self.people.get(person);
        participant.map_or(Place::Portal(person), |it| it.place(person))
    }

    /// The person whose own room this is and who is known there by this Matrix ID.
    pub fn person_at(&self, place: Place, user: &UserId) -> Option<usize> {
        let mut people = self.people.iter().enumerate();
        people
            .find(|(index, person)| person.user == user && person.place(*index) == place)
            .map(|(index, _)| index)
    }

    /// Those whom the room of this place shows as ghosts, and who take part now.
    pub fn ghosts_at(&self, place: Place) -> impl Iterator<Item = &Participant> {
        let people = self.people.iter().enumerate();
        people
            .filter(move |(index, person)| person.place(*index) != place && person.takes_part())
            .map(|(_, person)| person)
    }

    /// How somebody is known in the room of this place.
    pub fn shown_as(&self, index: usize, place: Place) -> Option<&OwnedUserId> {
        let person = self.people.get(index)?;
        Some(if person.place(index) == place {
            &person.user
        } else {
            &person.ghost
        })
    }

    /// The rooms into which something is carried that was said in this one.
    pub fn others(&self, from: Place) -> Vec<Place> {
        let mut places = Vec::new();
        let origin = |person: &Participant| matches!(person.seat, Seat::Origin { here: true });
        if from != Place::Origin && self.origin.is_some() && self.people.iter().any(origin) {
            places.push(Place::Origin);
        }
        for (index, person) in self.people.iter().enumerate() {
            let place = Place::Portal(index);
            if matches!(person.seat, Seat::Portal { .. }) && place != from && person.takes_part() {
                places.push(place);
            }
        }
        places
    }

    /// The ghosts of this conversation that exist for nothing else.
    pub fn own_ghosts(&self) -> impl Iterator<Item = &OwnedUserId> {
        let own = self.people.iter().filter(|person| person.own_ghost);
        own.map(|person| &person.ghost)
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
        place: Place,
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
        place: Place,
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
        place: Place,
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
        place: Place,
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
        place: Place,
    },
    /// A masked handle was released or has changed its mode, or its owner has blocked a participant.
    /// Other masked people go on without them.
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
        target: Place,
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
        target: Place,
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

/// The new state, and what to do where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The state from now on; none when nothing of it is left.
    pub state: Option<Conversation>,
    /// What to do, each in the room of a place, in order.
    pub effects: Vec<(OwnedRoomId, Effect)>,
}
