//! What the ghosts of a group do for each other, and what each of them keeps for itself.

use super::*;

fn answered() -> Input {
    Input::Answered {
        accepted: true,
        masked: false,
    }
}

fn is_quote(effect: &Effect) -> bool {
    matches!(effect, Effect::PassOn { .. })
}

/// Kim's ghost and Sam's; Kim's server does not answer to her invite, so that both ghosts speak.
fn of_two_speakers() -> Group {
    let mut group = Group::of(&TWO);
    group.carry_out();
    group.says(third(), MessageKind::Line);
    let kims = ghost_of("kim");
    group.carry_out_with(|ghost, effect| {
        (*ghost == kims && *effect == Effect::InviteOwner).then_some(Refusal::Failing)
    });
    for name in ["kim", "sam"] {
        assert!(!group.introduction(&ghost_of(name)).role.silent, "{name}");
    }
    group
}

#[test]
fn an_asked_owner_of_a_chat_of_two_gets_what_a_ghost_beside_passed_on_for_others() {
    let mut group = Group::of(&[("sam", "asks first")]);
    group.carry_out();
    group.says(first(), MessageKind::Line);
    group.carry_out();
    group.invites("kim", "");
    group.carry_out();
    group.says(second(), MessageKind::Line);
    group.carry_out();
    assert_eq!(group.passed_on, [quote_by("kim", second())]);
    // Kim and her ghost have gone before Sam answers.
    group.owner_leaves("kim");
    group.carry_out();
    group.view.members.remove(&*ghost_of("kim"));
    group.feed(&ghost_of("sam"), &answered());
    group.carry_out();
    let sams = [first(), second()].map(|event| quote_by("sam", event));
    assert_eq!(group.passed_on[1..], sams);
}

#[test]
fn a_chat_of_two_is_passed_on_whatever_ghosts_of_a_group_do_beside_it() {
    let mut group = Group::of(&[("sam", "")]);
    group.carry_out();
    // Sam's server does not answer yet.
    group.after(5_100);
    group.carry_out_with(|_, effect| (*effect == Effect::InviteOwner).then_some(Refusal::Failing));
    group.invites("kim", "");
    group.carry_out();
    group.says(first(), MessageKind::Line);
    group.carry_out();
    group.after(31_000);
    group.carry_out();
    let both = ["kim", "sam"].map(|name| quote_by(name, first()));
    assert_eq!(group.passed_on, both);
}

#[test]
fn a_ghost_that_may_not_send_leaves_a_message_to_another_one() {
    for why in [Refusal::Forbidden, Refusal::Unreadable, Refusal::Impossible] {
        let mut group = Group::of(&TWO);
        group.carry_out();
        group.says(first(), MessageKind::Line);
        group.says(second(), MessageKind::Line);
        let kims = ghost_of("kim");
        group.carry_out_with(|ghost, effect| {
            (*ghost == kims && is_quote(effect)).then(|| why.clone())
        });
        let sams = [first(), second()].map(|event| quote_by("sam", event));
        assert_eq!(group.passed_on, sams, "{why:?}");
        assert_eq!(group.quotes().len(), 3, "Kim's ghost tries once: {why:?}");
        group.ends();
        assert_eq!(group.passed_on, sams, "{why:?}");
        assert_eq!(group.replies(&first()), 0, "{why:?}");
    }
}

#[test]
fn a_message_that_no_ghost_may_pass_on_is_asked_for_again_once() {
    for why in [Refusal::Forbidden, Refusal::Impossible, Refusal::TooLarge] {
        let mut group = Group::of(&TWO);
        group.carry_out();
        group.says(first(), MessageKind::Line);
        group.carry_out_with(|_, effect| is_quote(effect).then(|| why.clone()));
        assert_eq!(group.replies(&first()), 1, "{why:?}");
        let tries = if why == Refusal::TooLarge { 1 } else { 2 };
        group.ends();
        assert_eq!(group.quotes().len(), tries, "{why:?}");
        assert_eq!(group.replies(&first()), 1, "{why:?}");
    }
}

#[test]
fn a_ghost_that_stepped_aside_speaks_again_when_it_is_alone() {
    let mut group = Group::of(&TWO);
    group.carry_out();
    group.says(first(), MessageKind::Line);
    let kims = ghost_of("kim");
    group.carry_out_with(|ghost, effect| {
        (*ghost == kims && is_quote(effect)).then_some(Refusal::Unreadable)
    });
    group.owner_leaves("sam");
    group.says(second(), MessageKind::Line);
    group.ends();
    let both = [quote_by("sam", first()), quote_by("kim", second())];
    assert_eq!(group.passed_on, both);
}

#[test]
fn what_waits_behind_a_message_that_an_owner_cannot_read_is_given_up_with_it() {
    let mut group = Group::of(&TWO);
    group.carry_out();
    for event in [first(), second(), third()] {
        group.says(event, MessageKind::Line);
    }
    let sam = vec![sam().into()];
    group.carry_out_with(|_, effect| {
        is_quote(effect).then(|| Refusal::KeysUnavailable(sam.clone()))
    });
    let told = Effect::SendReply {
        to: first(),
        notice: IntroductionNotice::NotPassedOnInGroup,
    };
    assert_eq!(group.count(&(ghost_of("kim"), told)), 1);
    group.ends();
    assert_eq!(group.quotes(), [quote_by("kim", first())]);
    let replies = [first(), second(), third()].map(|event| group.replies(&event));
    assert_eq!(replies, [1, 0, 0], "one notice for all");
}

#[test]
fn the_edit_of_a_message_that_was_given_up_has_no_other_answer() {
    let mut group = Group::of(&TWO);
    group.carry_out();
    group.says(first(), MessageKind::Line);
    let sam = vec![sam().into()];
    group.carry_out_with(|_, effect| {
        is_quote(effect).then(|| Refusal::KeysUnavailable(sam.clone()))
    });
    assert_eq!(group.replies(&first()), 1);
    group.says(second(), MessageKind::Edit { of: first() });
    let edits = |group: &Group| {
        let tried = group.effects.iter().map(|(_, effect)| effect);
        tried
            .filter(|it| matches!(it, Effect::PassOnEdit { .. }))
            .count()
    };
    assert_eq!(edits(&group), 0);
    group.carry_out();
    assert_eq!(group.replies(&second()), 0);
}

#[test]
fn a_ghost_that_became_silent_while_it_passed_on_still_says_that_it_failed() {
    let mut group = Group::of(&[("sam", "")]);
    let dora = ruma::owned_user_id!("@dora:example.org");
    group.view.members.insert(dora, "join".to_owned());
    group.carry_out();
    group.says(first(), MessageKind::Line);
    let sams = ghost_of("sam");
    while !group.effects.iter().any(|(_, effect)| is_quote(effect)) {
        let (_, effect) = group.effects.remove(0);
        group.feed(&sams, &Input::Done(effect));
    }
    group.invites("kim", "");
    assert!(group.introduction(&sams).role.silent);
    let sam = vec![sam().into()];
    group
        .carry_out_with(|_, effect| is_quote(effect).then(|| Refusal::NoSignedDevice(sam.clone())));
    assert_eq!(group.replies(&first()), 1, "{:?}", group.tried);
}

#[test]
fn of_two_ghosts_that_speak_one_replies() {
    let mut group = of_two_speakers();
    group.says(first(), MessageKind::Other);
    group.says(second(), MessageKind::Plaintext);
    group.carry_out();
    assert_eq!(group.replies(&first()), 1, "{:?}", group.tried);
    let notice = IntroductionNotice::SendAgainEncrypted;
    assert_eq!(group.notices(&notice), 1, "{:?}", group.tried);
}

#[test]
fn a_ghost_that_passes_nothing_on_leaves_replies_to_one_that_does() {
    for kind in ["asks first", "masked"] {
        let mut group = Group::of(&[("ann", kind), ("kim", "")]);
        // Before they have looked who is there.
        group.says(first(), MessageKind::Other);
        group.carry_out();
        assert_eq!(group.replies(&first()), 1, "{kind}: {:?}", group.tried);
    }
}

#[test]
fn a_ghost_that_takes_over_repeats_nothing_that_another_one_said() {
    let mut group = Group::of(&TWO);
    group.carry_out();
    group.says(first(), MessageKind::Unreadable);
    let other = Input::Message {
        event: first(),
        sender: alice(),
        kind: MessageKind::Other,
    };
    group.after(5_100);
    group.carry_out();
    group.feed(&ghost_of("kim"), &other);
    group.says(second(), MessageKind::Plaintext);
    group.carry_out();
    assert_eq!(group.replies(&first()), 1);
    group.owner_leaves("kim");
    group.says(third(), MessageKind::Plaintext);
    group.ends();
    assert_eq!(group.replies(&first()), 1, "{:?}", group.tried);
    let notice = IntroductionNotice::SendAgainEncrypted;
    assert_eq!(group.notices(&notice), 1, "{:?}", group.tried);
}

#[test]
fn nobody_is_asked_to_send_again_what_not_all_owners_could_read() {
    let mut group = Group::of(&TWO);
    let sams_join = (ghost_of("sam"), Effect::Join);
    group.effects.retain(|effect| *effect != sams_join);
    group.carry_out();
    group.after(5_100);
    group.carry_out();
    assert!(
        group
            .introduction(&ghost_of("kim"))
            .owner_invited_at
            .is_some()
    );
    let says = |group: &mut Group, event: OwnedEventId, kind: MessageKind| {
        group.says(event, kind);
        group.carry_out();
    };
    let count = |group: &Group, to: OwnedEventId, notice: IntroductionNotice| {
        group.count(&(ghost_of("kim"), Effect::SendReply { to, notice }))
    };
    says(&mut group, first(), MessageKind::Other);
    assert_eq!(count(&group, first(), IntroductionNotice::NotKept), 1);
    group.feed(&ghost_of("sam"), &Input::Done(Effect::Join));
    group.carry_out();
    group.says(third(), MessageKind::Line);
    group.carry_out();
    says(&mut group, second(), MessageKind::Other);
    assert_eq!(
        count(&group, second(), IntroductionNotice::SendAgainOther),
        1
    );
}
