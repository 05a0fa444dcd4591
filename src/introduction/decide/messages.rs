//! Messages in the room of an introduction, and whether they were passed on.

use ruma::{OwnedEventId, UserId};

use super::{
    super::{
        Effect, IntroductionNotice, MessageKind, PendingEvent, Phase, Reason, Refusal, WaitFor,
    },
    IntroductionStep,
};

/// Maximum number of messages that are replied to; one notice covers all others.
const REPLIES_MAX: usize = 10;

impl IntroductionStep<'_> {
    pub(super) fn message(&mut self, event: &OwnedEventId, sender: &UserId, kind: &MessageKind) {
        // Other people may join; their messages are not passed on as the asker's.
        if *sender != *self.state.invite.asker || !self.state.hears() {
            return;
        }
        // A strict ghost only notes that there was a message, in a group too.
        let listens = self.state.listens() || self.state.strict();
        if !listens && !matches!(self.state.phase, Phase::Joining | Phase::Looking) {
            return;
        }
        // A strict ghost cannot read any event.
        let kind = if self.state.strict() {
            &MessageKind::Sealed
        } else {
            kind
        };
        match kind {
            MessageKind::Line | MessageKind::Edit { .. } | MessageKind::Unreadable => {}
            _ => self.forget_unreadable(event),
        }
        match kind {
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
            MessageKind::Other if self.owner_can_read() => {
                self.reply(event, IntroductionNotice::SendAgainOther);
            }
            MessageKind::Other => self.reply(event, IntroductionNotice::NotKept),
            MessageKind::PlainFile if self.owner_can_read() => {
                self.reply(event, IntroductionNotice::SendAgainPlainFile);
            }
            MessageKind::PlainFile => self.reply(event, IntroductionNotice::PlainFileNotKept),
            MessageKind::Unreadable => self.unreadable(event),
            MessageKind::Untrusted => {
                self.distrusted(Reason::UnsignedDevice, IntroductionNotice::UnsignedDevice);
            }
            MessageKind::TooManyDevices => {
                self.distrusted(Reason::TooManyDevices, IntroductionNotice::TooManyDevices);
            }
            MessageKind::Verification => {
                let event = event.clone();
                self.effects.push(Effect::DeclineVerification { event });
            }
            MessageKind::Nothing => {}
            MessageKind::Sealed => {
                self.state.last_message_at = Some(self.now);
                if self.state.phase == Phase::Lingering {
                    self.close();
                }
            }
        }
    }

    /// Remembers a message that can be read. Returns `false` if there are too many already.
    fn remember(&mut self, event: &OwnedEventId) -> bool {
        self.state.last_message_at = Some(self.now);
        let pending = &mut self.state.pending;
        if let Some(pending) = pending.iter_mut().find(|pending| pending.event == *event) {
            pending.unreadable = false;
            return true;
        }
        let is_room = pending.len() < self.rules.pending_events_max;
        if is_room {
            pending.push(PendingEvent::new(event.clone(), false));
        }
        is_room
    }

    /// Remembers a message whose key has not come.
    fn unreadable(&mut self, event: &OwnedEventId) {
        self.state.last_message_at = Some(self.now);
        let pending = &mut self.state.pending;
        if pending.iter().any(|pending| pending.event == *event) {
            return;
        }
        if pending.len() < self.rules.pending_events_max {
            pending.push(PendingEvent::new(event.clone(), true));
        } else {
            self.say_that_no_more_is_kept();
        }
    }

    fn say_that_no_more_is_kept(&mut self) {
        self.send_notice(match self.state.phase {
            Phase::Asking { .. } => IntroductionNotice::EnoughKept,
            _ => IntroductionNotice::MoreNotPassedOn,
        });
    }

    /// Forgets an event that waited for its key and is no message to pass on.
    fn forget_unreadable(&mut self, event: &OwnedEventId) {
        let pending = &mut self.state.pending;
        pending.retain(|pending| !pending.unreadable || pending.event != *event);
    }

    /// Handles a message of a person whose device cannot be trusted. The ghost leaves only if it
    /// has begun nothing: messages from their other devices may be waiting.
    fn distrusted(&mut self, reason: Reason, notice: IntroductionNotice) {
        let has_begun = self.state.accepted
            || self.state.resumed
            || self.state.opening_line().is_some()
            || !matches!(
                self.state.phase,
                Phase::Joining | Phase::Looking | Phase::Listening { .. }
            );
        if has_begun {
            self.send_notice(notice);
        } else {
            self.leave(Some(reason));
        }
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
        if !self.remember(event) {
            return self.say_that_no_more_is_kept();
        }
        self.on_line();
    }

    /// Goes on with a message that can be read.
    fn on_line(&mut self) {
        match self.state.phase {
            Phase::Listening { .. } => self.approach_owner(),
            Phase::Asking { .. } if !self.state.line_shown && self.state.direct => {
                self.state.line_shown = true;
                self.effects.push(Effect::ShowLine);
            }
            Phase::Lingering | Phase::Closing => {
                // A message after the latest stay is passed on too, but no longer keeps the ghost.
                if self.now < self.latest_stay() {
                    self.state.phase = Phase::Lingering;
                }
                self.pass_on_next();
            }
            _ => {}
        }
    }

    /// An edit holds the whole new text, so it is passed on although its original was not read.
    fn edited(&mut self, event: &OwnedEventId, of: &OwnedEventId) {
        let is_known = |pending: &PendingEvent| pending.event == *of;
        if event == of || !self.state.pending.iter().any(is_known) {
            return self.line(event);
        }
        self.forget_unreadable(event);
        let mut pending = self.state.pending.iter_mut();
        let Some(pending) = pending.find(|pending| is_known(pending)) else {
            return;
        };
        if pending.edits().any(|edit| edit == event) {
            return;
        }
        pending.put_edit(event.clone());
        self.state.last_message_at = Some(self.now);
        if pending.unreadable {
            pending.unreadable = false;
            return self.on_line();
        }
        // In a group, the asker has been told to send again what was given up.
        let was_told = !self.state.direct && self.state.replied_to.contains(of);
        if pending.done && !pending.by_other && !was_told {
            let (event, of) = (event.clone(), of.clone());
            self.effects.push(Effect::PassOnEdit { event, of });
        }
    }

    /// Takes a deleted message back, or a deleted edit: then the text before it counts again.
    fn taken_back(&mut self, of: &OwnedEventId) {
        let pending = &mut self.state.pending;
        if let Some(at) = pending.iter().position(|pending| pending.event == *of) {
            if !pending[at].done {
                pending.remove(at);
            } else if !pending[at].by_other {
                self.effects.push(Effect::TakeBack { of: of.clone() });
            }
            return;
        }
        for pending in pending.iter_mut() {
            pending.take_back_edit(of);
        }
        let quoted = |pending: &&PendingEvent| pending.quoted_edit.as_ref() == Some(of);
        if let Some(line) = pending.iter().find(quoted) {
            let line = line.event.clone();
            self.quote_again(&line);
            return self.pass_on_next();
        }
        // It may have been passed on as an edit.
        if pending
            .iter()
            .any(|pending| pending.done && !pending.by_other)
        {
            self.effects.push(Effect::TakeBack { of: of.clone() });
        }
    }

    /// Takes a quote back because the text in it was deleted, and has the present text quoted.
    fn quote_again(&mut self, line: &OwnedEventId) {
        self.effects.push(Effect::TakeBack { of: line.clone() });
        let mut pending = self.state.pending.iter_mut();
        if let Some(pending) = pending.find(|pending| pending.event == *line) {
            pending.done = false;
            pending.quoted_edit = None;
        }
    }

    /// Passes on the next message, if none is on its way. One at a time: so they stay in order when
    /// one is refused, and an owner without a device is tried with one message.
    pub(super) fn pass_on_next(&mut self) {
        let passes_on = matches!(
            self.state.phase,
            Phase::Lingering
                | Phase::Closing
                | Phase::Waiting {
                    on: WaitFor::SignedDevice | WaitFor::Keys,
                    ..
                }
        );
        if !passes_on || self.state.passing_on.is_some() || self.leaves_passing_on() {
            return;
        }
        if let Some(next) = self.state.pending.iter().find(|pending| pending.is_due()) {
            self.state.passing_on = Some(next.event.clone());
            self.effects.push(next.pass_on());
        }
    }

    /// Passes on the next message, or leaves after the last look if there is none.
    pub(super) fn pass_on_next_or_close(&mut self) {
        self.pass_on_next();
        let is_closing = self.state.looked_last && self.state.phase == Phase::Closing;
        if is_closing && !self.has_more_to_pass_on() {
            self.close();
        }
    }

    pub(super) fn passed_on(&mut self, event: &OwnedEventId, edit: Option<&OwnedEventId>) {
        self.state.passing_on = None;
        // The owner can read now, so the introduction goes on as usual.
        if let Phase::Waiting {
            on: WaitFor::SignedDevice | WaitFor::Keys,
            ..
        } = self.state.phase
        {
            self.linger_afresh();
        }
        let mut pending = self.state.pending.iter_mut();
        if let Some(pending) = pending.find(|pending| pending.event == *event) {
            // Another ghost has passed it on in the meantime.
            if pending.by_other {
                return self.pass_on_next_or_close();
            }
            pending.done = true;
            pending.quoted_edit = edit.cloned();
            let is_deleted = edit.is_some_and(|quoted| !pending.edits().any(|it| it == quoted));
            match pending.edit.clone() {
                // The edit was deleted while it was being passed on.
                _ if is_deleted => self.quote_again(event),
                Some(newer) if edit != Some(&newer) => self.effects.push(Effect::PassOnEdit {
                    event: newer,
                    of: event.clone(),
                }),
                _ => {}
            }
        } else {
            // The message was deleted while it was being passed on.
            self.effects.push(Effect::TakeBack { of: event.clone() });
        }
        self.pass_on_next_or_close();
    }

    pub(super) fn not_passed_on(&mut self, event: &OwnedEventId, why: &Refusal) {
        self.state.passing_on = None;
        let mut pending = self.state.pending.iter();
        if !pending.any(|pending| pending.event == *event && !pending.done) {
            // It was deleted in the meantime.
            return self.pass_on_next_or_close();
        }
        if let Some(on) = self.owner_lacks(why) {
            return self.wait_again(on);
        }
        let lacks_keys = matches!(
            why,
            Refusal::NoSignedDevice(_) | Refusal::KeysUnavailable(_) | Refusal::TooManyDevices(_)
        );
        if lacks_keys && !self.state.direct {
            return self.give_up_all(event);
        }
        self.give_up_on(event);
        self.tell(event, notice_of(why));
        self.pass_on_next_or_close();
    }

    /// Tells the asker that an edit was not passed on, if it is still the newest.
    pub(super) fn edit_not_passed_on(
        &mut self,
        event: &OwnedEventId,
        of: &OwnedEventId,
        why: &Refusal,
    ) {
        let mut pending = self.state.pending.iter();
        if pending.any(|pending| pending.event == *of && pending.edit.as_ref() == Some(event)) {
            self.tell(event, notice_of(why));
        }
    }

    /// Returns what the owner lacks to read a message, if that is why it was refused and the ghost
    /// can wait for it. In a group the ghost does not stay for that.
    fn owner_lacks(&self, why: &Refusal) -> Option<WaitFor> {
        let (users, on) = match why {
            Refusal::NoSignedDevice(users) => (users, WaitFor::SignedDevice),
            Refusal::KeysUnavailable(users) => (users, WaitFor::Keys),
            _ => return None,
        };
        let owner = self.state.owner().filter(|_| self.state.direct)?;
        users.iter().any(|user| *owner == **user).then_some(on)
    }

    /// Waits for what the owner lacks now, which may be something else than before.
    fn wait_again(&mut self, on: WaitFor) {
        match &mut self.state.phase {
            Phase::Lingering | Phase::Closing => self.wait(on),
            Phase::Waiting { on: known, .. } if *known != WaitFor::Join => {
                *known = on;
                self.send_notice(on.notice());
            }
            _ => {}
        }
    }

    /// Returns whether the owner can read what is written now, and in a group every other owner who
    /// is introduced with them.
    fn owner_can_read(&self) -> bool {
        self.state.owner_invited_at.is_some()
            && !self.state.role.awaits
            && (self.state.owner_joined || !self.state.visible_from_join)
            && !matches!(self.state.phase, Phase::Waiting { .. })
    }

    /// Tells the asker what became of a message, unless another ghost does that.
    pub(super) fn reply(&mut self, event: &OwnedEventId, notice: IntroductionNotice) {
        if !self.state.role.silent {
            self.tell(event, notice);
        }
    }

    /// Tells the asker what became of a message, as a reply to it. Only this ghost knows that it has
    /// failed, even if another one speaks by now.
    pub(super) fn tell(&mut self, event: &OwnedEventId, notice: IntroductionNotice) {
        if self.state.strict() || !self.state.hears() || self.state.replied_to.contains(event) {
            return;
        }
        let replied_to = &mut self.state.replied_to;
        if replied_to.len() >= REPLIES_MAX {
            return self.send_notice(IntroductionNotice::MoreNotPassedOn);
        }
        replied_to.push(event.clone());
        let to = event.clone();
        self.effects.push(Effect::SendReply { to, notice });
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

/// Returns the notice for a message that was not passed on.
fn notice_of(why: &Refusal) -> IntroductionNotice {
    match why {
        Refusal::Unreadable => IntroductionNotice::SendAgainUnreadable,
        Refusal::NotThisKind => IntroductionNotice::SendAgainOther,
        Refusal::PlainFile => IntroductionNotice::SendAgainPlainFile,
        Refusal::TooLarge => IntroductionNotice::TooLarge,
        _ => IntroductionNotice::NotPassedOn,
    }
}
