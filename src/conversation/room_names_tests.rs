//! Names of people in the rooms of a conversation.

use super::*;
use crate::conversation::{Home, Participant, PortalStatus, Secret, decide};

fn user(name: &str) -> OwnedUserId {
    OwnedUserId::try_from(name).unwrap()
}

fn conversation() -> Conversation {
    let person = |name: &str, home| Participant {
        user: user(name),
        ghost: user("@_dm_.pxyz:hs.test"),
        name: "Kim".to_owned(),
        is_alias: true,
        home,
        former_names: Vec::new(),
    };
    let status = PortalStatus::Joined;
    Conversation {
        id: "c0ffee".to_owned(),
        origin: None,
        direct: false,
        secret: Secret([7; 32]),
        people: vec![
            person("@a1973:far.example", Home::Origin { is_present: true }),
            person("@sam:hs.test", Home::Portal { room: None, status }),
        ],
        started_at: crate::clock::Timestamp(0),
        last_return_at: None,
        rtc_notice_sent_in: Vec::new(),
        ended: false,
    }
}

#[test]
fn who_has_left_or_changed_their_name_is_not_named_by_the_former_one() {
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
    // Whoever leaves has no name in the room any more.
    for called in [
        BTreeMap::new(),
        BTreeMap::from([(user("@a1973:far.example"), "Lou".to_owned())]),
    ] {
        assert_eq!(names(&talk, &called), "Kim's club");
    }
}

#[test]
fn who_is_only_invited_is_not_named_before_they_come() {
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
