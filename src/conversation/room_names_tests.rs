//! Names of people in the rooms of a conversation.

use super::*;
use crate::{
    conversation::{PortalStatus, decide},
    testing::{ConversationBuilder, ParticipantBuilder},
};

fn user(name: &str) -> OwnedUserId {
    OwnedUserId::try_from(name).unwrap()
}

fn conversation() -> Conversation {
    let person = |user| {
        ParticipantBuilder::new(user, "@_dm_.pxyz:hs.test")
            .name("Kim")
            .alias()
    };
    ConversationBuilder::new("c0ffee")
        .person(person("@a1973:far.example"))
        .person(person("@sam:hs.test").portal(None, PortalStatus::Joined))
        .build()
}

#[test]
fn a_person_who_has_left_or_changed_their_name_is_not_named_by_the_former_one() {
    let text = "Alice Harbour's club";
    let mut talk = conversation();
    let called = BTreeMap::from([(user("@a1973:far.example"), "Alice Harbour".to_owned())]);
    let names = |talk: &Conversation, called: &BTreeMap<OwnedUserId, String>| {
        names_at(talk, RoomRole::Origin, called, std::iter::empty()).replace(text)
    };
    assert_eq!(names(&talk, &called), "Kim's club");
    let inputs = names_to_remember(&talk, RoomRole::Origin, &called);
    assert_eq!(inputs.len(), 1);
    for input in &inputs {
        talk = decide(talk, input).state.unwrap();
    }
    assert_eq!(names_to_remember(&talk, RoomRole::Origin, &called), []);
    // A person who has left has no name in the room.
    for called in [
        BTreeMap::new(),
        BTreeMap::from([(user("@a1973:far.example"), "Lou".to_owned())]),
    ] {
        assert_eq!(names(&talk, &called), "Kim's club");
    }
}

#[test]
fn a_person_who_is_only_invited_is_not_named_before_they_join() {
    let bob = user("@b52:far.example");
    let called = BTreeMap::from([(bob.clone(), "Bob".to_owned())]);
    let names = names_at(
        &conversation(),
        RoomRole::Origin,
        &called,
        [&bob].into_iter(),
    );
    assert_eq!(names.replace("Bob and b52"), "Someone and Someone");
    // Nor is anybody who is in a portal: here they are their ghost.
    let names = names_at(
        &conversation(),
        RoomRole::Origin,
        &called,
        std::iter::empty(),
    );
    assert_eq!(names.replace("Bob, sam"), "Bob, sam");
}
