//! What is known about the durability of decisions on conversations.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, Weak},
};

use crate::ids::ConversationId;

/// Number of conversations of which the durability is known, from which on those that no longer
/// matter are dropped.
const DECIDED_MANY: usize = 1024;

/// What is known about the durability of the latest decisions, under the decision lock.
#[derive(Default)]
pub(in crate::engine) struct Decisions {
    /// The conversations that the last holder of the lock changed; its batch is applied by now.
    just_changed: Vec<ConversationId>,
    /// By conversation, an upper bound of the batch with its latest change.
    changed: HashMap<ConversationId, u64>,
    /// By conversation, the last batch with a decision whose effects others may see early.
    seen: HashMap<ConversationId, u64>,
    /// The conversations that somebody waits to change.
    awaited: HashMap<ConversationId, Weak<()>>,
}

impl Decisions {
    /// Notes where the batch of the last holder of the lock is, given the numbers of the last
    /// applied and the last durable batch.
    pub(in crate::engine::conversations) fn begin(&mut self, applied: u64, durable: u64) {
        for id in self.just_changed.drain(..) {
            self.changed.insert(id, applied);
        }
        for batches in [&mut self.changed, &mut self.seen] {
            if batches.len() > DECIDED_MANY {
                batches.retain(|_, batch| *batch > durable);
            }
        }
        if self.awaited.len() > DECIDED_MANY {
            self.awaited.retain(|_, waiting| waiting.strong_count() > 0);
        }
    }

    pub(in crate::engine::conversations) fn note_change(&mut self, id: &ConversationId) {
        self.just_changed.push(id.clone());
    }

    /// Returns whether effects of a decision that changes nothing may be seen before it is durable:
    /// no crash could bring back an older state of the conversation, and nobody waits to change it.
    pub(in crate::engine) fn may_be_seen_early(&self, id: &ConversationId, durable: u64) -> bool {
        let is_awaited = |waiting: &Weak<()>| waiting.strong_count() > 0;
        self.changed.get(id).is_none_or(|batch| durable >= *batch)
            && !self.awaited.get(id).is_some_and(is_awaited)
    }

    /// Notes that others may see the decisions up to this batch before they are durable.
    pub(in crate::engine) fn note_seen_early(&mut self, id: &ConversationId, applied: u64) {
        self.seen.insert(id.clone(), applied);
    }

    /// Returns whether the conversation may change: every decision that others may have seen is
    /// durable. After a crash, it must not be made again on the new state.
    pub(in crate::engine::conversations) fn may_change(
        &self,
        id: &ConversationId,
        durable: u64,
    ) -> bool {
        self.seen.get(id).is_none_or(|batch| durable >= *batch)
    }

    /// Keeps later decisions from being seen early while the result lives, so that the wait for
    /// those made so far has an end.
    pub(in crate::engine::conversations) fn await_change(
        &mut self,
        id: &ConversationId,
    ) -> Arc<()> {
        let others = self.awaited.get(id).and_then(Weak::upgrade);
        let waiting = others.unwrap_or_default();
        self.awaited.insert(id.clone(), Arc::downgrade(&waiting));
        waiting
    }
}

/// The lock on decisions about conversations, held until the decision is written.
pub(in crate::engine) type DecisionLock<'a> = MutexGuard<'a, Decisions>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decided_on_a_change_that_a_crash_could_take_is_known_for_that() {
        let (id, other) = (ConversationId::new("talk"), ConversationId::new("other"));
        let mut decisions = Decisions::default();
        decisions.begin(7, 3);
        assert!(decisions.may_be_seen_early(&id, 3), "there was no change");
        decisions.note_change(&id);
        decisions.begin(8, 7);
        assert!(!decisions.may_be_seen_early(&id, 7), "the eighth at most");
        assert!(decisions.may_be_seen_early(&other, 7));
        // Others change nothing that matters.
        decisions.begin(9, 7);
        assert!(!decisions.may_be_seen_early(&id, 7));
        assert!(decisions.may_be_seen_early(&id, 8));
    }

    #[test]
    fn who_waits_to_change_a_conversation_gets_a_turn() {
        let (id, other) = (ConversationId::new("talk"), ConversationId::new("other"));
        let mut decisions = Decisions::default();
        decisions.note_seen_early(&id, 5);
        assert!(!decisions.may_change(&id, 4) && decisions.may_change(&other, 4));
        let (one, two) = (decisions.await_change(&id), decisions.await_change(&id));
        assert!(!decisions.may_be_seen_early(&id, 9) && decisions.may_be_seen_early(&other, 9));
        drop(one);
        assert!(!decisions.may_be_seen_early(&id, 9));
        drop(two);
        assert!(decisions.may_be_seen_early(&id, 9) && decisions.may_change(&id, 5));
    }

    #[test]
    fn what_is_known_of_conversations_is_bounded() {
        let mut decisions = Decisions::default();
        for n in 0..5000 {
            let id = ConversationId::new(format!("talk {n}"));
            decisions.note_change(&id);
            decisions.note_seen_early(&id, n);
            drop(decisions.await_change(&id));
            decisions.begin(n, n.saturating_sub(10));
        }
        let sizes = [&decisions.changed, &decisions.seen].map(HashMap::len);
        assert!(
            sizes.iter().all(|size| *size <= DECIDED_MANY + 1),
            "{sizes:?}"
        );
        assert!(decisions.awaited.len() <= DECIDED_MANY + 1);
    }
}
