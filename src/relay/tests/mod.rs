//! What is carried, how, and what never comes out.

mod altered;
mod calls;
mod clients;
mod hostile;
mod messages;
mod real;

use std::collections::HashMap;

use ruma::{EventId, OwnedEventId, OwnedUserId, UserId, room_id};
use serde_json::Value;

use super::{CannotCarry, Carried, Counterparts, Passage, Person, carry};

pub(super) const ALICE: &str = "@alice.harbour:far.example";
pub(super) const GHOST: &str = "@_dm_.p2345672345672345:hs.test";
pub(super) const SAM: &str = "@_dm_sam:hs.test";
pub(super) const SAMUEL: &str = "@samuel:hs.test";

pub(super) struct Map(pub HashMap<OwnedEventId, OwnedEventId>);

impl Counterparts for Map {
    fn event(&self, here: &EventId) -> Option<OwnedEventId> {
        self.0.get(here).cloned()
    }
}

/// Which way something goes.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// From Alice's room into Sam's portal.
    ToSam,
    /// From Sam's portal into Alice's room.
    ToAlice,
}

/// Alice, who is called "Kim", and Sam talk; `$one` here is `$eins` there, and so on.
pub(super) fn with_passage<T>(way: Way, hide: bool, act: impl FnOnce(&Passage<'_>) -> T) -> T {
    let person = |here: &str, there: &str, name: &str| Person {
        here: OwnedUserId::try_from(here).unwrap(),
        there: OwnedUserId::try_from(there).unwrap(),
        name_there: name.to_owned(),
    };
    let (people, sender) = match way {
        Way::ToSam => (
            [person(ALICE, GHOST, "Kim"), person(SAM, SAMUEL, "@sam")],
            ALICE,
        ),
        Way::ToAlice => (
            [person(GHOST, ALICE, "Kim"), person(SAMUEL, SAM, "@sam")],
            SAMUEL,
        ),
    };
    let pairs = [("$one", "$eins"), ("$two", "$zwei"), ("$poll", "$umfrage")];
    let pairs = pairs.into_iter().map(|(here, there)| {
        let id = |id: &str| OwnedEventId::try_from(id).unwrap();
        (id(here), id(there))
    });
    let events = Map(pairs.collect());
    let sender = <&UserId>::try_from(sender).unwrap();
    act(&Passage {
        sender,
        people: &people,
        here: room_id!("!here:far.example"),
        there: room_id!("!there:hs.test"),
        events: &events,
        secrets: &["ALICESDEVICE".to_owned()],
        homeserver: sender.server_name(),
        hide_addresses: hide,
        pseudonym_key: &[7; 32],
    })
}

pub(super) fn to_sam(kind: &str, content: &Value) -> Result<Option<Carried>, CannotCarry> {
    with_passage(Way::ToSam, true, |passage| carry(kind, content, passage))
}

pub(super) fn carried(kind: &str, content: Value) -> Value {
    to_sam(kind, &content).unwrap().unwrap().content
}
