//! The inputs of an introduction.

use ruma::{OwnedEventId, OwnedUserId};
use serde::{Deserialize, Serialize};

use super::{Effect, GroupRole, Invite};
use crate::matrix::RoomState;

/// Something that happened in an introduction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "made one at a time, and passed by reference"
)]
pub enum Input {
    /// The ghost was invited, perhaps again.
    Invited(Invite),
    /// The room's state was read, and so were the earlier events.
    Looked(RoomState),
    /// An effect was carried out.
    Done(Effect),
    /// An effect was refused, or was tried for long enough.
    Refused(Effect, Refusal),
    /// Somebody sent an event.
    Message {
        /// The event.
        event: OwnedEventId,
        /// The sender.
        sender: OwnedUserId,
        /// The kind of event.
        kind: MessageKind,
    },
    /// Somebody's membership changed.
    Member {
        /// The user.
        user: OwnedUserId,
        /// `join`, `invite`, `leave` or `ban`.
        membership: String,
    },
    /// An event was found that the asker sent before the ghost left, and that the ghost has not
    /// read.
    Missed,
    /// The asker sent a key to a strict ghost.
    KeyCame,
    /// The owner answered the request.
    Answered {
        /// Whether the owner wants to be introduced.
        accepted: bool,
        /// Whether the handle is masked now. Its mode may have changed since the invite.
        masked: bool,
    },
    /// The ghost's role among others in a group has changed.
    Role(GroupRole),
    /// Another ghost has passed a message on, or has told its sender why not.
    SettledByOther {
        /// The message.
        event: OwnedEventId,
    },
    /// The ghost may not pass a message on, and another one in the group still can.
    LeftToOther,
    /// A deadline passed.
    Tick,
}

/// The kind of an event, after decryption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MessageKind {
    /// A message to pass on.
    Line,
    /// A new text for an earlier event of the same sender.
    Edit {
        /// The event that it changes.
        of: OwnedEventId,
    },
    /// An earlier event was redacted.
    Redaction {
        /// The redacted event.
        of: OwnedEventId,
    },
    /// An unencrypted message.
    Plaintext,
    /// A message whose key has not come.
    Unreadable,
    /// A message from a device that its owner has not signed.
    Untrusted,
    /// A message from a person with too many devices.
    TooManyDevices,
    /// A message for a strict ghost, which reads nothing.
    Sealed,
    /// A file that is not encrypted itself, such as a sticker.
    PlainFile,
    /// An encrypted request to verify the ghost's keys.
    Verification,
    /// An event that a ghost cannot pass on, such as a poll.
    Other,
    /// An event that has turned out, once its key came, not to concern the ghost.
    Nothing,
}

/// Why an effect was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The homeserver or the room does not allow it.
    Forbidden,
    /// These people have no device that they have signed.
    NoSignedDevice(Vec<OwnedUserId>),
    /// The servers of these people do not hand out their keys.
    KeysUnavailable(Vec<OwnedUserId>),
    /// These people have more devices than may get room keys.
    TooManyDevices(Vec<OwnedUserId>),
    /// The event is gone or unreadable.
    Unreadable,
    /// An event of this kind cannot be passed on.
    NotThisKind,
    /// A file is not encrypted itself.
    PlainFile,
    /// The event is too large for the homeserver.
    TooLarge,
    /// The handle has another owner or mode than when the ghost was invited.
    HandleChanged,
    /// The homeserver failed for as long as the effect was tried.
    Failing,
    /// Any other reason why another attempt cannot succeed.
    Impossible,
}

impl Refusal {
    /// Returns whether this says nothing about other ghosts in the room: they may be allowed to
    /// send, or have the key of a message.
    pub fn is_of_one_ghost(&self) -> bool {
        matches!(self, Self::Forbidden | Self::Unreadable | Self::Impossible)
    }
}
