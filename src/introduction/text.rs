//! What ghosts say, in words. Fixed sentences only: nothing that somebody else wrote goes in
//! unchecked.

use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};

/// A sentence that a ghost or the bot says, always encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntroductionNotice {
    /// In a group the owner reads from their invite on.
    GroupFromInviteOn,
    /// The two have a room already.
    BackTo {
        /// The room that they have.
        room: OwnedRoomId,
    },
    /// A message was in clear: please send it again.
    SendAgainEncrypted,
    /// A message could not be read: please send it again.
    SendAgainUnreadable,
    /// Something that a ghost cannot pass on.
    SendAgainOther,
    /// The owner's server refuses the invite.
    OwnerNotInvitable,
    /// The owner has to join first.
    WaitingForJoin,
    /// The owner has to set up encryption first.
    WaitingForDevice,
    /// The owner is asked first.
    AskingFirst,
    /// The owner is asked first, in a group.
    AskingFirstInGroup,
    /// The same, from the bot, for a ghost that never speaks.
    AskingFirstStrict,
    /// While the owner is asked no more messages are kept.
    EnoughKept,
    /// While the owner is asked this is not kept.
    NotKept,
    /// The owner did not come.
    OwnerDidNotCome,
    /// For a strict handle: the first message may not have been readable.
    StrictSendAgain,
    /// Something was said in the moment of the leaving.
    SaidAtTheLast,
}

impl IntroductionNotice {
    /// Returns the name under which a transaction id knows the sentence, with what makes it another
    /// sentence: what was said before a crash is not said again. Names stay as they are.
    pub fn id(&self) -> String {
        let name = match self {
            Self::GroupFromInviteOn => "group-from-invite-on",
            Self::BackTo { room } => return format!("back-to {room}"),
            Self::SendAgainEncrypted => "send-again-encrypted",
            Self::SendAgainUnreadable => "send-again-unreadable",
            Self::SendAgainOther => "send-again-other",
            Self::OwnerNotInvitable => "owner-not-invitable",
            Self::WaitingForJoin => "waiting-for-join",
            Self::WaitingForDevice => "waiting-for-device",
            Self::AskingFirst => "asking-first",
            Self::AskingFirstInGroup => "asking-first-in-group",
            Self::AskingFirstStrict => "asking-first-strict",
            Self::EnoughKept => "enough-kept",
            Self::NotKept => "not-kept",
            Self::OwnerDidNotCome => "owner-did-not-come",
            Self::StrictSendAgain => "strict-send-again",
            Self::SaidAtTheLast => "said-at-the-last",
        };
        name.to_owned()
    }

    /// Returns whether this tells an asker that the ghost stays and why.
    pub fn is_asking(&self) -> bool {
        matches!(self, Self::AskingFirst | Self::AskingFirstInGroup)
    }

    /// The sentence in plain text. `handle` is without `@`.
    pub fn plain(&self, handle: &str) -> String {
        match self {
            Self::GroupFromInviteOn => {
                format!("I have invited @{handle}. They can read what is written here from now on.")
            }
            Self::BackTo { room } => format!(
                "You and @{handle} already have a chat. Please send it there: \
                 https://matrix.to/#/{room} (if that chat is gone, start this one once more)."
            ),
            Self::SendAgainEncrypted => format!(
                "That message wasn't encrypted, so I didn't pass it on to @{handle}. \
                 The chat is encrypted now: please send it again."
            ),
            Self::SendAgainUnreadable => format!(
                "I couldn't decrypt your message for @{handle}. They can read from now on: \
                 please send it again."
            ),
            Self::SendAgainOther => format!(
                "I can pass on messages and files, but not this. @{handle} can read from now on: \
                 please send it again."
            ),
            Self::OwnerNotInvitable => format!(
                "@{handle} can't be invited at the moment: their account or server refuses it. \
                 Please try again another day."
            ),
            Self::WaitingForJoin => format!(
                "@{handle} can only read here after joining. I stay until then, at most 7 days, to \
                 pass on what you write; while I'm here the service can read this chat."
            ),
            Self::WaitingForDevice => format!(
                "@{handle} hasn't set up encryption yet. I stay until then, at most 7 days, to \
                 pass on what you write; while I'm here the service can read this chat."
            ),
            Self::AskingFirst => format!(
                "@{handle} likes to be asked first, so I ask them and show them your first \
                 message. I stay until they answer, at most 7 days, and then pass on what you \
                 write meanwhile; while I'm here the service can read this chat."
            ),
            Self::AskingFirstInGroup => format!(
                "@{handle} likes to be asked first, so I ask them. I stay until they answer, at \
                 most 7 days; while I'm here the service can read this chat. They can read what \
                 is written after they have joined."
            ),
            Self::AskingFirstStrict => format!(
                "@{handle} likes to be asked first, so I ask them for you. What you write \
                 before they come they can't read; if they don't want to chat, or don't answer \
                 within 7 days, you will find them gone from the chat."
            ),
            Self::EnoughKept => format!(
                "I keep only so many messages until @{handle} answers, and these are enough: \
                 please wait for them."
            ),
            Self::NotKept => format!(
                "I can pass on messages and files, but not this. Please send it again when \
                 @{handle} is here."
            ),
            Self::OwnerDidNotCome => {
                format!("@{handle} didn't come, so what you wrote wasn't passed on.")
            }
            Self::StrictSendAgain => format!(
                "Your first message to @{handle} may have been sent before they could be given its \
                 key. If they can't read it, please send it again in your chat with them."
            ),
            Self::SaidAtTheLast => format!(
                "What you wrote last to @{handle} came in the moment in which their ghost left, so \
                 it wasn't passed on. If they can't read it, please send it again in your chat \
                 with them."
            ),
        }
    }
}

/// Why a ghost declines or leaves. Shown by clients beside the membership, in clear: it says
/// nothing about anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The one answer to everybody who may not reach the owner now.
    NotNow,
    /// The owner invited their own handle.
    OwnHandle,
    /// The owner is in the room already.
    OwnerIsHere,
    /// The room is not encrypted and the ghost may not change that.
    NotEncrypted,
    /// Too many members.
    TooManyMembers,
    /// The asker's device is not signed by them.
    UnsignedDevice,
    /// The asker has more devices than are encrypted for.
    TooManyDevices,
    /// The ghost may not invite anybody here.
    MayNotInvite,
}

impl Reason {
    /// The words.
    pub fn words(self) -> &'static str {
        match self {
            Self::NotNow => "This handle can't be reached at the moment.",
            Self::OwnHandle => {
                "This handle is yours. Other people reach you by starting a chat with it."
            }
            Self::OwnerIsHere => "The owner of this handle is in this room already.",
            Self::NotEncrypted => {
                "This room isn't encrypted and I may not change that. \
                 Please start a new, encrypted chat with this handle."
            }
            Self::TooManyMembers => {
                "This room has too many members for an introduction. \
                 Please invite this handle into a smaller one."
            }
            Self::UnsignedDevice => {
                "I can't accept messages from this device because you haven't verified it. Set up \
                 recovery (or verify this device) in your client's settings, then start a new chat."
            }
            Self::TooManyDevices => {
                "Your account has too many devices (more than 100 that are verified, or more than \
                 1,000 in all), or their keys are too large, so I can't exchange encrypted messages \
                 with it. Sign out of the \
                 devices that you no longer use, then start a new chat."
            }
            Self::MayNotInvite => {
                "I may not invite anybody into this room. \
                 Please allow invites here, or start a new chat with this handle."
            }
        }
    }
}
