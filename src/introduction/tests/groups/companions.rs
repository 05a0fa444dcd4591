//! What the ghosts of a group do for each other, and what each of them keeps for itself.

use super::*;

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
