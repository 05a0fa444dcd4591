//! The decisions on a conversation, told as short stories.

mod forwarding;
mod groups;
mod leaving;
mod names;
mod properties;
mod room_upgrades;

use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, event_id, owned_room_id, owned_user_id, room_id,
};

use super::{
    Conversation, Decision, Effect, EventKind, Input, Notice, PortalStatus, RoomRole, decide,
};
use crate::{
    clock::Timestamp,
    ids::{Ghost, Person},
    testing::{ConversationBuilder, ParticipantBuilder},
};

const PORTAL: RoomRole = RoomRole::Portal(1);
const ORIGIN: &str = "!origin:hs.test";
const SAMS: &str = "!portal:hs.test";

fn origin() -> OwnedRoomId {
    owned_room_id!("!origin:hs.test")
}

fn portal() -> OwnedRoomId {
    owned_room_id!("!portal:hs.test")
}

fn person(name: &str) -> ParticipantBuilder {
    ParticipantBuilder::new(&format!("@{name}:hs.test"), &format!("@_dm_{name}:hs.test"))
        .name(&format!("@{name}"))
}

fn masked(name: &str) -> ParticipantBuilder {
    person(name).portal(None, PortalStatus::NotInvited)
}

/// Alice has written to `@sam`, who is masked. Nothing is decided yet.
fn new() -> Conversation {
    ConversationBuilder::new("c0ffee")
        .origin(&origin())
        .direct()
        .person(person("alice").alias())
        .person(masked("sam"))
        .build()
}

fn said(role: RoomRole, name: &str, event: &OwnedEventId) -> Input {
    Input::Event {
        role,
        sender: OwnedUserId::try_from(format!("@{name}:hs.test")).unwrap(),
        event: event.clone(),
        kind: EventKind::Forwardable,
    }
}

fn member(role: RoomRole, user: OwnedUserId, membership: &str) -> Input {
    Input::Member {
        role,
        by_others: false,
        redacts: false,
        membership: membership.to_owned(),
        user,
        ghost: None,
    }
}

/// Alice has invited the ghost of `@kim`, who is masked too.
fn kim_was_added(earlier: &[OwnedEventId]) -> Input {
    kim_was_added_at(Timestamp(0), earlier)
}

fn kim_was_added_at(invited_at: Timestamp, earlier: &[OwnedEventId]) -> Input {
    Input::Added {
        person: Box::new(masked("kim").build()),
        by: Person::new(owned_user_id!("@alice:hs.test")),
        invited_at,
        earlier: earlier.to_vec(),
    }
}

fn one() -> OwnedEventId {
    event_id!("$one").to_owned()
}

/// Applies inputs in order and returns the last decision.
fn after(mut state: Conversation, inputs: &[Input]) -> Decision {
    let mut last = None;
    for input in inputs {
        let decision = decide(state.clone(), input);
        state = decision.state.clone().unwrap_or(state);
        last = Some(decision);
    }
    last.unwrap()
}

/// Alice and Sam talk.
fn going_on() -> Conversation {
    let inputs = [
        Input::Started {
            earlier: vec![one()],
        },
        Input::PortalCreated {
            person: 1,
            room: portal(),
        },
        Input::PortalReady { person: 1 },
        member(PORTAL, owned_user_id!("@sam:hs.test"), "join"),
    ];
    after(new(), &inputs).state.unwrap()
}

fn kinds(decision: &Decision) -> Vec<(&str, &'static str)> {
    let effects = decision.effects.iter();
    effects
        .map(|(room, effect)| (room.as_str(), effect.kind()))
        .collect()
}
