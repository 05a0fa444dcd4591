//! What a ghost does in a group, where others introduce their owners too.

use ruma::OwnedEventId;

use super::{
    super::{GroupRole, IntroductionNotice, PendingEvent, Phase},
    IntroductionStep,
};

impl IntroductionStep<'_> {
    /// Goes on in a group once the owner is invited: the ghost stays if it has messages to pass on
    /// or may hear some.
    pub(super) fn owner_invited_to_group(&mut self) {
        if self.state.strict() {
            return self.leave_strict();
        }
        if !self.state.passes_on_in_group() {
            self.send_notice(if self.state.visible_from_join {
                IntroductionNotice::GroupFromJoinOn
            } else {
                IntroductionNotice::GroupFromInviteOn
            });
            return self.leave(None);
        }
        self.state.phase = Phase::Lingering;
        // A message that is passed on says by itself that the owner can read.
        if self.state.pending.iter().all(|pending| pending.done) {
            self.send_notice(IntroductionNotice::GroupFromInviteOn);
        }
        self.pass_on_next();
    }

    /// Takes a role, and passes on what another ghost has left to this one.
    pub(super) fn take_role(&mut self, role: GroupRole) {
        self.state.role = role;
        self.pass_on_next_or_close();
    }

    /// Notes that another ghost has passed a message on, or has told its sender why not.
    pub(super) fn settled_by_other(&mut self, event: &OwnedEventId) {
        let mut pending = self.state.pending.iter_mut();
        if let Some(pending) = pending.find(|pending| pending.event == *event && !pending.done) {
            pending.done = true;
            pending.unreadable = false;
            pending.by_other = true;
            self.pass_on_next_or_close();
        }
    }

    /// Leaves the message that was on its way, and what follows, to another ghost.
    pub(super) fn left_to_other(&mut self) {
        self.state.passing_on = None;
        self.state.steps_aside = true;
        self.state.role.silent = true;
        self.pass_on_next_or_close();
    }

    /// Gives up what was said while nobody else was in the room: it is not for those who have come
    /// since.
    pub(super) fn give_up_private_words(&mut self) {
        let due = self.state.pending.iter_mut().filter(|it| it.is_due());
        let given_up: Vec<OwnedEventId> = due
            .map(|pending| {
                pending.done = true;
                pending.event.clone()
            })
            .collect();
        for event in &given_up {
            self.tell(event, IntroductionNotice::NotPassedOn);
        }
    }

    /// Gives up every message that is due, since not all owners can read this one. Each of the
    /// others would be tried as long, and hold up the whole room. The reply speaks of all.
    pub(super) fn give_up_all(&mut self, event: &OwnedEventId) {
        let due = self.state.pending.iter_mut().filter(|it| it.is_due());
        due.for_each(|pending| pending.done = true);
        self.tell(event, IntroductionNotice::NotPassedOnInGroup);
        self.pass_on_next_or_close();
    }

    /// Returns whether passing on is left to another ghost, or waits until other owners can read.
    pub(super) fn leaves_passing_on(&self) -> bool {
        self.state.role.silent
            || self
                .state
                .awaits_others_until(self.rules)
                .is_some_and(|until| self.now < until)
    }

    /// Returns whether a message is on its way to the owner, or waits for its turn. A ghost stays
    /// for messages that another one is to pass on, but no longer than its latest stay.
    pub(super) fn has_more_to_pass_on(&self) -> bool {
        let left_alone = self.state.role.silent && self.now >= self.latest_stay();
        self.state.passing_on.is_some()
            || (!left_alone && self.state.pending.iter().any(PendingEvent::is_due))
    }
}
