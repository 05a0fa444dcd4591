//! The rules of an introduction. Pure: the same state, input and time give the same decision.

use ruma::{OwnedEventId, OwnedUserId, UserId};

use super::{
    Admission, Decision, Effect, Heard, HeardKind, Input, Introduction, Invite, Phase, Reason,
    Refusal, Rules, Saying, WaitFor,
};
use crate::{clock::Timestamp, matrix::RoomState};

/// Decides what follows from `input` at the time `now`.
///
/// `state` is `None` only for an invite into a room that the ghost does not know; any other input
/// for an unknown room decides nothing and returns `None`.
pub fn decide(
    state: Option<Introduction>,
    room: &ruma::RoomId,
    ghost: &UserId,
    input: &Input,
    now: Timestamp,
    rules: &Rules,
) -> Option<Decision> {
    let state = match (state, input) {
        (Some(state), _) => state,
        (None, Input::Invited(invite)) => Introduction::found(room, ghost, invite.clone(), now),
        (None, _) => return None,
    };
    let mut case = Case {
        is: state,
        effects: Vec::new(),
        now,
        rules,
    };
    case.take(input);
    let wake = case.deadline();
    Some(Decision {
        state: case.is,
        effects: case.effects,
        wake,
    })
}

struct Case<'a> {
    is: Introduction,
    effects: Vec<Effect>,
    now: Timestamp,
    rules: &'a Rules,
}

impl Case<'_> {
    fn take(&mut self, input: &Input) {
        match input {
            Input::Invited(invite) => self.invited(invite),
            _ if !self.is.is_open() => {}
            Input::Looked(view) => self.looked(view),
            Input::Done(effect) => self.done(effect),
            Input::Refused(effect, why) => self.refused(effect, why),
            Input::Heard {
                event,
                sender,
                kind,
            } => self.heard(event, sender, kind),
            Input::Member { user, membership } => self.member(user, membership),
            Input::Missed => self.missed(),
            Input::KeyCame => self.key_came(),
            Input::Answered { accepted } => self.answered(*accepted),
            Input::Tick => self.tick(),
        }
    }

    fn invited(&mut self, invite: &Invite) {
        match self.is.phase {
            // A ghost never comes back to a room that it has left: it would have a founder's
            // power there, and read what two people say who were promised to be alone.
            Phase::Over => return self.effects.push(Effect::Decline { reason: None }),
            Phase::Declined => {}
            // The same invite, seen again.
            _ => return,
        }
        self.is = Introduction::found(&self.is.room, &self.is.ghost, invite.clone(), self.now);
        self.is.phase = match invite.admission {
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
        let first = self.is.phase == Phase::Looking;
        if !first && self.is.phase != Phase::Closing {
            return;
        }
        if let Some(owner) = self.is.owner().cloned() {
            self.is.owner_joined = view.membership(&owner) == "join";
        }
        self.is.visible_from_join = view.history_visibility == "joined";
        if !first {
            return self.close();
        }
        // The owner may be there because of this very introduction.
        let expected = self.is.owner().filter(|_| self.is.resumed).cloned();
        let other =
            |user: &&OwnedUserId| **user != self.is.ghost && Some(*user) != expected.as_ref();
        let others = view.joined().filter(other).count();
        let guests = view.invited().filter(other).count();
        // Looked at once: the owner's own invite must not make a group of it later.
        if self.is.owner_invited_at.is_none() {
            self.is.direct = others == 1 && guests == 0;
        }
        if view.joined().count() + view.invited().count() > self.rules.members_at_most {
            return self.leave(Some(Reason::TooManyMembers));
        }
        if view.membership(&self.is.invite.asker) != "join" {
            return self.leave(None);
        }
        // Before the owner has answered nothing is to tell who they are.
        let may_show = !self.is.asks_first() && !self.is.accepted && !self.is.masked();
        if self.is.owner_joined && !self.is.resumed && may_show {
            return self.leave(Some(Reason::OwnerIsHere));
        }
        if view.encryption.is_none() {
            if self.is.encrypted_by_us || view.foreign_encryption {
                return self.leave(Some(Reason::NotEncrypted));
            }
            self.is.encrypted_by_us = true;
            return self
                .effects
                .extend([Effect::TurnOnEncryption, Effect::Look]);
        }
        if self.is.direct && !self.is.strict() && !self.is.resumed {
            let back_to = match &self.is.invite.admission {
                Admission::Introduce { back_to, .. } => back_to.clone(),
                _ => None,
            };
            if let Some(room) = back_to {
                self.say(Saying::BackTo { room });
                return self.leave(None);
            }
            if self.is.in_clear {
                self.say(Saying::SendAgainEncrypted);
            }
            let heard = self.is.heard.iter().any(|heard| !heard.unreadable);
            // What is said to a masked handle is carried when it comes.
            let waits = !self.is.masked() || self.is.asks_first();
            if !heard && !self.is.accepted && waits {
                self.is.phase = Phase::Listening {
                    until: self.now + self.rules.wait_for_message,
                };
                return;
            }
        }
        self.approach_owner();
    }

    /// The owner is invited, or asked first.
    fn approach_owner(&mut self) {
        if !self.is.asks_first() {
            return self.invite_owner();
        }
        self.is.phase = Phase::Asking {
            until: self.now + self.rules.wait_for_answer,
        };
        let saying = match self.is.direct {
            true => Saying::AskingFirst,
            false => Saying::AskingFirstInGroup,
        };
        if self.is.strict() {
            // It never speaks: the bot does.
            let saying = Saying::AskingFirstStrict;
            self.is.said.push(saying.clone());
            self.effects.push(Effect::TellAsker { saying });
        } else {
            self.say(saying);
        }
        self.effects.push(Effect::AskOwner);
    }

    fn answered(&mut self, accepted: bool) {
        match self.is.phase {
            // Days may have passed: the room is looked at again.
            Phase::Asking { .. } if accepted => {
                self.is.accepted = true;
                self.is.phase = Phase::Looking;
                self.effects.push(Effect::Look);
            }
            // In the words of every refusal.
            Phase::Asking { .. } => self.leave(Some(Reason::NotNow)),
            _ => {}
        }
    }

    fn invite_owner(&mut self) {
        if self.is.masked() {
            self.is.phase = Phase::Opening;
            return self.effects.push(Effect::OpenConversation);
        }
        self.is.phase = Phase::Inviting;
        if !(self.is.resumed && self.is.owner_joined) {
            self.effects.push(Effect::ShowAs);
        }
        self.effects.push(Effect::InviteOwner);
    }

    fn done(&mut self, effect: &Effect) {
        match effect {
            Effect::Join => {
                self.is.phase = Phase::Looking;
                self.effects.push(Effect::Look);
            }
            Effect::InviteOwner => self.owner_invited(),
            Effect::PassOn { event, edit } => self.passed_on(event, edit.as_ref()),
            Effect::LookBack => self.effects.push(Effect::Forget),
            Effect::Forget => self.is.end(),
            _ => {}
        }
    }

    fn owner_invited(&mut self) {
        self.is.owner_invited_at = Some(self.now);
        if self.is.direct && !self.is.strict() {
            self.effects.push(Effect::RememberPair);
        }
        if !self.is.direct {
            if !self.is.strict() {
                self.say(Saying::GroupFromInviteOn);
            }
            return self.leave(None);
        }
        self.effects.push(Effect::HandOver);
        self.is.phase = Phase::Lingering;
        if self.is.strict() {
            // The first message was sent before the owner's invite: nothing more to wait for.
            if self.is.heard_at.is_some() {
                self.close();
            }
            return;
        }
        if self.is.visible_from_join && !self.is.owner_joined {
            return self.wait(WaitFor::Join);
        }
        self.pass_on_all();
    }

    fn wait(&mut self, on: WaitFor) {
        let until = self.now + self.rules.wait_for_owner;
        self.is.phase = Phase::Waiting {
            on,
            until,
            retry: self.now + self.rules.retry_owner,
        };
        self.say(match on {
            WaitFor::Join => Saying::WaitingForJoin,
            WaitFor::SignedDevice => Saying::WaitingForDevice,
        });
    }

    fn pass_on_all(&mut self) {
        for heard in self
            .is
            .heard
            .iter()
            .filter(|heard| !heard.done && !heard.unreadable)
        {
            let (event, edit) = (heard.event.clone(), heard.edit.clone());
            self.effects.push(Effect::PassOn { event, edit });
        }
    }

    fn passed_on(&mut self, event: &OwnedEventId, edit: Option<&OwnedEventId>) {
        // Meanwhile the owner has shown a signed device: back to the ordinary course.
        if let Phase::Waiting {
            on: WaitFor::SignedDevice,
            ..
        } = self.is.phase
        {
            self.linger_afresh();
        }
        let Some(heard) = self.is.heard.iter_mut().find(|heard| heard.event == *event) else {
            // Taken back while it was on its way.
            return self.effects.push(Effect::TakeBack { of: event.clone() });
        };
        heard.done = true;
        if let Some(newer) = heard.edit.clone().filter(|newer| Some(newer) != edit) {
            self.effects.push(Effect::PassOnEdit {
                event: newer,
                of: event.clone(),
            });
        }
    }

    fn linger_afresh(&mut self) {
        self.is.phase = Phase::Lingering;
        self.is.owner_invited_at = Some(self.now);
    }

    fn give_up_on(&mut self, event: &OwnedEventId) {
        for heard in self
            .is
            .heard
            .iter_mut()
            .filter(|heard| heard.event == *event)
        {
            heard.done = true;
        }
    }

    fn refused(&mut self, effect: &Effect, why: &Refusal) {
        match effect {
            Effect::Join => {
                self.is.phase = Phase::Leaving;
                self.effects
                    .extend([Effect::Leave { reason: None }, Effect::Forget]);
            }
            // The ghost was removed: it can do nothing more here.
            Effect::Look => self.leave(None),
            Effect::TurnOnEncryption => {
                self.effects.retain(|effect| *effect != Effect::Look);
                self.leave(Some(Reason::NotEncrypted));
            }
            Effect::AskOwner | Effect::OpenConversation => self.leave(Some(Reason::NotNow)),
            // Nobody is listened to without knowing it.
            Effect::Say { saying } if saying.is_asking() => self.leave(Some(match why {
                Refusal::NoSignedDevice(_) => Reason::UnsignedDevice,
                Refusal::TooManyDevices(_) => Reason::TooManyDevices,
                _ => Reason::NotNow,
            })),
            Effect::InviteOwner if *why == Refusal::Impossible => {
                if !self.is.strict() {
                    self.say(Saying::OwnerNotInvitable);
                }
                self.leave(None);
            }
            Effect::InviteOwner => self.leave(Some(Reason::MayNotInvite)),
            Effect::PassOn { event, .. } => self.not_passed_on(event, why),
            Effect::LookBack => self.effects.push(Effect::Forget),
            Effect::Forget => self.is.end(),
            _ => {}
        }
    }

    fn not_passed_on(&mut self, event: &OwnedEventId, why: &Refusal) {
        match why {
            Refusal::NoSignedDevice(users)
                if self.is.owner().is_some_and(|owner| users.contains(owner)) =>
            {
                if !matches!(self.is.phase, Phase::Waiting { .. }) {
                    self.wait(WaitFor::SignedDevice);
                }
            }
            _ => {
                self.give_up_on(event);
                self.say(match why {
                    Refusal::Unreadable => Saying::SendAgainUnreadable,
                    _ => Saying::SendAgainOther,
                });
            }
        }
    }

    fn heard(&mut self, event: &OwnedEventId, sender: &UserId, kind: &HeardKind) {
        // Whoever else comes in is not the asker: their words are not passed on as the asker's.
        if *sender != *self.is.invite.asker || !self.is.hears() {
            return;
        }
        if !self.is.direct && !matches!(self.is.phase, Phase::Joining | Phase::Looking) {
            return;
        }
        // Whatever it is, a strict ghost cannot read it.
        match if self.is.strict() {
            &HeardKind::Sealed
        } else {
            kind
        } {
            HeardKind::Line => self.line(event),
            HeardKind::Edit { of } => self.edited(event, of),
            HeardKind::Redaction { of } => self.taken_back(of),
            // Until the room is encrypted nothing can be said in it.
            HeardKind::Plaintext if matches!(self.is.phase, Phase::Joining | Phase::Looking) => {
                self.is.in_clear = true;
            }
            HeardKind::Plaintext => {
                let told = self.is.said.contains(&Saying::SendAgainEncrypted);
                self.say(Saying::SendAgainEncrypted);
                // Once, for what is sent again: nobody keeps the ghost by writing on in clear.
                if let (false, Phase::Listening { until }) = (told, &mut self.is.phase) {
                    *until = self.now + self.rules.wait_for_message;
                }
            }
            HeardKind::Other => self.say(match self.is.phase {
                Phase::Asking { .. } => Saying::NotKept,
                _ => Saying::SendAgainOther,
            }),
            HeardKind::Unreadable => {
                self.remember(event, true);
            }
            HeardKind::Untrusted => self.leave(Some(Reason::UnsignedDevice)),
            HeardKind::TooManyDevices => self.leave(Some(Reason::TooManyDevices)),
            HeardKind::Sealed => {
                self.is.heard_at = Some(self.now);
                if self.is.phase == Phase::Lingering {
                    self.close();
                }
            }
        }
    }

    /// Says whether there was room for it.
    fn remember(&mut self, event: &OwnedEventId, unreadable: bool) -> bool {
        self.is.heard_at = Some(self.now);
        if let Some(heard) = self.is.heard.iter_mut().find(|heard| heard.event == *event) {
            heard.unreadable = unreadable;
            return true;
        }
        let room = self.is.heard.len() < self.rules.heard_at_most;
        if room {
            self.is.heard.push(Heard {
                event: event.clone(),
                edit: None,
                done: false,
                unreadable,
            });
        }
        room
    }

    fn line(&mut self, event: &OwnedEventId) {
        if self
            .is
            .heard
            .iter()
            .any(|heard| heard.event == *event && !heard.unreadable)
        {
            return;
        }
        if !self.remember(event, false) {
            return self.say(match self.is.phase {
                Phase::Asking { .. } => Saying::EnoughKept,
                _ => Saying::SendAgainOther,
            });
        }
        match self.is.phase {
            Phase::Listening { .. } => self.approach_owner(),
            Phase::Lingering | Phase::Closing => {
                // Past the cap it is passed on too, but nothing keeps the ghost any longer.
                if self.now < self.latest_stay() {
                    self.is.phase = Phase::Lingering;
                }
                self.effects.push(Effect::PassOn {
                    event: event.clone(),
                    edit: None,
                });
            }
            _ => {}
        }
    }

    fn edited(&mut self, event: &OwnedEventId, of: &OwnedEventId) {
        let Some(heard) = self.is.heard.iter_mut().find(|heard| heard.event == *of) else {
            // An edit of something that was not heard carries a whole new text.
            return self.line(event);
        };
        if heard.edit.as_ref() == Some(event) {
            return;
        }
        heard.edit = Some(event.clone());
        self.is.heard_at = Some(self.now);
        if heard.done {
            let (event, of) = (event.clone(), of.clone());
            self.effects.push(Effect::PassOnEdit { event, of });
        }
    }

    fn taken_back(&mut self, of: &OwnedEventId) {
        let Some(at) = self.is.heard.iter().position(|heard| heard.event == *of) else {
            return;
        };
        if self.is.heard[at].done {
            self.effects.push(Effect::TakeBack { of: of.clone() });
        } else {
            self.is.heard.remove(at);
        }
    }

    fn member(&mut self, user: &UserId, membership: &str) {
        let gone = matches!(membership, "leave" | "ban");
        if user == self.is.ghost {
            if gone && !matches!(self.is.phase, Phase::Leaving | Phase::Declining { .. }) {
                self.withdraw();
                self.is.phase = Phase::Leaving;
                self.effects.push(Effect::Forget);
            } else if gone && matches!(self.is.phase, Phase::Declining { .. }) {
                self.is.phase = Phase::Declined;
            }
            return;
        }
        let waits = matches!(self.is.phase, Phase::Waiting { .. } | Phase::Asking { .. });
        if user == self.is.invite.asker && gone && waits {
            return self.leave(None);
        }
        if user == self.is.invite.asker && gone && self.is.owner_invited_at.is_none() {
            if matches!(self.is.phase, Phase::Looking | Phase::Listening { .. }) {
                self.leave(None);
            }
            return;
        }
        if self.is.owner().is_some_and(|owner| owner == user) {
            match membership {
                "join" => self.owner_came(),
                "leave" | "ban" => self.owner_went(),
                _ => {}
            }
        }
    }

    fn owner_came(&mut self) {
        self.is.owner_joined = true;
        match self.is.phase {
            Phase::Waiting { .. } => {
                self.linger_afresh();
                self.pass_on_all();
            }
            Phase::Listening { .. } if !self.is.asks_first() && !self.is.masked() => {
                self.leave(Some(Reason::OwnerIsHere))
            }
            _ => {}
        }
    }

    fn owner_went(&mut self) {
        self.is.owner_left = true;
        if let Phase::Lingering | Phase::Waiting { .. } = self.is.phase {
            if self.is.direct && !self.is.strict() {
                self.effects.push(Effect::ForgetPair);
            }
            self.leave(None);
        }
    }

    fn tick(&mut self) {
        let due = self.deadline().is_some_and(|at| at <= self.now);
        match self.is.phase {
            _ if !due => {}
            Phase::Declining { .. } => {
                let reason = match self.is.invite.admission {
                    Admission::OwnHandle => Some(Reason::OwnHandle),
                    Admission::GhostAsking => None,
                    _ => Some(Reason::NotNow),
                };
                self.effects.push(Effect::Decline { reason });
                self.is.phase = Phase::Declined;
            }
            Phase::Listening { .. } => self.approach_owner(),
            Phase::Asking { .. } => self.leave(Some(Reason::NotNow)),
            Phase::Lingering => {
                self.is.phase = Phase::Closing;
                self.effects.push(Effect::Look);
            }
            Phase::Waiting { on, until, .. } if until > self.now => {
                let retry = self.now + self.rules.retry_owner;
                self.is.phase = Phase::Waiting { on, until, retry };
                if on == WaitFor::SignedDevice {
                    self.pass_on_all();
                }
            }
            Phase::Waiting { .. } => {
                self.say(Saying::OwnerDidNotCome);
                self.leave(None);
            }
            _ => {}
        }
    }

    /// After the last look: whatever turned up is being passed on; else go.
    fn close(&mut self) {
        if self
            .is
            .heard
            .iter()
            .any(|heard| heard.unreadable && !heard.done)
        {
            self.say(Saying::SendAgainUnreadable);
        }
        let owner_invited_at = self.is.owner_invited_at.unwrap_or(self.now);
        let too_early = self.is.heard_at.is_some_and(|at| at < owner_invited_at);
        let tell = self.is.strict() && (self.is.key_came || too_early);
        self.leave_telling(None, tell);
        // Between the last look and the leaving people go on writing.
        if !self.is.strict() {
            self.effects.pop_if(|last| *last == Effect::Forget);
            self.effects.push(Effect::LookBack);
        }
    }

    /// Nobody can pass it on any more: the bot tells the asker.
    fn missed(&mut self) {
        let saying = Saying::SaidAtTheLast;
        if self.is.phase == Phase::Leaving && !self.is.said.contains(&saying) {
            self.is.said.push(saying.clone());
            self.effects
                .extend([Effect::TellAsker { saying }, Effect::Forget]);
        }
    }

    /// A strict ghost was sent a key: the owner may not have been given it.
    fn key_came(&mut self) {
        self.is.key_came = true;
        let told = self.is.said.contains(&Saying::StrictSendAgain);
        if self.is.phase == Phase::Leaving && self.is.strict() && !told {
            self.is.said.push(Saying::StrictSendAgain);
            self.effects.push(Effect::TellAsker {
                saying: Saying::StrictSendAgain,
            });
        }
    }

    fn say(&mut self, saying: Saying) {
        if self.is.strict() || self.is.said.contains(&saying) {
            return;
        }
        self.is.said.push(saying.clone());
        self.effects.push(Effect::Say { saying });
    }

    fn leave(&mut self, reason: Option<Reason>) {
        self.leave_telling(reason, false);
    }

    /// Out first: telling may take long, and nobody is to wait for that with the ghost in the room.
    fn leave_telling(&mut self, reason: Option<Reason>, tell: bool) {
        self.withdraw();
        self.is.phase = Phase::Leaving;
        self.effects.push(Effect::Leave { reason });
        if tell {
            self.is.said.push(Saying::StrictSendAgain);
            self.effects.push(Effect::TellAsker {
                saying: Saying::StrictSendAgain,
            });
        }
        self.effects.push(Effect::Forget);
    }

    /// Nobody is to answer a request that nobody makes any more.
    fn withdraw(&mut self) {
        if let Phase::Asking { .. } = self.is.phase {
            self.effects.push(Effect::WithdrawRequest);
        }
    }

    fn latest_stay(&self) -> Timestamp {
        self.is.latest_stay(self.rules)
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.is.deadline(self.rules)
    }
}
