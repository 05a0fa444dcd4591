//! What becomes of the rooms of a conversation: what they are called, and what follows when one is
//! replaced or lost.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};

use super::{
    Effect, Participant, Place, Saying, Seat, Standing,
    decide::{Case, has_room},
};

/// So many names of somebody are remembered.
const FORMER_NAMES_MAX: usize = 8;

impl Case {
    /// Somebody's own name, never to be shown in the rooms of the others.
    pub(super) fn known_as(&mut self, person: usize, name: &str) {
        if let Some(it) = self.is.people.get_mut(person)
            && !it.known_as.iter().any(|known| known == name)
        {
            if it.known_as.len() >= FORMER_NAMES_MAX {
                it.known_as.remove(0);
            }
            it.known_as.push(name.to_owned());
        }
    }

    /// Somebody is called otherwise from now on. Only whose ghost exists for this conversation: a
    /// handle is a name already.
    pub(super) fn called(&mut self, person: usize, name: &str) {
        match self.is.people.get_mut(person) {
            Some(it) if it.own_ghost && it.name != name => name.clone_into(&mut it.name),
            _ => return,
        }
        let portals = (0..self.is.people.len()).map(Place::Portal);
        let mut places = std::iter::once(Place::Origin).chain(portals);
        let Some(place) = places.find(|place| self.is.room(*place).is_some()) else {
            return;
        };
        self.at(place, Effect::Call { person });
        // A topic may say it.
        self.dress_all(place, None);
    }

    /// A room says that another one has taken its place.
    pub(super) fn upgraded(&mut self, place: Place, to: &OwnedRoomId, by: &OwnedUserId) {
        match place {
            // Into its own portals it is not to be led.
            Place::Origin if self.is.place_of(to).is_none() => {
                let (to, by) = (to.clone(), by.clone());
                self.at(place, Effect::Follow { to, by });
            }
            Place::Origin => {}
            // Portals are ours to make: in somebody else's room others could be brought in. So a
            // new one is made.
            Place::Portal(person) => {
                if self
                    .is
                    .people
                    .get(person)
                    .is_some_and(Participant::takes_part)
                {
                    self.at(place, Effect::Furnish { person });
                }
            }
        }
    }

    pub(super) fn followed(&mut self, room: &OwnedRoomId) {
        if let Some(old) = self.is.origin.replace(room.clone())
            && old != *room
        {
            self.is.told_of_room_calls.retain(|it| *it != Place::Origin);
            self.effects.push((old, Effect::Depart));
        }
        self.dress_all(Place::Origin, None);
    }

    /// The conversation stays where it is, and everybody hears what to do.
    pub(super) fn not_followed(&mut self, to: &OwnedRoomId, by: &OwnedUserId) {
        if self.is.place_of(to).is_some() {
            return;
        }
        self.depart_from(to);
        let by = by.clone();
        self.say(Place::Origin, Saying::NotFollowed { by }, to.as_str());
        for place in self.is.others(Place::Origin) {
            self.say(place, Saying::OthersMoved, to.as_str());
        }
    }

    /// Whoever has come into a room in which the conversation does not go on leaves it.
    pub(super) fn depart_from(&mut self, room: &OwnedRoomId) {
        if self.is.place_of(room).is_none() {
            self.effects.push((room.clone(), Effect::Depart));
        }
    }

    /// Its owner gets a new one.
    pub(super) fn lost(&mut self, person: usize) {
        if let Some(Participant {
            seat: Seat::Portal { room, standing },
            ..
        }) = self.is.people.get_mut(person)
            && *standing != Standing::Gone
            && let Some(old) = room.take()
        {
            *standing = Standing::Awaited;
            self.effects.push((old, Effect::Depart));
        }
    }

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
