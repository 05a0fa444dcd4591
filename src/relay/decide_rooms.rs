//! What rooms of a conversation are called. The origin's name and topic are those of the
//! conversation; portals show them.

use ruma::OwnedEventId;

use super::{
    Effect, Place,
    decide::{Case, has_room},
};

impl Case {
    /// A room was given another name or topic.
    pub(super) fn named(&mut self, place: Place, event: &OwnedEventId) {
        match place {
            Place::Origin => self.dress_all(place, Some(event)),
            Place::Portal(_) => {
                let event = event.clone();
                self.at(place, Effect::Rename { event });
            }
        }
    }

    /// Every other portal that exists is called as the origin is now.
    pub(super) fn dress_all(&mut self, place: Place, cause: Option<&OwnedEventId>) {
        for (person, participant) in self.is.people.clone().iter().enumerate() {
            if has_room(participant)
                && participant.takes_part()
                && participant.place(person) != place
            {
                let cause = cause.cloned();
                self.at(place, Effect::Dress { person, cause });
            }
        }
    }
}
