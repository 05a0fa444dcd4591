//! Every interleaving as a table of inputs and times.

use std::time::Duration;

use proptest::prelude::*;
use ruma::{OwnedEventId, OwnedUserId, event_id, owned_event_id, owned_user_id, room_id, user_id};

use super::*;
use crate::{
    clock::Timestamp,
    matrix::{RoomState, Rotation},
};

const START: Timestamp = Timestamp(1_000_000);

fn alice() -> OwnedUserId {
    owned_user_id!("@alice:example.org")
}

fn sam() -> OwnedUserId {
    owned_user_id!("@sam:example.org")
}

fn ghost() -> OwnedUserId {
    owned_user_id!("@_dm_sam:example.org")
}

fn first() -> OwnedEventId {
    owned_event_id!("$first")
}

fn second() -> OwnedEventId {
    owned_event_id!("$second")
}

fn view(others: &[(&str, &str)]) -> RoomState {
    let mut view = RoomState {
        version: "12".to_owned(),
        encryption: Some(Rotation::default()),
        history_visibility: "invited".to_owned(),
        join_rule: "invite".to_owned(),
        ..RoomState::default()
    };
    for (user, membership) in [
        ("@alice:example.org", "join"),
        ("@_dm_sam:example.org", "join"),
    ]
    .iter()
    .chain(others)
    {
        view.members.insert(
            ruma::UserId::parse(*user).unwrap(),
            (*membership).to_owned(),
        );
    }
    view
}

/// An introduction being played: effects are collected, and carried out only when asked for.
struct Play {
    state: Option<Introduction>,
    now: Timestamp,
    effects: Vec<Effect>,
}

impl Play {
    fn new() -> Self {
        Self {
            state: None,
            now: START,
            effects: Vec::new(),
        }
    }

    fn admitted() -> Self {
        let mut play = Self::new();
        play.feed(Input::Invited(Invite {
            asker: alice(),
            admission: introduce(false),
        }));
        play
    }

    fn strict() -> Self {
        let mut play = Self::new();
        play.feed(Input::Invited(Invite {
            asker: alice(),
            admission: introduce(true),
        }));
        play
    }

    fn feed(&mut self, input: Input) -> &mut Self {
        let (room, rules) = (room_id!("!room"), Rules::default());
        let decision = decide(self.state.take(), room, &ghost(), &input, self.now, &rules);
        if let Some(decision) = decision {
            self.state = Some(decision.state);
            self.effects.extend(decision.effects);
        }
        self
    }

    fn after(&mut self, millis: u64) -> &mut Self {
        self.now = self.now + Duration::from_millis(millis);
        self.feed(Input::Tick)
    }

    /// Carries out everything that is due; looking shows `view`.
    fn carry_out(&mut self, view: &RoomState) -> Vec<Effect> {
        let mut done = Vec::new();
        while !self.effects.is_empty() {
            let effect = self.effects.remove(0);
            done.push(effect.clone());
            match effect {
                Effect::Look => self.feed(Input::Looked(view.clone())),
                effect => self.feed(Input::Done(effect)),
            };
        }
        done
    }

    fn says(&mut self, event: OwnedEventId, kind: HeardKind) -> &mut Self {
        self.feed(Input::Heard {
            event,
            sender: alice(),
            kind,
        })
    }

    fn phase(&self) -> &Phase {
        &self.state.as_ref().unwrap().phase
    }
}

fn introduce(strict: bool) -> Admission {
    Admission::Introduce {
        owner: sam(),
        handle: "Sam".to_owned(),
        strict,
        back_to: None,
        asks_first: false,
        masked: false,
    }
}

/// Played up to the request: the ghost is in, the line heard, the owner asked.
fn asking(strict: bool) -> Play {
    let mut play = asks_first(strict);
    play.carry_out(&view(&[]));
    play.after(700).says(first(), HeardKind::Line);
    play
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

fn pass_on(event: OwnedEventId) -> Effect {
    Effect::PassOn { event, edit: None }
}

#[test]
fn the_opening_line_is_taken_the_owner_invited_the_line_passed_on_and_the_ghost_gone() {
    let mut play = Play::admitted();
    assert_eq!(play.carry_out(&view(&[])), [Effect::Join, Effect::Look]);
    assert!(matches!(play.phase(), Phase::Listening { .. }));
    play.after(700).says(first(), HeardKind::Line);
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
    play.says(first(), HeardKind::Line);
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
    play.says(first(), HeardKind::Line);
    play.carry_out(&view(&[]));
    play.after(2_000).says(second(), HeardKind::Line);
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
    play.says(first(), HeardKind::Line)
        .says(second(), HeardKind::Line);
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
    play.says(first(), HeardKind::Line)
        .says(first(), HeardKind::Line);
    let mut done = play.carry_out(&view(&[]));
    play.says(first(), HeardKind::Line);
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
    play.says(first(), HeardKind::Line);
    play.carry_out(&view(&[]));
    let mut passed = 1;
    for number in 0..60 {
        let event = OwnedEventId::try_from(format!("$talk{number}")).unwrap();
        play.after(250);
        if play.state.as_ref().is_some_and(|is| is.hears()) {
            play.says(event, HeardKind::Line);
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
    play.says(first(), HeardKind::Line);
    play.carry_out(&view(&[]));
    play.after(3_100);
    assert_eq!(play.effects, [Effect::Look]);
    play.effects.clear();
    play.says(second(), HeardKind::Line)
        .feed(Input::Looked(view(&[])));
    assert_eq!(play.effects, [pass_on(second())]);
    assert_eq!(*play.phase(), Phase::Lingering);
}

#[test]
fn an_edit_before_passing_on_is_quoted_instead_and_after_it_is_passed_on_as_an_edit() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), HeardKind::Line)
        .says(second(), HeardKind::Edit { of: first() });
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
    play.says(third.clone(), HeardKind::Edit { of: first() });
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
    play.says(first(), HeardKind::Line);
    while play.effects.first() != Some(&pass_on(first())) {
        let effect = play.effects.remove(0);
        play.feed(Input::Done(effect));
    }
    play.says(second(), HeardKind::Edit { of: first() });
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
    play.says(first(), HeardKind::Line)
        .says(second(), HeardKind::Line);
    play.says(
        owned_event_id!("$r1"),
        HeardKind::Redaction { of: second() },
    );
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&pass_on(first())) && !done.contains(&pass_on(second())));
    play.says(owned_event_id!("$r2"), HeardKind::Redaction { of: first() });
    assert_eq!(
        play.carry_out(&view(&[])),
        [Effect::TakeBack { of: first() }]
    );
}

#[test]
fn clear_messages_make_the_ghost_listen_longer_once() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    for n in 0..10 {
        play.after(4_000);
        play.carry_out(&view(&[]));
        let event = OwnedEventId::try_from(format!("$clear{n}")).unwrap();
        play.says(event, HeardKind::Plaintext);
        let listens = matches!(play.phase(), Phase::Listening { .. });
        assert_eq!(listens, n < 2, "after clear message {n}");
    }
}

#[test]
fn whoever_may_not_reach_the_owner_is_declined_alike_after_the_same_delay() {
    let mut outcomes = Vec::new();
    for admission in [Admission::NotNow, Admission::Unclaimed] {
        let mut play = Play::new();
        play.feed(Input::Invited(Invite {
            asker: alice(),
            admission,
        }));
        assert!(play.effects.is_empty());
        play.after(1_499);
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
    assert_eq!(outcomes[0], outcomes[1]);
}

#[test]
fn a_declined_invite_may_be_followed_by_an_accepted_one() {
    let mut play = Play::new();
    play.feed(Input::Invited(Invite {
        asker: alice(),
        admission: Admission::NotNow,
    }));
    play.after(1_500);
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
fn in_a_group_the_owner_is_invited_and_nothing_passed_on() {
    for others in [
        &[("@kim:example.org", "join")][..],
        &[("@_dm_kim:example.org", "invite")],
    ] {
        let mut play = Play::admitted();
        play.feed(Input::Done(Effect::Join));
        play.says(first(), HeardKind::Line);
        let done = play.carry_out(&view(others));
        let say = Effect::Say {
            saying: Saying::GroupFromInviteOn,
        };
        assert!(done.contains(&Effect::InviteOwner) && done.contains(&say));
        assert!(
            !done
                .iter()
                .any(|effect| matches!(effect, Effect::PassOn { .. }))
        );
        assert_eq!(*play.phase(), Phase::Over);
    }
}

#[test]
fn the_owners_own_invite_does_not_make_a_group_of_a_chat() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), HeardKind::Line);
    play.carry_out(&view(&[("@sam:example.org", "invite")]));
    play.after(3_100);
    play.says(second(), HeardKind::Line);
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
    play.says(first(), HeardKind::Plaintext);
    play.feed(Input::Looked(plain));
    assert_eq!(play.effects, [Effect::TurnOnEncryption, Effect::Look]);
    let done = play.carry_out(&view(&[]));
    let saying = Saying::SendAgainEncrypted;
    let asked = Effect::Say { saying };
    assert_eq!(done[2..], [asked]);
    play.says(second(), HeardKind::Plaintext);
    assert!(play.effects.is_empty());
    assert!(matches!(play.phase(), Phase::Listening { .. }));
}

#[test]
fn what_is_said_in_clear_while_the_ghost_listens_is_asked_for_again() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), HeardKind::Plaintext);
    let saying = Saying::SendAgainEncrypted;
    assert_eq!(play.effects, [Effect::Say { saying }]);
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
fn the_owner_in_the_room_needs_no_introduction() {
    let mut play = Play::admitted();
    let done = play.carry_out(&view(&[("@sam:example.org", "join")]));
    assert!(done.contains(&Effect::Leave {
        reason: Some(Reason::OwnerIsHere)
    }));
    assert!(!done.contains(&Effect::InviteOwner));
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
fn an_owner_without_a_signed_device_is_waited_for_a_week_and_no_longer() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), HeardKind::Line);
    while play.effects.first() != Some(&pass_on(first())) {
        let effect = play.effects.remove(0);
        play.feed(Input::Done(effect));
    }
    let refused = play.effects.remove(0);
    play.feed(Input::Refused(
        refused,
        Refusal::NoSignedDevice(vec![sam()]),
    ));
    assert_eq!(
        play.effects,
        [Effect::Say {
            saying: Saying::WaitingForDevice
        }]
    );
    play.effects.clear();
    play.says(second(), HeardKind::Line);
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
        Effect::Say {
            saying: Saying::OwnerDidNotCome
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
    play.says(first(), HeardKind::Line);
    let done = play.carry_out(&from_join);
    assert!(done.contains(&Effect::Say {
        saying: Saying::WaitingForJoin
    }));
    assert!(!done.contains(&pass_on(first())));
    play.feed(Input::Member {
        user: sam(),
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
    play.says(first(), HeardKind::Line);
    play.carry_out(&view(&[]));
    play.feed(Input::Member {
        user: sam(),
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
    play.says(first(), HeardKind::Line);
    play.carry_out(&view(&[]));
    play.feed(Input::Member {
        user: sam(),
        membership: "join".to_owned(),
    });
    assert_eq!(*play.phase(), Phase::Lingering);
    play.says(second(), HeardKind::Line);
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
    play.says(first(), HeardKind::Line);
    play.carry_out(&view(&[]));
    play.feed(gone);
    assert_eq!(*play.phase(), Phase::Lingering);
}

#[test]
fn a_ghost_that_is_removed_forgets() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.feed(Input::Member {
        user: ghost(),
        membership: "leave".to_owned(),
    });
    assert_eq!(play.carry_out(&view(&[])), [Effect::Forget]);
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn a_key_that_comes_late_but_in_time_is_used_and_one_that_never_comes_is_told() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), HeardKind::Unreadable);
    play.after(5_100);
    play.carry_out(&view(&[]));
    let mut never = Play {
        state: play.state.clone(),
        now: play.now,
        effects: Vec::new(),
    };
    play.says(first(), HeardKind::Line);
    assert_eq!(play.effects, [pass_on(first())]);
    never.after(3_100);
    let done = never.carry_out(&view(&[]));
    assert!(done.contains(&Effect::Say {
        saying: Saying::SendAgainUnreadable
    }));
}

#[test]
fn what_is_said_between_the_last_look_and_the_leaving_is_told_by_the_bot_before_all_is_forgotten() {
    let leaves = || {
        let mut play = Play::admitted();
        play.carry_out(&view(&[]));
        play.says(first(), HeardKind::Line);
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
    // It cannot be passed on any more.
    play.says(second(), HeardKind::Line);
    assert!(play.effects.is_empty());
    play.feed(Input::Missed);
    let tell = Effect::TellAsker {
        saying: Saying::SaidAtTheLast,
    };
    assert_eq!(play.carry_out(&view(&[])), [tell, Effect::Forget]);
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn a_message_from_an_unsigned_device_is_answered_with_what_to_do() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), HeardKind::Untrusted);
    let reason = Some(Reason::UnsignedDevice);
    assert_eq!(play.effects, [Effect::Leave { reason }, Effect::Forget]);
}

#[test]
fn a_message_from_somebody_with_too_many_devices_is_answered_with_what_to_do() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), HeardKind::TooManyDevices);
    let reason = Some(Reason::TooManyDevices);
    assert_eq!(play.effects, [Effect::Leave { reason }, Effect::Forget]);
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
    assert!(done.contains(&Effect::Say {
        saying: Saying::BackTo { room }
    }));
    assert!(!done.contains(&Effect::InviteOwner));
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn a_refused_invite_of_the_owner_is_told_to_the_asker() {
    let mut play = Play::admitted();
    play.carry_out(&view(&[]));
    play.says(first(), HeardKind::Line);
    play.effects.clear();
    play.feed(Input::Refused(Effect::InviteOwner, Refusal::Impossible));
    assert_eq!(
        play.effects[0],
        Effect::Say {
            saying: Saying::OwnerNotInvitable
        }
    );
    play.carry_out(&view(&[]));
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn a_strict_ghost_never_speaks_and_leaves_after_the_first_message() {
    let mut play = Play::strict();
    let mut done = play.carry_out(&view(&[]));
    assert!(done.contains(&Effect::InviteOwner));
    play.says(first(), HeardKind::Sealed);
    done.extend(play.carry_out(&view(&[])));
    assert_eq!(*play.phase(), Phase::Over);
    let spoke = |effect: &Effect| {
        matches!(
            effect,
            Effect::Say { .. } | Effect::PassOn { .. } | Effect::TellAsker { .. }
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
    play.feed(Input::KeyCame).says(first(), HeardKind::Sealed);
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&Effect::TellAsker {
        saying: Saying::StrictSendAgain
    }));
}

#[test]
fn names_are_fit_to_stand_in_our_sentence() {
    let user = user_id!("@mallory:example.org");
    assert_eq!(clean_name(Some("Zoë  Ünal"), user), "Zoë Ünal");
    assert_eq!(clean_name(Some("\u{202e}nimda\u{0007}\n"), user), "nimda");
    assert_eq!(clean_name(Some(" \u{200b}\u{3164} "), user), "mallory");
    assert_eq!(clean_name(Some("@sam:example.org"), user), "samexample.org");
    assert_eq!(clean_name(Some(&"x".repeat(500)), user).chars().count(), 48);
    assert_eq!(clean_name(Some("a\u{0315}\u{0315}\u{0315}b"), user), "ab");
}

fn inputs() -> impl Strategy<Value = (u64, Input)> {
    let event = (0..6u8).prop_map(|n| OwnedEventId::try_from(format!("$e{n}")).unwrap());
    let person = prop_oneof![Just(alice()), Just(sam()), Just(ghost())];
    let membership = prop_oneof![Just("join"), Just("leave"), Just("ban"), Just("invite")];
    let kind = (event.clone(), 0..9u8).prop_map(|(of, n)| match n {
        0 => HeardKind::Edit { of },
        1 => HeardKind::Redaction { of },
        2 => HeardKind::Plaintext,
        3 => HeardKind::Unreadable,
        4 => HeardKind::Other,
        5 => HeardKind::Sealed,
        _ => HeardKind::Line,
    });
    let input = prop_oneof![
        4 => (event, person.clone(), kind)
            .prop_map(|(event, sender, kind)| Input::Heard { event, sender, kind }),
        1 => (person, membership)
            .prop_map(|(user, m)| Input::Member { user, membership: m.to_owned() }),
        3 => Just(Input::Tick),
        1 => any::<bool>().prop_map(|strict| {
            Input::Invited(Invite { asker: alice(), admission: introduce(strict) })
        }),
        1 => Just(Input::KeyCame),
        1 => Just(Input::Missed),
    ];
    (0..4_000u64, input)
}

proptest! {
    /// Whatever happens in whatever order: the ghost leaves, forgets as the last thing it does,
    /// passes nothing on before the owner is invited, and no line twice.
    #[test]
    fn every_introduction_ends_in_leaving_and_forgetting(
        steps in proptest::collection::vec((inputs(), any::<bool>()), 0..60),
        strict: bool,
    ) {
        let mut play = if strict { Play::strict() } else { Play::admitted() };
        let mut done = Vec::new();
        for ((pause, input), carry_out) in steps {
            play.now = play.now + Duration::from_millis(pause);
            play.feed(input);
            if carry_out {
                done.extend(play.carry_out(&view(&[])));
            }
        }
        for _ in 0..20 {
            done.extend(play.carry_out(&view(&[])));
            play.after(11_000);
        }
        done.extend(play.carry_out(&view(&[])));
        prop_assert_eq!(play.phase(), &Phase::Over);
        let of = |wanted: &Effect| done.iter().position(|effect| effect == wanted);
        prop_assert!(of(&Effect::Forget).is_some());
        let passed: Vec<usize> = done.iter().enumerate()
            .filter(|(_, effect)| matches!(effect, Effect::PassOn { .. }))
            .map(|(at, _)| at)
            .collect();
        for at in &passed {
            prop_assert!(of(&Effect::InviteOwner).is_some_and(|invited| invited < *at));
        }
        if strict {
            prop_assert!(passed.is_empty());
        }
        let invites = done.iter().filter(|effect| **effect == Effect::InviteOwner).count();
        prop_assert!(invites <= 1);
    }

    /// A quote never breaks out of its frame, and is always an encrypted-room message we can send.
    #[test]
    fn a_quote_stays_in_its_frame(body in ".{0,400}", name in ".{0,80}") {
        let name = clean_name(Some(&name), user_id!("@a:b"));
        let content = serde_json::json!({ "msgtype": "m.text", "body": body });
        let quote = quote(&name, "m.room.message", &content).unwrap();
        let html = quote.content["formatted_body"].as_str().unwrap();
        prop_assert_eq!(html.matches("<blockquote>").count(), 1);
        prop_assert!(html.ends_with("</blockquote>"));
        let inside = html.split_once("<blockquote>").unwrap().1;
        prop_assert!(!inside.replace("<br>", "").trim_end_matches("</blockquote>").contains('<'));
    }
}

#[test]
fn an_owner_who_likes_to_be_asked_is_asked_before_anything_is_passed_on() {
    let mut play = asking(false);
    let saying = Saying::AskingFirst;
    assert_eq!(
        play.carry_out(&view(&[])),
        [Effect::Say { saying }, Effect::AskOwner]
    );
    assert!(matches!(play.phase(), Phase::Asking { .. }));
    // What comes meanwhile is kept, and nothing of it goes anywhere.
    play.after(60_000)
        .says(event_id!("$second").to_owned(), HeardKind::Line)
        .says(
            event_id!("$edit").to_owned(),
            HeardKind::Edit { of: first() },
        )
        .says(event_id!("$third").to_owned(), HeardKind::Line)
        .says(
            event_id!("$gone").to_owned(),
            HeardKind::Redaction {
                of: event_id!("$third").to_owned(),
            },
        );
    assert!(play.effects.is_empty(), "{:?}", play.effects);
    let state = play.state.as_ref().unwrap();
    let line = (first(), event_id!("$edit").to_owned());
    assert_eq!(state.opening_line(), Some((&line.0, Some(&line.1))));

    play.feed(Input::Answered { accepted: true });
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
fn declined_run_out_and_unaskable_requests_end_in_the_words_of_every_refusal() {
    let week = 7 * 24 * 60 * 60 * 1000;
    let inputs: [fn(&mut Play) -> &mut Play; 3] = [
        |play| play.feed(Input::Answered { accepted: false }),
        |play| play.after(7 * 24 * 60 * 60 * 1000),
        |play| play.feed(Input::Refused(Effect::AskOwner, Refusal::Impossible)),
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
        play.feed(Input::Answered { accepted: true });
        assert!(play.effects.is_empty());
    }
    let mut play = asking(false);
    play.carry_out(&view(&[]));
    play.after(week - 1000);
    assert!(play.effects.is_empty(), "a week has not passed");
}

#[test]
fn whoever_waits_no_longer_asks_no_longer() {
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
        user: ghost(),
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
            HeardKind::Line,
        );
    }
    assert!(play.effects.is_empty(), "{:?}", play.effects);
    play.says(event_id!("$toomany").to_owned(), HeardKind::Line);
    play.says(event_id!("$evenmore").to_owned(), HeardKind::Line);
    let saying = Saying::EnoughKept;
    assert_eq!(play.effects, [Effect::Say { saying }], "told once");
    assert_eq!(play.state.as_ref().unwrap().heard.len(), 100);
}

#[test]
fn a_strict_ghost_asks_without_a_word_of_its_own() {
    let mut play = asks_first(true);
    let done = play.carry_out(&view(&[]));
    let saying = Saying::AskingFirstStrict;
    assert!(done.contains(&Effect::TellAsker { saying }), "{done:?}");
    assert!(done.contains(&Effect::AskOwner), "{done:?}");
    assert!(!done.iter().any(|e| matches!(e, Effect::Say { .. })));
    play.after(700).says(first(), HeardKind::Line);
    play.after(60_000).feed(Input::Answered { accepted: true });
    let done = play.carry_out(&view(&[]));
    assert!(done.contains(&Effect::InviteOwner), "{done:?}");
    // What was written while the owner was asked they cannot read.
    let saying = Saying::StrictSendAgain;
    assert!(done.contains(&Effect::TellAsker { saying }), "{done:?}");
    assert!(!done.iter().any(|e| matches!(e, Effect::PassOn { .. })));
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn what_lost_its_keys_in_a_restore_begins_anew_and_asks_for_what_it_cannot_read() {
    // Whether the owner is still to be invited, is invited, or is there.
    for owner in [None, Some("invite"), Some("join")] {
        let others: Vec<_> = owner
            .map(|is| ("@sam:example.org", is))
            .into_iter()
            .collect();
        let mut play = Play::admitted();
        play.carry_out(&view(&[]));
        play.says(first(), HeardKind::Line);
        play.effects.clear();
        let resumed = play.state.take().unwrap().resumed();
        assert_eq!(resumed.under_way(), [Effect::Join]);
        play.state = Some(resumed);
        play.effects.push(Effect::Join);
        let mut done = play.carry_out(&view(&others));
        play.after(3_100);
        done.extend(play.carry_out(&view(&others)));
        let ask = Effect::Say {
            saying: Saying::SendAgainUnreadable,
        };
        assert!(done.contains(&ask), "{owner:?}: {done:?}");
        assert!(done.contains(&Effect::InviteOwner), "it looks first");
        assert!(!done.contains(&pass_on(first())));
        assert_eq!(
            done.contains(&Effect::ShowAs),
            owner != Some("join"),
            "{done:?}"
        );
        assert_eq!(*play.phase(), Phase::Over);
        assert!(play.state.unwrap().direct);
    }
}

#[test]
fn what_could_not_be_admitted_leaves_when_it_is_taken_up() {
    let invite = Invite {
        asker: alice(),
        admission: Admission::NotNow,
    };
    let is = Introduction::found(room_id!("!room"), &ghost(), invite, START).resumed();
    let leaving = [Effect::Leave { reason: None }, Effect::Forget];
    assert_eq!(is.under_way(), leaving);
}

#[test]
fn an_asking_ghost_does_not_show_who_its_owner_is() {
    // The owner is there already, or comes, in a group with others.
    let mut play = asks_first(false);
    let owner_is_here = view(&[("@sam:example.org", "join")]);
    let done = play.carry_out(&owner_is_here);
    assert!(done.contains(&Effect::AskOwner), "{done:?}");
    play.feed(Input::Member {
        user: sam(),
        membership: "join".to_owned(),
    });
    assert!(play.effects.is_empty(), "{:?}", play.effects);
    assert!(matches!(play.phase(), Phase::Asking { .. }));
}

#[test]
fn after_the_answer_the_room_is_looked_at_again() {
    let mut play = asking(false);
    play.carry_out(&view(&[]));
    play.feed(Input::Answered { accepted: true });
    // Somebody else has come meanwhile: nothing is passed on for them to read.
    let done = play.carry_out(&view(&[("@eve:example.org", "join")]));
    assert!(done.contains(&Effect::InviteOwner), "{done:?}");
    assert!(
        !done
            .iter()
            .any(|effect| matches!(effect, Effect::PassOn { .. })),
        "{done:?}"
    );

    // Nobody is there any more.
    let mut play = asking(false);
    play.carry_out(&view(&[]));
    play.feed(Input::Answered { accepted: true });
    let mut empty = view(&[]);
    empty.members.remove(&alice());
    let done = play.carry_out(&empty);
    assert!(!done.contains(&Effect::InviteOwner), "{done:?}");
    assert_eq!(*play.phase(), Phase::Over);
}

#[test]
fn a_ghost_that_cannot_say_why_it_stays_does_not_stay() {
    let saying = Saying::AskingFirst;
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
        let said = Effect::Say {
            saying: saying.clone(),
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
fn a_quote_of_a_message_that_fitted_fits_again() {
    for body in [
        "'".repeat(12_000),
        "\n".repeat(12_000),
        "\"<&>".repeat(3_000),
        "x".repeat(12_000),
        "x".repeat(46_000),
    ] {
        let content = serde_json::json!({ "msgtype": "m.text", "body": body });
        let quoted = quote("Alice", "m.room.message", &content).unwrap().content;
        let limit = content.to_string().len().max(40_000) + 1_000;
        assert!(quoted.to_string().len() <= limit, "{limit}");
        assert!(
            quoted["body"]
                .as_str()
                .unwrap()
                .starts_with("Alice wrote:\n")
        );
    }
}
