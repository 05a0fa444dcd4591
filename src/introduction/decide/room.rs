//! Decides for the ghosts of one room together: in a group, one passes messages on for all.

use ruma::{OwnedEventId, RoomId};

use super::{
    super::{Effect, Input, Introduction, IntroductionNotice, PendingEvent, Rules},
    decide,
};
use crate::{clock::Timestamp, ids::Ghost};

/// The ghosts of one room, about to decide.
struct RoomStep<'a> {
    room: &'a RoomId,
    here: &'a mut Vec<Introduction>,
    effects: Vec<(Ghost, Effect)>,
    now: Timestamp,
    rules: &'a Rules,
}

/// Decides what follows from `input` for one ghost, and then for those of the others in the room
/// whom its decision concerns. Changes the states and returns the effects, in order.
pub fn decide_in_room(
    here: &mut Vec<Introduction>,
    room: &RoomId,
    ghost: &Ghost,
    input: &Input,
    now: Timestamp,
    rules: &Rules,
) -> Vec<(Ghost, Effect)> {
    let mut step = RoomStep {
        room,
        here,
        effects: Vec::new(),
        now,
        rules,
    };
    let left_to_other = matches!(input, Input::Refused(Effect::PassOn { event, .. }, why)
        if why.is_of_one_ghost() && step.is_left_to_other(ghost, event));
    let open = step.messages_of(ghost, |pending| !pending.done);
    if left_to_other {
        step.feed(ghost, &Input::LeftToOther);
    } else {
        step.feed(ghost, input);
    }
    let settled = step.messages_of(ghost, |pending| pending.done && !pending.by_other);
    let is_passed_on = matches!(input, Input::Done(Effect::PassOn { .. }));
    for event in open.iter().filter(|event| settled.contains(event)) {
        step.settle_for_others(ghost, event, is_passed_on);
    }
    step.spread_roles();
    step.effects
}

impl RoomStep<'_> {
    fn feed(&mut self, ghost: &Ghost, input: &Input) {
        let known = |introduction: &Introduction| introduction.ghost == *ghost;
        let at = self.here.iter().position(known);
        let state = at.map(|at| self.here.remove(at));
        let decision = decide(state, self.room, ghost, input, self.now, self.rules);
        let Some(decision) = decision else { return };
        let at = at.unwrap_or(self.here.len());
        self.here.insert(at, decision.state);
        let effects = decision.effects.into_iter();
        self.effects
            .extend(effects.map(|effect| (ghost.clone(), effect)));
        self.share_what_was_said(ghost);
    }

    /// Returns those messages of a ghost for which `is_meant` returns `true`.
    fn messages_of(
        &self,
        ghost: &Ghost,
        is_meant: impl Fn(&PendingEvent) -> bool,
    ) -> Vec<OwnedEventId> {
        let of_ghost = self.here.iter().filter(|it| it.ghost == *ghost);
        let pending = of_ghost.flat_map(|it| &it.pending);
        let meant = pending.filter(|pending| is_meant(pending));
        meant.map(|pending| pending.event.clone()).collect()
    }

    /// Returns the ghosts for which this one passes messages on, or that do so for it.
    fn find_companions(&self, ghost: &Ghost) -> Vec<&Introduction> {
        let Some(own) = self.here.iter().find(|it| it.ghost == *ghost) else {
            return Vec::new();
        };
        let here = self.here.iter();
        here.filter(|other| other.is_companion_of(own)).collect()
    }

    /// Returns whether another ghost can pass on a message that this one has failed to pass on, and
    /// that was not deleted in the meantime.
    fn is_left_to_other(&self, ghost: &Ghost, event: &OwnedEventId) -> bool {
        let companions = self.find_companions(ghost);
        let can_take_over = companions.iter().any(|other| other.can_take_over(event));
        let open = self.messages_of(ghost, |pending| !pending.done);
        can_take_over && open.contains(event)
    }

    /// Tells the companions that a message has been passed on, or given up. One that was passed on is
    /// also done for those whose owners are asked first, which have heard it while they joined.
    fn settle_for_others(&mut self, ghost: &Ghost, event: &OwnedEventId, is_passed_on: bool) {
        let Some(own) = self.here.iter().find(|it| it.ghost == *ghost) else {
            return;
        };
        let has_it = |it: &Introduction| it.pending.iter().any(|pending| pending.event == *event);
        let others = self.here.iter().filter(|other| {
            other.is_companion_of(own)
                || (is_passed_on
                    && !own.direct
                    && own.passes_on_in_group()
                    && !other.direct
                    && other.asks_first()
                    && other.ghost != own.ghost
                    && other.invite.asker == own.invite.asker
                    && has_it(other))
        });
        let others: Vec<_> = others.map(|other| other.ghost.clone()).collect();
        let event = event.clone();
        let input = Input::SettledByOther { event };
        for other in others {
            self.feed(&other, &input);
        }
    }

    /// Notes for a ghost and its companions what each of them has said of the asker's messages, so
    /// that none says it again, not even after another one has left.
    fn share_what_was_said(&mut self, ghost: &Ghost) {
        let mut ghosts: Vec<Ghost> = vec![ghost.clone()];
        let companions = self.find_companions(ghost).into_iter();
        ghosts.extend(companions.map(|other| other.ghost.clone()));
        if ghosts.len() == 1 {
            return;
        }
        let (mut replied_to, mut notices) = (Vec::new(), Vec::new());
        for it in self.here.iter().filter(|it| ghosts.contains(&it.ghost)) {
            add_new(&mut replied_to, &it.replied_to);
            add_new(&mut notices, &it.notices_sent);
        }
        notices.retain(IntroductionNotice::is_about_message);
        for it in self.here.iter_mut().filter(|it| ghosts.contains(&it.ghost)) {
            add_new(&mut it.replied_to, &replied_to);
            add_new(&mut it.notices_sent, &notices);
        }
    }

    /// Tells each ghost whose role has changed. That may change roles again, but a ghost that has
    /// left never comes back.
    fn spread_roles(&mut self) {
        for _ in 0..=self.here.len() {
            let open = self.here.iter().filter(|it| it.is_open());
            let roles = open.map(|it| (it, it.role_among(self.here)));
            let changed = roles.filter(|(it, role)| it.role != *role);
            let changed: Vec<_> = changed.map(|(it, role)| (it.ghost.clone(), role)).collect();
            if changed.is_empty() {
                return;
            }
            for (ghost, role) in changed {
                self.feed(&ghost, &Input::Role(role));
            }
        }
    }
}

/// Adds what a list does not have yet.
fn add_new<T: Clone + PartialEq>(list: &mut Vec<T>, more: &[T]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}
