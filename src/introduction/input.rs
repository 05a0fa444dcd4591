//! What can happen to an introduction.

use ruma::{OwnedEventId, OwnedUserId};
use serde::{Deserialize, Serialize};

use super::{Effect, Invite};
use crate::matrix::RoomState;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "made one at a time, and passed by reference"
)]
pub enum Input {
    /// The ghost was invited (again).
    Invited(Invite),
    /// What the room looks like, and the events of the time before, have been read.
    Looked(RoomState),
    /// An effect was carried out.
    Done(Effect),
    /// An effect was refused for good.
    Refused(Effect, Refusal),
    /// Somebody said something.
    Heard {
        /// The event.
        event: OwnedEventId,
        /// Who said it.
        sender: OwnedUserId,
        /// What it is.
        kind: HeardKind,
    },
    /// Somebody's membership changed.
    Member {
        /// Whose.
        user: OwnedUserId,
        /// `join`, `invite`, `leave` or `ban`.
        membership: String,
    },
    /// Looking back, something was found that was said before the ghost left, and not heard.
    Missed,
    /// A key was sent to a strict ghost by the asker.
    KeyCame,
    /// The owner answered the request.
    Answered {
        /// Whether they want this.
        accepted: bool,
    },
    /// A deadline passed.
    Tick,
}

/// What an event turned out to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeardKind {
    /// Something to pass on.
    Line,
    /// A new text for an earlier event of the same sender.
    Edit {
        /// The event that it changes.
        of: OwnedEventId,
    },
    /// An earlier event was taken back.
    Redaction {
        /// The event taken back.
        of: OwnedEventId,
    },
    /// A message in clear.
    Plaintext,
    /// A message whose key has not come.
    Unreadable,
    /// A message from a device that its owner has not signed.
    Untrusted,
    /// A message from a person with too many devices.
    TooManyDevices,
    /// A message for a strict ghost, which reads nothing.
    Sealed,
    /// Something that a ghost cannot pass on, such as a poll.
    Other,
}

/// Why an effect cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The homeserver or the room does not allow it.
    Forbidden,
    /// These people have no device that they have signed.
    NoSignedDevice(Vec<OwnedUserId>),
    /// These people have more devices than are encrypted for.
    TooManyDevices(Vec<OwnedUserId>),
    /// The event is gone, unreadable or cannot be passed on.
    Unreadable,
    /// Anything else that will not get better by trying again.
    Impossible,
}
