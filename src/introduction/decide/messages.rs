//! Messages in the room of an introduction, and whether they were passed on.

use ruma::{OwnedEventId, UserId};

use super::{
    super::{
        Effect, IntroductionNotice, MessageKind, PendingEvent, Phase, Reason, Refusal, WaitFor,
    },
    IntroductionStep,
};

impl IntroductionStep<'_> {
    pub(super) fn message(&mut self, event: &OwnedEventId, sender: &UserId, kind: &MessageKind) {
        // Other people may join; their messages are not passed on as the asker's.
        if *sender != *self.state.invite.asker || !self.state.hears() {
            return;
        }
        if !self.state.direct && !matches!(self.state.phase, Phase::Joining | Phase::Looking) {
            return;
        }
        // A strict ghost cannot read any event.
        match if self.state.strict() {
            &MessageKind::Sealed
        } else {
            kind
        } {
            MessageKind::Line => self.line(event),
            MessageKind::Edit { of } => self.edited(event, of),
            MessageKind::Redaction { of } => self.taken_back(of),
            // The ghost asks for it again once the room is encrypted, and can send a notice.
            MessageKind::Plaintext
                if matches!(self.state.phase, Phase::Joining | Phase::Looking) =>
            {
                self.state.in_clear = true;
            }
            MessageKind::Plaintext => {
                let told = self
                    .state
                    .notices_sent
                    .contains(&IntroductionNotice::SendAgainEncrypted);
                self.send_notice(IntroductionNotice::SendAgainEncrypted);
                // Only once, so that a person who keeps writing unencrypted cannot keep the ghost.
                if let (false, Phase::Listening { until }) = (told, &mut self.state.phase) {
                    *until = self.now + self.rules.wait_for_message;
                }
            }
            MessageKind::Other => self.send_notice(match self.state.phase {
                Phase::Asking { .. } => IntroductionNotice::NotKept,
                _ => IntroductionNotice::SendAgainOther,
            }),
            MessageKind::Unreadable => {
                self.remember(event, true);
            }
            MessageKind::Untrusted => self.leave(Some(Reason::UnsignedDevice)),
            MessageKind::TooManyDevices => self.leave(Some(Reason::TooManyDevices)),
            MessageKind::Sealed => {
                self.state.last_message_at = Some(self.now);
                if self.state.phase == Phase::Lingering {
                    self.close();
                }
            }
        }
    }

    /// Remembers a message. Returns `false` if there are too many already.
    fn remember(&mut self, event: &OwnedEventId, unreadable: bool) -> bool {
        self.state.last_message_at = Some(self.now);
        if let Some(pending) = self
            .state
            .pending
            .iter_mut()
            .find(|pending| pending.event == *event)
        {
            pending.unreadable = unreadable;
            return true;
        }
        let room = self.state.pending.len() < self.rules.pending_events_max;
        if room {
            self.state.pending.push(PendingEvent {
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
            .state
            .pending
            .iter()
            .any(|pending| pending.event == *event && !pending.unreadable)
        {
            return;
        }
        if !self.remember(event, false) {
            return self.send_notice(match self.state.phase {
                Phase::Asking { .. } => IntroductionNotice::EnoughKept,
                _ => IntroductionNotice::SendAgainOther,
            });
        }
        match self.state.phase {
            Phase::Listening { .. } => self.approach_owner(),
            Phase::Lingering | Phase::Closing => {
                // A message after the latest stay is passed on too, but no longer keeps the ghost.
                if self.now < self.latest_stay() {
                    self.state.phase = Phase::Lingering;
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
        let Some(pending) = self
            .state
            .pending
            .iter_mut()
            .find(|pending| pending.event == *of)
        else {
            // An edit holds the whole new text, so it is passed on although its original was not
            // read.
            return self.line(event);
        };
        if pending.edit.as_ref() == Some(event) {
            return;
        }
        pending.edit = Some(event.clone());
        self.state.last_message_at = Some(self.now);
        if pending.done {
            let (event, of) = (event.clone(), of.clone());
            self.effects.push(Effect::PassOnEdit { event, of });
        }
    }

    fn taken_back(&mut self, of: &OwnedEventId) {
        let Some(at) = self
            .state
            .pending
            .iter()
            .position(|pending| pending.event == *of)
        else {
            return;
        };
        if self.state.pending[at].done {
            self.effects.push(Effect::TakeBack { of: of.clone() });
        } else {
            self.state.pending.remove(at);
        }
    }

    pub(super) fn passed_on(&mut self, event: &OwnedEventId, edit: Option<&OwnedEventId>) {
        // The owner has set up a signed device in the meantime, so the introduction goes on as
        // usual.
        if let Phase::Waiting {
            on: WaitFor::SignedDevice,
            ..
        } = self.state.phase
        {
            self.linger_afresh();
        }
        let Some(pending) = self
            .state
            .pending
            .iter_mut()
            .find(|pending| pending.event == *event)
        else {
            // The message was redacted while it was being passed on.
            return self.effects.push(Effect::TakeBack { of: event.clone() });
        };
        pending.done = true;
        if let Some(newer) = pending.edit.clone().filter(|newer| Some(newer) != edit) {
            self.effects.push(Effect::PassOnEdit {
                event: newer,
                of: event.clone(),
            });
        }
    }

    pub(super) fn not_passed_on(&mut self, event: &OwnedEventId, why: &Refusal) {
        match why {
            Refusal::NoSignedDevice(users)
                if self
                    .state
                    .owner()
                    .is_some_and(|owner| users.contains(owner)) =>
            {
                if !matches!(self.state.phase, Phase::Waiting { .. }) {
                    self.wait(WaitFor::SignedDevice);
                }
            }
            _ => {
                self.give_up_on(event);
                self.send_notice(match why {
                    Refusal::Unreadable => IntroductionNotice::SendAgainUnreadable,
                    Refusal::Failing => IntroductionNotice::NotPassedOn,
                    _ => IntroductionNotice::SendAgainOther,
                });
            }
        }
    }

    fn give_up_on(&mut self, event: &OwnedEventId) {
        for pending in self
            .state
            .pending
            .iter_mut()
            .filter(|pending| pending.event == *event)
        {
            pending.done = true;
        }
    }
}
