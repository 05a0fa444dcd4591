//! The events that a ghost has read and passes on, with their edits.

use ruma::OwnedEventId;
use serde::{Deserialize, Serialize};

use super::Effect;

/// Maximum number of edits of an event that are remembered besides the newest.
const FORMER_EDITS_MAX: usize = 5;

/// An event that the ghost read and passes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingEvent {
    /// The event.
    pub event: OwnedEventId,
    /// The newest edit of it.
    pub edit: Option<OwnedEventId>,
    /// The edits before that one, newest last: if it is deleted, the one before it counts again.
    #[serde(default)]
    pub former_edits: Vec<OwnedEventId>,
    /// The edit that was quoted in its place when it was passed on.
    #[serde(default)]
    pub quoted_edit: Option<OwnedEventId>,
    /// Whether it has been passed on (or no longer needs to be).
    pub done: bool,
    /// Whether its key has not come.
    pub unreadable: bool,
    /// Whether another ghost in the room has passed it on, and follows its edits.
    #[serde(default)]
    pub by_other: bool,
}

impl PendingEvent {
    /// Returns an event that is still to be passed on.
    pub fn new(event: OwnedEventId, unreadable: bool) -> Self {
        Self {
            event,
            edit: None,
            former_edits: Vec::new(),
            quoted_edit: None,
            done: false,
            unreadable,
            by_other: false,
        }
    }

    /// Notes a newer edit, in place of the one that [`PendingEvent::edit_to_drop`] returns.
    pub fn put_edit(&mut self, newer: OwnedEventId) {
        if self.edit_to_drop().is_some() {
            self.former_edits.remove(0);
        }
        self.former_edits.extend(self.edit.replace(newer));
    }

    /// Returns the edit that is no longer remembered when there is a newer one.
    pub fn edit_to_drop(&self) -> Option<&OwnedEventId> {
        let is_full = self.edit.is_some() && self.former_edits.len() >= FORMER_EDITS_MAX;
        self.former_edits.first().filter(|_| is_full)
    }

    /// Forgets an edit that was deleted.
    pub fn take_back_edit(&mut self, deleted: &OwnedEventId) {
        self.former_edits.retain(|edit| edit != deleted);
        if self.edit.as_ref() == Some(deleted) {
            self.edit = self.former_edits.pop();
        }
    }

    /// Returns the edits that may still be passed on.
    pub fn edits(&self) -> impl Iterator<Item = &OwnedEventId> {
        self.former_edits.iter().chain(&self.edit)
    }

    /// Returns whether it can be passed on now.
    pub fn is_due(&self) -> bool {
        !self.done && !self.unreadable
    }

    /// Returns the effect that passes it on, with its newest text.
    pub fn pass_on(&self) -> Effect {
        Effect::PassOn {
            event: self.event.clone(),
            edit: self.edit.clone(),
        }
    }
}
