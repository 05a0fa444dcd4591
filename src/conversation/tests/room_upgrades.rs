//! Rooms that are upgraded or lost.

use super::*;

fn upgraded(role: RoomRole, to: &str) -> Input {
    Input::RoomUpgraded {
        role,
        to: OwnedRoomId::try_from(to).unwrap(),
        by: Person::new(owned_user_id!("@alice:hs.test")),
    }
}

#[test]
fn an_upgraded_origin_is_followed_after_its_last_message_and_left() {
    let to = "!new:hs.test";
    let said = decide(going_on(), &said(RoomRole::Origin, "alice", &one()));
    let upgraded = decide(said.state.unwrap(), &upgraded(RoomRole::Origin, to));
    assert_eq!(kinds(&upgraded), [(ORIGIN, "follow")]);
    let room = OwnedRoomId::try_from(to).unwrap();
    let followed = decide(upgraded.state.unwrap(), &Input::UpgradeFollowed { room });
    assert_eq!(kinds(&followed), [(ORIGIN, "depart"), (to, "dress")]);
    let state = followed.state.unwrap();
    assert_eq!(state.origin.as_deref().map(ruma::RoomId::as_str), Some(to));
    // The old room is left: that ends nothing.
    let left = decide(state, &Input::RoomLeft { room: origin() });
    assert!(left.effects.is_empty(), "{left:?}");
    assert!(left.state.unwrap().origin.is_some());
}

#[test]
fn if_an_upgrade_cannot_be_followed_everybody_hears_it_and_the_conversation_stays() {
    let (to, by) = (
        room_id!("!new:hs.test").to_owned(),
        Person::new(owned_user_id!("@alice:hs.test")),
    );
    let not = decide(going_on(), &Input::UpgradeFailed { to, by });
    assert_eq!(
        kinds(&not),
        [
            ("!new:hs.test", "depart"),
            (ORIGIN, "relay-say"),
            (SAMS, "relay-say")
        ]
    );
    assert_eq!(not.state.unwrap().origin, Some(origin()));
    // A tombstone never leads an origin into a portal.
    let into_portal = decide(going_on(), &upgraded(RoomRole::Origin, SAMS));
    assert!(into_portal.effects.is_empty(), "{into_portal:?}");
    let (to, by) = (portal(), Person::new(owned_user_id!("@alice:hs.test")));
    let not = decide(going_on(), &Input::UpgradeFailed { to, by });
    assert!(not.effects.is_empty(), "{not:?}");
}

#[test]
fn a_conversation_that_ends_during_an_upgrade_leaves_the_new_room_too() {
    let (to, by) = (
        room_id!("!new:hs.test").to_owned(),
        Person::new(owned_user_id!("@alice:hs.test")),
    );
    let ended = decide(going_on(), &Input::End).state.unwrap();
    let not = decide(ended, &Input::UpgradeFailed { to, by });
    assert_eq!(kinds(&not), [("!new:hs.test", "depart")]);
}

#[test]
fn the_notice_about_matrix_rtc_calls_is_sent_again_in_a_new_origin() {
    let call = |event: &str| Input::Event {
        role: RoomRole::Origin,
        sender: owned_user_id!("@alice:hs.test"),
        event: OwnedEventId::try_from(event).unwrap(),
        kind: EventKind::MatrixRtc,
    };
    let room = OwnedRoomId::try_from("!new:hs.test").unwrap();
    let inputs = [call("$one"), Input::UpgradeFollowed { room }, call("$two")];
    let again = after(going_on(), &inputs);
    assert_eq!(kinds(&again), [("!new:hs.test", "relay-say")]);
}

#[test]
fn an_owner_who_declines_a_new_portal_ends_the_conversation() {
    let inputs = [
        Input::PortalLost { person: 1 },
        Input::PortalCreated {
            person: 1,
            room: room_id!("!second:hs.test").to_owned(),
        },
        Input::PortalReady { person: 1 },
        member(PORTAL, owned_user_id!("@sam:hs.test"), "leave"),
    ];
    assert!(after(going_on(), &inputs).state.unwrap().ended);
}

#[test]
fn a_portal_is_created_again_and_its_upgrade_never_followed() {
    let replaced = decide(going_on(), &upgraded(PORTAL, "!sams-own:hs.test"));
    assert_eq!(kinds(&replaced), [(SAMS, "furnish")]);
    let lost = decide(replaced.state.unwrap(), &Input::PortalLost { person: 1 });
    assert_eq!(kinds(&lost), [(SAMS, "depart")]);
    let inputs = [
        Input::PortalCreated {
            person: 1,
            room: room_id!("!second:hs.test").to_owned(),
        },
        Input::PortalReady { person: 1 },
        said(RoomRole::Origin, "alice", &one()),
    ];
    let said = after(lost.state.unwrap(), &inputs);
    assert_eq!(kinds(&said), [(ORIGIN, "carry")]);
    // A person who is out of the conversation gets none.
    let gone = decide(going_on(), &Input::PortalFailed { person: 1 });
    let gone = decide(gone.state.unwrap(), &Input::PortalLost { person: 1 });
    assert!(gone.effects.is_empty(), "{gone:?}");
}
