//! What a message to the bot leads to: what it says, and what has to happen.

use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};

use super::NoticeText;
use crate::ids::{Ghost, Person};

/// What a message to the bot leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What the bot says; `None` if the sender floods it.
    pub text: Option<NoticeText>,
    /// What has to happen outside the directory, in this order.
    pub effects: Vec<Effect>,
}

impl From<NoticeText> for Answer {
    fn from(text: NoticeText) -> Answer {
        Answer {
            text: Some(text),
            effects: Vec::new(),
        }
    }
}

/// What a command makes happen outside the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Make the ghost of a handle, with its keys.
    MakeGhost {
        /// The ghost.
        ghost: Ghost,
        /// Its display name.
        name: String,
        /// Whether it is made without keys of ours.
        strict: bool,
    },
    /// Give the ghost another device and identity: the handle became strict, stopped being strict,
    /// or has a new owner.
    ReplaceIdentity {
        /// The ghost.
        ghost: Ghost,
        /// Its display name.
        name: String,
        /// Whether it is made without keys of ours.
        strict: bool,
    },
    /// The handle was released: its ghost leaves every room, and its identity is put away.
    RetireGhost {
        /// The ghost.
        ghost: Ghost,
        /// The generation of the owner who released the handle, counted from 1; 0 if unknown.
        #[serde(default)]
        generation: u32,
    },
    /// End the conversations of a masked handle's ghost.
    EndConversations {
        /// The ghost.
        ghost: Ghost,
        /// Only with people whom the owner has blocked.
        blocked_only: bool,
    },
    /// Change a person's name in their conversation with a masked handle's ghost.
    SetName {
        /// The person.
        person: Person,
        /// The ghost.
        ghost: Ghost,
        /// Their new name.
        name: String,
    },
    /// An owner answered a request: the room in which the asker waits goes on.
    AnswerRequest {
        /// The room.
        room: OwnedRoomId,
        /// The ghost that waits there.
        ghost: Ghost,
        /// Whether the owner accepts.
        accepted: bool,
    },
    /// Tell another person something in their own control room.
    Tell {
        /// The other person.
        person: Person,
        /// What they are told.
        notice: NoticeText,
    },
}

impl Effect {
    /// The name of this kind of effect in the log.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AnswerRequest { .. } => "answer-request",
            Self::EndConversations { .. } => "end-conversations",
            Self::MakeGhost { .. } => "make-ghost",
            Self::ReplaceIdentity { .. } => "replace-identity",
            Self::RetireGhost { .. } => "retire-ghost",
            Self::Tell { .. } => "tell",
            Self::SetName { .. } => "set-name",
        }
    }
}
