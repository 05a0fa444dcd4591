//! Strict handles: the ghost says nothing, and reads nothing.

use super::*;

#[test]
fn a_strict_ghost_never_speaks_and_leaves_after_the_first_message() {
    let mut play = Play::strict();
    let mut done = play.carry_out(&view(&[]));
    assert!(done.contains(&Effect::InviteOwner));
    play.says(first(), MessageKind::Sealed);
    done.extend(play.carry_out(&view(&[])));
    assert_eq!(*play.phase(), Phase::Over);
    let spoke = |effect: &Effect| {
        matches!(
            effect,
            Effect::SendNotice { .. } | Effect::PassOn { .. } | Effect::TellAsker { .. }
        )
    };
    assert!(!done.iter().any(spoke));
}

#[test]
fn a_strict_ghost_leaves_five_seconds_after_the_invite_without_a_message() {
    let mut play = Play::strict();
    play.carry_out(&view(&[]));
    play.after(4_900);
    assert!(play.effects.is_empty());
    play.after(200);
    play.carry_out(&view(&[]));
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn a_key_for_a_strict_ghost_lets_the_bot_tell_the_asker() {
    let mut play = Play::strict();
    play.carry_out(&view(&[]));
    play.feed(Input::KeyCame).says(first(), MessageKind::Sealed);
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&Effect::TellAsker {
        notice: IntroductionNotice::StrictSendAgain
    }));
}

#[test]
fn the_bot_tells_the_asker_that_a_strict_owner_cannot_be_invited() {
    let mut play = Play::strict();
    let mut done = play.carry_out_with(&view(&[]), |effect| {
        (*effect == Effect::InviteOwner).then_some(Refusal::Impossible)
    });
    // There is nothing to read in the chat.
    play.feed(Input::KeyCame);
    done.extend(play.carry_out(&view(&[])));
    let notice = IntroductionNotice::OwnerNotInvitable;
    assert_eq!(
        done[done.len() - 3..],
        [
            Effect::Leave { reason: None },
            Effect::TellAsker { notice },
            Effect::Forget
        ]
    );
    assert_eq!(*play.phase(), Phase::Over);
}
