//! The effects of an introduction.

use ruma::OwnedEventId;
use serde::{Deserialize, Serialize};

use super::{IntroductionNotice, Reason};

/// Something to be done. Effects are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Decline the invite.
    Decline {
        /// The reason, as far as the asker may know it.
        reason: Option<Reason>,
    },
    /// Join the room.
    Join,
    /// Read the room's state, and the messages since the ghost's invite.
    Look,
    /// Make the room encrypted.
    TurnOnEncryption,
    /// Take the asker's name in this room, so that the owner's invite says who asks.
    ShowAs,
    /// Ask the owner, in their control room, whether they want this.
    AskOwner,
    /// Show the owner the opening line, which came after they were asked.
    ShowLine,
    /// Withdraw the request.
    WithdrawRequest,
    /// Take the ghost's place in a conversation whose messages are forwarded to the owner.
    OpenConversation,
    /// Invite the owner; in a direct chat, mark the invite as one.
    InviteOwner,
    /// Pass a message on to the owner, quoted.
    PassOn {
        /// The event to quote.
        event: OwnedEventId,
        /// Its newest edit, if there is one.
        edit: Option<OwnedEventId>,
    },
    /// Pass on the new text of a message that was passed on.
    PassOnEdit {
        /// The edit.
        event: OwnedEventId,
        /// The event that it changes.
        of: OwnedEventId,
    },
    /// Redact the quote of a message.
    TakeBack {
        /// The event that was passed on.
        of: OwnedEventId,
    },
    /// Decline a request to verify the ghost's keys.
    DeclineVerification {
        /// The request.
        event: OwnedEventId,
    },
    /// Send a notice, encrypted.
    SendNotice {
        /// The notice.
        notice: IntroductionNotice,
    },
    /// Send a notice, encrypted, as a reply to a message of the asker.
    SendReply {
        /// The message.
        to: OwnedEventId,
        /// The notice.
        notice: IntroductionNotice,
    },
    /// Give the owner a founder's power level, and lower the ghost's.
    HandOver,
    /// Remember that these two have this room.
    RememberPair,
    /// Forget that these two have this room, because one of them does not want it.
    ForgetPair,
    /// Leave the room.
    Leave {
        /// The reason, as far as the room's members may know it.
        reason: Option<Reason>,
    },
    /// Check from outside whether the asker wrote something between the ghost's last look and its
    /// leaving.
    LookBack,
    /// Destroy every key of this room.
    Forget,
    /// Let the bot send the asker a notice in their control room.
    TellAsker {
        /// The notice.
        notice: IntroductionNotice,
    },
    /// Let the bot tell the owner, who has declined the ghost's invite, how to keep the asker out
    /// and nobody else.
    TellOwner,
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
            Self::ShowLine => "show-line",
            Self::WithdrawRequest => "withdraw-request",
            Self::OpenConversation => "open-conversation",
            Self::InviteOwner => "invite-owner",
            Self::PassOn { .. } => "pass-on",
            Self::PassOnEdit { .. } => "pass-on-edit",
            Self::TakeBack { .. } => "take-back",
            Self::DeclineVerification { .. } => "decline-verification",
            Self::SendNotice { .. } => "say",
            Self::SendReply { .. } => "reply",
            Self::HandOver => "hand-over",
            Self::RememberPair => "remember-pair",
            Self::ForgetPair => "forget-pair",
            Self::Leave { .. } => "leave",
            Self::LookBack => "look-back",
            Self::Forget => "forget",
            Self::TellAsker { .. } => "tell-asker",
            Self::TellOwner => "tell-owner",
        }
    }
}
