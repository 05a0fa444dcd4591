//! What an introduction knows, what can happen to it, and what it asks for.

use std::time::Duration;

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use super::{Reason, Saying};
use crate::{clock::Timestamp, matrix::RoomState};

/// What the directory says to an invite, before the ghost does anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admission {
    /// The owner may be reached now.
    Introduce {
        /// Who holds the handle.
        owner: OwnedUserId,
        /// The handle as its owner writes it, without `@`.
        handle: String,
        /// Nothing may pass through us: the ghost has no keys.
        strict: bool,
        /// A room in which the two were introduced before, to be led back to.
        back_to: Option<OwnedRoomId>,
        /// The owner wants to be asked first.
        #[serde(default)]
        asks_first: bool,
        /// The owner is not brought here: the ghost stays and carries what is said.
        #[serde(default)]
        masked: bool,
    },
    /// Blocked, refused by policy, over a limit or frozen: alike from outside.
    NotNow,
    /// Nobody holds this handle.
    Unclaimed,
    /// The owner invites their own handle.
    OwnHandle,
    /// One of our own users invites one of our own users.
    GhostAsking,
    /// So many unclaimed names were invited that the invite is not even declined.
    LeaveAlone,
}

/// An invite of a ghost, as the homeserver pushed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// Who invites.
    pub asker: OwnedUserId,
    /// What the directory says.
    pub admission: Admission,
}

/// Durations and bounds that the configuration sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long the ghost listens for an opening line after it joined.
    pub wait_for_message: Duration,
    /// How long it stays after inviting the owner and after the last message that it heard.
    pub linger: Duration,
    /// How long it stays after inviting the owner at the most.
    pub linger_at_most: Duration,
    /// How long it waits for an owner who has to join or set up encryption first.
    pub wait_for_owner: Duration,
    /// How long a request waits for its answer.
    pub wait_for_answer: Duration,
    /// After how long an invite is declined, whatever the cause.
    pub decline_after: Duration,
    /// From how many members on a ghost leaves at once.
    pub members_at_most: usize,
    /// How often it looks whether the owner has set up encryption.
    pub retry_owner: Duration,
    /// How many messages it keeps to pass on.
    pub heard_at_most: usize,
    /// How long another server's answer is waited for before the place goes to somebody else.
    pub ask_abroad_for: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            wait_for_message: Duration::from_secs(5),
            linger: Duration::from_secs(3),
            linger_at_most: Duration::from_secs(10),
            wait_for_owner: Duration::from_secs(7 * 24 * 60 * 60),
            wait_for_answer: Duration::from_secs(7 * 24 * 60 * 60),
            retry_owner: Duration::from_secs(60),
            decline_after: Duration::from_millis(1500),
            members_at_most: 50,
            heard_at_most: 100,
            ask_abroad_for: Duration::from_secs(15),
        }
    }
}

/// Where an introduction stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The invite will be declined at this time.
    Declining {
        /// When; the same delay for every cause.
        at: Timestamp,
    },
    /// The ghost is on its way in.
    Joining,
    /// It is in, and reads the room's state and what was said before it came.
    Looking,
    /// It waits for the opening line until this time.
    Listening {
        /// When it introduces without one.
        until: Timestamp,
    },
    /// The owner is asked whether they want this; what is said meanwhile is kept as ciphertext.
    Asking {
        /// When the request ends without an answer.
        until: Timestamp,
    },
    /// The owner's invite is on its way.
    Inviting,
    /// The ghost of a masked handle takes its place in a conversation, which goes on from there.
    Opening,
    /// The owner is invited; the ghost passes on what it hears.
    Lingering,
    /// It waits for the owner until this time.
    Waiting {
        /// For what.
        on: WaitFor,
        /// When it gives up and tells the asker.
        until: Timestamp,
        /// When it tries again to pass on.
        retry: Timestamp,
    },
    /// It reads the room a last time before it leaves.
    Closing,
    /// It is on its way out, and forgets.
    Leaving,
    /// Nothing is left to do here, and the ghost never comes back to this room.
    Over,
    /// The invite was declined; a later one is looked at anew.
    Declined,
}

/// What an owner has to do before the opening line can be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitFor {
    /// In this room one reads only what is said after one's joining.
    Join,
    /// The owner has no device that they have signed.
    SignedDevice,
}

/// One event that the ghost heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The event.
    pub event: OwnedEventId,
    /// The newest edit of it, heard before it was passed on.
    pub edit: Option<OwnedEventId>,
    /// Whether it has been passed on (or needs not to be any more).
    pub done: bool,
    /// Its key has not come.
    pub unreadable: bool,
}

/// The introduction of one handle's owner in one room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The room.
    pub room: OwnedRoomId,
    /// The ghost.
    pub ghost: OwnedUserId,
    /// Who invited it, and what the directory said.
    pub invite: Invite,
    /// Where it stands.
    pub phase: Phase,
    /// Exactly one other person was joined and nobody else invited when the ghost came.
    pub direct: bool,
    /// When the ghost was invited.
    pub invited_at: Timestamp,
    /// When the owner was invited.
    pub owner_invited_at: Option<Timestamp>,
    /// When the last message was heard.
    pub heard_at: Option<Timestamp>,
    /// The owner has joined.
    pub owner_joined: bool,
    /// The owner declined or left.
    pub owner_left: bool,
    /// Only what is said after one's joining can be read here.
    pub visible_from_join: bool,
    /// Encryption was turned on by us.
    pub encrypted_by_us: bool,
    /// Something was said in clear, and its sender has to be asked for it again as soon as the
    /// room is encrypted.
    #[serde(default)]
    pub in_clear: bool,
    /// The owner was asked and said yes.
    #[serde(default)]
    pub accepted: bool,
    /// A key came for a strict ghost: the owner may not have been able to read a message.
    pub key_came: bool,
    /// It was under way when the service was restored from a backup: the ghost has lost the keys
    /// of what was said, and the owner may have been invited.
    #[serde(default)]
    pub resumed: bool,
    /// What the ghost heard, in the room's order.
    pub heard: Vec<Heard>,
    /// What it has said already, so that it says nothing twice.
    pub said: Vec<Saying>,
}

impl Introduction {
    /// One that is known by nothing but its invite.
    pub fn found(room: &RoomId, ghost: &UserId, invite: Invite, now: Timestamp) -> Self {
        Introduction {
            room: room.to_owned(),
            ghost: ghost.to_owned(),
            invite,
            phase: Phase::Declined,
            direct: false,
            invited_at: now,
            owner_invited_at: None,
            heard_at: None,
            owner_joined: false,
            owner_left: false,
            visible_from_join: false,
            encrypted_by_us: false,
            in_clear: false,
            accepted: false,
            key_came: false,
            resumed: false,
            heard: Vec::new(),
            said: Vec::new(),
        }
    }

    /// The same, taken up again by a ghost that is still in the room and has lost all its keys. It
    /// begins anew; whatever was not passed on, its sender will be asked for.
    pub fn resumed(mut self) -> Self {
        self.resumed = true;
        self.phase = match self.invite.admission {
            Admission::Introduce { .. } => Phase::Joining,
            _ => Phase::Leaving,
        };
        for heard in self.heard.iter_mut().filter(|heard| !heard.done) {
            heard.unreadable = true;
            heard.edit = None;
        }
        self.said.clear();
        self
    }

    /// All that is kept is that the ghost never comes back: not who asked, nor for whom.
    pub fn end(&mut self) {
        self.phase = Phase::Over;
        self.heard.clear();
        self.said.clear();
        self.invite.admission = Admission::LeaveAlone;
        self.invite.asker = self.ghost.clone();
    }

    /// A room that the ghost has left.
    pub fn ended(room: &RoomId, ghost: &UserId) -> Self {
        let invite = Invite {
            asker: ghost.to_owned(),
            admission: Admission::LeaveAlone,
        };
        let mut ended = Self::found(room, ghost, invite, Timestamp::default());
        ended.end();
        ended
    }

    /// The owner, where there is one to introduce.
    pub fn owner(&self) -> Option<&OwnedUserId> {
        match &self.invite.admission {
            Admission::Introduce { owner, .. } => Some(owner),
            _ => None,
        }
    }

    /// The handle as its owner writes it.
    pub fn handle(&self) -> &str {
        match &self.invite.admission {
            Admission::Introduce { handle, .. } => handle,
            _ => "",
        }
    }

    /// Whether the ghost has no keys.
    pub fn strict(&self) -> bool {
        matches!(
            self.invite.admission,
            Admission::Introduce { strict: true, .. }
        )
    }

    /// Whether the owner is still to be asked.
    pub fn asks_first(&self) -> bool {
        !self.accepted
            && matches!(
                self.invite.admission,
                Admission::Introduce {
                    asks_first: true,
                    ..
                }
            )
    }

    /// Whether the ghost stays, so that the owner is not seen.
    pub fn masked(&self) -> bool {
        matches!(
            self.invite.admission,
            Admission::Introduce { masked: true, .. }
        )
    }

    /// While the owner is asked: the message that they see, and its newest edit.
    pub fn opening_line(&self) -> Option<(&OwnedEventId, Option<&OwnedEventId>)> {
        let heard = self.heard.iter().find(|heard| !heard.unreadable)?;
        Some((&heard.event, heard.edit.as_ref()))
    }

    /// Whether the ghost is in the room and takes in what is said.
    pub fn hears(&self) -> bool {
        self.is_open() && !matches!(self.phase, Phase::Declining { .. } | Phase::Leaving)
    }

    /// What is under way in this phase: queued again after a restart that lost it.
    pub fn under_way(&self) -> Vec<Effect> {
        match self.phase {
            Phase::Joining => vec![Effect::Join],
            Phase::Looking | Phase::Closing => vec![Effect::Look],
            Phase::Inviting => vec![Effect::InviteOwner],
            Phase::Opening => vec![Effect::OpenConversation],
            Phase::Leaving => vec![Effect::Leave { reason: None }, Effect::Forget],
            _ => Vec::new(),
        }
    }

    /// When the next [`Input::Tick`] is due, if one is.
    pub fn deadline(&self, rules: &Rules) -> Option<Timestamp> {
        match self.phase {
            Phase::Declining { at } => Some(at),
            Phase::Listening { until } | Phase::Asking { until } => Some(until),
            Phase::Lingering => {
                let invited = self.owner_invited_at.unwrap_or(self.invited_at);
                let wait = if self.strict() {
                    rules.wait_for_message
                } else {
                    rules.linger
                };
                let last = self.heard_at.map_or(invited, |heard| heard.max(invited));
                Some((last + wait).min(self.latest_stay(rules)))
            }
            Phase::Waiting { until, retry, .. } => Some(until.min(retry)),
            _ => None,
        }
    }

    /// When the ghost leaves although people are still writing.
    pub fn latest_stay(&self, rules: &Rules) -> Timestamp {
        self.owner_invited_at.unwrap_or(self.invited_at) + rules.linger_at_most
    }

    /// Whether anything is left to do.
    pub fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Over | Phase::Declined)
    }
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
    Say {
        /// Which.
        saying: Saying,
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
        saying: Saying,
    },
}

/// The kinds of [`Effect`], for metrics and logs.
pub type EffectKind = &'static str;

impl Effect {
    /// A name without any content, for logs and transaction ids.
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
            Self::Say { .. } => "say",
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

/// The new state, what to do, and when to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The state from now on.
    pub state: Introduction,
    /// What to do, in order.
    pub effects: Vec<Effect>,
    /// When to feed [`Input::Tick`], unless something happens earlier.
    pub wake: Option<Timestamp>,
}
