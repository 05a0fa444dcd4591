//! What an introduction knows.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use serde::{Deserialize, Serialize};

use super::{Effect, IntroductionNotice, Rules};
use crate::{
    clock::Timestamp,
    ids::{Ghost, Person},
};

/// What the directory says to an invite, before the ghost does anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admission {
    /// The owner may be reached now.
    Introduce {
        /// Who holds the handle.
        owner: Person,
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
    /// Who invites: somebody real, or one of our own users.
    pub asker: OwnedUserId,
    /// What the directory says.
    pub admission: Admission,
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
    /// Whether it has been passed on (or no longer needs to be).
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
    pub ghost: Ghost,
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
    pub notices_sent: Vec<IntroductionNotice>,
}

impl Introduction {
    /// One that is known by nothing but its invite.
    pub fn found(room: &RoomId, ghost: &Ghost, invite: Invite, now: Timestamp) -> Self {
        Introduction {
            room: room.to_owned(),
            ghost: ghost.clone(),
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
            notices_sent: Vec::new(),
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
        self.notices_sent.clear();
        self
    }

    /// All that is kept is that the ghost never comes back: not who asked, nor for whom.
    pub fn end(&mut self) {
        self.phase = Phase::Over;
        self.heard.clear();
        self.notices_sent.clear();
        self.invite.admission = Admission::LeaveAlone;
        self.invite.asker = self.ghost.clone().into();
    }

    /// A room that the ghost has left.
    pub fn ended(room: &RoomId, ghost: &Ghost) -> Self {
        let invite = Invite {
            asker: ghost.clone().into(),
            admission: Admission::LeaveAlone,
        };
        let mut ended = Self::found(room, ghost, invite, Timestamp::default());
        ended.end();
        ended
    }

    /// Returns the person who asks, where there is an owner to introduce them to: elsewhere it may
    /// be one of our own users.
    pub fn asker(&self) -> Option<Person> {
        match self.invite.admission {
            Admission::Introduce { .. } => Some(Person::new(self.invite.asker.clone())),
            _ => None,
        }
    }

    /// The owner, where there is one to introduce.
    pub fn owner(&self) -> Option<&Person> {
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

    /// Returns whether the ghost has no keys.
    pub fn strict(&self) -> bool {
        matches!(
            self.invite.admission,
            Admission::Introduce { strict: true, .. }
        )
    }

    /// Returns whether the owner is still to be asked.
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

    /// Returns whether the ghost stays, so that the owner is not seen.
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

    /// Returns whether the ghost is in the room and takes in what is said.
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

    /// When the next [`Input::Tick`](super::Input::Tick) is due, if one is.
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

    /// Returns whether anything is left to do.
    pub fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Over | Phase::Declined)
    }
}
