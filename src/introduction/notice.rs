//! The texts of ghosts. Fixed sentences only: text from other people is never inserted unchecked.

use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};

/// A notice of a ghost or the bot, always encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntroductionNotice {
    /// The owner of a handle in a group can read from their invite on.
    GroupFromInviteOn,
    /// The owner of a handle in a group can read once they have joined.
    GroupFromJoinOn,
    /// The two people have a room already.
    BackTo {
        /// The room that they have.
        room: OwnedRoomId,
    },
    /// The ghost of a person in one conversation was invited into another room.
    BackToPerson {
        /// The asker's room of that conversation.
        room: OwnedRoomId,
    },
    /// A message was unencrypted: please send it again.
    SendAgainEncrypted,
    /// A message could not be read: please send it again.
    SendAgainUnreadable,
    /// Several messages could not be read: please send them again. As a reply to the first.
    SendAgainAllUnreadable,
    /// An event cannot be passed on by a ghost.
    SendAgainOther,
    /// A file is not encrypted itself, so a ghost does not pass it on.
    SendAgainPlainFile,
    /// A message is too large for a quote of it.
    TooLarge,
    /// A message could not be passed on: please send it again.
    NotPassedOn,
    /// A message in a group, and what waited behind it, could not be encrypted for everybody whom
    /// it is meant for.
    NotPassedOnInGroup,
    /// More messages than can be named could not be passed on.
    MoreNotPassedOn,
    /// What was passed on of a deleted message could not be deleted.
    NotTakenBack,
    /// A message came from a device that the asker has not signed.
    UnsignedDevice,
    /// The asker has more devices than may get room keys.
    TooManyDevices,
    /// The owner's server refuses the invite.
    OwnerNotInvitable,
    /// The owner's invite does not get through yet.
    InvitingLater,
    /// The owner's invite did not get through in time.
    InviteFailed,
    /// The owner has to join first.
    WaitingForJoin,
    /// The owner has to set up encryption first.
    WaitingForDevice,
    /// The owner's server has to hand out their keys first.
    WaitingForKeys,
    /// The owner is being asked first.
    AskingFirst,
    /// The owner is being asked first, and no message could be read so far.
    AskingFirstWithoutLine,
    /// The owner of a handle in a group is being asked first.
    AskingFirstInGroup,
    /// The owner of a strict handle is being asked first. From the bot: a strict ghost never
    /// writes.
    AskingFirstStrict,
    /// No more messages are kept while the owner is being asked.
    EnoughKept,
    /// This event is not kept while the owner is being asked.
    NotKept,
    /// A file is not encrypted itself, so it is not kept while the owner is being asked.
    PlainFileNotKept,
    /// The owner did not come.
    OwnerDidNotCome,
    /// The owner is there and still cannot read encrypted messages.
    OwnerCannotRead,
    /// The owner of a strict handle may not have been able to read the first message.
    StrictSendAgain,
    /// The asker wrote something while the ghost was leaving.
    SaidAtTheLast,
}

impl IntroductionNotice {
    /// Returns the notice's name in transaction ids, with all that makes it different from others,
    /// so that a notice from before a crash is not sent again. Names must not change.
    pub fn id(&self) -> String {
        let name = match self {
            Self::GroupFromInviteOn => "group-from-invite-on",
            Self::GroupFromJoinOn => "group-from-join-on",
            Self::BackTo { room } => return format!("back-to {room}"),
            Self::BackToPerson { room } => return format!("back-to-person {room}"),
            Self::SendAgainEncrypted => "send-again-encrypted",
            Self::SendAgainUnreadable => "send-again-unreadable",
            Self::SendAgainAllUnreadable => "send-again-all-unreadable",
            Self::SendAgainOther => "send-again-other",
            Self::SendAgainPlainFile => "send-again-plain-file",
            Self::TooLarge => "too-large",
            Self::NotPassedOn => "not-passed-on",
            Self::NotPassedOnInGroup => "not-passed-on-in-group",
            Self::MoreNotPassedOn => "more-not-passed-on",
            Self::NotTakenBack => "not-taken-back",
            Self::UnsignedDevice => "unsigned-device",
            Self::TooManyDevices => "too-many-devices",
            Self::OwnerNotInvitable => "owner-not-invitable",
            Self::InvitingLater => "inviting-later",
            Self::InviteFailed => "invite-failed",
            Self::WaitingForJoin => "waiting-for-join",
            Self::WaitingForDevice => "waiting-for-device",
            Self::WaitingForKeys => "waiting-for-keys",
            Self::AskingFirst => "asking-first",
            Self::AskingFirstWithoutLine => "asking-first-without-line",
            Self::AskingFirstInGroup => "asking-first-in-group",
            Self::AskingFirstStrict => "asking-first-strict",
            Self::EnoughKept => "enough-kept",
            Self::NotKept => "not-kept",
            Self::PlainFileNotKept => "plain-file-not-kept",
            Self::OwnerDidNotCome => "owner-did-not-come",
            Self::OwnerCannotRead => "owner-cannot-read",
            Self::StrictSendAgain => "strict-send-again",
            Self::SaidAtTheLast => "said-at-the-last",
        };
        name.to_owned()
    }

    /// Returns whether this notice tells an asker that the ghost stays, and why.
    pub fn is_asking(&self) -> bool {
        matches!(
            self,
            Self::AskingFirst | Self::AskingFirstWithoutLine | Self::AskingFirstInGroup
        )
    }

    /// Returns whether this notice is one of those about messages of the asker that, in a group, one
    /// ghost sends for all. What is a reply to a message is sent by the ghost that it concerns.
    pub fn is_about_message(&self) -> bool {
        matches!(
            self,
            Self::SendAgainEncrypted
                | Self::SendAgainUnreadable
                | Self::SendAgainAllUnreadable
                | Self::SendAgainOther
                | Self::TooLarge
                | Self::NotPassedOn
                | Self::NotPassedOnInGroup
                | Self::MoreNotPassedOn
                | Self::UnsignedDevice
                | Self::TooManyDevices
                | Self::NotKept
        )
    }

    /// Returns the notice as plain text. `handle` is without `@`.
    pub fn plain(&self, handle: &str) -> String {
        match self {
            Self::GroupFromInviteOn => {
                format!("I have invited @{handle}. They can read what is written here from now on.")
            }
            Self::GroupFromJoinOn => format!(
                "I have invited @{handle}. They can read what is written here after they have \
                 joined."
            ),
            Self::BackTo { room } => format!(
                "You and @{handle} already have a chat. Please send it there: \
                 https://matrix.to/#/{room} (if that chat is gone, start this one once more)."
            ),
            Self::BackToPerson { room } => format!(
                "You already have a chat with {handle}, and I'm only there for it. Please send it \
                 there: https://matrix.to/#/{room}"
            ),
            Self::SendAgainEncrypted => format!(
                "That message wasn't encrypted, so I didn't pass it on to @{handle}. \
                 The chat is encrypted now: please send it again."
            ),
            Self::SendAgainUnreadable => format!(
                "I couldn't decrypt your message for @{handle}. They can read from now on: \
                 please send it again."
            ),
            Self::SendAgainAllUnreadable => format!(
                "I couldn't decrypt this and other messages of yours for @{handle}. They can read from \
                 now on: please send them again."
            ),
            Self::SendAgainOther => format!(
                "I can pass on messages and files, but not this. @{handle} can read from now on: \
                 please send it again."
            ),
            Self::SendAgainPlainFile => format!(
                "Your client didn't encrypt that picture or file, as is usual for stickers, so I \
                 didn't pass it on. @{handle} can read from now on: please send it again."
            ),
            Self::TooLarge => format!(
                "Your message is too large for me to pass on to @{handle}. They can read from now \
                 on: please send it again."
            ),
            Self::NotPassedOn => format!(
                "I couldn't pass on your message to @{handle}. They can read from now on: \
                 please send it again."
            ),
            Self::NotPassedOnInGroup => "I couldn't pass on what you wrote: at the moment I can't \
                 encrypt it for one of the people it's meant for. They may not have set up \
                 encryption yet, or their server doesn't answer. Please send it again later."
                .to_owned(),
            Self::MoreNotPassedOn => format!(
                "I couldn't pass on more of your messages to @{handle}. Please send again what \
                 they have missed."
            ),
            Self::NotTakenBack => format!(
                "I had passed on to @{handle} what you deleted, and I couldn't delete that. They \
                 can still read it."
            ),
            Self::UnsignedDevice => format!(
                "I can't pass on what you write to @{handle} from a device that you haven't \
                 verified. Verify it in your client's settings, or send your message again from \
                 another device."
            ),
            Self::TooManyDevices => format!(
                "I couldn't read your message for @{handle}: your account has too many devices, \
                 or their keys are too large. Sign out of the devices that you no longer use, \
                 then send your message again."
            ),
            Self::InvitingLater => format!(
                "My invite doesn't get through to @{handle} at the moment, so I'll keep trying for ten \
                 minutes; while I'm here the service can read this chat."
            ),
            Self::InviteFailed => format!(
                "My invite didn't get through to @{handle}: a server doesn't answer as it should. \
                 Please try again later."
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
                "@{handle} hasn't set up encryption yet, or their account is gone. I stay until they \
                 can read, at most 7 days, to pass on what you write; while I'm here the service \
                 can read this chat."
            ),
            Self::WaitingForKeys => format!(
                "I can't encrypt for @{handle} at the moment, because their server doesn't hand \
                 out their keys. I stay and keep trying, at most 7 days, to pass on what you \
                 write; while I'm here the service can read this chat."
            ),
            Self::AskingFirst => format!(
                "@{handle} wants to be asked first, so I'm asking them and showing them your first \
                 message. I stay until they answer, at most 7 days, and then pass on what you \
                 write meanwhile; while I'm here the service can read this chat."
            ),
            Self::AskingFirstWithoutLine => format!(
                "@{handle} wants to be asked first, so I'm asking them. I have no message of yours that \
                 I can read, so please write again: it's shown to them. I stay until they answer, \
                 at most 7 days, and then pass on what you write meanwhile; while I'm here the \
                 service can read this chat."
            ),
            Self::AskingFirstInGroup => format!(
                "@{handle} wants to be asked first, so I'm asking them. I stay until they answer, at \
                 most 7 days; while I'm here the service can read this chat. What is written \
                 before they answer they can't read."
            ),
            Self::AskingFirstStrict => format!(
                "@{handle} wants to be asked first, so I'm asking them for you. What you write \
                 before they come they can't read; if they don't want to chat, or don't answer in \
                 time (7 days at most), the ghost leaves this chat."
            ),
            Self::EnoughKept => format!(
                "I keep only so many messages until @{handle} answers, and these are enough: \
                 please wait for them."
            ),
            Self::NotKept => format!(
                "I can pass on messages and files to @{handle}, but not this. Please send it again \
                 when everybody you want to reach is here."
            ),
            Self::PlainFileNotKept => format!(
                "Your client didn't encrypt that picture or file, as is usual for stickers, so I \
                 can't pass it on to @{handle}. Please send it again when everybody you want to \
                 reach is here."
            ),
            Self::OwnerDidNotCome => {
                format!("@{handle} didn't come, so what you wrote wasn't passed on.")
            }
            Self::OwnerCannotRead => format!(
                "@{handle} still can't read encrypted messages here, so I couldn't pass on the \
                 rest of what you wrote, and I'm leaving. Please write again once they have set \
                 up encryption."
            ),
            Self::StrictSendAgain => format!(
                "Your first message to @{handle} may have been sent too early for them to read it. If \
                 they can't, please send it again in your chat with them."
            ),
            Self::SaidAtTheLast => format!(
                "What you wrote last to @{handle} arrived just as their ghost was leaving, so it \
                 wasn't passed on. If they can't read it, please send it again in your chat with \
                 them."
            ),
        }
    }
}

/// Why a ghost declines or leaves. Clients show it, unencrypted, beside the membership, so it must
/// reveal nothing about anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The one answer to everybody who cannot reach the owner now.
    NotNow,
    /// The owner is in the room already.
    OwnerIsHere,
    /// The room is not encrypted and the ghost may not change that.
    NotEncrypted,
    /// The room is not for talking: a space, for example.
    NotAChat,
    /// The room has too many members.
    TooManyMembers,
    /// The asker has not signed their device.
    UnsignedDevice,
    /// The asker has more devices than may get room keys.
    TooManyDevices,
    /// The ghost may not invite anybody here.
    MayNotInvite,
}

impl Reason {
    /// Returns the words.
    pub fn words(self) -> &'static str {
        match self {
            Self::NotNow => "This handle can't be reached at the moment.",
            Self::OwnerIsHere => "The owner of this handle is in this room already.",
            Self::NotEncrypted => {
                "This room isn't encrypted and I may not change that. \
                 Please start a new, encrypted chat with this handle."
            }
            Self::NotAChat => {
                "This isn't a chat, so I can't bring anybody here. \
                 Please start a chat with this handle."
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
