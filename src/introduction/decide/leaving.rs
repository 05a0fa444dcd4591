//! How a ghost leaves the room of an introduction, and what follows.

use super::{
    super::{Effect, IntroductionNotice, Phase, Reason},
    IntroductionStep,
};

impl IntroductionStep<'_> {
    /// Leaves after the last look, unless it found messages that are still to be passed on. The
    /// sender is asked to send again what could not be read.
    pub(super) fn close(&mut self) {
        if self.has_more_to_pass_on() {
            // However long people write, there is one look after the latest stay.
            self.state.looked_last = self.now >= self.latest_stay();
            if !self.state.looked_last {
                self.state.phase = Phase::Lingering;
            }
            return self.pass_on_next();
        }
        self.ask_for_unreadable();
        if self.state.strict() {
            return self.leave_strict();
        }
        self.leave(None);
        // People may go on writing between the last look and the leaving.
        if !self.state.role.silent {
            self.effects.pop_if(|last| *last == Effect::Forget);
            self.effects.push(Effect::LookBack);
        }
    }

    /// Leaves as a strict ghost. If the owner may not have been given the key of a message, the bot
    /// asks its sender to send it again.
    pub(super) fn leave_strict(&mut self) {
        let owner_invited_at = self.state.owner_invited_at.unwrap_or(self.now);
        let last_message_at = self.state.last_message_at;
        let too_early = last_message_at.is_some_and(|at| at < owner_invited_at);
        let tell = self.state.key_came || too_early;
        self.leave_telling(None, tell.then_some(IntroductionNotice::StrictSendAgain));
    }

    /// Asks once for everything that could not be read: where a key is lost, all messages of its
    /// session are.
    fn ask_for_unreadable(&mut self) {
        let replied_to = &self.state.replied_to;
        let pending = self.state.pending.iter();
        let unreadable: Vec<_> = pending
            .filter(|pending| pending.unreadable && !replied_to.contains(&pending.event))
            .map(|pending| pending.event.clone())
            .collect();
        let Some((first, others)) = unreadable.split_first() else {
            return;
        };
        let notice = if others.is_empty() {
            IntroductionNotice::SendAgainUnreadable
        } else {
            IntroductionNotice::SendAgainAllUnreadable
        };
        self.reply(first, notice);
        // The reply is about the others too.
        if self.state.replied_to.contains(first) {
            self.state.replied_to.extend_from_slice(others);
        }
    }

    /// Lets the bot tell the asker that a message can no longer be passed on.
    pub(super) fn missed(&mut self) {
        let notice = IntroductionNotice::SaidAtTheLast;
        if self.state.phase == Phase::Leaving && !self.state.notices_sent.contains(&notice) {
            self.tell_asker(notice);
            self.effects.push(Effect::Forget);
        }
    }

    /// Notes that a strict ghost was sent a key: the owner may not have been given it.
    pub(super) fn key_came(&mut self) {
        self.state.key_came = true;
        let notice = IntroductionNotice::StrictSendAgain;
        let told = self.state.notices_sent.contains(&notice);
        let invited = self.state.owner_invited_at.is_some();
        if self.state.phase == Phase::Leaving && self.state.strict() && invited && !told {
            self.tell_asker(notice);
        }
    }

    pub(super) fn leave(&mut self, reason: Option<Reason>) {
        self.leave_telling(reason, None);
    }

    /// Sends the asker a notice and leaves. A strict ghost never writes, so the bot does.
    pub(super) fn leave_with(&mut self, notice: IntroductionNotice) {
        if self.state.strict() {
            return self.leave_telling(None, Some(notice));
        }
        self.send_notice(notice);
        self.leave(None);
    }

    /// Leaves the room first: telling the asker may take long, and the ghost must not stay for
    /// that.
    fn leave_telling(&mut self, reason: Option<Reason>, notice: Option<IntroductionNotice>) {
        self.withdraw();
        self.state.phase = Phase::Leaving;
        self.effects.push(Effect::Leave { reason });
        if let Some(notice) = notice {
            self.tell_asker(notice);
        }
        self.effects.push(Effect::Forget);
    }

    /// Lets the bot send the asker a notice.
    pub(super) fn tell_asker(&mut self, notice: IntroductionNotice) {
        self.state.notices_sent.push(notice.clone());
        self.effects.push(Effect::TellAsker { notice });
    }

    /// Withdraws the asker's request.
    pub(super) fn withdraw(&mut self) {
        if let Phase::Asking { .. } = self.state.phase {
            self.effects.push(Effect::WithdrawRequest);
        }
    }
}
