//! The ghosts that one person has invited into a group: one of them passes messages on for all.

use ruma::OwnedEventId;

use super::{Admission, GroupRole, Introduction, Phase};
use crate::ids::Ghost;

impl Introduction {
    /// Returns the role of this ghost among all ghosts in the room. Of those that the same person
    /// invited and that may send, the one with the smallest Matrix ID passes messages on.
    pub fn role_among(&self, here: &[Introduction]) -> GroupRole {
        if self.direct {
            return GroupRole::default();
        }
        let others = here.iter().filter(|other| {
            other.ghost != self.ghost
                && other.invite.asker == self.invite.asker
                && other.may_speak()
        });
        others.fold(GroupRole::default(), |role, other| GroupRole {
            silent: role.silent || other.rank() < self.rank(),
            awaits: role.awaits || other.owner_invited_at.is_none(),
        })
    }

    /// Returns what decides which ghost speaks for all: the one with the lowest rank. A ghost whose
    /// owner was asked first did not listen to what was said before the answer.
    fn rank(&self) -> (bool, bool, bool, &Ghost) {
        let passes_on = self.passes_on_in_group();
        (!passes_on, self.steps_aside, self.accepted, &self.ghost)
    }

    /// Returns whether this ghost and another one in the room are in a group, where one of them
    /// passes messages of the same person on for both.
    pub fn is_companion_of(&self, other: &Introduction) -> bool {
        let takes_part = |it: &Introduction| !it.direct && it.passes_on_in_group();
        self.ghost != other.ghost
            && self.invite.asker == other.invite.asker
            && takes_part(self)
            && takes_part(other)
    }

    /// Returns whether this ghost can still pass on a message that another one may not.
    pub fn can_take_over(&self, event: &OwnedEventId) -> bool {
        let mut pending = self.pending.iter();
        self.may_speak()
            && !self.steps_aside
            && pending.any(|pending| pending.event == *event && !pending.done)
    }

    /// Returns whether the ghost passes messages on if this is a group. A strict ghost cannot, and
    /// a masked handle has a conversation. Until an owner who is asked first has answered, or where
    /// people see only what comes after they have joined, the ghost would have to listen to the
    /// group for days.
    pub fn passes_on_in_group(&self) -> bool {
        let is_open = matches!(
            self.invite.admission,
            Admission::Introduce {
                strict: false,
                masked: false,
                ..
            }
        );
        is_open && !self.asks_first() && !self.visible_from_join
    }

    /// Returns whether the ghost takes messages to pass on.
    pub fn listens(&self) -> bool {
        self.direct || self.passes_on_in_group()
    }

    /// Returns whether this ghost of a group is about to pass messages on.
    fn may_speak(&self) -> bool {
        let is_at_work = matches!(
            self.phase,
            Phase::Joining
                | Phase::Looking
                | Phase::Listening { .. }
                | Phase::Inviting
                | Phase::Lingering
                | Phase::Closing
        );
        is_at_work && !self.direct && self.passes_on_in_group() && !self.waits_to_invite()
    }
}
