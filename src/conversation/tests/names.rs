//! Names of people and rooms.

use super::*;

#[test]
fn a_chosen_name_is_given_to_an_alias_and_never_to_a_handle() {
    let called = |person, name: &str| Input::Renamed {
        person,
        name: name.to_owned(),
    };
    let kim = decide(going_on(), &called(0, "Kim"));
    assert_eq!(kinds(&kim), [(ORIGIN, "call"), (ORIGIN, "dress")]);
    let state = kim.state.unwrap();
    assert_eq!(state.people[0].name, "Kim");
    // The present name changes nothing, and a masked handle keeps its name.
    for again in [called(0, "Kim"), called(1, "Sammy"), called(9, "Lou")] {
        let nothing = decide(state.clone(), &again);
        assert!(nothing.effects.is_empty(), "{again:?}");
        assert_eq!(nothing.state.as_ref(), Some(&state));
    }
}

fn named(role: RoomRole, name: &str) -> Input {
    Input::Event {
        role,
        sender: OwnedUserId::try_from(format!("@{name}:hs.test")).unwrap(),
        event: one(),
        kind: EventKind::RoomInfo,
    }
}

#[test]
fn a_name_of_the_origin_is_given_to_every_portal_in_the_order_of_messages() {
    let renamed = decide(going_on(), &named(RoomRole::Origin, "alice"));
    assert_eq!(kinds(&renamed), [(ORIGIN, "dress")]);
    // A portal that does not exist yet is named when it is created.
    let early = decide(new(), &named(RoomRole::Origin, "alice"));
    assert!(early.effects.is_empty(), "{early:?}");
    // Only people whose messages are forwarded can rename it.
    let stranger = decide(going_on(), &named(RoomRole::Origin, "kim"));
    assert!(stranger.effects.is_empty(), "{stranger:?}");
}

#[test]
fn a_name_of_a_portal_is_given_to_the_origin_first_and_then_to_the_other_portals() {
    let group = [
        kim_was_added(&[]),
        Input::PortalCreated {
            person: 2,
            room: room_id!("!kims:hs.test").to_owned(),
        },
    ];
    let group = after(going_on(), &group).state.unwrap();
    let renamed = decide(group.clone(), &named(PORTAL, "sam"));
    assert_eq!(kinds(&renamed), [(SAMS, "rename")]);
    // Once the origin has the name, the other portals get it, and never the one it came from.
    let done = decide(group, &Input::OriginRenamed { person: 1 });
    let cause = None;
    assert_eq!(
        done.effects,
        [(portal(), Effect::SyncPortalInfo { person: 2, cause })]
    );
    let ghost = decide(going_on(), &named(PORTAL, "_dm_alice"));
    assert!(ghost.effects.is_empty(), "{ghost:?}");
}
