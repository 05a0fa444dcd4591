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
        if self
            .state
            .pending
            .iter()
            .any(|pending| pending.unreadable && !pending.done)
        {
            self.send_notice(IntroductionNotice::SendAgainUnreadable);
        }
        let owner_invited_at = self.state.owner_invited_at.unwrap_or(self.now);
        let too_early = self
            .state
            .last_message_at
            .is_some_and(|at| at < owner_invited_at);
        let tell = self.state.strict() && (self.state.key_came || too_early);
        self.leave_telling(None, tell);
        // People may go on writing between the last look and the leaving.
        if !self.state.strict() {
            self.effects.pop_if(|last| *last == Effect::Forget);
            self.effects.push(Effect::LookBack);
        }
    }

    /// Lets the bot tell the asker that a message can no longer be passed on.
    pub(super) fn missed(&mut self) {
        let notice = IntroductionNotice::SaidAtTheLast;
        if self.state.phase == Phase::Leaving && !self.state.notices_sent.contains(&notice) {
            self.state.notices_sent.push(notice.clone());
            self.effects
                .extend([Effect::TellAsker { notice }, Effect::Forget]);
        }
    }

    /// Notes that a strict ghost was sent a key: the owner may not have been given it.
    pub(super) fn key_came(&mut self) {
        self.state.key_came = true;
        let told = self
            .state
            .notices_sent
            .contains(&IntroductionNotice::StrictSendAgain);
        if self.state.phase == Phase::Leaving && self.state.strict() && !told {
            self.state
                .notices_sent
                .push(IntroductionNotice::StrictSendAgain);
            self.effects.push(Effect::TellAsker {
                notice: IntroductionNotice::StrictSendAgain,
            });
        }
    }

    pub(super) fn leave(&mut self, reason: Option<Reason>) {
        self.leave_telling(reason, false);
    }

    /// Leaves the room first: telling the asker may take long, and the ghost must not stay for
    /// that.
    fn leave_telling(&mut self, reason: Option<Reason>, tell: bool) {
        self.withdraw();
        self.state.phase = Phase::Leaving;
        self.effects.push(Effect::Leave { reason });
        if tell {
            self.state
                .notices_sent
                .push(IntroductionNotice::StrictSendAgain);
            self.effects.push(Effect::TellAsker {
                notice: IntroductionNotice::StrictSendAgain,
            });
        }
        self.effects.push(Effect::Forget);
    }

    /// Withdraws the asker's request.
    pub(super) fn withdraw(&mut self) {
        if let Phase::Asking { .. } = self.state.phase {
            self.effects.push(Effect::WithdrawRequest);
        }
    }
}
