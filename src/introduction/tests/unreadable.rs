//! Messages that the ghost cannot read, or that come from a device it does not hear.

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
    assert!(done.contains(&Effect::SendNotice {
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
