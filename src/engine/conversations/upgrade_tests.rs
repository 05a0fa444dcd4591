//! Which rooms a conversation goes on in, and who is seen there.

use ruma::{owned_room_id, owned_user_id};

use super::*;
use crate::{
    conversation::{Home, decide},
    testing::{ConversationBuilder, EventFactory, ParticipantBuilder},
};

fn old() -> OwnedRoomId {
    owned_room_id!("!old:hs.test")
}

fn new() -> OwnedRoomId {
    owned_room_id!("!new:hs.test")
}

/// Alice and Bob, who has left, with somebody masked.
fn conversation() -> Conversation {
    let person = |name: &str, is_present| {
        ParticipantBuilder::new(
            &format!("@{name}:hs.test"),
            &format!("@_dm_.p{name}:hs.test"),
        )
        .alias()
        .home(Home::Origin { is_present })
    };
    ConversationBuilder::new("c0ffee")
        .origin(&old())
        .person(person("alice", true))
        .person(person("bob", false))
        .build()
}

fn views(history: &str) -> (RoomState, RoomState) {
    let room = |replaced_by: Option<OwnedRoomId>, predecessor: Option<OwnedRoomId>| RoomState {
        join_rule: "invite".to_owned(),
        history_visibility: "shared".to_owned(),
        replaced_by,
        predecessor,
        ..RoomState::default()
    };
    let mut views = (room(Some(new()), None), room(None, Some(old())));
    views.1.history_visibility = history.to_owned();
    let join = |user: &str| (OwnedUserId::try_from(user).unwrap(), "join".to_owned());
    views.1.members = [join("@alice:hs.test"), join("@bob:hs.test")].into();
    views
}

#[test]
fn who_had_left_the_old_room_and_is_in_the_new_one_is_shown_again() {
    let (before, after) = views("shared");
    let talk = conversation();
    assert!(is_successor((&old(), &before), (&new(), &after), &talk));
    let mut talk = decide(talk, &Input::UpgradeFollowed { room: new() })
        .state
        .unwrap();
    for input in came_before(&talk, &after) {
        talk = decide(talk, &input).state.unwrap();
    }
    let bob = owned_user_id!("@bob:hs.test");
    let index = talk.person_at(RoomRole::Origin, &bob).unwrap();
    assert!(talk.people[index].takes_part());
}

#[test]
fn nobody_is_led_to_where_more_people_can_read() {
    for (history, expected) in [
        ("shared", true),
        ("joined", true),
        ("world_readable", false),
    ] {
        let (before, after) = views(history);
        let found = is_successor((&old(), &before), (&new(), &after), &conversation());
        assert_eq!(found, expected, "{history}");
    }
    // Nor to where the members of another space come in.
    for (space, expected) in [("!boats:hs.test", true), ("!all:hs.test", false)] {
        let (mut before, mut after) = views("shared");
        for (view, space) in [(&mut before, "!boats:hs.test"), (&mut after, space)] {
            view.join_rule = "restricted".to_owned();
            view.allowed_rooms = vec![space.to_owned()];
        }
        let found = is_successor((&old(), &before), (&new(), &after), &conversation());
        assert_eq!(found, expected, "{space}");
    }
    // Nor into a space.
    let (before, mut after) = views("shared");
    after.room_type = Some("m.space".to_owned());
    assert!(!is_successor(
        (&old(), &before),
        (&new(), &after),
        &conversation()
    ));
    let (before, mut after) = views("shared");
    let mallory = owned_user_id!("@mallory:hs.test");
    after.members.insert(mallory, "invite".to_owned());
    assert!(!is_successor(
        (&old(), &before),
        (&new(), &after),
        &conversation()
    ));
}

#[test]
fn a_ghost_reads_from_its_invite_on_or_from_its_coming_uninvited() {
    let ghost = Ghost::new(owned_user_id!("@_dm_sam:hs.test"));
    for (user, membership, lets) in [
        ("@_dm_sam:hs.test", "invite", true),
        ("@_dm_sam:hs.test", "join", true),
        ("@_dm_sam:hs.test", "leave", false),
        ("@bob:hs.test", "join", false),
    ] {
        let json = EventFactory::room(&new()).member(user, membership);
        let event = RoomEvent::parse(&json.to_string(), Some(&new())).unwrap();
        assert_eq!(lets_in(&event, &ghost), lets, "{user} {membership}");
    }
}
