//! Rooms that are not chats of two: groups, crowds, rooms in clear.

use ruma::OwnedEventId;

use super::*;

#[test]
fn clear_messages_make_the_ghost_listen_longer_once() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    for n in 0..10 {
        play.after(4_000);
        play.carry_out(&view(&[]));
        let event = OwnedEventId::try_from(format!("$clear{n}")).unwrap();
        play.says(event, MessageKind::Plaintext);
        let listens = matches!(play.phase(), Phase::Listening { .. });
        assert_eq!(listens, n < 2, "after clear message {n}");
    }
}

#[test]
fn a_line_in_a_group_is_passed_on_and_nothing_else_changes() {
    for others in [
        &[("@kim:example.org", "join")][..],
        &[("@_dm_kim:example.org", "invite")],
    ] {
        let mut play = Play::admitted();
        play.feed(Input::Done(Effect::Join));
        play.says(first(), MessageKind::Line);
        let done = play.carry_out(&view(others));
        let introduced = [Effect::ShowAs, Effect::InviteOwner, pass_on(first())];
        assert!(done.ends_with(&introduced), "{done:?}");
        play.after(3_100);
        play.carry_out(&view(others));
        assert_eq!(*play.phase(), Phase::Over);
    }
}

#[test]
fn the_owners_own_invite_does_not_make_a_group_of_a_chat() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    play.carry_out(&view(&[("@sam:example.org", "invite")]));
    play.after(3_100);
    play.says(second(), MessageKind::Line);
    let done = play.carry_out(&view(&[("@sam:example.org", "invite")]));
    assert!(done.contains(&pass_on(second())));
}

#[test]
fn an_unencrypted_room_is_encrypted_first() {
    let mut play = Play::admitted();
    let mut plain = view(&[]);
    plain.encryption = None;
    play.feed(Input::Done(Effect::Join));
    play.effects.clear();
    // Found when the ghost looks back, before anything can be said in the room.
    play.says(first(), MessageKind::Plaintext);
    play.feed(Input::Looked(plain));
    assert_eq!(play.effects, [Effect::TurnOnEncryption, Effect::Look]);
    let done = play.carry_out(&view(&[]));
    let notice = IntroductionNotice::SendAgainEncrypted;
    let asked = Effect::SendNotice { notice };
    assert_eq!(done[2..], [asked]);
    play.says(second(), MessageKind::Plaintext);
    assert!(play.effects.is_empty());
    assert!(matches!(play.phase(), Phase::Listening { .. }));
}

#[test]
fn what_is_said_in_clear_while_the_ghost_listens_is_asked_for_again() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Plaintext);
    let notice = IntroductionNotice::SendAgainEncrypted;
    assert_eq!(play.effects, [Effect::SendNotice { notice }]);
}

#[test]
fn a_room_that_may_not_be_encrypted_is_left_with_the_reason() {
    let mut play = Play::admitted();
    let mut plain = view(&[]);
    plain.encryption = None;
    play.feed(Input::Done(Effect::Join))
        .feed(Input::Looked(plain));
    play.effects.clear();
    play.feed(Input::Refused(Effect::TurnOnEncryption, Refusal::Forbidden));
    let reason = Some(Reason::NotEncrypted);
    assert_eq!(play.effects, [Effect::Leave { reason }, Effect::Forget]);
}

#[test]
fn a_space_is_left_as_it_is() {
    for (strict, asks_first, masked) in [
        (false, false, false),
        (true, false, false),
        (false, true, false),
        (false, false, true),
    ] {
        let mut play = Play::new();
        play.feed(Input::Invited(Invite {
            asker: alice(),
            admission: Admission::Introduce {
                owner: sam(),
                handle: "Sam".to_owned(),
                strict,
                back_to: None,
                asks_first,
                masked,
            },
        }));
        let mut space = view(&[("@sam:example.org", "join")]);
        space.room_type = Some("m.space".to_owned());
        space.encryption = None;
        let reason = Some(Reason::NotAChat);
        assert_eq!(
            play.carry_out(&space),
            [
                Effect::Join,
                Effect::Look,
                Effect::Leave { reason },
                Effect::Forget
            ]
        );
    }
}

#[test]
fn a_crowd_is_left_at_once() {
    let mut play = Play::admitted();
    let mut crowd = view(&[]);
    for number in 0..50 {
        let user = ruma::UserId::parse(format!("@u{number}:example.org")).unwrap();
        crowd.members.insert(user, "join".to_owned());
    }
    let done = play.carry_out(&crowd);
    assert!(done.contains(&Effect::Leave {
        reason: Some(Reason::TooManyMembers)
    }));
}

#[test]
fn a_ghost_that_a_server_keeps_from_joining_or_looking_says_so() {
    let mut unencrypted = view(&[]);
    unencrypted.encryption = None;
    for (given_up, view) in [
        (Effect::Join, view(&[])),
        (Effect::Look, view(&[])),
        (Effect::TurnOnEncryption, unencrypted),
    ] {
        for (why, reason) in [
            (Refusal::Failing, Some(Reason::NotNow)),
            (Refusal::Forbidden, None),
        ] {
            let mut play = Play::admitted();
            let refuse = |effect: &Effect| (*effect == given_up).then(|| why.clone());
            let done = play.carry_out_with(&view, refuse);
            // What the room does not allow is said as before.
            let reason = match given_up {
                Effect::TurnOnEncryption => reason.or(Some(Reason::NotEncrypted)),
                _ => reason,
            };
            let leaving = [Effect::Leave { reason }, Effect::Forget];
            assert_eq!(done[done.len() - 2..], leaving, "{given_up:?}, {why:?}");
        }
    }
}
