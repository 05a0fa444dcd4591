//! Names of rooms, with people's names in them.

use super::*;
use crate::relay::oracle::{ALICE, Direction, with_context};

fn names() -> Names {
    let mut names = Names::default();
    let alice = <&UserId>::try_from(ALICE).unwrap();
    names.add(alice, Some("Alice Harbour"), "Kim");
    let jun = <&UserId>::try_from("@jun:hs.test").unwrap();
    names.add(jun, Some("王小明"), "@lee");
    let lou = <&UserId>::try_from("@lou:hs.test").unwrap();
    names.add(lou, Some("Lou"), "@lou");
    let jo = <&UserId>::try_from("@jo77:hs.test").unwrap();
    names.add(jo, Some("Jose\u{301}"), "@jo");
    names
}

fn translated(text: &str) -> Option<String> {
    with_context(Direction::ToSam, true, |context| {
        translate_room_text(text, context, &names(), NAME_CHARS_MAX)
    })
}

#[test]
fn a_room_that_is_named_after_people_is_named_after_their_ghosts() {
    for (name, target) in [
        ("Alice Harbour & Sam", "Kim & Sam"),
        ("Jos\u{e9} & Sam", "jo & Sam"),
        ("Jose\u{301} & Sam", "jo & Sam"),
        ("alice's birthday", "Kim's birthday"),
        ("Alices Boote, ALICES", "Kims Boote, KimS"),
        ("Alicesque, alicesand", "Alicesque, alicesand"),
        ("ALICE.HARBOUR and friends", "Kim and friends"),
        ("Al\u{200b}ice", "Kim"),
        ("王小明的生日", "lee的生日"),
        ("the harbour: jun", "the Kim: lee"),
        (&format!("{ALICE} and friends"), "@Kim and friends"),
        ("Lou's boat", "Lou's boat"),
        ("Boats and 👨‍👩‍👧", "Boats and 👨‍👩‍👧"),
        ("Malice in juniper land", "Malice in juniper land"),
    ] {
        assert_eq!(translated(name).as_deref(), Some(target), "{name}");
    }
}

#[test]
fn what_is_too_long_is_left_out_or_cut() {
    assert_eq!(translated(&"a".repeat(TEXT_CHARS_MAX + 1)), None);
    assert_eq!(
        translated(&"é".repeat(200)),
        Some("é".repeat(NAME_CHARS_MAX))
    );
    assert_eq!(translated(" \u{7}a\u{0}b ").as_deref(), Some("ab"));
    assert_eq!(translated("").as_deref(), Some(""));
}

#[test]
fn what_breaks_a_line_keeps_words_apart_and_hides_no_identifier() {
    for (name, target) in [
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("one\u{85}two\u{2028}three\tfour", "one\ntwo\nthree four"),
        ("I am @alice\u{2028}.harbour:far\r.example", "I am @Kim"),
        ("I am @alice.harbour:far\u{7}.example", "I am @Kim"),
    ] {
        assert_eq!(translated(name).as_deref(), Some(target), "{name:?}");
    }
}

#[test]
fn a_long_line_is_cut_and_not_left_out() {
    let line = format!("{} {ALICE}", "é".repeat(40_000));
    let shown = with_context(Direction::ToSam, true, |context| {
        translate_line(&line, context, 4000)
    });
    assert_eq!(shown, Some("é".repeat(4000)));
    // What a cut would have left of the last identifier does not come out either.
    let line = format!("{ALICE} ").repeat(1500);
    let shown = with_context(Direction::ToSam, true, |context| {
        translate_line(&line, context, 40_000)
    });
    assert_eq!(shown, Some("@Kim ".repeat(1500).trim().to_owned()));
}

#[test]
fn a_short_or_empty_name_takes_no_text_apart() {
    let mut names = Names::default();
    for (user, called) in [
        ("@a:hs.test", None),
        ("@b:hs.test", Some("")),
        ("@c:hs.test", Some("O")),
    ] {
        names.add(<&UserId>::try_from(user).unwrap(), called, "Someone");
    }
    let text = "O a b c";
    assert_eq!(names.replace(text), text);
}
