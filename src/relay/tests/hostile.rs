//! Random contents: nothing that comes out identifies its sender.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use ruma::server_name;
use serde_json::{Map, Value, json};

use super::{ALICE, Direction, with_context};
use crate::relay::{
    Context,
    final_check::FinalCheck,
    oracle::{identifies_sender, leads_elsewhere, loaded, strings},
    translate,
    translate::translate_unchecked,
};

fn entities(text: &str) -> String {
    text.chars()
        .map(|c| format!("&#{};", u32::from(c)))
        .collect()
}

fn hex_entities(text: &str) -> String {
    text.chars()
        .map(|c| format!("&#x{:X};", u32::from(c)))
        .collect()
}

/// The sender's Matrix ID in one of the spellings that a client could show.
fn spelled() -> impl Strategy<Value = String> {
    let bare = ALICE.trim_start_matches('@');
    let percent = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let forms = vec![
        ALICE.to_owned(),
        ALICE.to_uppercase(),
        "@Alice.Harbour:Far.Example".to_owned(),
        percent(ALICE),
        percent(&percent(ALICE)),
        entities(ALICE),
        hex_entities(ALICE),
        ALICE.replace(':', "&colon;").replace('@', "&commat;"),
        ALICE.chars().flat_map(|c| [c, '\u{200B}']).collect(),
        ALICE.replace('.', ".\u{2060}"),
        ALICE.replace('h', "\u{00AD}h"),
        format!("https://matrix.to/#/{ALICE}"),
        format!("https://matrix.to/#/{}", percent(ALICE)),
        format!("https://MATRIX.TO/#/{ALICE}?via=far.example"),
        format!("matrix:u/{bare}"),
        format!("matrix:u/{}?action=chat", percent(bare)),
        format!("<a href=\"https://matrix.to/#/{ALICE}\">me</a>"),
        format!("<a href='https://matrix.to/#/{}'>me</a>", entities(ALICE)),
        format!("<A HREF=https://matrix.to/#/{ALICE}>me</A>"),
        format!("<span data-mx-x=\"{ALICE}\">me</span>"),
        format!("<!-- {ALICE} --><b>x</b>"),
        format!("<img src=\"x\" alt=\"{ALICE}\">"),
        format!("@alice.<b></b>harbour:far.example"),
        format!("@alice.<i>harbour</i>:far.example"),
        format!("[me](https://matrix.to/#/{ALICE})"),
        "ALICESDEVICE".to_owned(),
        "https://matrix.to/#/!here:far.example/$one?via=far.example".to_owned(),
        "!here:far.example".to_owned(),
    ];
    prop::sample::select(forms)
}

/// Addresses of content on the sender's homeserver, on a third one and on ours, and what a client
/// could take for one.
fn address() -> impl Strategy<Value = String> {
    let forms = [
        "mxc://far.example/duck",
        "mxc://third.example/duck",
        "mxc://hs.test/duck",
        "mxc://third.example/duck#x",
        " mxc://third.example/duck",
        "MXC://third.example/duck",
        "mxc://third.example/../duck",
        "<img src=\"mxc://third.example/duck\" alt=\"duck\">",
        "<img alt=':)' src=mxc://far.example/duck data-mx-emoticon>",
        "<img src=\"mxc://hs.test/duck\">",
    ];
    prop::sample::select(forms.to_vec()).prop_map(str::to_owned)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => address(),
        2 => "[ -~]{0,20}",
        1 => "\\PC{0,12}",
        3 => ("[ a-z<>&%\"']{0,6}", spelled(), "[ a-z<>&;\"']{0,6}").prop_map(|(a, b, c)| a + &b + &c),
    ]
}

fn key() -> impl Strategy<Value = String> {
    let known = [
        "body",
        "formatted_body",
        "msgtype",
        "format",
        "filename",
        "info",
        "file",
        "url",
        "m.relates_to",
        "m.new_content",
        "m.mentions",
        "user_ids",
        "event_id",
        "rel_type",
        "key",
        "m.in_reply_to",
        "org.matrix.msc1767.text",
        "org.matrix.msc1767.html",
        "m.text",
        "via",
        "displayname",
        "avatar_url",
        "sender",
        "room_id",
        "com.beeper.per_message_profile",
    ];
    prop_oneof![
        4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => spelled(),
        1 => "[a-z.]{1,10}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        6 => text().prop_map(Value::String),
        1 => any::<i64>().prop_map(|number| json!(number)),
        1 => Just(Value::Null),
        1 => Just(json!(true)),
        1 => prop::sample::select(vec!["m.text", "m.image", "m.thread", "m.replace", "$one",
            "org.matrix.custom.html", "m.annotation"]).prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec((key(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn content() -> impl Strategy<Value = Value> {
    prop::collection::vec((key(), value()), 0..8).prop_map(|fields| {
        let mut content: Map<String, Value> = fields.into_iter().collect();
        content.entry("msgtype").or_insert(json!("m.text"));
        content.entry("body").or_insert(json!("x"));
        Value::Object(content)
    })
}

fn event_type() -> impl Strategy<Value = String> {
    let known = [
        "m.room.message",
        "m.sticker",
        "m.reaction",
        "org.matrix.msc3381.poll.start",
        "m.poll.response",
        "m.call.invite",
        "m.call.candidates",
        "org.example.unknown",
    ];
    prop_oneof![
        9 => prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => spelled(),
    ]
}

/// Returns a configuration with at least this many cases; `PROPTEST_CASES` can ask for more.
fn cases(at_least: u32) -> ProptestConfig {
    let asked = ProptestConfig::default().cases;
    ProptestConfig::with_cases(asked.max(at_least))
}

#[test]
fn the_search_finds_identifiers() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..200 {
        let tree = spelled().new_tree(&mut runner).unwrap();
        let text = proptest::strategy::ValueTree::current(&tree);
        assert!(
            identifies_sender(Direction::ToSam, &text) || text.contains("<!--"),
            "{text}"
        );
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn nothing_that_comes_out_names_its_sender(
        kind in event_type(), content in content(), elsewhere: bool,
    ) {
        let out = with_context(Direction::ToSam, true, |context| {
            let homeserver = if elsewhere {
                server_name!("hs.test")
            } else {
                context.homeserver
            };
            translate(&kind, &content, &Context { homeserver, ..context.clone() })
        });
        if let Ok(Some(out)) = out {
            let mut all = vec![out.event_type.clone()];
            strings(&out.content, &mut all);
            for text in &all {
                prop_assert!(!identifies_sender(Direction::ToSam, text), "{text:?} of {content}");
            }
            let home = if elsewhere { "hs.test" } else { "far.example" };
            let anew: Vec<&str> = out.media_to_reupload.iter().map(|it| it.pointer.as_str()).collect();
            for (pointer, key, text) in loaded(&out.content) {
                let foreign = leads_elsewhere(&key, &text, home);
                prop_assert!(!foreign || anew.contains(&&*pointer), "{text:?} of {content}");
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn the_name_of_a_profile_is_not_put_before_the_words(
        words in "[ -~]{0,20}", tag in prop::sample::select(vec!["strong", "b", "span", "mx-reply"]),
        key in prop::sample::select(vec!["com.beeper.per_message_profile", "org.matrix.msc4144"]),
    ) {
        let name = "Quentin Zephyr";
        let content = json!({
            "msgtype": "m.text", "body": format!("{name}: {words}"), "m.text": format!("{name}: {words}"),
            "format": "org.matrix.custom.html",
            "formatted_body": format!("<{tag} data-mx-profile-fallback>{name}: </{tag}>{words}"),
            "m.new_content": { "msgtype": "m.text", "body": format!("{name}: {words}") },
            key: { "displayname": name },
        });
        let out = with_context(Direction::ToSam, true, |context| {
            translate("m.room.message", &content, context)
        });
        let out = out.unwrap().unwrap().content.to_string();
        prop_assert!(!out.contains("Zephyr"), "{out}");
    }

    #[test]
    fn the_final_check_finds_nothing_that_was_not_found_before(
        kind in event_type(), content in content(),
    ) {
        with_context(Direction::ToSam, true, |context| {
            if let Ok(Some((out, _))) = translate_unchecked(&kind, &content, context) {
                let mut out = Value::Object(out);
                let before = out.clone();
                let redacted = FinalCheck::of(context).redact(&mut out);
                prop_assert_eq!(redacted, 0, "{} of {}", before, content);
            }
            Ok(())
        })?;
    }
}
