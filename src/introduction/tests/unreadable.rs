//! Messages that the ghost cannot read, or that come from a device it does not hear.

use ruma::owned_event_id;

use super::*;

#[test]
fn a_key_that_comes_late_but_in_time_is_used_and_one_that_never_comes_is_told() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Unreadable);
    play.after(5_100);
    play.carry_out(&view(&[]));
    let mut never = Play {
        state: play.state.clone(),
        now: play.now,
        effects: Vec::new(),
    };
    play.says(first(), MessageKind::Line);
    assert_eq!(play.effects, [pass_on(first())]);
    never.after(3_100);
    let done = never.carry_out(&view(&[]));
    assert!(done.contains(&Effect::SendReply {
        to: first(),
        notice: IntroductionNotice::SendAgainUnreadable
    }));
}

#[test]
fn a_message_from_an_unsigned_device_is_answered_with_what_to_do() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Untrusted);
    let reason = Some(Reason::UnsignedDevice);
    assert_eq!(play.effects, [Effect::Leave { reason }, Effect::Forget]);
}

#[test]
fn a_message_from_somebody_with_too_many_devices_is_answered_with_what_to_do() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::TooManyDevices);
    let reason = Some(Reason::TooManyDevices);
    assert_eq!(play.effects, [Effect::Leave { reason }, Effect::Forget]);
}

#[test]
fn what_turns_out_to_be_no_message_is_not_asked_for_again() {
    let kinds = [
        MessageKind::Edit { of: first() },
        MessageKind::Other,
        MessageKind::PlainFile,
        MessageKind::Untrusted,
        MessageKind::Nothing,
        MessageKind::Verification,
    ];
    for kind in kinds {
        let mut play = Play::admitted();
        play.carry_out(&view(&[]));
        play.says(first(), MessageKind::Line)
            .says(second(), MessageKind::Unreadable);
        let mut done = play.carry_out(&view(&[]));
        play.says(second(), kind.clone());
        done.extend(play.carry_out(&view(&[])));
        play.after(3_100);
        done.extend(play.carry_out(&view(&[])));
        assert_eq!(*play.phase(), Phase::Over);
        let asked = asks(&done);
        let expected = match kind {
            MessageKind::Other => vec![IntroductionNotice::SendAgainOther],
            MessageKind::PlainFile => vec![IntroductionNotice::SendAgainPlainFile],
            MessageKind::Untrusted => vec![IntroductionNotice::UnsignedDevice],
            _ => vec![],
        };
        assert_eq!(asked, expected, "{kind:?}");
        let edit = Effect::PassOnEdit {
            event: second(),
            of: first(),
        };
        let is_edit = matches!(kind, MessageKind::Edit { .. });
        assert_eq!(done.contains(&edit), is_edit);
    }
}

#[test]
fn a_last_look_that_fails_costs_no_answer_about_what_was_heard_before() {
    let last = |why: Refusal| {
        let mut play = Play::admitted();
        play.carry_out(&view(&[]));
        play.says(first(), MessageKind::Unreadable);
        play.after(5_100);
        play.carry_out(&view(&[]));
        play.after(3_100);
        assert_eq!(*play.phase(), Phase::Closing);
        let refuse = |effect: &Effect| (*effect == Effect::Look).then(|| why.clone());
        let done = play.carry_out_with(&view(&[]), refuse);
        assert_eq!(*play.phase(), Phase::Over);
        (asks(&done), done.contains(&Effect::LookBack))
    };
    let asked = vec![IntroductionNotice::SendAgainUnreadable];
    assert_eq!(last(Refusal::Failing), (asked, true));
    // It was removed, and can write nothing.
    assert_eq!(last(Refusal::Forbidden), (vec![], false));
}

#[test]
fn several_messages_whose_key_is_lost_are_asked_for_once() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Unreadable)
        .says(second(), MessageKind::Unreadable)
        .says(third(), MessageKind::Unreadable);
    play.after(5_100);
    let mut done = play.carry_out(&view(&[]));
    play.after(3_100);
    done.extend(play.carry_out(&view(&[])));
    assert_eq!(*play.phase(), Phase::Over);
    assert_eq!(asks(&done), [IntroductionNotice::SendAgainAllUnreadable]);
    assert!(done.contains(&Effect::SendReply {
        to: first(),
        notice: IntroductionNotice::SendAgainAllUnreadable,
    }));
}

/// The notices that these effects send.
fn asks(effects: &[Effect]) -> Vec<IntroductionNotice> {
    let notices = effects.iter().filter_map(|effect| match effect {
        Effect::SendNotice { notice } | Effect::SendReply { notice, .. } => Some(notice.clone()),
        _ => None,
    });
    notices.collect()
}

#[test]
fn an_edit_is_passed_on_although_its_original_cannot_be_read() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Unreadable)
        .says(second(), MessageKind::Edit { of: first() });
    let mut done = play.carry_out(&view(&[]));
    play.after(3_100);
    done.extend(play.carry_out(&view(&[])));
    assert_eq!(*play.phase(), Phase::Over);
    assert!(done.contains(&Effect::PassOn {
        event: first(),
        edit: Some(second())
    }));
    assert_eq!(asks(&done), []);
}

#[test]
fn a_message_from_an_unsigned_device_ends_nothing_that_has_begun() {
    let lingering = || {
        let mut play = Play::admitted();
        play.carry_out(&view(&[]));
        play.says(first(), MessageKind::Line);
        play
    };
    let waiting = || {
        let mut play = lingering();
        let no_device = Refusal::NoSignedDevice(vec![sam().into()]);
        play.carry_out_with(&view(&[]), |effect| {
            matches!(effect, Effect::PassOn { .. }).then(|| no_device.clone())
        });
        assert!(matches!(play.phase(), Phase::Waiting { .. }));
        play
    };
    let asking = || {
        let mut play = asks_first();
        play.carry_out(&view(&[]));
        play.says(first(), MessageKind::Line);
        play.after(3 * 24 * 3600 * 1000);
        play.carry_out(&view(&[]));
        assert!(matches!(play.phase(), Phase::Asking { .. }));
        play
    };
    for mut play in [lingering(), waiting(), asking()] {
        play.carry_out_with(&view(&[]), |_| None);
        let (phase, pending) = (play.phase().clone(), play.state.clone().unwrap().pending);
        for (kind, notice) in [
            (MessageKind::Untrusted, IntroductionNotice::UnsignedDevice),
            (
                MessageKind::TooManyDevices,
                IntroductionNotice::TooManyDevices,
            ),
        ] {
            play.says(owned_event_id!("$one"), kind.clone());
            play.says(owned_event_id!("$two"), kind);
            assert_eq!(asks(&std::mem::take(&mut play.effects)), [notice], "once");
        }
        assert_eq!(*play.phase(), phase);
        assert_eq!(play.state.unwrap().pending, pending);
    }
}

fn asks_first() -> Play {
    let mut admission = introduce(false);
    if let Admission::Introduce { asks_first, .. } = &mut admission {
        *asks_first = true;
    }
    let mut play = Play::new();
    play.feed(Input::Invited(Invite {
        asker: alice(),
        admission,
    }));
    play
}
