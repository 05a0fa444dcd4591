//! The results of a message to the bot: its answer, and its effects.

use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};

use super::NoticeText;
use crate::{
    clock::Timestamp,
    ids::{Ghost, Person},
};

/// The result of a message to the bot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The answer; `None` if the sender floods the bot.
    pub text: Option<NoticeText>,
    /// The effects outside the directory, in this order.
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

/// Something that a command does outside the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Make the ghost of a handle, with its keys. Whether these are keys of ours is said by the
    /// handle's record at that time.
    MakeGhost {
        /// The ghost.
        ghost: Ghost,
        /// Its display name.
        name: String,
        /// The generation of the owner for whom it is made, counted from 1; 0 if unknown. Nothing is
        /// done once the handle has another owner.
        #[serde(default)]
        generation: u32,
    },
    /// Give the ghost another device and identity: the handle became strict, stopped being strict,
    /// or has a new owner.
    ReplaceIdentity {
        /// The ghost.
        ghost: Ghost,
        /// Its display name.
        name: String,
        /// The generation of the owner for whom it is made anew, as for
        /// [`MakeGhost`](Self::MakeGhost).
        #[serde(default)]
        generation: u32,
    },
    /// The handle was released: its ghost leaves every room, and its device and keys are removed.
    RetireGhost {
        /// The ghost.
        ghost: Ghost,
        /// The generation of the owner who released the handle, counted from 1; 0 if unknown.
        #[serde(default)]
        generation: u32,
        /// When it was released; 0 if unknown. What its owner has begun after they have claimed it
        /// again is not touched.
        #[serde(default)]
        released_at: Timestamp,
    },
    /// End the conversations of a masked handle's ghost.
    EndConversations {
        /// The ghost.
        ghost: Ghost,
        /// Whether to end only those with people whom the owner has blocked.
        blocked_only: bool,
        /// The generation of the handle's owner, counted from 1; 0 if unknown. Those of the next
        /// owner are not touched.
        #[serde(default)]
        generation: u32,
    },
    /// Change a person's name in their conversation of two with a masked handle's ghost.
    SetName {
        /// The person.
        person: Person,
        /// The ghost.
        ghost: Ghost,
        /// Their new name.
        name: String,
    },
    /// Tell the room in which an asker waits that the owner has answered.
    AnswerRequest {
        /// The room.
        room: OwnedRoomId,
        /// The ghost that waits there.
        ghost: Ghost,
        /// Whether the owner accepts.
        accepted: bool,
        /// Whether the handle is masked, so that the asker does not see the owner's Matrix ID.
        masked: bool,
    },
    /// Erase the person who asks for it: what is kept about them, and what they take part in.
    ErasePerson {
        /// The person.
        person: Person,
    },
    /// Send the person all that is kept about them, in their control room.
    SendExport {
        /// The person.
        person: Person,
    },
    /// Tell another person something in their own control room.
    Tell {
        /// The other person.
        person: Person,
        /// The notice.
        notice: NoticeText,
    },
}

impl Effect {
    /// Returns the ghost that this makes, makes anew or removes.
    pub fn changed_ghost(&self) -> Option<&Ghost> {
        match self {
            Self::MakeGhost { ghost, .. }
            | Self::ReplaceIdentity { ghost, .. }
            | Self::RetireGhost { ghost, .. } => Some(ghost),
            _ => None,
        }
    }

    /// Returns the generation of the owner for whom this makes, makes anew or removes a ghost; 0 if
    /// unknown.
    pub fn generation(&self) -> u32 {
        match self {
            Self::MakeGhost { generation, .. }
            | Self::ReplaceIdentity { generation, .. }
            | Self::RetireGhost { generation, .. } => *generation,
            _ => 0,
        }
    }

    /// Returns the name of this kind of effect, for the log.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AnswerRequest { .. } => "answer-request",
            Self::EndConversations { .. } => "end-conversations",
            Self::ErasePerson { .. } => "erase-person",
            Self::MakeGhost { .. } => "make-ghost",
            Self::ReplaceIdentity { .. } => "replace-identity",
            Self::RetireGhost { .. } => "retire-ghost",
            Self::SendExport { .. } => "send-export",
            Self::Tell { .. } => "tell",
            Self::SetName { .. } => "set-name",
        }
    }
}
