//! What the asker writes on the way to the owner, and how the ghost goes.

use ruma::{OwnedEventId, owned_event_id};

use super::*;

#[test]
fn the_opening_line_is_taken_the_owner_invited_the_line_passed_on_and_the_ghost_gone() {
    let mut play = Play::admitted();
    assert_eq!(play.carry_out(&view(&[])), [Effect::Join, Effect::Look]);
    assert!(matches!(play.phase(), Phase::Listening { .. }));
    play.after(700).says(first(), MessageKind::Line);
    assert_eq!(
        play.carry_out(&view(&[])),
        [
            Effect::ShowAs,
            Effect::InviteOwner,
            Effect::RememberPair,
            Effect::HandOver,
            pass_on(first()),
        ]
    );
    assert_eq!(*play.phase(), Phase::Lingering);
    play.after(2_900);
    assert!(play.effects.is_empty(), "three seconds have not passed");
    play.after(200);
    assert_eq!(
        play.carry_out(&view(&[])),
        [
            Effect::Look,
            Effect::Leave { reason: None },
            Effect::LookBack,
            Effect::Forget
        ]
    );
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn a_message_from_before_the_joining_is_heard_while_looking() {
    let mut play = Play::admitted();
    play.feed(Input::Done(Effect::Join));
    play.says(first(), MessageKind::Line);
    play.effects.clear();
    play.feed(Input::Looked(view(&[])));
    assert_eq!(play.effects, [Effect::ShowAs, Effect::InviteOwner]);
}

#[test]
fn no_message_at_all_introduces_without_one() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.after(4_900);
    assert!(play.effects.is_empty());
    play.after(200);
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&Effect::InviteOwner));
    assert!(
        !done
            .iter()
            .any(|effect| matches!(effect, Effect::PassOn { .. }))
    );
    play.after(3_100);
    play.carry_out(&view(&[]));
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn a_message_between_invite_and_leaving_is_passed_on_too_and_keeps_the_ghost() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    play.carry_out(&view(&[]));
    play.after(2_000).says(second(), MessageKind::Line);
    assert_eq!(play.carry_out(&view(&[])), [pass_on(second())]);
    play.after(1_500);
    assert_eq!(
        *play.phase(),
        Phase::Lingering,
        "three seconds since the last message"
    );
    play.after(1_600);
    assert_eq!(*play.phase(), Phase::Closing);
}

#[test]
fn two_messages_in_a_row_are_passed_on_in_order() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line)
        .says(second(), MessageKind::Line);
    let done = play.carry_out(&view(&[]));
    let passed: Vec<_> = done
        .into_iter()
        .filter(|effect| matches!(effect, Effect::PassOn { .. }))
        .collect();
    assert_eq!(passed, [pass_on(first()), pass_on(second())]);
}

#[test]
fn the_same_event_heard_twice_is_passed_on_once() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line)
        .says(first(), MessageKind::Line);
    let mut done = play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    done.extend(play.carry_out(&view(&[])));
    assert_eq!(
        done.iter()
            .filter(|effect| **effect == pass_on(first()))
            .count(),
        1
    );
}

#[test]
fn an_endless_talker_does_not_keep_the_ghost_and_loses_nothing() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    play.carry_out(&view(&[]));
    let mut passed = 1;
    for number in 0..60 {
        let event = OwnedEventId::try_from(format!("$talk{number}")).unwrap();
        play.after(250);
        if play
            .state
            .as_ref()
            .is_some_and(|introduction| introduction.hears())
        {
            play.says(event, MessageKind::Line);
            let done = play.carry_out(&view(&[]));
            passed += done
                .iter()
                .filter(|e| matches!(e, Effect::PassOn { .. }))
                .count();
        }
    }
    assert_eq!(*play.phase(), Phase::Over);
    assert!(play.now.since(START) < Duration::from_secs(20));
    assert!(passed >= 38, "everything said within ten seconds: {passed}");
}

#[test]
fn a_line_found_by_the_last_look_is_passed_on_before_leaving() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    play.carry_out(&view(&[]));
    play.after(3_100);
    assert_eq!(play.effects, [Effect::Look]);
    play.effects.clear();
    play.says(second(), MessageKind::Line)
        .feed(Input::Looked(view(&[])));
    assert_eq!(play.effects, [pass_on(second())]);
    assert_eq!(*play.phase(), Phase::Lingering);
}

#[test]
fn an_edit_before_passing_on_is_quoted_instead_and_after_it_is_passed_on_as_an_edit() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line)
        .says(second(), MessageKind::Edit { of: first() });
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&Effect::PassOn {
        event: first(),
        edit: Some(second())
    }));
    assert!(
        !done
            .iter()
            .any(|effect| matches!(effect, Effect::PassOnEdit { .. }))
    );
    let third = owned_event_id!("$third");
    play.says(third.clone(), MessageKind::Edit { of: first() });
    assert_eq!(
        play.carry_out(&view(&[])),
        [Effect::PassOnEdit {
            event: third,
            of: first()
        }]
    );
}

#[test]
fn an_edit_that_comes_while_the_line_is_on_its_way_follows_it() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    while play.effects.first() != Some(&pass_on(first())) {
        let effect = play.effects.remove(0);
        play.feed(Input::Done(effect));
    }
    play.says(second(), MessageKind::Edit { of: first() });
    let done = play.carry_out(&view(&[]));
    let follow = Effect::PassOnEdit {
        event: second(),
        of: first(),
    };
    assert_eq!(done, [pass_on(first()), follow]);
}

#[test]
fn a_redaction_before_passing_on_leaves_nothing_and_after_it_takes_back() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line)
        .says(second(), MessageKind::Line);
    play.says(
        owned_event_id!("$r1"),
        MessageKind::Redaction { of: second() },
    );
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&pass_on(first())) && !done.contains(&pass_on(second())));
    play.says(
        owned_event_id!("$r2"),
        MessageKind::Redaction { of: first() },
    );
    assert_eq!(
        play.carry_out(&view(&[])),
        [Effect::TakeBack { of: first() }]
    );
}

#[test]
fn what_is_said_between_the_last_look_and_the_leaving_is_told_by_the_bot_before_all_is_forgotten() {
    let leaves = || {
        let mut play = Play::admitted();
        play.carry_out(&view(&[]));
        play.says(first(), MessageKind::Line);
        play.carry_out(&view(&[]));
        play.after(3_100);
        play.feed(Input::Looked(view(&[])));
        let leave = Effect::Leave { reason: None };
        assert_eq!(play.effects, [Effect::Look, leave, Effect::LookBack]);
        assert_eq!(*play.phase(), Phase::Leaving);
        play.effects.clear();
        play
    };
    // Nothing was, or nobody can tell.
    for input in [
        Input::Done(Effect::LookBack),
        Input::Refused(Effect::LookBack, Refusal::Forbidden),
    ] {
        let mut play = leaves();
        play.feed(input);
        assert_eq!(play.carry_out(&view(&[])), [Effect::Forget]);
        assert_eq!(*play.phase(), Phase::Over);
    }
    let mut play = leaves();
    // It can no longer be passed on.
    play.says(second(), MessageKind::Line);
    assert!(play.effects.is_empty());
    play.feed(Input::Missed);
    let tell = Effect::TellAsker {
        notice: IntroductionNotice::SaidAtTheLast,
    };
    assert_eq!(play.carry_out(&view(&[])), [tell, Effect::Forget]);
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn a_message_that_the_homeserver_could_not_take_is_asked_for_again_for_that_reason() {
    for (why, notice) in [
        (Refusal::Failing, IntroductionNotice::NotPassedOn),
        (Refusal::Unreadable, IntroductionNotice::SendAgainUnreadable),
        (Refusal::Impossible, IntroductionNotice::SendAgainOther),
    ] {
        let mut play = Play::admitted();
        play.carry_out(&view(&[]));
        play.says(first(), MessageKind::Line);
        while play.effects.first() != Some(&pass_on(first())) {
            let effect = play.effects.remove(0);
            play.feed(Input::Done(effect));
        }
        play.effects.clear();
        play.feed(Input::Refused(pass_on(first()), why));
        assert_eq!(play.effects, [Effect::SendNotice { notice }]);
    }
}
