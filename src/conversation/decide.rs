//! The rules of a conversation. Pure: the same state, input and time give the same decision.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};

use super::{
    Conversation, Decision, Effect, EventKind, Input, Participant, Place, Saying, Seat, Standing,
};
use crate::clock::Timestamp;

/// How many people a conversation has at the most; who comes after that is not carried.
const PEOPLE_MAX: usize = 100;

/// Decides what follows from `input`.
pub fn decide(state: Conversation, input: &Input) -> Decision {
    let mut case = Case {
        is: state,
        effects: Vec::new(),
    };
    case.take(input);
    Decision {
        state: (!case.is_over()).then_some(case.is),
        effects: case.effects,
    }
}

pub(super) fn has_room(person: &Participant) -> bool {
    matches!(&person.seat, Seat::Portal { room: Some(_), .. })
}

pub(super) struct Case {
    pub(super) is: Conversation,
    pub(super) effects: Vec<(OwnedRoomId, Effect)>,
}

impl Case {
    fn take(&mut self, input: &Input) {
        match input {
            Input::RoomLeft { place } => self.departed(*place),
            // A ghost may be there already.
            Input::UpgradeFailed { to, .. } if self.is.ended => self.depart_from(to),
            // Whatever is still said while the rooms are being left reaches nobody.
            _ if self.is.ended => {}
            Input::Started { earlier } => self.opened(earlier),
            Input::Added {
                person,
                by,
                earlier,
            } => self.added(person, by, earlier),
            Input::ReturnedToRoom { at, person } => self.led_back(*at, *person),
            Input::Event {
                place,
                sender,
                event,
                kind,
            } => self.heard(*place, sender, event, kind),
            Input::Member {
                place,
                user,
                membership,
                by_others,
                ghost,
            } => match membership.as_str() {
                "join" => self.came(*place, user, ghost.as_ref()),
                "leave" | "ban" => self.went(*place, user, *by_others),
                _ => {}
            },
            Input::PortalCreated { person, room } => self.made(*person, room),
            Input::PortalReady { person } => self.furnished(*person),
            Input::PortalFailed { person } => self.not_furnished(*person),
            Input::OriginReplaced { room, earlier } => self.moved(room, earlier),
            Input::Renamed { person, name } => self.called(*person, name),
            Input::NameSeen { person, name } => self.known_as(*person, name),
            Input::RoomUpgraded { place, to, by } => self.upgraded(*place, to, by),
            Input::UpgradeFollowed { room } => self.followed(room),
            Input::UpgradeFailed { to, by } => self.not_followed(to, by),
            Input::PortalLost { person } => self.lost(*person),
            Input::OriginRenamed { person } => self.dress_all(Place::Portal(*person), None),
            Input::NotForwarded { place, event, text } => self.say(
                *place,
                Saying::NotCarried {
                    words: text.clone(),
                },
                // There may be more than one thing to say about it.
                &format!("{event} {text}"),
            ),
            Input::HandleClosed { ghost } => self.closed(ghost),
            Input::End => self.end(),
        }
    }

    fn opened(&mut self, earlier: &[OwnedEventId]) {
        self.greet(|_| true);
        self.hear_all(earlier);
    }

    /// Whoever writes to somebody masked is told at once who can read it.
    fn greet(&mut self, by: impl Fn(&Participant) -> bool) {
        let masked = self.is.people.iter();
        let masked = masked
            .filter(|p| matches!(p.seat, Seat::Portal { .. }) && p.takes_part())
            .filter(|p| by(p));
        let handles: Vec<String> = masked.map(|person| person.name.clone()).collect();
        let asker = self.is.people.iter();
        let mut asker = asker.filter(|p| matches!(p.seat, Seat::Origin { here: true }));
        let shown_as = asker.next().map(|person| person.name.clone());
        let opened = format!("opened {}", room_name(self.is.origin.as_ref()));
        for handle in handles {
            let cause = format!("{opened} {handle}");
            let saying = match (&shown_as, self.is.direct) {
                (Some(shown_as), true) => Saying::Masked {
                    handle,
                    shown_as: shown_as.clone(),
                },
                _ => Saying::MaskedInGroup { handle },
            };
            self.say(Place::Origin, saying, &cause);
        }
    }

    fn added(&mut self, person: &Participant, by: &UserId, earlier: &[OwnedEventId]) {
        let same = |p: &Participant| p.user == person.user && p.ghost == person.ghost;
        let index = match self.is.people.iter().position(same) {
            Some(index) => {
                // Invited again after they were gone.
                if let Seat::Portal { standing, .. } = &mut self.is.people[index].seat
                    && *standing == Standing::Gone
                {
                    *standing = Standing::Unasked;
                }
                index
            }
            None => {
                self.is.people.push(person.clone());
                self.is.direct = false;
                self.is.people.len() - 1
            }
        };
        self.greet(|p| p.ghost == person.ghost);
        // The others have heard it.
        if let Some(from) = self.is.person_at(Place::Origin, by)
            && self.is.people[index].takes_part()
        {
            for event in earlier {
                self.carry_into(Place::Origin, from, event, vec![Place::Portal(index)]);
            }
        }
        self.furnish_all(Place::Origin);
    }

    fn led_back(&mut self, at: Timestamp, person: usize) {
        self.is.led_back_at = Some(at);
        if let Some(Participant {
            seat: Seat::Portal { standing, .. },
            ..
        }) = self.is.people.get_mut(person)
            && *standing == Standing::Left
        {
            *standing = Standing::Awaited;
            self.at(Place::Portal(person), Effect::Furnish { person });
        }
    }

    fn hear_all(&mut self, earlier: &[OwnedEventId]) {
        let asker = self.is.people.iter();
        let mut asker = asker.filter(|p| matches!(p.seat, Seat::Origin { here: true }));
        let Some(sender) = asker.next().map(|person| person.user.clone()) else {
            return;
        };
        for event in earlier {
            self.heard(Place::Origin, &sender, event, &EventKind::Forwardable);
        }
    }

    fn heard(&mut self, place: Place, sender: &UserId, event: &OwnedEventId, kind: &EventKind) {
        let Some(from) = self.is.person_at(place, sender) else {
            return;
        };
        // Whoever is out of it may have a room that is being left.
        if self.is.people[from].seat.is_closed() {
            return;
        }
        match kind {
            EventKind::Forwardable => self.carry(place, from, event),
            EventKind::Redaction { of } => {
                for to in self.is.others(place) {
                    let (event, of) = (event.clone(), of.clone());
                    let effect = Effect::TakeBack {
                        event,
                        of,
                        from,
                        to,
                    };
                    self.at(place, effect);
                }
            }
            EventKind::Unencrypted => self.say(place, Saying::InClear, event.as_str()),
            // Once: every member of such a call sends state again and again.
            EventKind::MatrixRtc if self.is.told_of_room_calls.contains(&place) => {}
            EventKind::MatrixRtc => {
                self.is.told_of_room_calls.push(place);
                self.say(place, Saying::RoomCall, "room-call");
            }
            EventKind::RoomInfo => self.named(place, event),
        }
    }

    fn carry(&mut self, place: Place, from: usize, event: &OwnedEventId) {
        self.carry_into(place, from, event, self.is.others(place));
    }

    fn carry_into(&mut self, place: Place, from: usize, event: &OwnedEventId, places: Vec<Place>) {
        if places.is_empty() {
            return self.say(place, Saying::NobodyThere, event.as_str());
        }
        for to in &places {
            if let Place::Portal(person) = *to
                && let Seat::Portal { standing, .. } = &mut self.is.people[person].seat
                && matches!(standing, Standing::Unasked | Standing::Left)
            {
                *standing = Standing::Awaited;
                self.at(place, Effect::Furnish { person });
            }
        }
        let count = places.len();
        for (nth, to) in places.into_iter().enumerate() {
            let effect = Effect::Carry {
                event: event.clone(),
                from,
                to,
                last: nth + 1 == count,
            };
            self.at(place, effect);
        }
    }

    fn came(
        &mut self,
        place: Place,
        user: &OwnedUserId,
        ghost: Option<&(OwnedUserId, String, bool)>,
    ) {
        if let Some(person) = self.is.person_at(place, user) {
            match &mut self.is.people[person].seat {
                // An invite that was answered while its portal was being closed.
                Seat::Portal {
                    standing: Standing::Gone,
                    ..
                } => {}
                Seat::Portal { standing, .. } => *standing = Standing::Joined,
                Seat::Origin { here } if !*here => {
                    *here = true;
                    self.furnish_all(place);
                }
                Seat::Origin { .. } => {}
            }
            return;
        }
        if place != Place::Origin {
            return;
        }
        let Some((ghost, name, own_ghost)) = ghost else {
            return;
        };
        // Each is a ghost to be made, in every portal.
        if self.is.people.len() >= PEOPLE_MAX {
            self.say(Place::Origin, Saying::Full, "full");
            for portal in self.is.others(Place::Origin) {
                self.say(portal, Saying::Full, "full");
            }
            return;
        }
        self.is.people.push(Participant {
            user: user.clone(),
            ghost: ghost.clone(),
            name: name.clone(),
            own_ghost: *own_ghost,
            seat: Seat::Origin { here: true },
            known_as: Vec::new(),
        });
        self.is.direct = false;
        self.furnish_all(place);
    }

    /// Every portal that exists shows who is in the conversation now.
    fn furnish_all(&mut self, place: Place) {
        for (person, participant) in self.is.people.clone().iter().enumerate() {
            // Whoever has left is invited again when somebody says something.
            let left = matches!(
                participant.seat,
                Seat::Portal {
                    standing: Standing::Left,
                    ..
                }
            );
            if has_room(participant) && participant.takes_part() && !left {
                self.at(place, Effect::Furnish { person });
            }
        }
    }

    fn went(&mut self, place: Place, user: &UserId, by_others: bool) {
        if let Some(person) = self.is.person_at(place, user) {
            return match &mut self.is.people[person].seat {
                Seat::Origin { here } if *here => {
                    *here = false;
                    self.went_from_origin(person);
                }
                Seat::Origin { .. } => {}
                Seat::Portal { standing, .. } => match *standing {
                    Standing::Joined => *standing = Standing::Left,
                    Standing::Invited => self.gone(person, false),
                    _ => {}
                },
            };
        }
        let shown = self.is.people.iter().enumerate();
        let shown = shown.filter(|(index, p)| p.ghost == user && p.place(*index) != place);
        // A handle may have had another owner in this conversation.
        let shown = shown.max_by_key(|(_, p)| p.takes_part());
        let Some((person, _)) = shown else { return };
        if !by_others {
            return;
        }
        match place {
            // Somebody sent the ghost of a masked person away.
            Place::Origin => self.gone(person, true),
            // Its owner does not want the others in their portal.
            Place::Portal(owner) => self.gone(owner, false),
        }
    }

    fn went_from_origin(&mut self, person: usize) {
        let name = self.is.people[person].name.clone();
        let mut others = self.is.people.iter();
        if others.any(|p| matches!(p.seat, Seat::Origin { here: true })) {
            return self.furnish_all(Place::Origin);
        }
        for place in self.is.others(Place::Origin) {
            let cause = format!("went {} {person}", room_name(self.is.origin.as_ref()));
            self.say(place, Saying::WentAway { name: name.clone() }, &cause);
        }
        // A ghost that is not needed leaves. Whoever comes back finds the same portals.
        self.at(Place::Origin, Effect::Depart);
    }

    fn closed(&mut self, ghost: &UserId) {
        let masked = |p: &Participant| p.ghost == ghost && matches!(p.seat, Seat::Portal { .. });
        let people = &self.is.people;
        // They have begun it, and are the only one whom the others hear by this ghost.
        if people.iter().any(|p| p.ghost == ghost && !masked(p)) {
            return self.end();
        }
        // They may be gone already.
        if let Some(person) = people.iter().position(|p| masked(p) && p.takes_part()) {
            self.gone(person, false);
        }
    }

    /// A masked person is out of the conversation.
    fn gone(&mut self, person: usize, sent_away: bool) {
        let Some(Participant {
            seat: Seat::Portal { standing, room },
            ..
        }) = self.is.people.get_mut(person)
        else {
            return;
        };
        if std::mem::replace(standing, Standing::Gone) == Standing::Gone {
            return;
        }
        let portal = room.clone();
        let left = self.is.people.iter();
        let mut left = left.filter(|p| matches!(p.seat, Seat::Portal { .. }) && p.takes_part());
        if left.next().is_none() {
            return self.end();
        }
        self.say(Place::Portal(person), Saying::Ended, "ended");
        self.at(Place::Portal(person), Effect::Depart);
        let name = self.is.people[person].name.clone();
        // Whoever comes back has another portal, and may go again.
        let (origin, portal) = (
            room_name(self.is.origin.as_ref()),
            room_name(portal.as_ref()),
        );
        let cause = format!("gone {origin} {person} {portal}");
        self.say(Place::Origin, Saying::WentAway { name }, &cause);
        self.at(Place::Origin, Effect::Leave { person, sent_away });
        self.furnish_all(Place::Origin);
    }

    fn made(&mut self, person: usize, made: &OwnedRoomId) {
        if let Some(Participant {
            seat: Seat::Portal { room, standing },
            ..
        }) = self.is.people.get_mut(person)
        {
            *room = Some(made.clone());
            // They went while it was made.
            if *standing == Standing::Gone {
                self.effects.push((made.clone(), Effect::Depart));
            }
        }
    }

    fn furnished(&mut self, person: usize) {
        if let Some(Participant {
            seat: Seat::Portal { standing, .. },
            ..
        }) = self.is.people.get_mut(person)
            && matches!(*standing, Standing::Awaited | Standing::Left)
        {
            *standing = Standing::Invited;
        }
    }

    fn not_furnished(&mut self, person: usize) {
        self.gone(person, false);
    }

    fn moved(&mut self, room: &OwnedRoomId, earlier: &[OwnedEventId]) {
        if let Some(old) = self.is.origin.replace(room.clone())
            && old != *room
        {
            self.is.told_of_room_calls.retain(|it| *it != Place::Origin);
            self.effects.push((old, Effect::Depart));
        }
        for person in &mut self.is.people {
            if let Seat::Origin { here } = &mut person.seat {
                *here = true;
            }
        }
        self.greet(|_| true);
        self.dress_all(Place::Origin, None);
        self.hear_all(earlier);
    }

    fn departed(&mut self, place: Place) {
        let left = self.is.room(place).cloned();
        match place {
            Place::Origin => self.is.origin = None,
            Place::Portal(person) => {
                if let Some(Participant {
                    seat: Seat::Portal { room, .. },
                    ..
                }) = self.is.people.get_mut(person)
                {
                    *room = None;
                }
            }
        }
        // Only now nobody speaks by them any more.
        let ghosts: Vec<OwnedUserId> = self.is.own_ghosts().cloned().collect();
        if let Some(room) = left
            && self.is_over()
            && !ghosts.is_empty()
        {
            self.effects.push((room, Effect::Retire { ghosts }));
        }
    }

    fn is_over(&self) -> bool {
        self.is.ended && self.is.origin.is_none() && !self.is.people.iter().any(has_room)
    }

    fn end(&mut self) {
        self.is.ended = true;
        let portals = (0..self.is.people.len()).map(Place::Portal);
        for place in std::iter::once(Place::Origin).chain(portals) {
            self.say(place, Saying::Ended, "ended");
            self.at(place, Effect::Depart);
        }
    }

    pub(super) fn say(&mut self, place: Place, saying: Saying, cause: &str) {
        let cause = cause.to_owned();
        self.at(place, Effect::Say { saying, cause });
    }

    pub(super) fn at(&mut self, place: Place, effect: Effect) {
        if let Some(room) = self.is.room(place).cloned() {
            self.effects.push((room, effect));
        }
    }
}

/// Returns a room as it stands in the cause of a sentence, which goes into a transaction id.
fn room_name(room: Option<&OwnedRoomId>) -> &str {
    room.map_or("none", |room| room.as_str())
}
