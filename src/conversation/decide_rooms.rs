//! What becomes of the rooms of a conversation: what they are called, and what follows when one is
//! replaced or lost.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};

use super::{
    Effect, Home, Notice, Participant, PortalStatus, RoomRole,
    decide::{Transition, has_room},
};

/// So many names of somebody are remembered.
const FORMER_NAMES_MAX: usize = 8;

impl Transition {
    /// Somebody's own name, never to be shown in the rooms of the others.
    pub(super) fn name_seen(&mut self, person: usize, name: &str) {
        if let Some(it) = self.state.people.get_mut(person)
            && !it.former_names.iter().any(|known| known == name)
        {
            if it.former_names.len() >= FORMER_NAMES_MAX {
                it.former_names.remove(0);
            }
            it.former_names.push(name.to_owned());
        }
    }

    /// Somebody is called otherwise from now on. Only whose ghost exists for this conversation: a
    /// handle is a name already.
    pub(super) fn renamed(&mut self, person: usize, name: &str) {
        match self.state.people.get_mut(person) {
            Some(it) if it.is_alias && it.name != name => name.clone_into(&mut it.name),
            _ => return,
        }
        let portals = (0..self.state.people.len()).map(RoomRole::Portal);
        let mut roles = std::iter::once(RoomRole::Origin).chain(portals);
        let Some(role) = roles.find(|role| self.state.room(*role).is_some()) else {
            return;
        };
        self.emit(role, Effect::SetGhostName { person });
        // A topic may say it.
        self.sync_all_portals(role, None);
    }

    /// A room says that another one has taken its place.
    pub(super) fn room_upgraded(&mut self, role: RoomRole, to: &OwnedRoomId, by: &OwnedUserId) {
        match role {
            // Into its own portals it is not to be led.
            RoomRole::Origin if self.state.role_of(to).is_none() => {
                let (to, by) = (to.clone(), by.clone());
                self.emit(role, Effect::FollowUpgrade { to, by });
            }
            RoomRole::Origin => {}
            // Portals are ours to make: in somebody else's room others could be brought in. So a
            // new one is made.
            RoomRole::Portal(person) => {
                if self
                    .state
                    .people
                    .get(person)
                    .is_some_and(Participant::takes_part)
                {
                    self.emit(role, Effect::EnsurePortal { person });
                }
            }
        }
    }

    pub(super) fn upgrade_followed(&mut self, room: &OwnedRoomId) {
        if let Some(old) = self.state.origin.replace(room.clone())
            && old != *room
        {
            self.state
                .rtc_notice_sent_in
                .retain(|it| *it != RoomRole::Origin);
            self.effects.push((old, Effect::LeaveRoom));
        }
        self.sync_all_portals(RoomRole::Origin, None);
    }

    /// The conversation stays where it is, and everybody hears what to do.
    pub(super) fn upgrade_failed(&mut self, to: &OwnedRoomId, by: &OwnedUserId) {
        if self.state.role_of(to).is_some() {
            return;
        }
        self.leave_room(to);
        let by = by.clone();
        self.send_notice(RoomRole::Origin, Notice::UpgradeFailed { by }, to.as_str());
        for role in self.state.targets_of(RoomRole::Origin) {
            self.send_notice(role, Notice::OthersUpgraded, to.as_str());
        }
    }

    /// Whoever has come into a room in which the conversation does not go on leaves it.
    pub(super) fn leave_room(&mut self, room: &OwnedRoomId) {
        if self.state.role_of(room).is_none() {
            self.effects.push((room.clone(), Effect::LeaveRoom));
        }
    }

    /// Its owner gets a new one.
    pub(super) fn portal_lost(&mut self, person: usize) {
        if let Some(Participant {
            home: Home::Portal { room, status },
            ..
        }) = self.state.people.get_mut(person)
            && *status != PortalStatus::Closed
            && let Some(old) = room.take()
        {
            *status = PortalStatus::InvitePending;
            self.effects.push((old, Effect::LeaveRoom));
        }
    }

    /// A room was given another name or topic.
    pub(super) fn room_info_changed(&mut self, role: RoomRole, event: &OwnedEventId) {
        match role {
            RoomRole::Origin => self.sync_all_portals(role, Some(event)),
            RoomRole::Portal(_) => {
                let event = event.clone();
                self.emit(role, Effect::RenameOrigin { event });
            }
        }
    }

    /// Every other portal that exists is called as the origin is now.
    pub(super) fn sync_all_portals(&mut self, role: RoomRole, cause: Option<&OwnedEventId>) {
        for (person, participant) in self.state.people.clone().iter().enumerate() {
            if has_room(participant)
                && participant.takes_part()
                && participant.room_role(person) != role
            {
                let cause = cause.cloned();
                self.emit(role, Effect::SyncPortalInfo { person, cause });
            }
        }
    }
}
