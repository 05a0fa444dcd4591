//! What the owner and the asker do meanwhile, or cannot do.

use ruma::OwnedEventId;

use super::*;

#[test]
fn the_owner_in_the_room_needs_no_introduction() {
    let mut play = Play::admitted();
    let done = play.carry_out(&view(&[("@sam:example.org", "join")]));
    assert!(done.contains(&Effect::Leave {
        reason: Some(Reason::OwnerIsHere)
    }));
    assert!(!done.contains(&Effect::InviteOwner));
}

#[test]
fn an_owner_without_a_signed_device_is_waited_for_a_week_and_no_longer() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    while play.effects.first() != Some(&pass_on(first())) {
        let effect = play.effects.remove(0);
        play.feed(Input::Done(effect));
    }
    let refused = play.effects.remove(0);
    play.feed(Input::Refused(
        refused,
        Refusal::NoSignedDevice(vec![sam().into()]),
    ));
    assert_eq!(
        play.effects,
        [Effect::SendNotice {
            notice: IntroductionNotice::WaitingForDevice
        }]
    );
    play.effects.clear();
    play.says(second(), MessageKind::Line);
    play.after(61_000);
    assert_eq!(play.effects, [pass_on(first())], "one is enough to see");
    let retried = std::mem::take(&mut play.effects);
    let mut late = Play {
        state: play.state.clone(),
        now: play.now,
        effects: Vec::new(),
    };
    // Either the owner has one by now …
    for effect in retried {
        play.feed(Input::Done(effect));
    }
    assert_eq!(*play.phase(), Phase::Lingering);
    assert_eq!(play.effects, [pass_on(second())]);
    // … or never gets one.
    late.after(7 * 24 * 3600 * 1000);
    assert_eq!(
        late.effects[0],
        Effect::SendNotice {
            notice: IntroductionNotice::OwnerCannotRead
        }
    );
    late.carry_out(&view(&[]));
    assert_eq!(*late.phase(), Phase::Over);
}

#[test]
fn what_waits_for_an_owner_is_passed_on_in_order_and_tried_with_one_message() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    play.says(second(), MessageKind::Line);
    for n in 0..98 {
        let event = OwnedEventId::try_from(format!("$e{n}")).unwrap();
        play.says(event, MessageKind::Line);
    }
    let no_device = Refusal::NoSignedDevice(vec![sam().into()]);
    // Sam has no device at first, and for three minutes more.
    for minute in 0..4 {
        let passed: Vec<_> = play
            .carry_out_with(&view(&[]), |effect| match effect {
                Effect::PassOn { .. } => Some(no_device.clone()),
                _ => None,
            })
            .into_iter()
            .filter(|effect| matches!(effect, Effect::PassOn { .. }))
            .collect();
        assert_eq!(passed, [pass_on(first())], "minute {minute}");
        assert!(matches!(play.phase(), Phase::Waiting { .. }));
        play.after(60_000);
    }
    let passed = play.carry_out(&view(&[]));
    assert_eq!(passed.len(), 100, "{passed:?}");
    assert_eq!(passed[..2], [pass_on(first()), pass_on(second())]);
    play.after(3_100);
    play.carry_out(&view(&[]));
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn the_ghost_waits_seven_days_in_all() {
    let (minute, day) = (60_000, 24 * 3600 * 1000);
    let no_device = |effect: &Effect| {
        let refusal = Refusal::NoSignedDevice(vec![sam().into()]);
        matches!(effect, Effect::PassOn { .. }).then_some(refusal)
    };
    let mut from_join = view(&[]);
    from_join.history_visibility = "joined".to_owned();
    let joined = Input::Member {
        user: sam().into(),
        membership: "join".to_owned(),
    };

    // Sam joins on the last day, without a device.
    let mut play = Play::admitted();
    play.carry_out(&from_join);
    play.says(first(), MessageKind::Line);
    play.carry_out(&from_join);
    play.after(7 * day - 10 * minute).feed(joined);
    play.carry_out_with(&from_join, no_device);
    assert!(matches!(play.phase(), Phase::Waiting { .. }));
    play.after(11 * minute);
    let notice = IntroductionNotice::OwnerCannotRead;
    assert_eq!(play.effects[0], Effect::SendNotice { notice });

    // A device comes and goes.
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line)
        .says(second(), MessageKind::Line);
    let mut has_device = false;
    for _ in 0..8 * 24 * 60 {
        play.carry_out_with(&view(&[]), |effect| match effect {
            Effect::PassOn { event, .. } if has_device && *event == first() => None,
            effect => no_device(effect),
        });
        has_device = play.now.since(START) > Duration::from_secs(6 * 24 * 3600);
        play.after(minute);
    }
    assert_eq!(*play.phase(), Phase::Over);
    assert!(play.now.since(START) >= Duration::from_secs(8 * 24 * 3600));
}

#[test]
fn the_ghost_stays_until_everything_is_passed_on() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    play.says(second(), MessageKind::Line);
    while play.effects.first() != Some(&pass_on(first())) {
        let effect = play.effects.remove(0);
        play.feed(Input::Done(effect));
    }
    // The homeserver is slow.
    play.after(60_000);
    assert_eq!(play.effects, [pass_on(first())]);
    let under_way = play.state.as_ref().unwrap().under_way();
    assert_eq!(under_way, [pass_on(first())], "if the outbox was lost");
    assert_eq!(
        play.carry_out(&view(&[])),
        [pass_on(first()), pass_on(second())]
    );
    play.after(0);
    let done = play.carry_out(&view(&[]));
    assert_eq!(done[..2], [Effect::Look, Effect::Leave { reason: None }]);
}

#[test]
fn where_one_reads_from_joining_on_the_ghost_waits_for_the_owner_to_join() {
    let mut play = Play::admitted();
    let mut from_join = view(&[]);
    from_join.history_visibility = "joined".to_owned();
    play.carry_out(&from_join);
    play.says(first(), MessageKind::Line);
    let done = play.carry_out(&from_join);
    assert!(done.contains(&Effect::SendNotice {
        notice: IntroductionNotice::WaitingForJoin
    }));
    assert!(!done.contains(&pass_on(first())));
    play.feed(Input::Member {
        user: sam().into(),
        membership: "join".to_owned(),
    });
    assert_eq!(play.carry_out(&from_join), [pass_on(first())]);
    play.after(3_100);
    play.carry_out(&from_join);
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn an_owner_who_declines_lets_the_ghost_go_and_is_told_what_else_to_do() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    play.carry_out(&view(&[]));
    play.feed(Input::Member {
        user: sam().into(),
        membership: "leave".to_owned(),
    });
    assert_eq!(
        play.effects,
        [
            Effect::ForgetPair,
            Effect::Leave { reason: None },
            Effect::TellOwner,
            Effect::Forget
        ]
    );
    play.carry_out(&view(&[]));
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn an_owner_who_joins_at_once_changes_nothing() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    play.carry_out(&view(&[]));
    play.feed(Input::Member {
        user: sam().into(),
        membership: "join".to_owned(),
    });
    assert_eq!(*play.phase(), Phase::Lingering);
    play.says(second(), MessageKind::Line);
    assert_eq!(play.effects, [pass_on(second())]);
}

#[test]
fn an_asker_who_leaves_before_the_invite_ends_it_and_after_it_does_not() {
    let gone = Input::Member {
        user: alice(),
        membership: "leave".to_owned(),
    };
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.feed(gone.clone());
    assert_eq!(
        play.effects,
        [Effect::Leave { reason: None }, Effect::Forget]
    );

    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    play.carry_out(&view(&[]));
    play.feed(gone);
    assert_eq!(*play.phase(), Phase::Lingering);
}

#[test]
fn a_ghost_that_is_removed_forgets() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.feed(Input::Member {
        user: ghost().into(),
        membership: "leave".to_owned(),
    });
    assert_eq!(play.carry_out(&view(&[])), [Effect::Forget]);
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn a_refused_invite_of_the_owner_is_told_to_the_asker() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    play.effects.clear();
    play.feed(Input::Refused(Effect::InviteOwner, Refusal::Impossible));
    let notice = IntroductionNotice::OwnerNotInvitable;
    assert_eq!(play.effects[0], Effect::SendNotice { notice });
    play.carry_out(&view(&[]));
    assert_eq!(*play.phase(), Phase::Over);
}

/// The ghost has tried to invite the owner, whose server does not answer.
fn unanswered() -> Play {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), MessageKind::Line);
    play.effects.clear();
    play.feed(Input::Refused(Effect::InviteOwner, Refusal::Failing));
    play
}

#[test]
fn an_owner_whose_server_does_not_answer_is_invited_again_for_ten_minutes() {
    let mut play = unanswered();
    let notice = IntroductionNotice::InvitingLater;
    let told = Effect::SendNotice { notice };
    assert_eq!(play.effects, [told], "the outbox is free");
    assert!(play.state.as_ref().unwrap().under_way().is_empty());
    play.effects.clear();
    for _ in 0..19 {
        play.after(29_000);
        assert!(play.effects.is_empty());
        play.after(1_000);
        assert_eq!(play.effects, [Effect::InviteOwner], "told only once");
        play.effects.clear();
        play.feed(Input::Refused(Effect::InviteOwner, Refusal::Failing));
        assert!(play.effects.is_empty());
    }
    play.after(30_000);
    play.effects.clear();
    play.feed(Input::Refused(Effect::InviteOwner, Refusal::Failing));
    let notice = IntroductionNotice::InviteFailed;
    assert_eq!(play.effects[0], Effect::SendNotice { notice });
    play.carry_out(&view(&[]));
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn an_owner_whose_server_answers_again_gets_everything() {
    let mut play = unanswered();
    play.says(second(), MessageKind::Line);
    play.after(30_000);
    let done = play.carry_out(&view(&[]));
    let passed: Vec<_> = done
        .into_iter()
        .filter(|effect| matches!(effect, Effect::PassOn { .. }))
        .collect();
    assert_eq!(passed, [pass_on(first()), pass_on(second())]);
    assert_eq!(*play.phase(), Phase::Lingering);

    // An asker who gives up frees the ghost.
    let mut play = unanswered();
    play.feed(Input::Member {
        user: alice(),
        membership: "leave".to_owned(),
    });
    play.carry_out(&view(&[]));
    assert_eq!(*play.phase(), Phase::Over);
}
