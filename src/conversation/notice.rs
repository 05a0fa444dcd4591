//! What ghosts say in the rooms of a conversation, in words. Fixed sentences only, with names that
//! were cleaned before.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use crate::relay::TranslateError;

/// A sentence of the service, always encrypted, always to the people of one room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Saying {
    /// In the origin, when the conversation begins.
    Masked {
        /// The handle, with `@`.
        handle: String,
        /// How the asker is called on the other side.
        shown_as: String,
    },
    /// In the origin of a group.
    MaskedInGroup {
        /// The handle, with `@`.
        handle: String,
    },
    /// A message was in clear.
    InClear,
    /// A call that cannot cross rooms.
    RoomCall,
    /// Something was not carried, or not whole.
    NotCarried {
        /// What happened, and what to do next.
        words: String,
    },
    /// Nobody is on the other side at the moment.
    NobodyThere,
    /// More people have come than a conversation can have.
    Full,
    /// Somebody is not in the conversation any more.
    WentAway {
        /// How they are called.
        name: String,
    },
    /// In the origin: it was replaced by a room in which the conversation cannot go on.
    NotFollowed {
        /// Who replaced it, and is told by the bot if nothing can be said there.
        by: OwnedUserId,
    },
    /// The same in a portal.
    OthersMoved,
    /// The conversation is over.
    Ended,
}

impl Saying {
    /// The sentence in plain text.
    pub fn plain(&self) -> String {
        match self {
            Self::Masked { handle, shown_as } => format!(
                "{handle} is masked: you do not see their Matrix ID, and they do not see yours. \
                 They see you as {shown_as}. This service carries what you write to each other and \
                 can read it on the way; it keeps none of it."
            ),
            Self::MaskedInGroup { handle } => format!(
                "{handle} is masked and takes part through me: this service carries what is \
                 written here to them and can read it on the way; it keeps none of it."
            ),
            Self::InClear => "That message was not encrypted, so it was not carried on. Please \
                              send it again: this chat is encrypted."
                .to_owned(),
            Self::RoomCall => TranslateError::MatrixRtc.notice_text().to_owned(),
            Self::NotCarried { words } => words.clone(),
            Self::NobodyThere => "Nobody is there on the other side at the moment, so that was \
                                  not delivered."
                .to_owned(),
            Self::Full => "More people have come into the room of this conversation than it can have. \
                           Whoever came last is not shown to the masked, and what they write is not \
                           carried; but what the masked write, they can read. Please start a new \
                           chat with fewer people if that is not wanted."
                .to_owned(),
            Self::WentAway { name } => format!(
                "{name} has left the conversation. What you write here does not reach them unless \
                 they come back."
            ),
            Self::NotFollowed { .. } => "This room was replaced by another one, in which this \
                                         conversation cannot go on yet: I am not there, it is not \
                                         encrypted, or somebody is there or invited who is not \
                                         here. Please invite me there again once nothing of that \
                                         is so any more, or start a new chat."
                .to_owned(),
            Self::OthersMoved => "The room of the others was replaced by another one, in which I \
                                  am not yet. Until they invite me there, what you write may not \
                                  reach them."
                .to_owned(),
            Self::Ended => "This conversation has ended: what is written here is not delivered \
                            any more, and I leave."
                .to_owned(),
        }
    }
}
