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

/// Played until the ghost lingers, with the first line edited before it was passed on if `edited`.
fn lingering(edited: bool) -> Play {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    if edited {
        play.says(edit(), MessageKind::Edit { of: first() });
    }
    play.carry_out(&view(&[]));
    play
}

fn edit() -> OwnedEventId {
    owned_event_id!("$edit")
}

fn delete(play: &mut Play, of: OwnedEventId) -> &mut Play {
    play.says(owned_event_id!("$redaction"), MessageKind::Redaction { of })
}

#[test]
fn a_deleted_edit_is_not_passed_on() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line)
        .says(edit(), MessageKind::Edit { of: first() });
    delete(&mut play, edit());
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&pass_on(first())), "{done:?}");
    assert_eq!(play.state.unwrap().pending[0].edit, None);
}

#[test]
fn the_edit_before_a_deleted_one_is_passed_on_and_not_what_it_had_taken_out() {
    let quote_with = |edit: OwnedEventId| Effect::PassOn {
        event: first(),
        edit: Some(edit),
    };
    // Before it is passed on.
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line)
        .says(second(), MessageKind::Edit { of: first() })
        .says(edit(), MessageKind::Edit { of: first() });
    delete(&mut play, edit());
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&quote_with(second())), "{done:?}");

    // On its way, and after it was quoted.
    for on_its_way in [true, false] {
        let mut play = Play::admitted();
        play.carry_out(&view(&[]));
        play.says(first(), MessageKind::Line)
            .says(second(), MessageKind::Edit { of: first() })
            .says(edit(), MessageKind::Edit { of: first() });
        let quoted = quote_with(edit());
        while on_its_way && play.effects.first() != Some(&quoted) {
            let effect = play.effects.remove(0);
            play.feed(Input::Done(effect));
        }
        if !on_its_way {
            play.carry_out(&view(&[]));
        }
        delete(&mut play, edit());
        let mut done = play.carry_out(&view(&[]));
        done.retain(|effect| *effect != quoted);
        let taken_back = Effect::TakeBack { of: first() };
        assert_eq!(done, [taken_back, quote_with(second())], "{on_its_way}");
    }

    // A former edit that is deleted changes nothing, however many there are.
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    for n in 0..50 {
        let edit = OwnedEventId::try_from(format!("$edit{n}")).unwrap();
        play.says(edit, MessageKind::Edit { of: first() });
    }
    delete(&mut play, owned_event_id!("$edit48"));
    assert!(play.state.as_ref().unwrap().pending[0].edits().count() < 10);
    let done = play.carry_out(&view(&[]));
    let newest = quote_with(owned_event_id!("$edit49"));
    assert!(done.contains(&newest), "{done:?}");
}

#[test]
fn an_edit_that_is_deleted_after_it_was_quoted_takes_the_quote_with_it() {
    let mut play = lingering(true);
    delete(&mut play, edit());
    let taken_back = Effect::TakeBack { of: first() };
    assert_eq!(
        play.carry_out(&view(&[])),
        [taken_back.clone(), pass_on(first())]
    );
    // Not twice.
    delete(&mut play, edit());
    let unknown = Effect::TakeBack { of: edit() };
    assert_eq!(play.carry_out(&view(&[])), [unknown]);
    // An older edit than the newest.
    let mut play = lingering(true);
    play.says(second(), MessageKind::Edit { of: first() });
    play.carry_out(&view(&[]));
    delete(&mut play, edit());
    let newest = Effect::PassOn {
        event: first(),
        edit: Some(second()),
    };
    assert_eq!(play.carry_out(&view(&[])), [taken_back, newest]);
}

#[test]
fn an_edit_that_is_deleted_on_its_way_takes_the_quote_with_it() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line)
        .says(edit(), MessageKind::Edit { of: first() });
    let quoted = Effect::PassOn {
        event: first(),
        edit: Some(edit()),
    };
    while play.effects.first() != Some(&quoted) {
        let effect = play.effects.remove(0);
        play.feed(Input::Done(effect));
    }
    delete(&mut play, edit());
    let taken_back = Effect::TakeBack { of: first() };
    let done = play.carry_out(&view(&[]));
    assert_eq!(done, [quoted, taken_back, pass_on(first())]);
}

#[test]
fn the_copy_of_a_deleted_edit_is_taken_back() {
    let mut play = lingering(false);
    play.says(edit(), MessageKind::Edit { of: first() });
    play.carry_out(&view(&[]));
    delete(&mut play, edit());
    let copy = Effect::TakeBack { of: edit() };
    assert_eq!(play.carry_out(&view(&[])), [copy]);
}

#[test]
fn of_a_message_that_was_deleted_on_its_way_nothing_is_asked_for() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line)
        .says(second(), MessageKind::Line);
    while play.effects.first() != Some(&pass_on(first())) {
        let effect = play.effects.remove(0);
        play.feed(Input::Done(effect));
    }
    delete(&mut play, first());
    let done = play.carry_out_with(&view(&[]), |effect| {
        (*effect == pass_on(first())).then_some(Refusal::Unreadable)
    });
    assert_eq!(done, [pass_on(first()), pass_on(second())]);
}

#[test]
fn each_message_that_is_not_passed_on_is_answered_with_the_reason() {
    let sam = || vec![sam().into()];
    let others = || vec![alice()];
    use IntroductionNotice as Notice;
    for (why, expected) in [
        (Refusal::Unreadable, Notice::SendAgainUnreadable),
        (Refusal::NotThisKind, Notice::SendAgainOther),
        (Refusal::PlainFile, Notice::SendAgainPlainFile),
        (Refusal::TooLarge, Notice::TooLarge),
        (Refusal::Forbidden, Notice::NotPassedOn),
        (Refusal::Impossible, Notice::NotPassedOn),
        (Refusal::TooManyDevices(sam()), Notice::NotPassedOn),
        (Refusal::NoSignedDevice(others()), Notice::NotPassedOn),
        (Refusal::KeysUnavailable(others()), Notice::NotPassedOn),
    ] {
        let mut play = Play::admitted();
        play.carry_out(&view(&[]));
        play.says(first(), MessageKind::Line)
            .says(second(), MessageKind::Line);
        let done = play.carry_out_with(&view(&[]), |effect| {
            matches!(effect, Effect::PassOn { .. }).then(|| why.clone())
        });
        let reply = |to| Effect::SendReply {
            to,
            notice: expected.clone(),
        };
        assert!(done.contains(&reply(first())), "{why:?}: {done:?}");
        assert!(done.contains(&reply(second())), "{why:?}: {done:?}");
        play.after(3_100);
        play.carry_out(&view(&[]));
        assert_eq!(*play.phase(), Phase::Over);
    }
    // What the owner lacks is waited for, whichever it is.
    for (why, expected) in [
        (Refusal::NoSignedDevice(sam()), Notice::WaitingForDevice),
        (Refusal::KeysUnavailable(sam()), Notice::WaitingForKeys),
    ] {
        let mut play = Play::admitted();
        play.carry_out(&view(&[]));
        play.says(first(), MessageKind::Line);
        for (why, notice) in [
            (why, expected),
            (Refusal::KeysUnavailable(sam()), Notice::WaitingForKeys),
        ] {
            let done = play.carry_out_with(&view(&[]), |effect| {
                matches!(effect, Effect::PassOn { .. }).then(|| why.clone())
            });
            let told = play.state.as_ref().unwrap().notices_sent.contains(&notice);
            assert!(told, "{done:?}");
            assert!(matches!(play.phase(), Phase::Waiting { .. }));
            play.after(60_000);
        }
        assert_eq!(play.carry_out(&view(&[])), [pass_on(first())]);
        assert_eq!(*play.phase(), Phase::Lingering);
    }
}

#[test]
fn an_edit_that_is_not_passed_on_is_answered_with_the_reason() {
    let mut play = lingering(false);
    play.says(edit(), MessageKind::Edit { of: first() });
    let done = play.carry_out_with(&view(&[]), |effect| {
        matches!(effect, Effect::PassOnEdit { .. }).then_some(Refusal::TooLarge)
    });
    let notice = IntroductionNotice::TooLarge;
    assert_eq!(done[1..], [Effect::SendReply { to: edit(), notice }]);
}

#[test]
fn many_messages_that_are_not_passed_on_get_ten_replies_and_a_notice() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    for n in 0..50 {
        let event = OwnedEventId::try_from(format!("$e{n}")).unwrap();
        play.says(event, MessageKind::Line);
    }
    let done = play.carry_out_with(&view(&[]), |effect| {
        matches!(effect, Effect::PassOn { .. }).then_some(Refusal::TooLarge)
    });
    let count = |wanted: fn(&Effect) -> bool| done.iter().filter(|effect| wanted(effect)).count();
    assert_eq!(count(|e| matches!(e, Effect::SendReply { .. })), 10);
    assert_eq!(count(|e| matches!(e, Effect::SendNotice { .. })), 1);
}

#[test]
fn what_cannot_be_passed_on_is_asked_for_again_once_the_owner_can_read() {
    use MessageKind::{Other, PlainFile};
    for (listens, kind, notice) in [
        (true, Other, IntroductionNotice::NotKept),
        (false, Other, IntroductionNotice::SendAgainOther),
        (true, PlainFile, IntroductionNotice::PlainFileNotKept),
        (false, PlainFile, IntroductionNotice::SendAgainPlainFile),
    ] {
        let mut play = lingering(false);
        if listens {
            play = Play::admitted();
            play.carry_out(&view(&[]));
        }
        play.says(second(), kind);
        let to = second();
        assert_eq!(play.effects, [Effect::SendReply { to, notice }]);
    }
}

#[test]
fn who_deletes_what_cannot_be_taken_back_is_told_once() {
    let mut play = lingering(false);
    play.says(second(), MessageKind::Line);
    play.carry_out(&view(&[]));
    let cannot =
        |effect: &Effect| matches!(effect, Effect::TakeBack { .. }).then_some(Refusal::Forbidden);
    let told = Effect::SendNotice {
        notice: IntroductionNotice::NotTakenBack,
    };
    delete(&mut play, first());
    let done = play.carry_out_with(&view(&[]), cannot);
    assert_eq!(done, [Effect::TakeBack { of: first() }, told]);
    delete(&mut play, second());
    let done = play.carry_out_with(&view(&[]), cannot);
    assert_eq!(done, [Effect::TakeBack { of: second() }]);
}
