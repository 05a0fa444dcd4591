//! What Element Web, Element X, Cinny and others send, and what becomes of it.

use serde_json::json;

use super::{ALICE, Direction, SAM, SAMUEL, to_sam, translated, with_context};
use crate::relay::{Alias, Context, SenderRemark, TranslateError, translate, without_profile_name};

#[test]
fn a_reply_of_element_web_with_a_mention() {
    let content = json!({
        "msgtype": "m.text",
        "body": "> <@_dm_sam:hs.test> is the lock dry?\n> second line\n\nAlice thinks so, sam",
        "format": "org.matrix.custom.html",
        "formatted_body": format!(
            "<mx-reply><blockquote><a href=\"https://matrix.to/#/!here:far.example/$one?via=far.example&via=hs.test\">In reply to</a> \
             <a href=\"https://matrix.to/#/{SAM}\">{SAM}</a><br>is the lock dry?</blockquote></mx-reply>\
             <a href=\"https://matrix.to/#/{ALICE}\">Alice</a> thinks <em>so</em>, <a href=\"https://matrix.to/#/{SAM}\">sam</a>"
        ),
        "m.mentions": { "user_ids": [SAM] },
        "m.relates_to": { "m.in_reply_to": { "event_id": "$one" } },
    });
    insta::assert_json_snapshot!(translated("m.room.message", content), @r#"
    {
      "body": "@Kim thinks so, @sam",
      "format": "org.matrix.custom.html",
      "formatted_body": "<a href=\"https://matrix.to/#/@_dm_.p2345672345672345:hs.test\">@Kim</a> thinks <em>so</em>, <a href=\"https://matrix.to/#/@samuel:hs.test\">@sam</a>",
      "m.mentions": {
        "user_ids": [
          "@samuel:hs.test"
        ]
      },
      "m.relates_to": {
        "m.in_reply_to": {
          "event_id": "$eins"
        }
      },
      "msgtype": "m.text"
    }
    "#);
}

#[test]
fn a_first_message_in_a_thread_of_element_x() {
    let content = json!({
        "msgtype": "m.text",
        "body": format!("[Sam](https://matrix.to/#/{SAM}) look at **this**"),
        "format": "org.matrix.custom.html",
        "formatted_body": format!("<p><a href=\"https://matrix.to/#/{SAM}\">Sam</a> look at <strong>this</strong></p>"),
        "m.mentions": { "user_ids": [SAM] },
        "m.relates_to": { "rel_type": "m.thread", "event_id": "$one", "is_falling_back": true,
                          "m.in_reply_to": { "event_id": "$one" } },
    });
    insta::assert_json_snapshot!(translated("m.room.message", content), @r#"
    {
      "body": "@sam look at **this**",
      "format": "org.matrix.custom.html",
      "formatted_body": "<p><a href=\"https://matrix.to/#/@samuel:hs.test\">@sam</a> look at <strong>this</strong></p>",
      "m.mentions": {
        "user_ids": [
          "@samuel:hs.test"
        ]
      },
      "m.relates_to": {
        "event_id": "$eins",
        "is_falling_back": true,
        "m.in_reply_to": {
          "event_id": "$eins"
        },
        "rel_type": "m.thread"
      },
      "msgtype": "m.text"
    }
    "#);
}

#[test]
fn an_edit_of_a_caption_in_an_encrypted_chat() {
    let caption = json!({
        "msgtype": "m.image", "filename": "IMG_1.jpg",
        "body": "the lock, seen by @alice.harbour:far.example",
        "file": { "v": "v2", "url": "mxc://far.example/AbCd_-12", "iv": "AAAA", "hashes": { "sha256": "BBBB" },
                  "key": { "alg": "A256CTR", "ext": true, "k": "CCCC", "key_ops": ["encrypt", "decrypt"], "kty": "oct" } },
        "info": { "w": 40, "h": 30, "size": 1200, "mimetype": "image/jpeg",
                  "xyz.amorgan.blurhash": "LEHV6nWB2yk8pyo0adR*.7kCMdnj",
                  "thumbnail_file": { "v": "v2", "url": "mxc://far.example/thumb" } },
    });
    let mut content = caption.clone();
    content["body"] = json!("* the lock");
    content["m.new_content"] = caption;
    content["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": "$two" });
    insta::assert_json_snapshot!(translated("m.room.message", content), @r#"
    {
      "body": "* the lock",
      "file": {
        "hashes": {
          "sha256": "BBBB"
        },
        "iv": "AAAA",
        "key": {
          "alg": "A256CTR",
          "ext": true,
          "k": "CCCC",
          "key_ops": [
            "encrypt",
            "decrypt"
          ],
          "kty": "oct"
        },
        "url": "mxc://far.example/AbCd_-12",
        "v": "v2"
      },
      "filename": "IMG_1.jpg",
      "info": {
        "h": 30,
        "mimetype": "image/jpeg",
        "size": 1200,
        "thumbnail_file": {
          "url": "mxc://far.example/thumb",
          "v": "v2"
        },
        "w": 40,
        "xyz.amorgan.blurhash": "LEHV6nWB2yk8pyo0adR*.7kCMdnj"
      },
      "m.new_content": {
        "body": "the lock, seen by @Kim",
        "file": {
          "hashes": {
            "sha256": "BBBB"
          },
          "iv": "AAAA",
          "key": {
            "alg": "A256CTR",
            "ext": true,
            "k": "CCCC",
            "key_ops": [
              "encrypt",
              "decrypt"
            ],
            "kty": "oct"
          },
          "url": "mxc://far.example/AbCd_-12",
          "v": "v2"
        },
        "filename": "IMG_1.jpg",
        "info": {
          "h": 30,
          "mimetype": "image/jpeg",
          "size": 1200,
          "thumbnail_file": {
            "url": "mxc://far.example/thumb",
            "v": "v2"
          },
          "w": 40,
          "xyz.amorgan.blurhash": "LEHV6nWB2yk8pyo0adR*.7kCMdnj"
        },
        "msgtype": "m.image"
      },
      "m.relates_to": {
        "event_id": "$zwei",
        "rel_type": "m.replace"
      },
      "msgtype": "m.image"
    }
    "#);
}

#[test]
fn a_poll_and_a_place_in_the_newer_form() {
    let poll = json!({
        "m.poll": {
            "kind": "m.disclosed", "max_selections": 1,
            "question": { "m.text": [{ "body": format!("Shall {ALICE} come?") }] },
            "answers": [{ "m.id": "1", "m.text": [{ "body": "yes" }] }, { "m.id": "2", "m.text": [{ "body": "no" }] }],
        },
        "m.text": [{ "mimetype": "text/html", "body": "Shall <a href='matrix:u/alice.harbour:far.example'>Al</a> come?" },
                   { "body": "Shall @alice.harbour:far.example come?" }],
    });
    insta::assert_json_snapshot!(translated("m.poll.start", poll), @r#"
    {
      "m.poll": {
        "answers": [
          {
            "m.id": "1",
            "m.text": [
              {
                "body": "yes"
              }
            ]
          },
          {
            "m.id": "2",
            "m.text": [
              {
                "body": "no"
              }
            ]
          }
        ],
        "kind": "m.disclosed",
        "max_selections": 1,
        "question": {
          "m.text": [
            {
              "body": "Shall @Kim come?"
            }
          ]
        }
      },
      "m.text": [
        {
          "body": "Shall <a href=\"https://matrix.to/#/@_dm_.p2345672345672345:hs.test\">@Kim</a> come?",
          "mimetype": "text/html"
        },
        {
          "body": "Shall @Kim come?"
        }
      ]
    }
    "#);
    let place = json!({
        "msgtype": "m.location", "body": "Location geo:51.5,-0.1;u=12 at 2026-11-24", "geo_uri": "geo:51.5,-0.1;u=12",
        "org.matrix.msc1767.text": "Location geo:51.5,-0.1;u=12 at 2026-11-24",
        "org.matrix.msc3488.asset": { "type": "m.self" },
        "org.matrix.msc3488.location": { "description": "me", "uri": "geo:51.5,-0.1;u=12" },
        "org.matrix.msc3488.ts": 1_795_000_000_000_u64,
    });
    assert_eq!(translated("m.room.message", place.clone()), place);
}

#[test]
fn profiles_that_clients_put_into_messages_stay_behind() {
    let out = translated(
        "m.room.message",
        json!({
            "msgtype": "m.text", "body": "hi",
            "com.beeper.per_message_profile": { "id": "x", "displayname": "Alice Harbour", "avatar_url": "mxc://far.example/face" },
            "m.per_message_profile": { "displayname": "Alice Harbour" },
            "io.element.whatever": { "user": "Alice Harbour" },
            "org.example.card": { "displayname": "Alice Harbour", "avatar_url": "mxc://far.example/face", "device_id": "D", "kept": 1 },
            "com.beeper.linkpreviews": [{ "matched_url": "https://example.org/", "og:title": "Example" }],
        }),
    );
    assert_eq!(
        out,
        json!({
            "msgtype": "m.text", "body": "hi",
            "org.example.card": { "kept": 1 },
            "com.beeper.linkpreviews": [{ "matched_url": "https://example.org/", "og:title": "Example" }],
        })
    );
}

#[test]
fn the_name_that_a_profile_puts_into_the_words_stays_behind() {
    let profile = json!({ "id": "x", "displayname": "Alice Harbour", "has_fallback": true });
    let html = "<strong data-mx-profile-fallback>Alice Harbour: </strong>hi";
    let message = |msgtype: &str, body: &str, html: &str| {
        json!({ "msgtype": msgtype, "body": body, "format": "org.matrix.custom.html",
                "formatted_body": html, "com.beeper.per_message_profile": profile })
    };
    let mut edit = message("m.text", "* Alice Harbour: hi", html);
    edit["m.new_content"] = message("m.text", "Alice Harbour: hi", html);
    edit["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": "$one" });
    let mut caption = message("m.image", "Alice Harbour: hi", html);
    caption["filename"] = json!("a.png");
    caption["url"] = json!("mxc://hs.test/a");
    for (content, body) in [
        (message("m.text", "Alice Harbour: hi", html), "hi"),
        (
            message(
                "m.text",
                "**Alice Harbour:** hi",
                "<b>Alice</b> <b>Harbour</b>: hi",
            ),
            "hi",
        ),
        (
            message("m.text", "Alice Harbour:\u{a0}hi", "Alice Harbour: hi"),
            "hi",
        ),
        (
            message("m.emote", "* Alice Harbour hi", "Alice Harbour hi"),
            "hi",
        ),
        (edit, "* hi"),
        (caption, "hi"),
    ] {
        let out = translated("m.room.message", content);
        assert_eq!(out["body"], body);
        let html = out["formatted_body"].as_str().unwrap();
        assert!(html.ends_with("hi"), "{html}");
        assert!(!out.to_string().contains("Harbour"), "{out}");
    }
    let out = translated(
        "org.matrix.msc3381.poll.start",
        json!({
            "m.text": [{ "body": "Alice Harbour: hi" }],
            "org.matrix.msc3381.poll.start": {
                "question": { "org.matrix.msc1767.text": "Alice Harbour: hi" } },
            "m.per_message_profile": { "id": "Alice Harbour" },
        }),
    );
    assert!(!out.to_string().contains("Harbour"), "{out}");
    let content = message("m.text", "Alice Harbour: hi", html);
    assert_eq!(without_profile_name(&content, "Alice Harbour: hi"), "hi");
    // Another name is a word of the text.
    let other = message("m.text", "Alice Harbours: hi", "Alice Harbours: hi");
    assert_eq!(
        translated("m.room.message", other)["body"],
        "Alice Harbours: hi"
    );
}

#[test]
fn a_quote_is_taken_out_whole_however_it_is_closed() {
    let link = "<a href=\"https://matrix.to/#/!here:far.example/$one\">In reply to</a>";
    let nested = format!(
        "<mx-reply><blockquote>{link}<br><mx-reply><blockquote>older words</blockquote></mx-reply>\
         middle words</blockquote></mx-reply>new words"
    );
    for (html, shown) in [
        (nested.clone(), Some("new words")),
        (nested.replace("</mx-reply>", ""), Some("new words")),
        (
            format!("<mx-reply>{nested}</mx-reply>new words"),
            Some("new words"),
        ),
        (
            "<mx-reply><blockquote>old</blockquote>new words".to_owned(),
            Some("new words"),
        ),
        ("<mx-reply> new words".to_owned(), Some(" new words")),
        (format!("<mx-reply>{link} old words"), None),
        ("<mx-reply><blockquote>old words".to_owned(), None),
        ("new words<script>x".to_owned(), Some("new words")),
        ("<script>x</script>".to_owned(), None),
    ] {
        let content = json!({ "msgtype": "m.text", "format": "org.matrix.custom.html",
            "body": format!("> <{SAM}> > older words\n> middle words\n\nnew words"),
            "formatted_body": html, "m.relates_to": { "m.in_reply_to": { "event_id": "$one" } } });
        let out = translated("m.room.message", content);
        assert_eq!(out["body"], "new words", "{html}");
        assert_eq!(out["formatted_body"].as_str(), shown, "{html}");
        assert_eq!(out.get("format").is_some(), shown.is_some(), "{html}");
    }
}

#[test]
fn a_name_in_any_script_is_mentioned_as_it_is() {
    let out = with_context(Direction::ToSam, true, |context| {
        let aliases: Vec<Alias> = context
            .aliases
            .iter()
            .map(|alias| Alias {
                name: "सुनीता".to_owned(),
                ..alias.clone()
            })
            .collect();
        let context = Context {
            aliases: &aliases,
            ..context.clone()
        };
        let content = json!({ "msgtype": "m.text", "body": format!("I am {ALICE}") });
        translate("m.room.message", &content, &context)
    });
    assert_eq!(out.unwrap().unwrap().content["body"], "I am @सुनीता");
}

#[test]
fn links_lead_to_the_same_place_in_the_other_room() {
    let html = |html: &str| {
        let content = json!({ "msgtype": "m.text", "body": "x", "format": "org.matrix.custom.html", "formatted_body": html });
        let out = translated("m.room.message", content);
        out["formatted_body"].as_str().unwrap().to_owned()
    };
    for (source, target) in [
        (
            "<a href=\"https://matrix.to/#/!here:far.example/$one?via=far.example\">that</a>",
            "<a href=\"https://matrix.to/#/!there:hs.test/$eins\">that</a>",
        ),
        (
            "<a href=\"matrix:roomid/here:far.example/e/one?via=far.example\">that</a>",
            "<a href=\"https://matrix.to/#/!there:hs.test/$eins\">that</a>",
        ),
        (
            "<a href=\"https://matrix.to/#/%21here%3Afar.example\">here</a>",
            "<a href=\"https://matrix.to/#/!there:hs.test\">here</a>",
        ),
        (
            "<a href=\"https://matrix.to/#/!here:far.example/$gone\">that</a>",
            "that",
        ),
        (
            "<a href=\"https://matrix.to/#/#lounge:elsewhere.example?via=far.example&amp;via=x.example\">lounge</a>",
            "<a href=\"https://matrix.to/#/#lounge:elsewhere.example?via=x.example\">lounge</a>",
        ),
        (
            "<a href=\"https://example.org/?u=@alice.harbour:far.example\">my page</a>",
            "my page",
        ),
        (
            "see matrix.to/#/#lounge:elsewhere.example?via=far.example",
            "see matrix.to/#/#lounge:elsewhere.example",
        ),
        (
            "<a href=\"javascript:alert(1)\" onclick=\"x\">press</a>",
            "press",
        ),
        (
            "<a href=\"https://matrix.to/#/@bob:elsewhere.example\">Bob</a>",
            "<a href=\"https://matrix.to/#/@bob:elsewhere.example\">Bob</a>",
        ),
        (
            "<a href=\"https://chat.far.example/#/user/@alice.harbour:far.example\">me</a>",
            "<a href=\"https://matrix.to/#/@_dm_.p2345672345672345:hs.test\">@Kim</a>",
        ),
    ] {
        assert_eq!(html(source), target, "{source}");
    }
    let text = |body: &str| {
        let out = translated(
            "m.room.message",
            json!({ "msgtype": "m.text", "body": body }),
        );
        out["body"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        text("see https://matrix.to/#/!here:far.example/$one?via=far.example, and that"),
        "see https://matrix.to/#/!there:hs.test/$eins, and that"
    );
    assert_eq!(
        text(
            "[me](https://matrix.to/#/@alice.harbour:far.example) and (matrix:u/alice.harbour:far.example)"
        ),
        "@Kim and (@Kim)"
    );
    assert_eq!(text("I am in !here:far.example"), "I am in (this chat)");
    assert_eq!(
        text("write to @bob:far.example or @bob:elsewhere.example"),
        "write to @bob:far.example or @bob:elsewhere.example"
    );
    let plain =
        "100% & <3, 2 < 3; a\\b %zz &unknown; @nobody ünï 🦆 https://example.org/%20?x=1&y=2#z";
    assert_eq!(text(plain), plain);
}

#[test]
fn html_is_what_the_spec_lists_and_nothing_else() {
    let html = |source: &str| {
        let content = json!({ "msgtype": "m.text", "body": "x", "formatted_body": source });
        let out = translated("m.room.message", content);
        let html = out["formatted_body"].as_str();
        html.unwrap_or_else(|| panic!("{source:.200} becomes {out:?}"))
            .to_owned()
    };
    for (source, target) in [
        (
            "<h1>a</h1><ul><li>b<li>c</ul>",
            "<h1>a</h1><ul><li>b<li>c</li></li></ul>",
        ),
        (
            "<pre><code class=\"language-rust x\">a &lt; b</code></pre>",
            "<pre><code class=\"language-rust\">a &lt; b</code></pre>",
        ),
        (
            "<span data-mx-spoiler=\"it is @alice.harbour:far.example\">x</span>",
            "<span data-mx-spoiler=\"it is @Kim\">x</span>",
        ),
        (
            "<img data-mx-emoticon src=\"mxc://far.example/duck\" alt=\":duck:\" height=\"32\" onerror=\"x\">",
            "<img data-mx-emoticon src=\"mxc://far.example/duck\" alt=\":duck:\" height=\"32\">",
        ),
        (
            "<img src=\"https://far.example/pixel.png\" alt=\"a duck\">",
            "a duck",
        ),
        (
            "<script>'@alice.harbour:far.example'</script><style>x</style>a<!-- b -->c",
            "ac",
        ),
        (
            "<font color=\"#ff0000\" data-mx-color=\"#ff0000\" data-mx-me=\"Alice\">red</font>",
            "<font color=\"#ff0000\" data-mx-color=\"#ff0000\">red</font>",
        ),
        (
            "<font color=\"xALICESDEVICE\" data-mx-color=\"ALICESDEVICE\">red</font>",
            "<font>red</font>",
        ),
        (
            "<code>@alice.harbour:far.example</code>",
            "<code>@Kim</code>",
        ),
        (
            "@alice.<b>harbour:far</b>.example!",
            "<a href=\"https://matrix.to/#/@_dm_.p2345672345672345:hs.test\">@Kim</a><b></b>!",
        ),
        ("</b></div>a</p>", "a"),
        (
            "<a href=\"https://example.org/\">one <a href=\"https://matrix.to/#/@_dm_sam:hs.test\">sam</a> two</a>",
            "<a href=\"https://example.org/\">one </a><a href=\"https://matrix.to/#/@samuel:hs.test\">@sam</a> two",
        ),
    ] {
        assert_eq!(html(source), target, "{source}");
    }
    // Any depth is cut to that of the spec and costs no stack.
    let deep = html(&("<b>".repeat(10_000) + "x"));
    assert_eq!(deep.matches("<b>").count(), 100);
    assert_eq!(deep.matches("</b>").count(), 100);
}

#[test]
fn a_message_too_long_with_its_formatting_goes_without() {
    let content = json!({ "msgtype": "m.text", "body": "x".repeat(30_000),
        "format": "org.matrix.custom.html", "formatted_body": format!("<b>{}</b>", "x".repeat(30_000)) });
    let out = to_sam("m.room.message", &content).unwrap().unwrap();
    assert_eq!(out.remarks, [SenderRemark::WithoutFormatting]);
    assert!(out.content.get("formatted_body").is_none());
    assert!(out.content.get("format").is_none());
    // Many short names that become long ones.
    let content = json!({ "msgtype": "m.text", "body": format!("{ALICE} ").repeat(1500) });
    assert!(to_sam("m.room.message", &content).is_ok());
    let content = json!({ "msgtype": "m.text", "body": "é".repeat(24_000) });
    assert_eq!(
        to_sam("m.room.message", &content),
        Err(TranslateError::TooLong)
    );
}

#[test]
fn a_long_text_with_an_open_bracket_is_no_html() {
    let body = format!("for i <n; {}", "do something & so on ".repeat(900));
    let out = translated(
        "m.room.message",
        json!({ "msgtype": "m.text", "body": body }),
    );
    assert_eq!(out["body"], body);
}

#[test]
fn what_reaches_over_several_links_goes_as_a_whole() {
    let text = |body: String| {
        let content = json!({ "msgtype": "m.text", "body": body });
        translated("m.room.message", content)["body"].clone()
    };
    // Encoded so often that nobody can say what it says.
    let twisted = format!(
        "%{} https://matrix.to/#/#a:x.example https://matrix.to/#/#lounge:y.example?via=far.example rest",
        "25".repeat(60)
    );
    assert_eq!(text(twisted), "…");
    let split = format!("@alice.harb<b x=[>our:far.example](https://matrix.to/#/{ALICE}) rest");
    assert_eq!(text(split), "@Kim rest");
    // An address of content is left alone, unless it is none.
    let url = |url: &str| {
        let content = json!({ "msgtype": "m.file", "body": "a", "url": "mxc://far.example/x",
            "thumbnail_url": url });
        translated("m.room.message", content)["thumbnail_url"].clone()
    };
    assert_eq!(url("mxc://far.example/abc"), "mxc://far.example/abc");
    assert_eq!(url("mxc://alice.harbour:far.example/abc"), "…");
}

#[test]
fn a_thread_that_is_forgotten_leaves_the_reply_in_it() {
    let thread = |falls_back: bool| {
        let content = json!({ "msgtype": "m.text", "body": "x", "m.relates_to": {
            "rel_type": "m.thread", "event_id": "$gone", "is_falling_back": falls_back,
            "m.in_reply_to": { "event_id": "$one" } } });
        to_sam("m.room.message", &content).unwrap().unwrap()
    };
    let out = thread(false);
    assert_eq!(out.remarks, [SenderRemark::WithoutThread]);
    assert_eq!(
        out.content["m.relates_to"],
        json!({ "m.in_reply_to": { "event_id": "$eins" } })
    );
    assert!(thread(true).content.get("m.relates_to").is_none());
}

#[test]
fn nothing_is_said_of_what_clients_do_among_themselves() {
    for kind in [
        "m.dummy",
        "m.room_key.withheld",
        "m.room.encrypted",
        "io.element.call.encryption_keys",
    ] {
        assert_eq!(to_sam(kind, &json!({ "x": 1 })), Ok(None), "{kind}");
    }
}

#[test]
fn what_is_typed_about_somebody_else_is_theirs_to_say() {
    // Sam's own name in his own words is as much a name of his as his Matrix ID is not.
    let out = with_context(Direction::ToAlice, true, |context| {
        let content = json!({ "msgtype": "m.text", "body": format!("Samuel here, not {SAMUEL}") });
        translate("m.room.message", &content, context)
            .unwrap()
            .unwrap()
    });
    assert_eq!(out.content["body"], "Samuel here, not @sam");
}
