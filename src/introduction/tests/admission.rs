//! Which invites are accepted, and how the others are declined.

use ruma::room_id;

use super::*;

#[test]
fn people_who_may_not_reach_the_owner_are_declined_alike_after_the_same_delay() {
    let mut outcomes = Vec::new();
    for admission in [
        Admission::NotNow,
        Admission::Unclaimed,
        Admission::OwnHandle,
    ] {
        let mut play = Play::new();
        play.feed(Input::Invited(Invite {
            asker: alice(),
            admission,
        }));
        assert!(play.effects.is_empty());
        play.after(1_999);
        assert!(play.effects.is_empty());
        play.after(1);
        outcomes.push(play.effects.clone());
        assert_eq!(*play.phase(), Phase::Declined);
    }
    assert_eq!(
        outcomes[0],
        [Effect::Decline {
            reason: Some(Reason::NotNow)
        }]
    );
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]));
}

#[test]
fn an_invite_into_a_room_that_is_no_chat_is_declined_with_the_reason() {
    let mut play = Play::new();
    let reason = Reason::NotAChat;
    play.feed(Input::Invited(Invite {
        asker: alice(),
        admission: Admission::Unfit { reason },
    }));
    play.after(2_000);
    let reason = Some(reason);
    assert_eq!(play.effects, [Effect::Decline { reason }]);
    assert_eq!(*play.phase(), Phase::Declined);
}

#[test]
fn a_declined_invite_may_be_followed_by_an_accepted_one() {
    let mut play = Play::new();
    play.feed(Input::Invited(Invite {
        asker: alice(),
        admission: Admission::NotNow,
    }));
    play.after(2_000);
    play.carry_out(&view(&[]));
    play.feed(Input::Invited(Invite {
        asker: alice(),
        admission: introduce(false),
    }));
    assert_eq!(play.effects, [Effect::Join]);
}

#[test]
fn a_ghost_never_comes_back_to_a_room_that_it_has_left() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.after(5_100);
    play.carry_out(&view(&[]));
    play.after(3_100);
    play.carry_out(&view(&[]));
    assert_eq!(*play.phase(), Phase::Over);
    play.feed(Input::Invited(Invite {
        asker: alice(),
        admission: introduce(false),
    }));
    assert_eq!(play.effects, [Effect::Decline { reason: None }]);
    play.carry_out(&view(&[]));
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn the_same_invite_seen_again_changes_nothing() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    let before = play.state.clone();
    play.feed(Input::Invited(Invite {
        asker: alice(),
        admission: introduce(false),
    }));
    assert_eq!(play.state, before);
    assert!(play.effects.is_empty());
}

#[test]
fn who_has_a_room_already_is_led_back_to_it() {
    let mut play = Play::new();
    let room = room_id!("!old").to_owned();
    let admission = Admission::Introduce {
        owner: sam(),
        handle: "Sam".to_owned(),
        strict: false,
        back_to: Some(room.clone()),
        asks_first: false,
        masked: false,
    };
    play.feed(Input::Invited(Invite {
        asker: alice(),
        admission,
    }));
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&Effect::SendNotice {
        notice: IntroductionNotice::BackTo { room }
    }));
    assert!(!done.contains(&Effect::InviteOwner));
    assert_eq!(*play.phase(), Phase::Over);
}
