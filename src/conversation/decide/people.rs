//! The rules about who takes part in a conversation.

use ruma::{OwnedEventId, OwnedUserId, UserId};

use super::{
    super::{Effect, Home, Notice, Participant, PortalStatus, RoomRole},
    Transition, has_room, room_name,
};
use crate::{
    clock::Timestamp,
    ids::{Ghost, Person},
};

/// Maximum number of people in a conversation. Messages of later ones are not forwarded.
const PEOPLE_MAX: usize = 100;

impl Transition {
    pub(super) fn added(
        &mut self,
        person: &Participant,
        (by, invited_at): (&Person, Timestamp),
        earlier: &[OwnedEventId],
    ) {
        // A person of the origin who is shown elsewhere by this ghost gets a portal like everybody:
        // that nothing happens would tell who holds the handle.
        let same = |p: &Participant| {
            p.user == person.user
                && p.ghost == person.ghost
                && matches!(p.home, Home::Portal { .. })
        };
        let index = match self.state.people.iter().position(same) {
            Some(index) => {
                // They were out of the conversation and are invited again.
                if let Home::Portal { status, .. } = &mut self.state.people[index].home
                    && *status == PortalStatus::Closed
                {
                    *status = PortalStatus::NotInvited;
                }
                index
            }
            None => {
                self.state.people.push(person.clone());
                self.state.direct = false;
                self.state.people.len() - 1
            }
        };
        // They may have been announced here before, and be back.
        let added = format!("{} {}", self.opened(), invited_at.0);
        self.announce_masked(|p| p.ghost == person.ghost, &added);
        // The other portals have these events already.
        if let Some(sender) = self.state.person_at(RoomRole::Origin, by)
            && self.state.people[index].takes_part()
        {
            for event in earlier {
                self.forward_to(
                    RoomRole::Origin,
                    sender,
                    event,
                    vec![RoomRole::Portal(index)],
                );
            }
        }
        self.ensure_all_portals(RoomRole::Origin);
    }

    pub(super) fn joined(
        &mut self,
        role: RoomRole,
        user: &OwnedUserId,
        ghost: Option<&(Ghost, String, bool)>,
    ) {
        if let Some(person) = self.state.person_at(role, user) {
            match &mut self.state.people[person].home {
                // They accepted the invite while the portal was being closed.
                Home::Portal {
                    status: PortalStatus::Closed,
                    ..
                } => {}
                Home::Portal { status, .. } => *status = PortalStatus::Joined,
                Home::Origin { is_present } if !*is_present => {
                    *is_present = true;
                    self.ensure_all_portals(role);
                }
                Home::Origin { .. } => {}
            }
            return;
        }
        if role != RoomRole::Origin {
            return;
        }
        let Some((ghost, name, is_alias)) = ghost else {
            return;
        };
        // Each newcomer costs a ghost, in every portal.
        if self.state.people.len() >= PEOPLE_MAX {
            // Once for each of them: who comes later cannot read what was said before.
            let cause = format!("full-{user}");
            self.send_notice(RoomRole::Origin, Notice::Full, &cause);
            for portal in self.state.targets_of(RoomRole::Origin) {
                self.send_notice(portal, Notice::Full, "full");
            }
            return;
        }
        self.state.people.push(Participant {
            user: Person::new(user.clone()),
            ghost: ghost.clone(),
            name: name.clone(),
            is_alias: *is_alias,
            home: Home::Origin { is_present: true },
            former_names: Vec::new(),
        });
        self.state.direct = false;
        self.ensure_all_portals(role);
    }

    /// Brings the ghosts in every existing portal up to date.
    fn ensure_all_portals(&mut self, role: RoomRole) {
        for (person, participant) in self.state.people.clone().iter().enumerate() {
            // An owner who has left is invited again by the next message.
            let left = matches!(
                participant.home,
                Home::Portal {
                    status: PortalStatus::Left,
                    ..
                }
            );
            if has_room(participant) && participant.takes_part() && !left {
                self.emit(role, Effect::EnsurePortal { person });
            }
        }
    }

    /// Redacts the copies of everything that a person of a group has said, who was removed from its
    /// origin: themselves, or the ghost of a masked person.
    pub(super) fn redact_all_of(&mut self, role: RoomRole, user: &UserId) {
        if role != RoomRole::Origin || self.state.direct {
            return;
        }
        let person = self.state.person_at(role, user);
        let Some(person) = person.or_else(|| self.shown_by(role, user)) else {
            return;
        };
        let home = self.state.people[person].room_role(person);
        for target in self.state.targets_of(home) {
            // There their messages are deleted with their membership.
            if target != role {
                self.emit(home, Effect::RedactCopiesOf { person, target });
            }
        }
    }

    /// Returns the person whom a ghost in this room shows. A handle may have had another owner in
    /// this conversation: the present one counts.
    fn shown_by(&self, role: RoomRole, user: &UserId) -> Option<usize> {
        let people = self.state.people.iter().enumerate();
        let shown = people
            .filter(|(index, person)| person.ghost == user && person.room_role(*index) != role);
        let (index, _) = shown.max_by_key(|(_, person)| person.takes_part())?;
        Some(index)
    }

    pub(super) fn left(&mut self, role: RoomRole, user: &UserId, by_others: bool) {
        if let Some(person) = self.state.person_at(role, user) {
            return match &mut self.state.people[person].home {
                Home::Origin { is_present } if *is_present => {
                    *is_present = false;
                    self.left_origin(person);
                }
                Home::Origin { .. } => {}
                Home::Portal { status, .. } => match *status {
                    PortalStatus::Joined => *status = PortalStatus::Left,
                    // The invite may be declined before it is known here that it was sent.
                    PortalStatus::Invited | PortalStatus::InvitePending => {
                        self.remove_masked(person)
                    }
                    _ => {}
                },
            };
        }
        let Some(person) = self.shown_by(role, user) else {
            return;
        };
        if !by_others {
            return;
        }
        match role {
            // Another user sent the ghost of a masked person away.
            RoomRole::Origin => self.remove_masked(person),
            // The owner sent a ghost out of their portal: they do not want the others there.
            RoomRole::Portal(owner) => self.remove_masked(owner),
        }
    }

    fn left_origin(&mut self, person: usize) {
        let name = self.state.people[person].name.clone();
        if self.asker().is_some() {
            return self.ensure_all_portals(RoomRole::Origin);
        }
        for role in self.state.targets_of(RoomRole::Origin) {
            let cause = format!("went {} {person}", room_name(self.state.origin.as_ref()));
            self.send_notice(role, Notice::PersonLeft { name: name.clone() }, &cause);
        }
        // Ghosts that are not needed leave. A person who comes back finds the same portals.
        self.emit(RoomRole::Origin, Effect::LeaveRoom);
    }

    pub(super) fn handle_closed(&mut self, ghost: &Ghost) {
        let masked = |p: &Participant| p.ghost == *ghost && matches!(p.home, Home::Portal { .. });
        let people = &self.state.people;
        // This ghost shows a person in the origin, whom the others would no longer hear.
        if people.iter().any(|p| p.ghost == *ghost && !masked(p)) {
            return self.end();
        }
        // They may be out of the conversation already.
        if let Some(person) = people.iter().position(|p| masked(p) && p.takes_part()) {
            self.remove_masked(person);
        }
    }

    /// Takes a masked person out of the conversation.
    pub(super) fn remove_masked(&mut self, person: usize) {
        let Some((_, status)) = self.state.portal_mut(person) else {
            return;
        };
        if std::mem::replace(status, PortalStatus::Closed) == PortalStatus::Closed {
            return;
        }
        self.state.removals += 1;
        if !self.state.people.iter().any(Participant::is_masked) {
            return self.end();
        }
        self.send_notice(RoomRole::Portal(person), Notice::Ended, "ended");
        self.emit(RoomRole::Portal(person), Effect::LeaveRoom);
        let name = self.state.people[person].name.clone();
        // A person who comes back may be taken out again, even before they have a portal. The
        // homeserver would take the same cause for the same notice.
        let origin = room_name(self.state.origin.as_ref());
        let cause = format!("gone {origin} {person} {}", self.state.removals);
        self.send_notice(RoomRole::Origin, Notice::PersonLeft { name }, &cause);
        self.emit(RoomRole::Origin, Effect::RemoveGhost { person });
        self.ensure_all_portals(RoomRole::Origin);
    }
}
