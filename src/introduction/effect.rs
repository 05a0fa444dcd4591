//! What an introduction asks for.

use ruma::OwnedEventId;
use serde::{Deserialize, Serialize};

use super::{IntroductionNotice, Reason};

/// What has to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Decline the invite.
    Decline {
        /// What the asker may know.
        reason: Option<Reason>,
    },
    /// Join the room.
    Join,
    /// Read the room's state, and what was said since the ghost's invite.
    Look,
    /// Make the room encrypted.
    TurnOnEncryption,
    /// Carry the asker's name for this room, so that the owner's invite says who asks.
    ShowAs,
    /// Ask the owner, in their control room, whether they want this.
    AskOwner,
    /// The request is no more.
    WithdrawRequest,
    /// Take the ghost's place in a conversation that is carried to the owner.
    OpenConversation,
    /// Invite the owner, as a direct chat where it is one.
    InviteOwner,
    /// Pass a message on to the owner, quoted.
    PassOn {
        /// The event to quote.
        event: OwnedEventId,
        /// Where its newest text stands, if it was edited.
        edit: Option<OwnedEventId>,
    },
    /// Pass on the new text of a message that was passed on.
    PassOnEdit {
        /// The edit.
        event: OwnedEventId,
        /// The event that it changes.
        of: OwnedEventId,
    },
    /// Take back what was passed on.
    TakeBack {
        /// The event that was passed on.
        of: OwnedEventId,
    },
    /// Say one of our own sentences, encrypted.
    SendNotice {
        /// Which.
        notice: IntroductionNotice,
    },
    /// Give the owner the power of a room's founder, and lay down our own.
    HandOver,
    /// Remember that these two have this room.
    RememberPair,
    /// Forget that these two have this room: one of them does not want it.
    ForgetPair,
    /// Leave the room.
    Leave {
        /// What the people in it may know.
        reason: Option<Reason>,
    },
    /// Outside already: find out whether something was said in the moment before the leaving that
    /// the ghost has not heard.
    LookBack,
    /// Destroy every key of this room.
    Forget,
    /// Let the bot tell the asker something in their control room.
    TellAsker {
        /// What.
        notice: IntroductionNotice,
    },
}

/// The kinds of [`Effect`], for metrics and logs.
pub type EffectKind = &'static str;

impl Effect {
    /// A name without any content, for logs.
    pub fn kind(&self) -> EffectKind {
        match self {
            Self::Decline { .. } => "decline",
            Self::Join => "join",
            Self::Look => "look",
            Self::TurnOnEncryption => "turn-on-encryption",
            Self::ShowAs => "show-as",
            Self::AskOwner => "ask-owner",
            Self::WithdrawRequest => "withdraw-request",
            Self::OpenConversation => "open-conversation",
            Self::InviteOwner => "invite-owner",
            Self::PassOn { .. } => "pass-on",
            Self::PassOnEdit { .. } => "pass-on-edit",
            Self::TakeBack { .. } => "take-back",
            Self::SendNotice { .. } => "say",
            Self::HandOver => "hand-over",
            Self::RememberPair => "remember-pair",
            Self::ForgetPair => "forget-pair",
            Self::Leave { .. } => "leave",
            Self::LookBack => "look-back",
            Self::Forget => "forget",
            Self::TellAsker { .. } => "tell-asker",
        }
    }
}
