//! Introductions that a restored service finds under way.

use ruma::room_id;

use super::*;

#[test]
fn what_lost_its_keys_in_a_restore_begins_anew_and_asks_for_what_it_cannot_read() {
    // Whether the owner is still to be invited, is invited, or is there.
    for owner in [None, Some("invite"), Some("join")] {
        let others: Vec<_> = owner
            .map(|introduction| ("@sam:example.org", introduction))
            .into_iter()
            .collect();
        let mut play = Play::admitted();
        play.carry_out(&view(&[]));
        play.says(first(), MessageKind::Line);
        play.effects.clear();
        let resumed = play.state.take().unwrap().resumed();
        assert_eq!(resumed.under_way(), [Effect::Join]);
        play.state = Some(resumed);
        play.effects.push(Effect::Join);
        let mut done = play.carry_out(&view(&others));
        play.after(3_100);
        done.extend(play.carry_out(&view(&others)));
        let ask = Effect::SendReply {
            to: first(),
            notice: IntroductionNotice::SendAgainUnreadable,
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
    let introduction = Introduction::found(room_id!("!room"), &ghost(), invite, START).resumed();
    let leaving = [Effect::Leave { reason: None }, Effect::Forget];
    assert_eq!(introduction.under_way(), leaving);
}
