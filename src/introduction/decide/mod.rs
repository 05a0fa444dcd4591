//! The rules of an introduction. Pure: the same state, input and time give the same decision.

mod group;
mod leaving;
mod messages;
mod room;

use ruma::{OwnedUserId, UserId};

use super::{
    Admission, Effect, Input, Introduction, IntroductionNotice, Invite, InviteRetry, Phase, Reason,
    Refusal, Rules, WaitFor,
};
use crate::{clock::Timestamp, handle::Handle, ids::Ghost, matrix::RoomState};

pub use room::decide_in_room;

/// The new state and the effects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The state from now on.
    pub state: Introduction,
    /// The effects, in order.
    pub effects: Vec<Effect>,
}

/// Decides what follows from `input` at the time `now`.
///
/// `state` is `None` only for an invite into a room that the ghost does not know; any other input
/// for an unknown room decides nothing and returns `None`.
pub fn decide(
    state: Option<Introduction>,
    room: &ruma::RoomId,
    ghost: &Ghost,
    input: &Input,
    now: Timestamp,
    rules: &Rules,
) -> Option<Decision> {
    let state = match (state, input) {
        (Some(state), _) => state,
        (None, Input::Invited(invite)) => Introduction::found(room, ghost, invite.clone(), now),
        (None, _) => return None,
    };
    let mut step = IntroductionStep {
        state,
        effects: Vec::new(),
        now,
        rules,
    };
    step.apply(input);
    Some(Decision {
        state: step.state,
        effects: step.effects,
    })
}

/// A decision in the making.
struct IntroductionStep<'a> {
    state: Introduction,
    effects: Vec<Effect>,
    now: Timestamp,
    rules: &'a Rules,
}

impl IntroductionStep<'_> {
    fn apply(&mut self, input: &Input) {
        match input {
            Input::Invited(invite) => self.invited(invite),
            _ if !self.state.is_open() => {}
            Input::Looked(view) => self.looked(view),
            Input::Done(effect) => self.done(effect),
            Input::Refused(effect, why) => self.refused(effect, why),
            Input::Message {
                event,
                sender,
                kind,
            } => self.message(event, sender, kind),
            Input::Member { user, membership } => self.member(user, membership),
            Input::Missed => self.missed(),
            Input::KeyCame => self.key_came(),
            Input::Answered { accepted, masked } => self.answered(*accepted, *masked),
            Input::Role(role) => self.take_role(*role),
            Input::SettledByOther { event } => self.settled_by_other(event),
            Input::LeftToOther => self.left_to_other(),
            Input::Tick => self.tick(),
        }
    }

    fn invited(&mut self, invite: &Invite) {
        match self.state.phase {
            // A ghost never comes back to a room that it has left: it would have a founder's power
            // there, and could read a chat that was promised to be private.
            Phase::Over => return self.effects.push(Effect::Decline { reason: None }),
            Phase::Declined => {}
            // The same invite again.
            _ => return,
        }
        self.state = Introduction::found(
            &self.state.room,
            &self.state.ghost,
            invite.clone(),
            self.now,
        );
        self.state.phase = match invite.admission {
            Admission::Introduce { .. } => {
                self.effects.push(Effect::Join);
                Phase::Joining
            }
            Admission::LeaveAlone => Phase::Declined,
            _ => Phase::Declining {
                at: self.now + self.rules.decline_after,
            },
        };
    }

    fn looked(&mut self, view: &RoomState) {
        let first = self.state.phase == Phase::Looking;
        if !first && self.state.phase != Phase::Closing {
            return;
        }
        if let Some(owner) = self.state.owner().cloned() {
            self.state.owner_joined = view.membership(&owner) == "join";
        }
        self.state.visible_from_join = view.history_visibility == "joined";
        if !first {
            return self.close();
        }
        self.note_whether_direct(view);
        if view.joined().count() + view.invited().count() > self.rules.members_at_most {
            return self.leave(Some(Reason::TooManyMembers));
        }
        if view.membership(&self.state.invite.asker) != "join" {
            return self.leave(None);
        }
        // A space, for example. Encryption there cannot be turned off again.
        if view.room_type.is_some() {
            return self.leave(Some(Reason::NotAChat));
        }
        // Until the owner has answered, nothing may show who they are.
        let may_show = !self.state.asks_first() && !self.state.accepted && !self.state.masked();
        if self.state.owner_joined && !self.state.resumed && may_show {
            return self.leave(Some(Reason::OwnerIsHere));
        }
        if view.encryption.is_none() {
            if self.state.encrypted_by_us || view.foreign_encryption {
                return self.leave(Some(Reason::NotEncrypted));
            }
            self.state.encrypted_by_us = true;
            return self
                .effects
                .extend([Effect::TurnOnEncryption, Effect::Look]);
        }
        if self.state.listens() && !self.state.strict() && !self.state.resumed {
            if let Some(notice) = self.back_to().filter(|_| self.state.direct) {
                self.send_notice(notice);
                return self.leave(None);
            }
            if self.state.in_clear {
                self.send_notice(IntroductionNotice::SendAgainEncrypted);
            }
            let has_line = self.state.pending.iter().any(|pending| !pending.unreadable);
            // A message to a masked handle is forwarded when it comes, so there is no need to wait
            // for one.
            let waits = !self.state.masked() || self.state.asks_first();
            if !has_line && !self.state.accepted && waits {
                self.state.phase = Phase::Listening {
                    until: self.now + self.rules.wait_for_message,
                };
                return;
            }
        }
        self.approach_owner();
    }

    fn note_whether_direct(&mut self, view: &RoomState) {
        // The owner may be there because of this introduction.
        let expected = self.state.owner().filter(|_| self.state.resumed).cloned();
        let other = |user: &&OwnedUserId| {
            **user != self.state.ghost && expected.as_ref().is_none_or(|owner| **user != *owner)
        };
        let others = view.joined().filter(other).count();
        let guests = view.invited().filter(other).count();
        // Decided only once: the owner's own invite must not turn the chat into a group later.
        if self.state.owner_invited_at.is_none() {
            let was_direct = self.state.direct;
            self.state.direct = others == 1 && guests == 0;
            if was_direct && !self.state.direct && self.state.accepted {
                self.give_up_private_words();
            }
        }
    }

    /// Returns the notice that leads the asker back to the room that the two have.
    fn back_to(&self) -> Option<IntroductionNotice> {
        let Admission::Introduce { back_to, .. } = &self.state.invite.admission else {
            return None;
        };
        let room = back_to.clone()?;
        Some(match Handle::of_ghost(self.state.ghost.localpart()) {
            Some(_) => IntroductionNotice::BackTo { room },
            None => IntroductionNotice::BackToPerson { room },
        })
    }

    /// Invites the owner, or asks them first.
    fn approach_owner(&mut self) {
        if !self.state.asks_first() {
            return self.invite_owner();
        }
        self.state.phase = Phase::Asking {
            until: self.now + self.rules.wait_for_answer,
        };
        let has_line = self.state.opening_line().is_some();
        let notice = match (self.state.direct, has_line) {
            (true, true) => IntroductionNotice::AskingFirst,
            (true, false) => IntroductionNotice::AskingFirstWithoutLine,
            (false, _) => IntroductionNotice::AskingFirstInGroup,
        };
        if self.state.strict() {
            // A strict ghost never sends a message, so the bot does.
            self.tell_asker(IntroductionNotice::AskingFirstStrict);
        } else {
            self.send_notice(notice);
        }
        self.state.line_shown = has_line;
        self.effects.push(Effect::AskOwner);
    }

    fn answered(&mut self, accepted: bool, is_masked: bool) {
        match self.state.phase {
            // Days may have passed, so the room's state is read again.
            Phase::Asking { .. } if accepted => {
                self.state.accepted = true;
                if let Admission::Introduce { masked, .. } = &mut self.state.invite.admission {
                    *masked = is_masked;
                }
                self.state.phase = Phase::Looking;
                self.effects.push(Effect::Look);
            }
            // The same words as for every other refusal.
            Phase::Asking { .. } => self.leave(Some(Reason::NotNow)),
            _ => {}
        }
    }

    fn invite_owner(&mut self) {
        if self.state.masked() {
            self.state.phase = Phase::Opening;
            return self.effects.push(Effect::OpenConversation);
        }
        self.state.phase = Phase::Inviting;
        if !(self.state.resumed && self.state.owner_joined) {
            self.effects.push(Effect::ShowAs);
        }
        self.effects.push(Effect::InviteOwner);
    }

    /// Invites the owner again in a while. The waiting is not left to the outbox: an owner's server
    /// that does not answer must not hold up the other ghosts in the room.
    fn invite_owner_later(&mut self) {
        let retry = self.state.invite_retry;
        let until = retry.map_or(self.now + self.rules.invite_owner_for, |retry| retry.until);
        if until <= self.now {
            return self.leave_with(IntroductionNotice::InviteFailed);
        }
        let at = Some(self.now + self.rules.retry_invite);
        self.state.invite_retry = Some(InviteRetry { at, until });
        self.send_notice(IntroductionNotice::InvitingLater);
    }

    fn done(&mut self, effect: &Effect) {
        match effect {
            Effect::Join => {
                self.state.phase = Phase::Looking;
                self.effects.push(Effect::Look);
            }
            Effect::InviteOwner => self.owner_invited(),
            Effect::PassOn { event, edit } => self.passed_on(event, edit.as_ref()),
            Effect::LookBack => self.effects.push(Effect::Forget),
            Effect::Forget => self.state.end(),
            _ => {}
        }
    }

    fn owner_invited(&mut self) {
        self.state.owner_invited_at = Some(self.now);
        self.state.invite_retry = None;
        if self.state.direct && !self.state.strict() {
            self.effects.push(Effect::RememberPair);
        }
        if !self.state.direct {
            return self.owner_invited_to_group();
        }
        self.effects.push(Effect::HandOver);
        self.state.phase = Phase::Lingering;
        if self.state.strict() {
            // The first message was sent before the owner's invite: there is nothing to wait for.
            if self.state.last_message_at.is_some() {
                self.close();
            }
            return;
        }
        if self.state.visible_from_join && !self.state.owner_joined {
            return self.wait(WaitFor::Join);
        }
        self.pass_on_next();
    }

    fn wait(&mut self, on: WaitFor) {
        let until = self.now + self.rules.wait_for_owner;
        let until = *self.state.waits_until.get_or_insert(until);
        if until <= self.now {
            return self.leave_with(on.failed_notice());
        }
        self.state.phase = Phase::Waiting {
            on,
            until,
            retry: self.now + self.rules.retry_owner,
        };
        self.send_notice(on.notice());
    }

    fn linger_afresh(&mut self) {
        self.state.phase = Phase::Lingering;
        self.state.looked_last = false;
        self.state.owner_invited_at = Some(self.now);
    }

    fn refused(&mut self, effect: &Effect, why: &Refusal) {
        match effect {
            // A server did not answer in time; the asker waits for a word.
            Effect::Join | Effect::Look | Effect::TurnOnEncryption
                if *why == Refusal::Failing && self.state.phase != Phase::Closing =>
            {
                self.effects.retain(|effect| *effect != Effect::Look);
                self.leave(Some(Reason::NotNow));
            }
            Effect::Join => self.leave(None),
            // Nothing more can be seen, but what was heard is passed on or asked for again.
            Effect::Look if *why == Refusal::Failing => self.close(),
            // The ghost was removed: it can do nothing more here.
            Effect::Look => self.leave(None),
            Effect::TurnOnEncryption => {
                self.effects.retain(|effect| *effect != Effect::Look);
                self.leave(Some(Reason::NotEncrypted));
            }
            Effect::AskOwner | Effect::OpenConversation => self.leave(Some(Reason::NotNow)),
            // The ghost leaves rather than stay without the asker knowing it.
            Effect::SendNotice { notice } if notice.is_asking() => self.leave(Some(match why {
                Refusal::NoSignedDevice(_) => Reason::UnsignedDevice,
                Refusal::TooManyDevices(_) => Reason::TooManyDevices,
                _ => Reason::NotNow,
            })),
            Effect::InviteOwner if *why == Refusal::Impossible => {
                self.leave_with(IntroductionNotice::OwnerNotInvitable);
            }
            Effect::InviteOwner if *why == Refusal::HandleChanged => {
                self.leave(Some(Reason::NotNow));
            }
            Effect::InviteOwner if *why == Refusal::Failing => self.invite_owner_later(),
            Effect::InviteOwner => self.leave(Some(Reason::MayNotInvite)),
            Effect::PassOn { event, .. } => self.not_passed_on(event, why),
            Effect::PassOnEdit { event, of } => self.edit_not_passed_on(event, of, why),
            Effect::TakeBack { .. } => self.send_notice(IntroductionNotice::NotTakenBack),
            Effect::LookBack => self.effects.push(Effect::Forget),
            Effect::Forget => self.state.end(),
            _ => {}
        }
    }

    fn member(&mut self, user: &UserId, membership: &str) {
        let gone = matches!(membership, "leave" | "ban");
        if user == self.state.ghost {
            if gone && !matches!(self.state.phase, Phase::Leaving | Phase::Declining { .. }) {
                self.withdraw();
                self.state.phase = Phase::Leaving;
                self.effects.push(Effect::Forget);
            } else if gone && matches!(self.state.phase, Phase::Declining { .. }) {
                self.state.phase = Phase::Declined;
            }
            return;
        }
        let waits = matches!(
            self.state.phase,
            Phase::Waiting { .. } | Phase::Asking { .. }
        ) || self.state.waits_to_invite();
        if user == self.state.invite.asker && gone && waits {
            return self.leave(None);
        }
        if user == self.state.invite.asker && gone && self.state.owner_invited_at.is_none() {
            if matches!(self.state.phase, Phase::Looking | Phase::Listening { .. }) {
                self.leave(None);
            }
            return;
        }
        if self.state.owner().is_some_and(|owner| owner == user) {
            match membership {
                "join" => self.owner_came(),
                "leave" | "ban" => self.owner_went(membership == "leave"),
                _ => {}
            }
        }
    }

    fn owner_came(&mut self) {
        self.state.owner_joined = true;
        match self.state.phase {
            Phase::Waiting { .. } => {
                self.linger_afresh();
                self.pass_on_next();
            }
            Phase::Listening { .. } if !self.state.asks_first() && !self.state.masked() => {
                self.leave(Some(Reason::OwnerIsHere))
            }
            _ => {}
        }
    }

    fn owner_went(&mut self, by_themselves: bool) {
        let has_declined = by_themselves && !self.state.owner_joined;
        self.state.owner_left = true;
        if let Phase::Lingering | Phase::Waiting { .. } = self.state.phase {
            if self.state.direct && !self.state.strict() {
                self.effects.push(Effect::ForgetPair);
            }
            self.leave(None);
            // Last, as it may take long. The invite came from the ghost: clients offer to block
            // the ghost, and not the asker.
            if has_declined {
                self.effects.pop_if(|last| *last == Effect::Forget);
                self.effects.extend([Effect::TellOwner, Effect::Forget]);
            }
        }
    }

    fn tick(&mut self) {
        let due = self.deadline().is_some_and(|at| at <= self.now);
        match self.state.phase {
            _ if !due => {}
            Phase::Declining { .. } => {
                let reason = match self.state.invite.admission {
                    Admission::GhostAsking => None,
                    Admission::Unfit { reason } => Some(reason),
                    _ => Some(Reason::NotNow),
                };
                self.effects.push(Effect::Decline { reason });
                self.state.phase = Phase::Declined;
            }
            Phase::Listening { .. } => self.approach_owner(),
            Phase::Inviting => {
                if let Some(retry) = &mut self.state.invite_retry {
                    retry.at = None;
                }
                self.effects.push(Effect::InviteOwner);
            }
            Phase::Asking { .. } => self.leave(Some(Reason::NotNow)),
            Phase::Lingering => {
                // What has waited for the invites of other owners.
                self.pass_on_next();
                if self.state.passing_on.is_none() {
                    self.state.phase = Phase::Closing;
                    self.effects.push(Effect::Look);
                }
            }
            Phase::Waiting { on, until, .. } if until > self.now => {
                let retry = self.now + self.rules.retry_owner;
                self.state.phase = Phase::Waiting { on, until, retry };
                if on != WaitFor::Join {
                    self.pass_on_next();
                }
            }
            Phase::Waiting { on, .. } => self.leave_with(on.failed_notice()),
            _ => {}
        }
    }

    fn send_notice(&mut self, notice: IntroductionNotice) {
        let left_to_other = self.state.role.silent && notice.is_about_message();
        if self.state.strict() || left_to_other || self.state.notices_sent.contains(&notice) {
            return;
        }
        self.state.notices_sent.push(notice.clone());
        self.effects.push(Effect::SendNotice { notice });
    }

    fn latest_stay(&self) -> Timestamp {
        self.state.latest_stay(self.rules)
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.state.deadline(self.rules)
    }
}
