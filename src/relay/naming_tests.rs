//! Names of rooms, and those of people in them.

use super::*;
use crate::relay::{
    Participant, Seat, Secret, Standing, decide,
    oracle::{ALICE, Way, with_passage},
};

fn names() -> Names {
    let mut names = Names::default();
    let alice = <&UserId>::try_from(ALICE).unwrap();
    names.add(alice, Some("Alice Harbour"), "Kim");
    let jun = <&UserId>::try_from("@jun:hs.test").unwrap();
    names.add(jun, Some("王小明"), "@lee");
    let lou = <&UserId>::try_from("@lou:hs.test").unwrap();
    names.add(lou, Some("Lou"), "@lou");
    let jo = <&UserId>::try_from("@jo77:hs.test").unwrap();
    names.add(jo, Some("Jose\u{301}"), "@jo");
    names
}

fn carried(text: &str) -> Option<String> {
    with_passage(Way::ToSam, true, |passage| {
        carry_text(text, passage, &names(), NAME_AT_MOST)
    })
}

#[test]
fn a_room_that_is_named_after_people_is_named_after_their_ghosts() {
    for (name, there) in [
        ("Alice Harbour & Sam", "Kim & Sam"),
        ("Jos\u{e9} & Sam", "jo & Sam"),
        ("Jose\u{301} & Sam", "jo & Sam"),
        ("alice's birthday", "Kim's birthday"),
        ("Alices Boote, ALICES", "Kims Boote, KimS"),
        ("Alicesque, alicesand", "Alicesque, alicesand"),
        ("ALICE.HARBOUR and friends", "Kim and friends"),
        ("Al\u{200b}ice", "Kim"),
        ("王小明的生日", "lee的生日"),
        ("the harbour: jun", "the Kim: lee"),
        (&format!("{ALICE} and friends"), "@Kim and friends"),
        ("Lou's boat", "Lou's boat"),
        ("Boats and 👨‍👩‍👧", "Boats and 👨‍👩‍👧"),
        ("Malice in juniper land", "Malice in juniper land"),
    ] {
        assert_eq!(carried(name).as_deref(), Some(there), "{name}");
    }
}

fn user(name: &str) -> OwnedUserId {
    OwnedUserId::try_from(name).unwrap()
}

fn conversation() -> Conversation {
    let person = |name: &str, seat| Participant {
        user: user(name),
        ghost: user("@_dm_.pxyz:hs.test"),
        name: "Kim".to_owned(),
        own_ghost: true,
        seat,
        known_as: Vec::new(),
    };
    let standing = Standing::Joined;
    Conversation {
        id: "c0ffee".to_owned(),
        origin: None,
        direct: false,
        secret: Secret([7; 32]),
        people: vec![
            person("@a1973:far.example", Seat::Origin { here: true }),
            person(
                "@sam:hs.test",
                Seat::Portal {
                    room: None,
                    standing,
                },
            ),
        ],
        begun_at: crate::clock::Timestamp(0),
        led_back_at: None,
        told_of_room_calls: Vec::new(),
        ended: false,
    }
}

#[test]
fn who_has_left_or_changed_their_name_is_not_named_by_the_former_one() {
    let text = "Alice Harbour's club";
    let mut talk = conversation();
    let called = BTreeMap::from([(user("@a1973:far.example"), "Alice Harbour".to_owned())]);
    let names = |talk: &Conversation, called: &BTreeMap<OwnedUserId, String>| {
        Names::at(talk, Place::Origin, called, std::iter::empty()).replace(text)
    };
    assert_eq!(names(&talk, &called), "Kim's club");
    let inputs = to_remember(&talk, Place::Origin, &called);
    assert_eq!(inputs.len(), 1);
    for input in &inputs {
        talk = decide(talk, input).state.unwrap();
    }
    assert_eq!(to_remember(&talk, Place::Origin, &called), []);
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
    let names = Names::at(&conversation(), Place::Origin, &called, [&bob].into_iter());
    assert_eq!(names.replace("Bob and b52"), "Someone and Someone");
    // Nor is anybody who is in a portal: here they are their ghost.
    let names = Names::at(&conversation(), Place::Origin, &called, std::iter::empty());
    assert_eq!(names.replace("Bob, sam"), "Bob, sam");
}

#[test]
fn what_is_too_long_is_left_out_or_cut() {
    assert_eq!(carried(&"a".repeat(LONGEST + 1)), None);
    assert_eq!(carried(&"é".repeat(200)), Some("é".repeat(NAME_AT_MOST)));
    assert_eq!(carried(" \u{7}a\u{0}b ").as_deref(), Some("ab"));
    assert_eq!(carried("").as_deref(), Some(""));
}

#[test]
fn a_short_or_empty_name_takes_no_text_apart() {
    let mut names = Names::default();
    for (user, called) in [
        ("@a:hs.test", None),
        ("@b:hs.test", Some("")),
        ("@c:hs.test", Some("O")),
    ] {
        names.add(<&UserId>::try_from(user).unwrap(), called, "Someone");
    }
    let text = "O a b c";
    assert_eq!(names.replace(text), text);
}
