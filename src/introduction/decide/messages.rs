//! Messages in the room of an introduction, and whether they were passed on.

use ruma::{OwnedEventId, UserId};

use super::{
    super::{Effect, Heard, HeardKind, IntroductionNotice, Phase, Reason, Refusal, WaitFor},
    IntroductionStep,
};

impl IntroductionStep<'_> {
    pub(super) fn heard(&mut self, event: &OwnedEventId, sender: &UserId, kind: &HeardKind) {
        // Other people may join; their messages are not passed on as the asker's.
        if *sender != *self.state.invite.asker || !self.state.hears() {
            return;
        }
        if !self.state.direct && !matches!(self.state.phase, Phase::Joining | Phase::Looking) {
            return;
        }
        // A strict ghost cannot read any event.
        match if self.state.strict() {
            &HeardKind::Sealed
        } else {
            kind
        } {
            HeardKind::Line => self.line(event),
            HeardKind::Edit { of } => self.edited(event, of),
            HeardKind::Redaction { of } => self.taken_back(of),
            // The ghost asks for it again once the room is encrypted, and can send a notice.
            HeardKind::Plaintext if matches!(self.state.phase, Phase::Joining | Phase::Looking) => {
                self.state.in_clear = true;
            }
            HeardKind::Plaintext => {
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
            HeardKind::Other => self.send_notice(match self.state.phase {
                Phase::Asking { .. } => IntroductionNotice::NotKept,
                _ => IntroductionNotice::SendAgainOther,
            }),
            HeardKind::Unreadable => {
                self.remember(event, true);
            }
            HeardKind::Untrusted => self.leave(Some(Reason::UnsignedDevice)),
            HeardKind::TooManyDevices => self.leave(Some(Reason::TooManyDevices)),
            HeardKind::Sealed => {
                self.state.heard_at = Some(self.now);
                if self.state.phase == Phase::Lingering {
                    self.close();
                }
            }
        }
    }

    /// Remembers a message. Returns `false` if there are too many already.
    fn remember(&mut self, event: &OwnedEventId, unreadable: bool) -> bool {
        self.state.heard_at = Some(self.now);
        if let Some(heard) = self
            .state
            .heard
            .iter_mut()
            .find(|heard| heard.event == *event)
        {
            heard.unreadable = unreadable;
            return true;
        }
        let room = self.state.heard.len() < self.rules.heard_at_most;
        if room {
            self.state.heard.push(Heard {
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
            .heard
            .iter()
            .any(|heard| heard.event == *event && !heard.unreadable)
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
        let Some(heard) = self.state.heard.iter_mut().find(|heard| heard.event == *of) else {
            // An edit holds the whole new text, so it is passed on although its original was not
            // heard.
            return self.line(event);
        };
        if heard.edit.as_ref() == Some(event) {
            return;
        }
        heard.edit = Some(event.clone());
        self.state.heard_at = Some(self.now);
        if heard.done {
            let (event, of) = (event.clone(), of.clone());
            self.effects.push(Effect::PassOnEdit { event, of });
        }
    }

    fn taken_back(&mut self, of: &OwnedEventId) {
        let Some(at) = self.state.heard.iter().position(|heard| heard.event == *of) else {
            return;
        };
        if self.state.heard[at].done {
            self.effects.push(Effect::TakeBack { of: of.clone() });
        } else {
            self.state.heard.remove(at);
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
        let Some(heard) = self
            .state
            .heard
            .iter_mut()
            .find(|heard| heard.event == *event)
        else {
            // The message was redacted while it was being passed on.
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
                    _ => IntroductionNotice::SendAgainOther,
                });
            }
        }
    }

    fn give_up_on(&mut self, event: &OwnedEventId) {
        for heard in self
            .state
            .heard
            .iter_mut()
            .filter(|heard| heard.event == *event)
        {
            heard.done = true;
        }
    }
}
