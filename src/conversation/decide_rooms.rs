//! What becomes of the rooms of a conversation: what they are called, and what follows when one is
//! replaced or lost.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};

use super::{
    Effect, Notice, Participant, Place, Seat, Standing,
    decide::{Transition, has_room},
};

/// So many names of somebody are remembered.
const FORMER_NAMES_MAX: usize = 8;

impl Transition {
    /// Somebody's own name, never to be shown in the rooms of the others.
    pub(super) fn name_seen(&mut self, person: usize, name: &str) {
        if let Some(it) = self.state.people.get_mut(person)
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
    pub(super) fn renamed(&mut self, person: usize, name: &str) {
        match self.state.people.get_mut(person) {
            Some(it) if it.own_ghost && it.name != name => name.clone_into(&mut it.name),
            _ => return,
        }
        let portals = (0..self.state.people.len()).map(Place::Portal);
        let mut places = std::iter::once(Place::Origin).chain(portals);
        let Some(place) = places.find(|place| self.state.room(*place).is_some()) else {
            return;
        };
        self.emit(place, Effect::SetGhostName { person });
        // A topic may say it.
        self.sync_all_portals(place, None);
    }

    /// A room says that another one has taken its place.
    pub(super) fn room_upgraded(&mut self, place: Place, to: &OwnedRoomId, by: &OwnedUserId) {
        match place {
            // Into its own portals it is not to be led.
            Place::Origin if self.state.place_of(to).is_none() => {
                let (to, by) = (to.clone(), by.clone());
                self.emit(place, Effect::FollowUpgrade { to, by });
            }
            Place::Origin => {}
            // Portals are ours to make: in somebody else's room others could be brought in. So a
            // new one is made.
            Place::Portal(person) => {
                if self
                    .state
                    .people
                    .get(person)
                    .is_some_and(Participant::takes_part)
                {
                    self.emit(place, Effect::EnsurePortal { person });
                }
            }
        }
    }

    pub(super) fn upgrade_followed(&mut self, room: &OwnedRoomId) {
        if let Some(old) = self.state.origin.replace(room.clone())
            && old != *room
        {
            self.state
                .told_of_room_calls
                .retain(|it| *it != Place::Origin);
            self.effects.push((old, Effect::LeaveRoom));
        }
        self.sync_all_portals(Place::Origin, None);
    }

    /// The conversation stays where it is, and everybody hears what to do.
    pub(super) fn upgrade_failed(&mut self, to: &OwnedRoomId, by: &OwnedUserId) {
        if self.state.place_of(to).is_some() {
            return;
        }
        self.leave_room(to);
        let by = by.clone();
        self.send_notice(Place::Origin, Notice::UpgradeFailed { by }, to.as_str());
        for place in self.state.others(Place::Origin) {
            self.send_notice(place, Notice::OthersUpgraded, to.as_str());
        }
    }

    /// Whoever has come into a room in which the conversation does not go on leaves it.
    pub(super) fn leave_room(&mut self, room: &OwnedRoomId) {
        if self.state.place_of(room).is_none() {
            self.effects.push((room.clone(), Effect::LeaveRoom));
        }
    }

    /// Its owner gets a new one.
    pub(super) fn portal_lost(&mut self, person: usize) {
        if let Some(Participant {
            seat: Seat::Portal { room, standing },
            ..
        }) = self.state.people.get_mut(person)
            && *standing != Standing::Gone
            && let Some(old) = room.take()
        {
            *standing = Standing::Awaited;
            self.effects.push((old, Effect::LeaveRoom));
        }
    }

    /// A room was given another name or topic.
    pub(super) fn room_info_changed(&mut self, place: Place, event: &OwnedEventId) {
        match place {
            Place::Origin => self.sync_all_portals(place, Some(event)),
            Place::Portal(_) => {
                let event = event.clone();
                self.emit(place, Effect::RenameOrigin { event });
            }
        }
    }

    /// Every other portal that exists is called as the origin is now.
    pub(super) fn sync_all_portals(&mut self, place: Place, cause: Option<&OwnedEventId>) {
        for (person, participant) in self.state.people.clone().iter().enumerate() {
            if has_room(participant)
                && participant.takes_part()
                && participant.place(person) != place
            {
                let cause = cause.cloned();
                self.emit(place, Effect::SyncPortalInfo { person, cause });
            }
        }
    }
}
