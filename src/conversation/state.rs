//! The state of a conversation.

use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    ids::{ConversationId, Ghost, Person},
};

/// A conversation with a masked person: several rooms that show the same messages.
///
/// The people without a mask are in the **origin**, a room that one of them created. Each masked
/// person has a **portal**, in which everybody else is a ghost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// The id of the conversation, by which its portals are marked.
    pub id: ConversationId,
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
    /// What has been explained in which room.
    #[serde(default)]
    pub notices_sent_in: Vec<(RoomRole, OnceNotice)>,
    /// How often a masked person was taken out. A person can be invited again and taken out again.
    #[serde(default)]
    pub removals: u64,
    /// Whether it is over, and its rooms are being left.
    pub ended: bool,
}

/// A notice that each room gets once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnceNotice {
    /// MatrixRTC calls cannot cross rooms.
    MatrixRtc,
    /// Pinned messages and widgets cannot cross rooms.
    RoomOnly,
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
    pub user: Person,
    /// The ghost that shows them in the rooms of the others.
    pub ghost: Ghost,
    /// The name of that ghost.
    pub name: String,
    /// Whether the ghost was made for this conversation only and is deleted with it.
    pub is_alias: bool,
    /// The room that they are in themselves.
    pub home: Home,
    /// The names that they had in their own room whenever another room was named after it. A person
    /// who has left has no name there, but the room may still be called by one.
    #[serde(default)]
    pub former_names: Vec<String>,
}

/// The room that a participant is in themselves.
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
    /// They are not invited: no event for them has come yet.
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

impl Participant {
    /// Returns the room in which they are themselves.
    pub fn room_role(&self, index: usize) -> RoomRole {
        match self.home {
            Home::Origin { .. } => RoomRole::Origin,
            Home::Portal { .. } => RoomRole::Portal(index),
        }
    }

    /// Returns whether they are in the origin now.
    pub fn is_in_origin(&self) -> bool {
        matches!(self.home, Home::Origin { is_present: true })
    }

    /// Returns whether they are masked and take part now.
    pub fn is_masked(&self) -> bool {
        matches!(self.home, Home::Portal { .. }) && self.takes_part()
    }

    /// Returns whether they take part now, so that the others have to see their ghost.
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

    /// Returns whether a ghost stands for a person who takes part.
    pub fn needs(&self, ghost: &Ghost) -> bool {
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

    /// Returns the participant who is themselves in this room and takes part now. Homeservers push
    /// also what people write who have left the room, which nobody there sees.
    pub fn speaker_at(&self, role: RoomRole, user: &UserId) -> Option<usize> {
        let person = self.person_at(role, user)?;
        self.people.get(person)?.takes_part().then_some(person)
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
    pub fn alias_ghosts(&self) -> impl Iterator<Item = &Ghost> {
        self.people
            .iter()
            .filter(|person| person.is_alias)
            .map(|person| &person.ghost)
    }
}
