//! Owners who like to be asked first.

use ruma::event_id;

use super::*;

/// Played up to the request: the ghost is in, the line heard, the owner asked.
fn asking(strict: bool) -> Play {
    let mut play = asks_first(strict);
    play.carry_out(&view(&[]));
    play.after(700).says(first(), MessageKind::Line);
    play
}

fn answered(accepted: bool, masked: bool) -> Input {
    Input::Answered { accepted, masked }
}

fn asks_first(strict: bool) -> Play {
    let mut play = Play::new();
    let Admission::Introduce { owner, handle, .. } = introduce(strict) else {
        unreachable!()
    };
    let admission = Admission::Introduce {
        owner,
        handle,
        strict,
        back_to: None,
        asks_first: true,
        masked: false,
    };
    play.feed(Input::Invited(Invite {
        asker: alice(),
        admission,
    }));
    play
}

#[test]
fn an_owner_who_likes_to_be_asked_is_asked_before_anything_is_passed_on() {
    let mut play = asking(false);
    let notice = IntroductionNotice::AskingFirst;
    assert_eq!(
        play.carry_out(&view(&[])),
        [Effect::SendNotice { notice }, Effect::AskOwner]
    );
    assert!(matches!(play.phase(), Phase::Asking { .. }));
    // What comes meanwhile is kept, and nothing of it goes anywhere.
    play.after(60_000)
        .says(event_id!("$second").to_owned(), MessageKind::Line)
        .says(
            event_id!("$edit").to_owned(),
            MessageKind::Edit { of: first() },
        )
        .says(event_id!("$third").to_owned(), MessageKind::Line)
        .says(
            event_id!("$gone").to_owned(),
            MessageKind::Redaction {
                of: event_id!("$third").to_owned(),
            },
        );
    assert!(play.effects.is_empty(), "{:?}", play.effects);
    let state = play.state.as_ref().unwrap();
    let line = (first(), event_id!("$edit").to_owned());
    assert_eq!(state.opening_line(), Some((&line.0, Some(&line.1))));

    play.feed(answered(true, false));
    assert_eq!(
        play.carry_out(&view(&[])),
        [
            Effect::Look,
            Effect::ShowAs,
            Effect::InviteOwner,
            Effect::RememberPair,
            Effect::HandOver,
            Effect::PassOn {
                event: first(),
                edit: Some(line.1)
            },
            pass_on(event_id!("$second").to_owned()),
        ]
    );
    play.after(3_100);
    assert_eq!(
        play.carry_out(&view(&[])),
        [
            Effect::Look,
            Effect::Leave { reason: None },
            Effect::LookBack,
            Effect::Forget
        ]
    );
}

#[test]
fn nobody_is_told_that_a_message_is_shown_that_could_not_be_read() {
    let mut play = asks_first(false);
    play.carry_out(&view(&[]));
    play.after(700).says(first(), MessageKind::Unreadable);
    play.after(10_000);
    let notice = IntroductionNotice::AskingFirstWithoutLine;
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&Effect::SendNotice { notice }), "{done:?}");
    assert!(done.contains(&Effect::AskOwner));
    // The first one that can be is shown.
    play.says(second(), MessageKind::Line);
    assert_eq!(play.effects, [Effect::ShowLine]);
}

#[test]
fn declined_run_out_and_unaskable_requests_end_in_the_words_of_every_refusal() {
    let week = 7 * 24 * 60 * 60 * 1000;
    let inputs: [fn(&mut Play) -> &mut Play; 4] = [
        |play| play.feed(answered(false, false)),
        |play| play.after(7 * 24 * 60 * 60 * 1000),
        |play| play.feed(Input::Refused(Effect::AskOwner, Refusal::Impossible)),
        |play| play.feed(Input::Refused(Effect::AskOwner, Refusal::HandleChanged)),
    ];
    for input in inputs {
        let mut play = asking(false);
        play.carry_out(&view(&[]));
        input(&mut play);
        assert_eq!(
            play.carry_out(&view(&[])),
            [
                Effect::WithdrawRequest,
                Effect::Leave {
                    reason: Some(Reason::NotNow)
                },
                Effect::Forget
            ]
        );
        assert_eq!(*play.phase(), Phase::Over);
        // Too late.
        play.feed(answered(true, false));
        assert!(play.effects.is_empty());
    }
    let mut play = asking(false);
    play.carry_out(&view(&[]));
    play.after(week - 1000);
    assert!(play.effects.is_empty(), "a week has not passed");
}

#[test]
fn an_asker_who_waits_no_longer_asks_no_longer() {
    let mut play = asking(false);
    play.carry_out(&view(&[]));
    play.feed(Input::Member {
        user: alice(),
        membership: "leave".to_owned(),
    });
    assert_eq!(
        play.effects,
        [
            Effect::WithdrawRequest,
            Effect::Leave { reason: None },
            Effect::Forget
        ]
    );
    let mut play = asking(false);
    play.carry_out(&view(&[]));
    play.feed(Input::Member {
        user: ghost().into(),
        membership: "leave".to_owned(),
    });
    assert_eq!(play.effects, [Effect::WithdrawRequest, Effect::Forget]);
}

#[test]
fn while_a_request_waits_a_hundred_messages_are_kept() {
    let mut play = asking(false);
    play.carry_out(&view(&[]));
    for n in 1..100 {
        play.says(
            ruma::EventId::parse(format!("$e{n}")).unwrap(),
            MessageKind::Line,
        );
    }
    assert!(play.effects.is_empty(), "{:?}", play.effects);
    play.says(event_id!("$toomany").to_owned(), MessageKind::Line);
    play.says(event_id!("$evenmore").to_owned(), MessageKind::Line);
    let notice = IntroductionNotice::EnoughKept;
    assert_eq!(play.effects, [Effect::SendNotice { notice }], "told once");
    assert_eq!(play.state.as_ref().unwrap().pending.len(), 100);
}

#[test]
fn a_message_whose_key_is_late_is_not_dropped_in_silence_when_enough_are_kept() {
    let mut play = asking(false);
    play.carry_out(&view(&[]));
    for n in 1..100 {
        let event = ruma::EventId::parse(format!("$e{n}")).unwrap();
        play.says(event, MessageKind::Line);
    }
    play.says(event_id!("$late").to_owned(), MessageKind::Unreadable);
    let notice = IntroductionNotice::EnoughKept;
    assert_eq!(play.effects, [Effect::SendNotice { notice }]);
}

#[test]
fn a_strict_ghost_asks_without_a_word_of_its_own() {
    let mut play = asks_first(true);
    let done = play.carry_out(&view(&[]));
    let notice = IntroductionNotice::AskingFirstStrict;
    assert!(done.contains(&Effect::TellAsker { notice }), "{done:?}");
    assert!(done.contains(&Effect::AskOwner), "{done:?}");
    assert!(!done.iter().any(|e| matches!(e, Effect::SendNotice { .. })));
    play.after(700).says(first(), MessageKind::Line);
    play.after(60_000).feed(answered(true, false));
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&Effect::InviteOwner), "{done:?}");
    // What was written while the owner was asked they cannot read.
    let notice = IntroductionNotice::StrictSendAgain;
    assert!(done.contains(&Effect::TellAsker { notice }), "{done:?}");
    assert!(!done.iter().any(|e| matches!(e, Effect::PassOn { .. })));
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn an_asking_ghost_does_not_show_who_its_owner_is() {
    // The owner is there already, or comes, in a group with others.
    let mut play = asks_first(false);
    let owner_is_here = view(&[("@sam:example.org", "join")]);
    let done = play.carry_out(&owner_is_here);
    assert!(done.contains(&Effect::AskOwner), "{done:?}");
    play.feed(Input::Member {
        user: sam().into(),
        membership: "join".to_owned(),
    });
    assert!(play.effects.is_empty(), "{:?}", play.effects);
    assert!(matches!(play.phase(), Phase::Asking { .. }));
}

#[test]
fn after_the_answer_the_room_is_looked_at_again() {
    let mut play = asking(false);
    play.carry_out(&view(&[]));
    play.feed(answered(true, false));
    // Somebody else has come meanwhile: nothing is passed on for them to read.
    let done = play.carry_out(&view(&[("@eve:example.org", "join")]));
    assert!(done.contains(&Effect::InviteOwner), "{done:?}");
    assert!(
        !done
            .iter()
            .any(|effect| matches!(effect, Effect::PassOn { .. })),
        "{done:?}"
    );

    // Nobody is left in the room.
    let mut play = asking(false);
    play.carry_out(&view(&[]));
    play.feed(answered(true, false));
    let mut empty = view(&[]);
    empty.members.remove(&alice());
    let done = play.carry_out(&empty);
    assert!(!done.contains(&Effect::InviteOwner), "{done:?}");
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn a_ghost_that_cannot_say_why_it_stays_does_not_stay() {
    let notice = IntroductionNotice::AskingFirst;
    for (why, reason) in [
        (
            Refusal::NoSignedDevice(vec![alice()]),
            Reason::UnsignedDevice,
        ),
        (
            Refusal::TooManyDevices(vec![alice()]),
            Reason::TooManyDevices,
        ),
        (Refusal::Impossible, Reason::NotNow),
    ] {
        let mut play = asking(false);
        let said = Effect::SendNotice {
            notice: notice.clone(),
        };
        assert_eq!(play.effects[0], said);
        play.effects.clear();
        play.feed(Input::Refused(said, why));
        assert_eq!(
            play.effects,
            [
                Effect::WithdrawRequest,
                Effect::Leave {
                    reason: Some(reason)
                },
                Effect::Forget
            ]
        );
    }
}

#[test]
fn a_line_that_comes_after_the_request_is_shown_once() {
    let mut play = asks_first(false);
    play.carry_out(&view(&[]));
    play.after(5_100);
    assert!(play.carry_out(&view(&[])).contains(&Effect::AskOwner));
    // As soon as it can be read.
    play.says(first(), MessageKind::Unreadable);
    assert!(play.effects.is_empty(), "{:?}", play.effects);
    play.says(first(), MessageKind::Line);
    assert_eq!(play.effects, [Effect::ShowLine]);
    play.effects.clear();
    play.says(event_id!("$second").to_owned(), MessageKind::Line);
    assert!(play.effects.is_empty(), "only the opening line");

    let mut play = asking(false);
    play.carry_out(&view(&[]));
    play.says(event_id!("$second").to_owned(), MessageKind::Line);
    assert!(play.effects.is_empty(), "it was shown with the request");
}

#[test]
fn the_answer_tells_the_mode_that_the_owner_agreed_to() {
    // Asked while the handle was open, and accepted once it was masked.
    let mut play = asking(false);
    play.carry_out(&view(&[]));
    play.feed(answered(true, true));
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&Effect::OpenConversation), "{done:?}");
    assert!(!done.contains(&Effect::InviteOwner), "{done:?}");
    // The other way round.
    let mut play = asking(false);
    play.carry_out(&view(&[]));
    if let Admission::Introduce { masked, .. } = &mut play.state.as_mut().unwrap().invite.admission
    {
        *masked = true;
    }
    play.feed(answered(true, false));
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&Effect::InviteOwner), "{done:?}");
    assert!(done.contains(&pass_on(first())), "{done:?}");
}

#[test]
fn a_handle_that_changed_shows_nothing_of_its_owner() {
    let mut play = asks_first(false);
    play.carry_out(&view(&[]));
    play.feed(answered(true, false));
    play.feed(Input::Looked(view(&[])));
    play.effects.clear();
    play.feed(Input::Refused(Effect::InviteOwner, Refusal::HandleChanged));
    assert!(
        play.effects.contains(&Effect::Leave {
            reason: Some(Reason::NotNow)
        }),
        "{:?}",
        play.effects
    );
}
