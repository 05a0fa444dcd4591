//! The state of an introduction.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use serde::{Deserialize, Serialize};

use super::{Effect, IntroductionNotice, PendingEvent, Reason, Rules};
use crate::{
    clock::Timestamp,
    ids::{Ghost, Person},
};

/// The directory's answer to an invite, before the ghost does anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admission {
    /// The owner may be reached now.
    Introduce {
        /// The holder of the handle.
        owner: Person,
        /// The handle as its owner writes it, without `@`.
        handle: String,
        /// Whether nothing may pass through us, so that the ghost has no keys.
        strict: bool,
        /// The room of an earlier introduction of the two, to lead the asker back to.
        back_to: Option<OwnedRoomId>,
        /// Whether the owner wants to be asked first.
        #[serde(default)]
        asks_first: bool,
        /// Whether the owner stays out of this room, so that the ghost stays and forwards messages.
        #[serde(default)]
        masked: bool,
    },
    /// Blocked, refused by policy, over a limit or frozen: outsiders cannot tell which.
    NotNow,
    /// The owner may be reached, but not in a room like this. The ghost says so without joining.
    Unfit {
        /// The reason.
        reason: Reason,
    },
    /// Nobody holds this handle.
    Unclaimed,
    /// The owner invites their own handle. The ghost declines in the words of every decline, since
    /// everybody in the room reads them.
    OwnHandle,
    /// One of our own users invites one of our own users.
    GhostAsking,
    /// So many unclaimed names were invited that the invite is not even declined.
    LeaveAlone,
}

/// An invite of a ghost, as the homeserver pushed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The inviter: a person, or one of our own users.
    pub asker: OwnedUserId,
    /// The directory's answer.
    pub admission: Admission,
}

/// The phase of an introduction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The invite will be declined at this time.
    Declining {
        /// The time; the delay is the same for every reason.
        at: Timestamp,
    },
    /// The ghost is joining.
    Joining,
    /// The ghost has joined, and reads the room's state and the earlier messages.
    Looking,
    /// The ghost waits for the opening line until this time.
    Listening {
        /// When it introduces without an opening line.
        until: Timestamp,
    },
    /// The owner is being asked; messages are kept as ciphertext.
    Asking {
        /// When the request ends without an answer.
        until: Timestamp,
    },
    /// The owner is being invited.
    Inviting,
    /// A masked handle's ghost takes its place in a conversation, which goes on from there.
    Opening,
    /// The owner is invited; the ghost passes on what it hears.
    Lingering,
    /// The ghost waits for the owner until this time.
    Waiting {
        /// What it waits for.
        on: WaitFor,
        /// When it gives up and tells the asker.
        until: Timestamp,
        /// When it next tries to pass the messages on.
        retry: Timestamp,
    },
    /// The ghost reads the room a last time before it leaves.
    Closing,
    /// The ghost is leaving, and forgets its keys.
    Leaving,
    /// Nothing is left to do here, and the ghost never comes back to this room.
    Over,
    /// The invite was declined; a later one is decided anew.
    Declined,
}

/// What an owner has to do before the opening line can be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitFor {
    /// The owner has to join: this room shows only messages from after one's joining.
    Join,
    /// The owner has to sign a device: they have none.
    SignedDevice,
    /// The owner's server has to hand out their keys.
    Keys,
}

impl WaitFor {
    /// Returns the notice that says what the ghost waits for.
    pub fn notice(self) -> IntroductionNotice {
        match self {
            Self::Join => IntroductionNotice::WaitingForJoin,
            Self::SignedDevice => IntroductionNotice::WaitingForDevice,
            Self::Keys => IntroductionNotice::WaitingForKeys,
        }
    }

    /// Returns the notice that says that the ghost waited in vain.
    pub fn failed_notice(self) -> IntroductionNotice {
        match self {
            Self::Join => IntroductionNotice::OwnerDidNotCome,
            Self::SignedDevice | Self::Keys => IntroductionNotice::OwnerCannotRead,
        }
    }
}

/// The attempts to invite an owner whose server does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRetry {
    /// The time of the next attempt; `None` while one is under way.
    pub at: Option<Timestamp>,
    /// The time from which there is no further attempt.
    pub until: Timestamp,
}

/// What the other ghosts in a group leave to this one, or take from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRole {
    /// Whether another ghost passes messages on and speaks of them.
    pub silent: bool,
    /// Whether other ghosts have yet to invite their owners, who could not read a message that was
    /// passed on before.
    pub awaits: bool,
}

/// The introduction of one handle's owner in one room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The room.
    pub room: OwnedRoomId,
    /// The ghost.
    pub ghost: Ghost,
    /// The invite, with the directory's answer.
    pub invite: Invite,
    /// The phase.
    pub phase: Phase,
    /// Whether exactly one other person was joined, and nobody else invited, when the ghost joined.
    pub direct: bool,
    /// The ghost's role among the others in a group.
    #[serde(default)]
    pub role: GroupRole,
    /// Whether it could not send or read a message in a group that another ghost may pass on, and
    /// leaves the speaking to that one for as long as it is there.
    #[serde(default)]
    pub steps_aside: bool,
    /// When the ghost was invited.
    pub invited_at: Timestamp,
    /// When the owner was invited.
    pub owner_invited_at: Option<Timestamp>,
    /// When the ghost waits no longer for an owner who has to join or to set up encryption. Set
    /// once: it says for how long it stays.
    #[serde(default)]
    pub waits_until: Option<Timestamp>,
    /// The attempts to invite the owner, if the first one has failed.
    #[serde(default)]
    pub invite_retry: Option<InviteRetry>,
    /// When the last message was read.
    pub last_message_at: Option<Timestamp>,
    /// Whether the owner has joined.
    pub owner_joined: bool,
    /// Whether the owner declined or left.
    pub owner_left: bool,
    /// Whether members can read only messages from after their joining.
    pub visible_from_join: bool,
    /// Whether we turned encryption on.
    pub encrypted_by_us: bool,
    /// Whether somebody wrote unencrypted, and has to be asked to send it again once the room is
    /// encrypted.
    #[serde(default)]
    pub in_clear: bool,
    /// Whether the owner was asked and accepted.
    #[serde(default)]
    pub accepted: bool,
    /// Whether the owner is shown an opening line, with the request or after it.
    #[serde(default)]
    pub line_shown: bool,
    /// Whether a strict ghost was sent a key: the owner may not have been able to read a message.
    pub key_came: bool,
    /// Whether it was under way when the service was restored from a backup: the ghost has lost the
    /// keys of earlier messages, and the owner may have been invited.
    #[serde(default)]
    pub resumed: bool,
    /// The events that the ghost read, in the room's order.
    pub pending: Vec<PendingEvent>,
    /// The event that is being passed on. The next one follows when this one is done.
    #[serde(default)]
    pub passing_on: Option<OwnedEventId>,
    /// Whether the ghost has looked a last time, and leaves when everything is passed on.
    #[serde(default)]
    pub looked_last: bool,
    /// The messages that it has replied to already.
    #[serde(default)]
    pub replied_to: Vec<OwnedEventId>,
    /// The notices that it has sent already, so that it repeats none.
    pub notices_sent: Vec<IntroductionNotice>,
}

impl Introduction {
    /// Returns an introduction of which only the invite is known.
    pub fn found(room: &RoomId, ghost: &Ghost, invite: Invite, now: Timestamp) -> Self {
        Introduction {
            room: room.to_owned(),
            ghost: ghost.clone(),
            invite,
            phase: Phase::Declined,
            direct: false,
            role: GroupRole::default(),
            steps_aside: false,
            invited_at: now,
            owner_invited_at: None,
            waits_until: None,
            invite_retry: None,
            last_message_at: None,
            owner_joined: false,
            owner_left: false,
            visible_from_join: false,
            encrypted_by_us: false,
            in_clear: false,
            accepted: false,
            line_shown: false,
            key_came: false,
            resumed: false,
            pending: Vec::new(),
            passing_on: None,
            looked_last: false,
            replied_to: Vec::new(),
            notices_sent: Vec::new(),
        }
    }

    /// Returns this introduction, continued after a restore by a ghost that is still in the room
    /// and has lost its keys. It begins again; senders are asked for what was not passed on.
    pub fn resumed(mut self) -> Self {
        self.resumed = true;
        self.steps_aside = false;
        self.line_shown = false;
        self.invite_retry = None;
        self.phase = match self.invite.admission {
            Admission::Introduce { .. } => Phase::Joining,
            _ => Phase::Leaving,
        };
        for pending in self.pending.iter_mut().filter(|pending| !pending.done) {
            pending.unreadable = true;
            pending.edit = None;
            pending.former_edits.clear();
        }
        self.passing_on = None;
        self.looked_last = false;
        self.replied_to.clear();
        self.notices_sent.clear();
        self
    }

    /// Ends it. Only that the ghost never comes back is kept: neither who asked nor for whom.
    pub fn end(&mut self) {
        self.phase = Phase::Over;
        self.pending.clear();
        self.passing_on = None;
        self.looked_last = false;
        self.replied_to.clear();
        self.notices_sent.clear();
        self.invite.admission = Admission::LeaveAlone;
        self.invite.asker = self.ghost.clone().into();
    }

    /// Returns the record of a room that the ghost has left.
    pub fn ended(room: &RoomId, ghost: &Ghost) -> Self {
        let invite = Invite {
            asker: ghost.clone().into(),
            admission: Admission::LeaveAlone,
        };
        let mut ended = Self::found(room, ghost, invite, Timestamp::default());
        ended.end();
        ended
    }

    /// Returns the asker, if there is an owner to introduce them to. Otherwise the inviter may be
    /// one of our own users.
    pub fn asker(&self) -> Option<Person> {
        match self.invite.admission {
            Admission::Introduce { .. } => Some(Person::new(self.invite.asker.clone())),
            _ => None,
        }
    }

    /// Returns the owner, if there is one to introduce.
    pub fn owner(&self) -> Option<&Person> {
        match &self.invite.admission {
            Admission::Introduce { owner, .. } => Some(owner),
            _ => None,
        }
    }

    /// Returns the handle as its owner writes it.
    pub fn handle(&self) -> &str {
        match &self.invite.admission {
            Admission::Introduce { handle, .. } => handle,
            _ => "",
        }
    }

    /// Returns whether the ghost has no keys.
    pub fn strict(&self) -> bool {
        matches!(
            self.invite.admission,
            Admission::Introduce { strict: true, .. }
        )
    }

    /// Returns whether the owner has yet to be asked.
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

    /// Returns whether the ghost stays, so that the owner's Matrix ID is not seen.
    pub fn masked(&self) -> bool {
        matches!(
            self.invite.admission,
            Admission::Introduce { masked: true, .. }
        )
    }

    /// Returns the message that the owner sees while they are asked, and its newest edit.
    pub fn opening_line(&self) -> Option<(&OwnedEventId, Option<&OwnedEventId>)> {
        let pending = self.pending.iter().find(|pending| !pending.unreadable)?;
        Some((&pending.event, pending.edit.as_ref()))
    }

    /// Returns whether the ghost is in the room and handles messages.
    pub fn hears(&self) -> bool {
        self.is_open() && !matches!(self.phase, Phase::Declining { .. } | Phase::Leaving)
    }

    /// Returns whether the ghost lets time pass before it invites the owner again.
    pub fn waits_to_invite(&self) -> bool {
        let waits = self.invite_retry.is_some_and(|retry| retry.at.is_some());
        self.phase == Phase::Inviting && waits
    }

    /// Returns the effects under way in this phase, to be queued again if a restart lost them.
    pub fn under_way(&self) -> Vec<Effect> {
        let passing_on = self
            .pending
            .iter()
            .filter(|pending| pending.is_due() && self.passing_on.as_ref() == Some(&pending.event));
        let passing_on = passing_on.map(PendingEvent::pass_on);
        match self.phase {
            Phase::Joining => vec![Effect::Join],
            Phase::Looking => vec![Effect::Look],
            Phase::Lingering | Phase::Waiting { .. } => passing_on.collect(),
            Phase::Closing => passing_on.chain([Effect::Look]).collect(),
            Phase::Inviting if self.waits_to_invite() => Vec::new(),
            Phase::Inviting => vec![Effect::InviteOwner],
            Phase::Opening => vec![Effect::OpenConversation],
            Phase::Leaving => vec![Effect::Leave { reason: None }, Effect::Forget],
            _ => Vec::new(),
        }
    }

    /// Returns when the next [`Input::Tick`](super::Input::Tick) is due.
    pub fn deadline(&self, rules: &Rules) -> Option<Timestamp> {
        match self.phase {
            Phase::Declining { at } => Some(at),
            Phase::Listening { until } | Phase::Asking { until } => Some(until),
            // The ghost stays until everything is passed on.
            Phase::Lingering if self.passing_on.is_some() => None,
            // Another ghost passes on what is due, or other owners are being invited.
            Phase::Lingering if self.pending.iter().any(PendingEvent::is_due) => self
                .awaits_others_until(rules)
                .or(Some(self.latest_stay(rules))),
            Phase::Lingering => {
                let invited = self.owner_invited_at.unwrap_or(self.invited_at);
                let wait = if self.strict() {
                    rules.wait_for_message
                } else {
                    rules.linger
                };
                let last = self.last_message_at.map_or(invited, |at| at.max(invited));
                Some((last + wait).min(self.latest_stay(rules)))
            }
            Phase::Waiting { until, retry, .. } => Some(until.min(retry)),
            Phase::Inviting => self.invite_retry?.at,
            _ => None,
        }
    }

    /// Returns until when passing on waits for other owners' invites, if it waits for any.
    pub fn awaits_others_until(&self, rules: &Rules) -> Option<Timestamp> {
        let awaits = self.role.awaits && !self.role.silent && !self.direct;
        let invited_at = self.owner_invited_at.filter(|_| awaits)?;
        Some(invited_at + rules.wait_for_message)
    }

    /// Returns when the ghost leaves although people are still writing.
    pub fn latest_stay(&self, rules: &Rules) -> Timestamp {
        self.owner_invited_at.unwrap_or(self.invited_at) + rules.linger_at_most
    }

    /// Returns whether anything is left to do.
    pub fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Over | Phase::Declined)
    }
}
