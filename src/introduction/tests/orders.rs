//! Any inputs in any order.

use proptest::prelude::*;

use ruma::OwnedEventId;

use super::*;

fn inputs() -> impl Strategy<Value = (u64, Input)> {
    let event = (0..6u8).prop_map(|n| OwnedEventId::try_from(format!("$e{n}")).unwrap());
    let person = prop_oneof![Just(alice()), Just(sam().into()), Just(ghost().into())];
    let membership = prop_oneof![Just("join"), Just("leave"), Just("ban"), Just("invite")];
    let kind = (event.clone(), 0..9u8).prop_map(|(of, n)| match n {
        0 => MessageKind::Edit { of },
        1 => MessageKind::Redaction { of },
        2 => MessageKind::Plaintext,
        3 => MessageKind::Unreadable,
        4 => MessageKind::Other,
        5 => MessageKind::Sealed,
        _ => MessageKind::Line,
    });
    let input = prop_oneof![
        4 => (event, person.clone(), kind)
            .prop_map(|(event, sender, kind)| Input::Message { event, sender, kind }),
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
}
