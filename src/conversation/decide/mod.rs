//! The rules of a conversation. Pure: the same state and input give the same decision.

mod people;
mod rooms;

use ruma::{OwnedEventId, OwnedRoomId, UserId};

use super::{
    Conversation, Effect, EventKind, Home, Input, Notice, OnceNotice, Participant, PortalStatus,
    RoomRole,
};
use crate::{clock::Timestamp, ids::Ghost};

/// The outcome of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The new state, or `None` if nothing of the conversation is left.
    pub state: Option<Conversation>,
    /// The effects with the room that each belongs to, in order.
    pub effects: Vec<(OwnedRoomId, Effect)>,
}

/// Decides what follows from `input`.
pub fn decide(state: Conversation, input: &Input) -> Decision {
    let mut transition = Transition {
        state,
        effects: Vec::new(),
    };
    transition.apply(input);
    Decision {
        state: (!transition.is_over()).then_some(transition.state),
        effects: transition.effects,
    }
}

/// Returns whether this person has a portal that exists.
fn has_room(person: &Participant) -> bool {
    matches!(&person.home, Home::Portal { room: Some(_), .. })
}

/// A decision in the making.
struct Transition {
    state: Conversation,
    effects: Vec<(OwnedRoomId, Effect)>,
}

impl Transition {
    fn apply(&mut self, input: &Input) {
        match input {
            Input::RoomLeft { room } => {
                if let Some(role) = self.state.role_of(room) {
                    self.room_left(role);
                }
            }
            // A ghost may already be in the new room.
            Input::UpgradeFailed { to, .. } if self.state.ended => self.leave_room(to),
            // Nothing is forwarded while the rooms are being left.
            _ if self.state.ended => {}
            Input::Started { earlier } => self.started(earlier),
            Input::Added {
                person,
                by,
                invited_at,
                earlier,
            } => self.added(person, (by, *invited_at), earlier),
            Input::ReturnedToRoom { at, person } => self.returned_to_room(*at, *person),
            Input::Event {
                role,
                sender,
                event,
                kind,
            } => self.event_sent(*role, sender, event, kind),
            Input::Member {
                role,
                user,
                membership,
                by_others,
                redacts,
                ghost,
            } => match membership.as_str() {
                "join" => self.joined(*role, user, ghost.as_ref()),
                "leave" | "ban" => {
                    if *redacts {
                        self.redact_all_of(*role, user);
                    }
                    self.left(*role, user, *by_others);
                }
                _ => {}
            },
            Input::PortalCreated { person, room } => self.portal_created(*person, room),
            Input::InvitingOwner { person } => self.inviting_owner(*person),
            Input::PortalReady { person } => self.portal_ready(*person),
            Input::PortalFailed { person } => self.portal_failed(*person),
            Input::OriginReplaced { room, earlier } => self.origin_replaced(room, earlier),
            Input::Renamed { person, name } => self.renamed(*person, name),
            Input::NameSeen { person, name } => self.name_seen(*person, name),
            Input::RoomUpgraded { role, to, by } => self.room_upgraded(*role, to, by),
            Input::UpgradeFollowed { room } => self.upgrade_followed(room),
            Input::UpgradeFailed { to, by } => self.upgrade_failed(to, by),
            Input::PortalLost { person } => self.portal_lost(*person),
            Input::OriginRenamed { person } => {
                self.sync_all_portals(RoomRole::Portal(*person), None)
            }
            Input::NotDeleted { role, cause, text } => self.say_why_not(*role, text, cause),
            Input::RedactedOnItsWay { .. } => self.redacted_on_its_way(input),
            // One event can have several remarks.
            Input::NotForwarded { role, event, text } => {
                self.say_why_not(*role, text, &format!("{event} {text}"));
            }
            Input::CannotRead { role, person, day } => self.cannot_read(*role, *person, *day),
            Input::HandleClosed { ghost } => self.handle_closed(ghost),
            Input::End => self.end(),
        }
    }

    fn started(&mut self, earlier: &[OwnedEventId]) {
        let opened = self.opened();
        self.announce_masked(|_| true, &opened);
        self.forward_earlier(earlier);
    }

    /// Returns the cause of what is said in an origin because it has become one.
    fn opened(&self) -> String {
        format!("opened {}", room_name(self.state.origin.as_ref()))
    }

    /// Tells the origin at once who is masked, and that the service can read along.
    fn announce_masked(&mut self, is_announced: impl Fn(&Participant) -> bool, why: &str) {
        let people = self.state.people.iter().enumerate();
        let masked: Vec<(usize, String)> = people
            .filter(|(_, person)| person.is_masked() && is_announced(person))
            .map(|(index, person)| (index, person.name.clone()))
            .collect();
        let shown_as = self.asker().map(|asker| asker.name.clone());
        for (person, handle) in masked {
            let cause = format!("{why} {handle}");
            let notice = match (&shown_as, self.state.direct) {
                (Some(shown_as), true) => Notice::Masked {
                    handle,
                    shown_as: shown_as.clone(),
                },
                _ => Notice::MaskedInGroup { handle, person },
            };
            self.send_notice(RoomRole::Origin, notice, &cause);
        }
    }

    /// Returns the person who began the conversation: the first one in the origin.
    fn asker(&self) -> Option<&Participant> {
        self.state
            .people
            .iter()
            .find(|person| person.is_in_origin())
    }

    fn returned_to_room(&mut self, at: Timestamp, person: usize) {
        self.state.last_return_at = Some(at);
        if let Some((_, status)) = self.state.portal_mut(person)
            && *status == PortalStatus::Left
        {
            *status = PortalStatus::InvitePending;
            self.emit(RoomRole::Portal(person), Effect::EnsurePortal { person });
        }
    }

    fn forward_earlier(&mut self, earlier: &[OwnedEventId]) {
        let Some(sender) = self.asker().map(|asker| asker.user.clone()) else {
            return;
        };
        for event in earlier {
            self.event_sent(RoomRole::Origin, &sender, event, &EventKind::Forwardable);
        }
    }

    fn event_sent(
        &mut self,
        role: RoomRole,
        user: &UserId,
        event: &OwnedEventId,
        kind: &EventKind,
    ) {
        // A person who is out of the conversation may still be in a portal that is being left.
        let Some(sender) = self.state.speaker_at(role, user) else {
            return;
        };
        match kind {
            EventKind::Forwardable => self.forward(role, sender, event),
            EventKind::Redaction { of } => {
                for target in self.state.targets_of(role) {
                    let (event, of) = (event.clone(), of.clone());
                    let effect = Effect::RedactCopy {
                        event,
                        of,
                        sender,
                        target,
                    };
                    self.emit(role, effect);
                }
            }
            EventKind::Unencrypted => self.send_notice(role, Notice::Unencrypted, event.as_str()),
            EventKind::Verification { of } => {
                self.verification_requested(role, event, of.as_deref());
            }
            // Every member of such a call sends state again and again.
            EventKind::MatrixRtc => {
                self.explain_once(role, OnceNotice::MatrixRtc, Notice::MatrixRtc, "room-call");
            }
            EventKind::RoomOnly => {
                self.explain_once(role, OnceNotice::RoomOnly, Notice::RoomOnly, "room-only");
            }
            EventKind::RoomInfo => self.room_info_changed(role, event),
        }
    }

    /// Redacts a copy that is not there yet. The effect stands behind the event, which then is not
    /// forwarded, or redacted afterwards.
    fn redacted_on_its_way(&mut self, input: &Input) {
        let Input::RedactedOnItsWay {
            role,
            person,
            event,
            of,
            target,
        } = input
        else {
            return;
        };
        let effect = Effect::RedactCopy {
            event: event.clone(),
            of: of.clone(),
            sender: *person,
            target: *target,
        };
        self.emit(*role, effect);
    }

    fn verification_requested(
        &mut self,
        role: RoomRole,
        event: &OwnedEventId,
        of: Option<&UserId>,
    ) {
        let is_it = |ghost: &Ghost| of.is_some_and(|of| ghost.as_str() == of.as_str());
        let here = self.state.ghosts_at(role).find(|here| is_it(&here.ghost));
        if let Some(ghost) = here.map(|here| here.ghost.clone()) {
            let event = event.clone();
            self.emit(role, Effect::DeclineVerification { event, ghost });
        }
        self.send_notice(role, Notice::Verification, event.as_str());
    }

    /// Sends a notice that each room gets once.
    fn explain_once(&mut self, role: RoomRole, what: OnceNotice, notice: Notice, cause: &str) {
        if !self.state.notices_sent_in.contains(&(role, what)) {
            self.state.notices_sent_in.push((role, what));
            self.send_notice(role, notice, cause);
        }
    }

    fn forward(&mut self, role: RoomRole, sender: usize, event: &OwnedEventId) {
        self.forward_to(role, sender, event, self.state.targets_of(role));
    }

    fn forward_to(
        &mut self,
        role: RoomRole,
        sender: usize,
        event: &OwnedEventId,
        roles: Vec<RoomRole>,
    ) {
        if roles.is_empty() {
            return self.send_notice(role, Notice::NobodyThere, event.as_str());
        }
        for target in &roles {
            if let RoomRole::Portal(person) = *target
                && let Home::Portal { status, .. } = &mut self.state.people[person].home
                && matches!(status, PortalStatus::NotInvited | PortalStatus::Left)
            {
                *status = PortalStatus::InvitePending;
                self.emit(role, Effect::EnsurePortal { person });
            }
        }
        let count = roles.len();
        for (nth, target) in roles.into_iter().enumerate() {
            let effect = Effect::ForwardEvent {
                event: event.clone(),
                sender,
                target,
                is_last: nth + 1 == count,
            };
            self.emit(role, effect);
        }
    }

    fn portal_created(&mut self, person: usize, created: &OwnedRoomId) {
        if let Some((room, status)) = self.state.portal_mut(person) {
            *room = Some(created.clone());
            // The owner left the conversation while it was created.
            if *status == PortalStatus::Closed {
                self.effects.push((created.clone(), Effect::LeaveRoom));
            }
        }
    }

    fn inviting_owner(&mut self, person: usize) {
        if let Some((_, status)) = self.state.portal_mut(person)
            && *status == PortalStatus::Left
        {
            *status = PortalStatus::InvitePending;
        }
    }

    fn portal_ready(&mut self, person: usize) {
        // Meanwhile they may have joined and left again.
        if let Some((_, status)) = self.state.portal_mut(person)
            && *status == PortalStatus::InvitePending
        {
            *status = PortalStatus::Invited;
        }
    }

    fn portal_failed(&mut self, person: usize) {
        self.remove_masked(person);
    }

    fn origin_replaced(&mut self, room: &OwnedRoomId, earlier: &[OwnedEventId]) {
        if let Some(old) = self.state.origin.replace(room.clone())
            && old != *room
        {
            self.state
                .notices_sent_in
                .retain(|(it, _)| *it != RoomRole::Origin);
            self.effects.push((old, Effect::LeaveRoom));
        }
        for person in &mut self.state.people {
            if let Home::Origin { is_present } = &mut person.home {
                *is_present = true;
            }
        }
        let opened = self.opened();
        self.announce_masked(|_| true, &opened);
        self.sync_all_portals(RoomRole::Origin, None);
        self.forward_earlier(earlier);
    }

    fn room_left(&mut self, role: RoomRole) {
        let left = self.state.room(role).cloned();
        match role {
            RoomRole::Origin => self.state.origin = None,
            RoomRole::Portal(person) => {
                if let Some((room, _)) = self.state.portal_mut(person) {
                    *room = None;
                }
            }
        }
        // No room needs them before now.
        let ghosts: Vec<Ghost> = self.state.alias_ghosts().cloned().collect();
        if let Some(room) = left
            && self.is_over()
            && !ghosts.is_empty()
        {
            self.effects.push((room, Effect::DeleteGhosts { ghosts }));
        }
    }

    fn is_over(&self) -> bool {
        self.state.ended && self.state.origin.is_none() && !self.state.people.iter().any(has_room)
    }

    fn end(&mut self) {
        self.state.ended = true;
        let portals = (0..self.state.people.len()).map(RoomRole::Portal);
        for role in std::iter::once(RoomRole::Origin).chain(portals) {
            self.send_notice(role, Notice::Ended, "ended");
            self.emit(role, Effect::LeaveRoom);
        }
    }

    /// Says why something was not forwarded, or not deleted elsewhere.
    fn say_why_not(&mut self, role: RoomRole, text: &str, cause: &str) {
        let text = text.to_owned();
        self.send_notice(role, Notice::NotForwarded { text }, cause);
    }

    fn cannot_read(&mut self, role: RoomRole, person: usize, day: u64) {
        let Some(who) = self.state.people.get(person) else {
            return;
        };
        let text = format!(
            "{} can't read what is written here at the moment: I can't encrypt it for any of their \
             devices. They have to verify one, or their server has to answer again. What they miss \
             stays unreadable for them: please send it once more then.",
            who.name
        );
        self.say_why_not(role, &text, &format!("cannot read {person} {day}"));
    }

    /// Sends a notice to a room, once for each cause.
    fn send_notice(&mut self, role: RoomRole, notice: Notice, cause: &str) {
        let cause = cause.to_owned();
        self.emit(role, Effect::SendNotice { notice, cause });
    }

    /// Adds an effect for the actor of a room, if the room exists.
    fn emit(&mut self, role: RoomRole, effect: Effect) {
        if let Some(room) = self.state.room(role).cloned() {
            self.effects.push((room, effect));
        }
    }
}

/// Returns the name of a room in the cause of a notice, which goes into a transaction id.
fn room_name(room: Option<&OwnedRoomId>) -> &str {
    room.map_or("none", |room| room.as_str())
}
