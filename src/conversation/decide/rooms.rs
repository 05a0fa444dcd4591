//! The rules about the rooms of a conversation: their names, and what follows if one is upgraded or
//! lost.

use ruma::{OwnedEventId, OwnedRoomId};

use super::{
    super::{Effect, Notice, Participant, PortalStatus, RoomRole},
    Transition, has_room,
};
use crate::ids::Person;

/// Maximum number of former names that are remembered of a person.
const FORMER_NAMES_MAX: usize = 8;

impl Transition {
    /// Remembers a person's own name, which must never show in the rooms of the others.
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

    /// Gives a person another name, if their ghost was made for this conversation: a handle is a
    /// name already.
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
        // The name or topic that somebody gave the origin may name them.
        self.sync_all_portals(role, None);
    }

    /// Follows the upgrade of the origin, or replaces a portal that was upgraded.
    pub(super) fn room_upgraded(&mut self, role: RoomRole, to: &OwnedRoomId, by: &Person) {
        match role {
            // A tombstone must not lead the origin into one of its own portals.
            RoomRole::Origin if self.state.role_of(to).is_none() => {
                let (to, by) = (to.clone(), by.clone());
                self.emit(role, Effect::FollowUpgrade { to, by });
            }
            RoomRole::Origin => {}
            // Portals are rooms that the service made itself: the owner of any other room could let
            // others in.
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
                .notices_sent_in
                .retain(|(it, _)| *it != RoomRole::Origin);
            self.effects.push((old, Effect::LeaveRoom));
        }
        self.sync_all_portals(RoomRole::Origin, None);
    }

    /// Stays in the present origin and tells everybody what to do.
    pub(super) fn upgrade_failed(&mut self, to: &OwnedRoomId, by: &Person) {
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

    /// Lets ghosts leave a room that is not one of the conversation.
    pub(super) fn leave_room(&mut self, room: &OwnedRoomId) {
        if self.state.role_of(room).is_none() {
            self.effects.push((room.clone(), Effect::LeaveRoom));
        }
    }

    /// Forgets a portal that was lost: its owner gets a new one.
    pub(super) fn portal_lost(&mut self, person: usize) {
        if let Some((room, status)) = self.state.portal_mut(person)
            && *status != PortalStatus::Closed
            && let Some(old) = room.take()
        {
            *status = PortalStatus::InvitePending;
            self.effects.push((old, Effect::LeaveRoom));
        }
    }

    /// Passes a new name or topic on to the other rooms.
    pub(super) fn room_info_changed(&mut self, role: RoomRole, event: &OwnedEventId) {
        match role {
            RoomRole::Origin => self.sync_all_portals(role, Some(event)),
            RoomRole::Portal(_) => {
                let event = event.clone();
                self.emit(role, Effect::RenameOrigin { event });
            }
        }
    }

    /// Gives every other existing portal the name and topic of the origin.
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
