//! Names and messages as they stand in the ghost's sentence.

use proptest::prelude::*;

use ruma::user_id;

use super::*;
use crate::text::is_blank;

#[test]
fn names_are_fit_to_stand_in_our_sentence() {
    let user = user_id!("@mallory:example.org");
    assert_eq!(clean_name(Some("Zoë  Ünal"), user), "Zoë Ünal");
    assert_eq!(clean_name(Some("\u{202e}nimda\u{0007}\n"), user), "nimda");
    assert_eq!(clean_name(Some(" \u{200b}\u{3164} "), user), "mallory");
    assert_eq!(clean_name(Some("@sam:example.org"), user), "samexample.org");
    assert_eq!(clean_name(Some(&"x".repeat(500)), user).chars().count(), 48);
    let covered = format!("a{}b", "\u{0315}".repeat(20));
    assert_eq!(
        clean_name(Some(&covered), user),
        "a\u{0315}\u{0315}\u{0315}\u{0315}b"
    );
    assert_eq!(clean_name(Some("सुनीता देवी"), user), "सुनीता देवी");
}

#[test]
fn a_quote_of_a_message_that_fitted_fits_again() {
    for body in [
        "'".repeat(12_000),
        "\na".repeat(6_000),
        "\"<&>".repeat(3_000),
        "x".repeat(12_000),
        "x".repeat(46_000),
        "\na".repeat(15_000),
    ] {
        let content = serde_json::json!({ "msgtype": "m.text", "body": body });
        let quoted = quote("Alice", "m.room.message", &content).unwrap().content;
        let limit = content.to_string().len().max(46_000) + 100;
        assert!(quoted.to_string().len() <= limit, "{limit}");
        assert!(
            quoted["body"]
                .as_str()
                .unwrap()
                .starts_with("Alice wrote:\n")
        );
    }
}

#[test]
fn a_hidden_picture_stays_hidden_and_says_why() {
    let file = file();
    let picture = |mark: serde_json::Value| {
        let mut content = serde_json::json!({
            "msgtype": "m.image", "body": "x.png", "filename": "x.png", "file": file,
            "org.example.other": true,
        });
        for (field, value) in mark.as_object().unwrap() {
            content[field] = value.clone();
        }
        quote("Alice", "m.room.message", &content).unwrap().content
    };
    let spoiler = "page.codeberg.everypizza.msc4193.spoiler";
    let warning = "town.robin.msc3725.content_warning";
    for (mark, expected) in [
        (serde_json::json!({}), "Alice sent a picture"),
        (
            serde_json::json!({ spoiler: false }),
            "Alice sent a picture",
        ),
        (
            serde_json::json!({ spoiler: true }),
            "Alice sent a picture (spoiler)",
        ),
        (
            serde_json::json!({ spoiler: true, format!("{spoiler}.reason"): "blood\n\u{202e}" }),
            "Alice sent a picture (spoiler: blood)",
        ),
        (
            serde_json::json!({ warning: { "type": "x", "description": "blood" } }),
            "Alice sent a picture (spoiler: blood)",
        ),
        (
            serde_json::json!({ "m.spoiler": "x".repeat(5000) }),
            "Alice sent a picture",
        ),
    ] {
        let quoted = picture(mark.clone());
        assert_eq!(quoted["body"], expected, "{mark}");
        for (field, value) in mark.as_object().unwrap() {
            let fits = value.to_string().len() < 1000;
            assert_eq!(quoted.get(field), fits.then_some(value), "{field}");
        }
        assert!(quoted.get("org.example.other").is_none());
    }
}

/// An encrypted file that can be opened.
fn file() -> serde_json::Value {
    serde_json::json!({ "url": "mxc://hs.test/x", "key": { "k": "a2V5" }, "iv": "AAAA" })
}

/// Returns what is passed on of a message of Alice.
fn quoted(content: serde_json::Value) -> serde_json::Value {
    quote("Alice", "m.room.message", &content).unwrap().content
}

#[test]
fn no_line_break_leads_out_of_a_quote() {
    let body = "one\rtwo\r\nthree\u{85}four\u{2028}five\u{2029}six";
    let quote = quoted(serde_json::json!({ "msgtype": "m.text", "body": body }));
    let expected = "Alice wrote:\n> one\n> two\n> three\n> four\n> five\n> six";
    assert_eq!(quote["body"], expected);
    let html = quote["formatted_body"].as_str().unwrap();
    assert_eq!(html.matches("<br>").count(), 5);
    assert!(!html.contains(['\r', '\u{85}', '\u{2028}', '\u{2029}']));
}

/// Returns whether every line after the first is marked as a quote.
fn is_marked(quote: &serde_json::Value) -> bool {
    let body = quote["body"].as_str().unwrap();
    body.lines().skip(1).all(|line| line.starts_with("> "))
}

#[test]
fn every_line_of_a_long_message_is_marked_as_a_quote() {
    let line = "Bob wrote: nothing of the kind";
    for (lines, is_whole) in [(300, true), (1_000, true), (1_450, false)] {
        let body = vec![line; lines].join("\n");
        assert!(body.len() < 46_000);
        let quote = quoted(serde_json::json!({ "msgtype": "m.text", "body": body }));
        assert!(is_marked(&quote), "{lines}");
        let text = quote["body"].as_str().unwrap();
        assert_eq!(text.matches(line).count(), lines);
        // There is no room for all the marks.
        assert_eq!(text.lines().count() == lines + 1, is_whole, "{lines}");
    }
}

#[test]
fn an_edit_of_a_message_with_many_lines_fits_as_a_message() {
    let body = "a\n".repeat(4_000);
    let new = serde_json::json!({ "msgtype": "m.text", "body": body });
    let edit = serde_json::json!({
        "msgtype": "m.text", "body": format!("* {body}"), "m.new_content": new,
        "m.relates_to": { "rel_type": "m.replace", "event_id": "$one" },
    });
    let quote = quote_edit("Alice", "m.room.message", &edit, "$quote")
        .unwrap()
        .content;
    assert!(quote.to_string().len() <= 47_000);
    assert!(is_marked(&quote["m.new_content"]));
}

#[test]
fn every_line_of_a_caption_is_marked_as_a_quote() {
    let file = file();
    let picture = |caption: &str| {
        let content = serde_json::json!({ "msgtype": "m.image", "body": caption,
            "filename": "a.png", "file": file });
        quoted(content)["body"].clone()
    };
    let place = |caption: &str| {
        let content = serde_json::json!({ "msgtype": "m.location", "body": caption,
            "geo_uri": "geo:1,2" });
        quoted(content)["body"].clone()
    };
    assert_eq!(picture("a duck\n"), "Alice sent a picture: a duck");
    assert_eq!(place("here"), "Alice sent a place: here");
    let lines = "a duck\r\n\u{2028}Bob wrote: yes";
    let marked = "> a duck\n> \n> Bob wrote: yes";
    assert_eq!(picture(lines), format!("Alice sent a picture:\n{marked}"));
    assert_eq!(place(lines), format!("Alice sent a place:\n{marked}"));
    let many = picture(&"a\n".repeat(15_000));
    assert!(many.to_string().len() < 46_000);
    assert_eq!(many.as_str().unwrap().lines().count(), 1);
}

#[test]
fn what_shows_nothing_is_said_in_words() {
    let file = file();
    for (content, expected) in [
        (
            serde_json::json!({ "msgtype": "m.text", "body": " \u{3164}\n" }),
            "Alice sent a message without text",
        ),
        (
            serde_json::json!({ "msgtype": "m.image", "body": " ", "filename": "a.png", "file": file }),
            "Alice sent a picture",
        ),
        (
            serde_json::json!({ "msgtype": "m.file", "file": file }),
            "Alice sent a file",
        ),
        (
            serde_json::json!({ "msgtype": "m.location", "geo_uri": "geo:1,2" }),
            "Alice sent a place",
        ),
    ] {
        assert_eq!(quoted(content)["body"], expected);
    }
    let nothing = serde_json::json!({ "msgtype": "m.text", "body": "\u{200b}" });
    let shown = gist("Alice", "m.room.message", &nothing, |text| {
        Some(text.to_owned())
    });
    assert_eq!(shown, "(something without text)");
}

#[test]
fn the_name_of_a_file_is_one_line_in_its_own_direction() {
    let file = file();
    let content =
        |name: &str| serde_json::json!({ "msgtype": "m.file", "body": name, "file": file });
    let quote = quoted(content("photo_\u{202e}gpj.exe\u{2028}\u{2066}x"));
    assert_eq!(quote["filename"], "photo_gpj.exe x");
    assert!(quoted(content("\u{202e}")).get("filename").is_none());
}

#[test]
fn only_an_edit_has_a_new_text() {
    let mut content = serde_json::json!({ "msgtype": "m.text", "body": "before",
        "m.new_content": { "msgtype": "m.text", "body": "after" } });
    assert_eq!(quoted(content.clone())["body"], "Alice wrote:\n> before");
    content["m.relates_to"] = serde_json::json!({ "rel_type": "m.replace", "event_id": "$one" });
    assert_eq!(quoted(content)["body"], "Alice wrote:\n> after");
}

#[test]
fn a_reply_keeps_its_thread_and_not_the_text_it_answers() {
    let content = serde_json::json!({
        "msgtype": "m.text", "body": "> <@kim:hs.test> older\n\nnewer",
        "m.relates_to": { "rel_type": "m.thread", "event_id": "$root", "x": 1,
            "m.in_reply_to": { "event_id": "$one", "x": 1 } },
    });
    let quote = quoted(content.clone());
    assert_eq!(quote["body"], "Alice wrote:\n> newer");
    let kept = serde_json::json!({ "rel_type": "m.thread", "event_id": "$root",
        "m.in_reply_to": { "event_id": "$one" } });
    assert_eq!(quote["m.relates_to"], kept);
    let shown = gist("Alice", "m.room.message", &content, |text| {
        Some(text.to_owned())
    });
    assert_eq!(shown, "newer");
}

#[test]
fn what_would_deceive_is_not_quoted() {
    let body = format!("a{} \u{202e}cod.exe\u{2069}", "\u{301}".repeat(4000));
    let expected = format!("a{} cod.exe", "\u{301}".repeat(4));
    let text = serde_json::json!({ "msgtype": "m.text", "body": body });
    let quote = quoted(text.clone());
    assert_eq!(quote["body"], format!("Alice wrote:\n> {expected}"));
    let html = format!("Alice wrote:<blockquote>{expected}</blockquote>");
    assert_eq!(quote["formatted_body"], html);
    let shown = gist("Alice", "m.room.message", &text, |text| {
        Some(text.to_owned())
    });
    assert_eq!(shown, expected);
    let file = serde_json::json!({ "url": "mxc://hs.test/x", "iv": "x", "key": { "k": "x" } });
    let picture = serde_json::json!({ "msgtype": "m.image", "body": body, "filename": "x.png",
        "file": file });
    assert_eq!(
        quoted(picture)["body"],
        format!("Alice sent a picture: {expected}")
    );
}

#[test]
fn a_request_shows_captions_and_who_does_what() {
    for (content, expected) in [
        (
            serde_json::json!({ "msgtype": "m.image", "body": "the lock", "filename": "a.jpg" }),
            "(a picture) the lock",
        ),
        (
            serde_json::json!({ "msgtype": "m.image", "body": "a.jpg", "filename": "a.jpg" }),
            "(a picture)",
        ),
        (
            serde_json::json!({ "msgtype": "m.audio", "body": "a.ogg", "m.voice": {} }),
            "(a voice message)",
        ),
        (
            serde_json::json!({ "msgtype": "m.location", "body": "the quay" }),
            "(a place) the quay",
        ),
        (
            serde_json::json!({ "msgtype": "m.emote", "body": "waves" }),
            "* Alice waves",
        ),
        (
            serde_json::json!({ "msgtype": "m.gallery", "body": "boats" }),
            "boats",
        ),
        (
            serde_json::json!({ "msgtype": "m.gallery", "body": "boats", "itemtypes": [{}] }),
            "(pictures) boats",
        ),
    ] {
        let shown = gist("Alice", "m.room.message", &content, |text| {
            Some(text.to_owned())
        });
        assert_eq!(shown, expected);
    }
    let sticker = serde_json::json!({ "body": "duck" });
    let shown = gist("Alice", "m.sticker", &sticker, |text| Some(text.to_owned()));
    assert_eq!(shown, "(a picture)");
    let caption = serde_json::json!({ "msgtype": "m.image", "body": "x", "filename": "a.jpg" });
    let hidden = gist("Alice", "m.room.message", &caption, |_| None);
    assert_eq!(hidden, "(a picture) (a text that cannot be shown here)");
}

#[test]
fn an_edit_of_a_sticker_is_quoted_as_one() {
    let file = serde_json::json!({ "url": "mxc://hs.test/x", "iv": "x", "key": { "k": "x" } });
    let edit = serde_json::json!({
        "body": "* duck", "file": file, "m.new_content": { "body": "duck", "file": file },
        "m.relates_to": { "rel_type": "m.replace", "event_id": "$one" },
    });
    let quote = quote_edit("Alice", "m.sticker", &edit, "$quote").unwrap();
    assert_eq!(quote.event_type, "m.room.message");
    assert_eq!(quote.content["body"], "* Alice sent a picture");
    assert_eq!(quote.content["m.new_content"]["msgtype"], "m.image");
}

#[test]
fn a_voice_message_is_one_under_its_stable_names() {
    let content = serde_json::json!({
        "msgtype": "m.audio", "body": "voice.ogg",
        "file": { "url": "mxc://hs.test/x", "iv": "x", "key": { "k": "x" } },
        "m.voice": {}, "m.audio": { "duration": 3000 },
    });
    let quote = quoted(content.clone());
    assert_eq!(quote["body"], "Alice sent a voice message");
    assert_eq!(quote["m.voice"], content["m.voice"]);
    assert_eq!(quote["m.audio"], content["m.audio"]);
}

#[test]
fn a_file_that_is_not_encrypted_is_told_from_one_that_is_missing() {
    let mut sticker = serde_json::json!({ "body": "duck" });
    let missing = check_quotable("m.sticker", &sticker);
    assert_eq!(missing, Err(QuoteError::Malformed));
    sticker["url"] = "mxc://hs.test/duck".into();
    let plain = check_quotable("m.sticker", &sticker);
    assert_eq!(plain, Err(QuoteError::PlainAttachment));
}

#[test]
fn of_a_gallery_not_only_the_caption_is_passed_on() {
    let gallery = serde_json::json!({
        "msgtype": "dm.filament.gallery", "body": "two pictures",
        "itemtypes": [{ "itemtype": "m.image", "file": { "url": "mxc://hs.test/x" } }],
    });
    let unknown = serde_json::json!({
        "msgtype": "org.example.album", "body": "two pictures", "pages": ["mxc://hs.test/x"],
    });
    for content in [gallery, unknown] {
        let quoted = quote("Alice", "m.room.message", &content);
        assert_eq!(quoted, Err(QuoteError::NotAMessage), "{content}");
    }
    let text = serde_json::json!({ "msgtype": "org.example.haiku", "body": "an old pond" });
    assert!(quote("Alice", "m.room.message", &text).is_ok());
}

#[test]
fn what_is_covered_in_a_text_stays_covered() {
    let message = |body: &str, html: &str| {
        serde_json::json!({ "msgtype": "m.text", "body": body,
            "format": "org.matrix.custom.html", "formatted_body": html })
    };
    let shown_of = |content: &serde_json::Value| {
        gist("Alice", "m.room.message", content, |text| {
            Some(text.to_owned())
        })
    };
    for (body, html, plain, quoted_html) in [
        // Element's `/spoiler`, and what the proposal asks for.
        (
            "he dies",
            "<span data-mx-spoiler>he dies</span>",
            "[spoiler]",
            "<span data-mx-spoiler=\"\">he dies</span>",
        ),
        (
            "[Spoiler for the end](mxc://hs.test/x), sadly",
            "<span data-mx-spoiler=\"the end\">he <b>d</b>ies</span>, sadly",
            "[spoiler: the end], sadly",
            "<span data-mx-spoiler=\"the end\">he dies</span>, sadly",
        ),
        (
            "so: he dies",
            "so: <span data-mx-spoiler=\"&quot;><b>\">he<br>&lt;dies></span>",
            "so: [spoiler: \"><b>]",
            "so: <span data-mx-spoiler=\"&quot;&gt;&lt;b&gt;\">he<br>&lt;dies&gt;</span>",
        ),
        ("open", "<b data-mx-spoilers>open</b>", "open", "open"),
    ] {
        let content = message(body, html);
        let quote = quoted(content.clone());
        assert_eq!(quote["body"], format!("Alice wrote:\n> {plain}"));
        let expected = format!("Alice wrote:<blockquote>{quoted_html}</blockquote>");
        assert_eq!(quote["formatted_body"], expected);
        assert_eq!(shown_of(&content), plain);
        let edit = serde_json::json!({ "msgtype": "m.text", "body": "* x", "m.new_content": content,
            "m.relates_to": { "rel_type": "m.replace", "event_id": "$one" } });
        assert_eq!(quoted(edit)["formatted_body"], expected);
    }
    // What cannot be covered is not passed on.
    for hidden in ["x".repeat(47_000), "\"".repeat(9_000)] {
        let content = message("x", &format!("<span data-mx-spoiler>{hidden}</span>"));
        let refused = quote("Alice", "m.room.message", &content);
        assert_eq!(refused, Err(QuoteError::NotAMessage));
    }
    let unread = message(
        "he dies",
        &format!("<b {}><i data-mx-spoiler>", "x".repeat(9_000)),
    );
    let refused = quote("Alice", "m.room.message", &unread);
    assert_eq!(refused, Err(QuoteError::Malformed));
    assert_eq!(shown_of(&unread), "(a text that cannot be shown here)");
}

#[test]
fn what_is_covered_in_a_caption_stays_covered() {
    let content = serde_json::json!({
        "msgtype": "m.image", "body": "he dies", "filename": "a.png", "file": file(),
        "format": "org.matrix.custom.html",
        "formatted_body": "<span data-mx-spoiler>he dies</span>",
    });
    let quote = quoted(content);
    assert_eq!(quote["body"], "Alice sent a picture: [spoiler]");
    assert_eq!(
        quote["formatted_body"],
        "Alice sent a picture:<blockquote><span data-mx-spoiler=\"\">he dies</span></blockquote>"
    );
}

#[test]
fn an_encrypted_file_that_nobody_can_open_is_not_passed_on() {
    let picture = |file: serde_json::Value| {
        let content = serde_json::json!({ "msgtype": "m.image", "body": "a.png", "file": file });
        check_quotable("m.room.message", &content)
    };
    assert_eq!(picture(file()), Ok(()));
    for (field, broken) in [
        ("url", serde_json::json!("https://far.example/x")),
        ("url", serde_json::json!("mxc://far.example")),
        ("url", serde_json::json!(7)),
        ("key", serde_json::json!(null)),
        ("key", serde_json::json!("a2V5")),
        ("key", serde_json::json!({ "k": "" })),
        ("iv", serde_json::json!(null)),
    ] {
        let mut file = file();
        file[field] = broken;
        assert_eq!(picture(file.clone()), Err(QuoteError::Malformed), "{file}");
    }
}

proptest! {
    /// A quote never breaks out of its frame, and is always an encrypted-room message we can send.
    #[test]
    fn a_quote_stays_in_its_frame(body in ".{0,400}", name in ".{0,80}") {
        prop_assume!(!is_blank(&body));
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
