//! What the owner and the asker do meanwhile, or cannot do.

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
    assert_eq!(play.effects, [pass_on(first()), pass_on(second())]);
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
    // … or never gets one.
    late.after(7 * 24 * 3600 * 1000);
    assert_eq!(
        late.effects[0],
        Effect::SendNotice {
            notice: IntroductionNotice::OwnerDidNotCome
        }
    );
    late.carry_out(&view(&[]));
    assert_eq!(*late.phase(), Phase::Over);
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
fn an_owner_who_declines_lets_the_ghost_go() {
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
            Effect::Forget
        ]
    );
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
