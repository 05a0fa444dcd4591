//! Builders for conversations and the people in them.

use ruma::RoomId;

use crate::{
    clock::Timestamp,
    conversation::{Conversation, Home, Participant, PortalStatus, Secret},
    ids::{ConversationId, Ghost, Person},
};

/// Builds a participant.
pub(crate) struct ParticipantBuilder(Participant);

impl ParticipantBuilder {
    /// A person who is in the origin now, and the ghost that shows them.
    pub(crate) fn new(user: &str, ghost: &str) -> Self {
        Self(Participant {
            user: Person::new(user.try_into().unwrap()),
            ghost: Ghost::new(ghost.try_into().unwrap()),
            name: "Someone".to_owned(),
            is_alias: false,
            home: Home::Origin { is_present: true },
            former_names: Vec::new(),
        })
    }

    /// Sets the name of the ghost.
    pub(crate) fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.0.name);
        self
    }

    /// Makes the ghost one that was made for this conversation only.
    pub(crate) fn alias(mut self) -> Self {
        self.0.is_alias = true;
        self
    }

    /// Sets where they are themselves.
    pub(crate) fn home(mut self, home: Home) -> Self {
        self.0.home = home;
        self
    }

    /// Gives them a portal.
    pub(crate) fn portal(self, room: Option<&RoomId>, status: PortalStatus) -> Self {
        self.home(Home::Portal {
            room: room.map(ToOwned::to_owned),
            status,
        })
    }

    pub(crate) fn build(self) -> Participant {
        self.0
    }
}

/// Builds a conversation.
pub(crate) struct ConversationBuilder(Conversation);

impl ConversationBuilder {
    /// A group without an origin and without people.
    pub(crate) fn new(id: &str) -> Self {
        Self(Conversation {
            id: ConversationId::new(id),
            origin: None,
            direct: false,
            secret: Secret([7; 32]),
            people: Vec::new(),
            started_at: Timestamp(0),
            last_return_at: None,
            notices_sent_in: Vec::new(),
            removals: 0,
            ended: false,
        })
    }

    /// Sets the origin.
    pub(crate) fn origin(mut self, room: &RoomId) -> Self {
        self.0.origin = Some(room.to_owned());
        self
    }

    /// Makes it a conversation of two.
    pub(crate) fn direct(mut self) -> Self {
        self.0.direct = true;
        self
    }

    /// Adds a participant.
    pub(crate) fn person(mut self, person: ParticipantBuilder) -> Self {
        self.0.people.push(person.build());
        self
    }

    pub(crate) fn build(self) -> Conversation {
        self.0
    }
}
