//! The notices that ghosts send to the rooms of a conversation: fixed sentences, with names that
//! were cleaned before.

use serde::{Deserialize, Serialize};

use crate::{ids::Person, relay::TranslateError};

/// A notice of the service, sent encrypted to the people of one room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// To the origin of a conversation of two, when it begins.
    Masked {
        /// The handle, with `@`.
        handle: String,
        /// The name that the masked person sees the asker by.
        shown_as: String,
    },
    /// To the origin of a group, when a masked person joins it.
    MaskedInGroup {
        /// The handle, with `@`.
        handle: String,
        /// The masked person, whose ghost sends this if it can.
        person: usize,
    },
    /// A message was not encrypted.
    Unencrypted,
    /// Keys cannot be verified across a mask.
    Verification,
    /// A MatrixRTC call cannot cross rooms.
    MatrixRtc,
    /// Pinned messages and widgets stay in their room.
    RoomOnly,
    /// An event was not forwarded, or not completely.
    NotForwarded {
        /// What happened, and what to do next.
        text: String,
    },
    /// A message cannot be encrypted for the person on the other side, and waits.
    Waiting,
    /// Nobody is on the other side.
    NobodyThere,
    /// The conversation has its maximum number of people.
    Full,
    /// A person has left the conversation.
    PersonLeft {
        /// Their name.
        name: String,
    },
    /// To the origin: it was upgraded to a room to which the conversation cannot move.
    UpgradeFailed {
        /// The person who replaced it. The bot tells them if the notice cannot be sent to the room.
        by: Person,
    },
    /// To a portal: the origin was upgraded to a room to which the conversation cannot move.
    OthersUpgraded,
    /// The conversation is over.
    Ended,
}

impl Notice {
    /// Returns the notice as plain text.
    pub fn text(&self) -> String {
        match self {
            Self::Masked { handle, shown_as } => format!(
                "{handle} is masked: you don't see their Matrix ID, and they don't see yours. \
                 They see you as {shown_as}. This service carries what you write to each other and \
                 can read it on the way; it keeps none of it."
            ),
            Self::MaskedInGroup { handle, .. } => format!(
                "{handle} is masked and takes part here through a ghost of this service, which \
                 carries what is written here to them and can read it on the way; it keeps none of \
                 it. They see each of you as \"Someone\", or by the name you have chosen with \
                 `appear`. To choose one, write to the bot."
            ),
            Self::Unencrypted => "That message wasn't encrypted, so it wasn't passed on. Please \
                                  send it again: this chat is encrypted."
                .to_owned(),
            Self::Verification => TranslateError::Verification.notice_text().to_owned(),
            Self::MatrixRtc => TranslateError::MatrixRtc.notice_text().to_owned(),
            Self::RoomOnly => {
                "Pinned messages and widgets stay in this room: the others don't see \
                               them. What they should see, please send as a message."
                    .to_owned()
            }
            Self::NotForwarded { text } => text.clone(),
            Self::Waiting => "Your message is waiting: nobody can read it on the other side at \
                              the moment. I keep trying, and I'll tell you if it can't be \
                              delivered."
                .to_owned(),
            Self::NobodyThere => "Nobody is on the other side at the moment, so that wasn't \
                                  delivered."
                .to_owned(),
            Self::Full => "This chat has reached its limit of 100 people. Newcomers can read what \
                           masked members write, but their own messages aren't passed on. To \
                           avoid that, start a new chat with fewer people."
                .to_owned(),
            Self::PersonLeft { name } => format!(
                "{name} has left the conversation. What you write here doesn't reach them unless \
                 they come back."
            ),
            Self::UpgradeFailed { .. } => "This room was upgraded, but I can't move the \
                                           conversation yet: the new room is unencrypted, I'm \
                                           not in it, someone is in it who isn't here, or a \
                                           server doesn't answer. Fix that and invite me again, \
                                           or start a new chat."
                .to_owned(),
            Self::OthersUpgraded => "The room of the others was upgraded, and I'm not in the new \
                                     one yet. Until they invite me there, what you write may not \
                                     reach them."
                .to_owned(),
            Self::Ended => "This conversation has ended. What you write here is no longer \
                            delivered, and I'm leaving."
                .to_owned(),
        }
    }
}
