use serde_json::{Value, json};

use super::{ALICE, Direction, GHOST, SAM, SAMUEL, to_sam, translated, with_context};
use crate::relay::{
    MediaUse, Names, SenderRemark, TOPIC_CHARS_MAX, TranslateError, media::media_in, remove_media,
    translate, translate_room_text,
};

#[test]
fn text_of_every_kind_passes_as_it_is() {
    for content in [
        json!({ "msgtype": "m.text", "body": "the heron stands" }),
        json!({ "msgtype": "m.notice", "body": "a notice", "m.mentions": {} }),
        json!({ "msgtype": "m.emote", "body": "waves" }),
        json!({ "msgtype": "m.text", "body": "bold", "format": "org.matrix.custom.html",
                "formatted_body": "<strong>bold</strong>" }),
        json!({ "msgtype": "m.location", "body": "here", "geo_uri": "geo:51.5,0.1" }),
        json!({ "msgtype": "m.new.kind", "body": "who knows", "number": 7 }),
    ] {
        assert_eq!(translated("m.room.message", content.clone()), content);
    }
    let unknown = json!({ "value": [1, "two", { "three": null }] });
    assert_eq!(translated("org.example.unknown", unknown.clone()), unknown);
}

#[test]
fn files_pass_by_their_reference_and_voice_keeps_its_waveform() {
    let file = json!({
        "url": "mxc://far.example/abcdef", "iv": "AAAA", "hashes": { "sha256": "BBBB" },
        "key": { "alg": "A256CTR", "ext": true, "k": "CCCC", "key_ops": ["decrypt"], "kty": "oct" },
        "v": "v2",
    });
    let voice = json!({
        "msgtype": "m.audio", "body": "Voice message", "file": file,
        "info": { "duration": 3000, "mimetype": "audio/ogg", "size": 1234 },
        "org.matrix.msc1767.audio": { "duration": 3000, "waveform": [0, 512, 1024] },
        "org.matrix.msc3245.voice": {},
    });
    assert_eq!(translated("m.room.message", voice.clone()), voice);
    let picture = json!({
        "msgtype": "m.image", "body": "harbour.png", "filename": "harbour.png", "file": file,
        "info": { "w": 2, "h": 2, "thumbnail_file": file, "xyz.amorgan.blurhash": "LEHV6n" },
    });
    assert_eq!(translated("m.room.message", picture.clone()), picture);
    let sticker = json!({ "body": "duck", "info": {}, "url": "mxc://far.example/duck" });
    assert_eq!(translated("m.sticker", sticker.clone()), sticker);
}

#[test]
fn what_names_another_homeserver_is_to_be_uploaded_again() {
    let content = json!({
        "msgtype": "m.image", "body": "a.png",
        "file": { "url": "mxc://far.example/abc", "key": { "k": "CCCC" }, "iv": "AAAA" },
        "info": { "thumbnail_file": { "url": "mxc://far.example/def" } },
    });
    assert_eq!(
        to_reupload("m.room.message", &content),
        [
            "/file/url Message application/octet-stream",
            "/info/thumbnail_file/url Extra application/octet-stream"
        ]
    );
    let sticker = json!({ "body": "duck", "url": "mxc://far.example/duck",
        "info": { "mimetype": "image/png", "thumbnail_url": "mxc://far.example/small",
                  "thumbnail_info": { "mimetype": "image/webp; name=alice" } } });
    assert_eq!(
        to_reupload("m.sticker", &sticker),
        [
            "/url Message image/png",
            "/info/thumbnail_url Extra as downloaded"
        ]
    );
    let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": "$one",
        "key": "mxc://far.example/duck" } });
    assert_eq!(
        to_reupload("m.reaction", &reaction),
        ["/m.relates_to/key Message as downloaded"]
    );
    let gallery = json!({ "msgtype": "dm.filament.gallery", "body": "two",
        "com.beeper.linkpreviews": [{ "og:image": "mxc://far.example/preview", "og:image:type": "image/gif" }],
        "itemtypes": [{ "url": "mxc://far.example/a", "info": { "mimetype": "video/mp4" } },
                      { "file": { "url": "mxc://far.example/b" } }] });
    assert_eq!(
        to_reupload("m.room.message", &gallery),
        [
            "/itemtypes/0/url Message video/mp4",
            "/itemtypes/1/file/url Message application/octet-stream",
            "/com.beeper.linkpreviews/0/og:image Extra image/gif"
        ]
    );
    let inner = json!({ "itemtype": "m.gallery",
        "itemtypes": [{ "file": { "url": "mxc://far.example/a" },
                        "info": { "thumbnail_file": { "url": "mxc://far.example/small" } } }] });
    let galleries = json!({ "msgtype": "com.beeper.gallery", "body": "two", "itemtypes": [inner],
        "com.beeper.gallery.images": [
            { "msgtype": "m.image", "url": "mxc://far.example/b" },
            { "msgtype": "m.image", "file": { "url": "mxc://far.example/c" } }] });
    assert_eq!(
        to_reupload("m.room.message", &galleries),
        [
            "/com.beeper.gallery.images/0/url Message as downloaded",
            "/com.beeper.gallery.images/1/file/url Message application/octet-stream",
            "/itemtypes/0/itemtypes/0/file/url Message application/octet-stream",
            "/itemtypes/0/itemtypes/0/info/thumbnail_file/url Extra application/octet-stream"
        ]
    );
}

#[test]
fn a_gallery_loses_thumbnails_before_it_is_refused_for_its_files() {
    let gallery = |files: usize| {
        let file = |n: usize| {
            json!({ "file": { "url": format!("mxc://far.example/f{n}") },
                    "info": { "thumbnail_file": { "url": format!("mxc://far.example/t{n}") } } })
        };
        json!({ "msgtype": "dm.filament.gallery", "body": "many",
                "itemtypes": (0..files).map(file).collect::<Vec<_>>() })
    };
    let kept = to_reupload("m.room.message", &gallery(11));
    let count = |used: &str| kept.iter().filter(|it| it.contains(used)).count();
    assert_eq!((count(" Message "), count(" Extra ")), (11, 9));
    assert_eq!(to_reupload("m.room.message", &gallery(20)).len(), 20);
    // What is taken out of a list would move a file away from its place, and its address would stay.
    let in_lists = json!({ "msgtype": "dm.filament.gallery", "body": "many",
        "a": vec!["mxc://far.example/e"; 20],
        "itemtypes": ["mxc://far.example/x", { "itemtype": "m.image", "url": "mxc://far.example/m" }] });
    for refused in [gallery(21), in_lists] {
        let refused = with_context(Direction::ToSam, true, |context| {
            let context = crate::relay::Context {
                homeserver: ruma::server_name!("hs.test"),
                ..context.clone()
            };
            translate("m.room.message", &refused, &context)
        });
        assert_eq!(refused.unwrap_err(), TranslateError::TooManyFiles);
    }
}

#[test]
fn what_a_message_can_do_without_goes_with_what_is_said_of_it() {
    let mut content = json!({
        "msgtype": "m.image", "body": "a.png", "file": { "url": "mxc://far.example/abc" },
        "info": { "w": 2, "thumbnail_file": { "url": "mxc://far.example/def" }, "thumbnail_info": { "w": 1 } },
        "com.beeper.linkpreviews": [
            { "og:title": "Example", "og:image": "mxc://far.example/one", "og:image:width": 7 },
            { "og:title": "Example", "beeper:image:encryption": { "url": "mxc://far.example/two" }, "matrix:image:size": 9 },
        ],
        "org.example.pictures": ["mxc://far.example/three", "mxc://far.example/four"],
    });
    let media = media_in(&content);
    for media in media
        .iter()
        .rev()
        .filter(|it| it.used_as == MediaUse::Extra)
    {
        remove_media(&mut content, media);
    }
    assert_eq!(
        content,
        json!({
            "msgtype": "m.image", "body": "a.png", "file": { "url": "mxc://far.example/abc" },
            "info": { "w": 2 },
            "com.beeper.linkpreviews": [{ "og:title": "Example" }, { "og:title": "Example" }],
            "org.example.pictures": [],
        })
    );
}

/// Returns what has to be uploaded again, with its use and its type.
fn to_reupload(kind: &str, content: &Value) -> Vec<String> {
    let media_to_reupload = with_context(Direction::ToSam, true, |context| {
        let context = crate::relay::Context {
            homeserver: ruma::server_name!("hs.test"),
            ..context.clone()
        };
        let translated = translate(kind, content, &context).unwrap().unwrap();
        translated.media_to_reupload
    });
    let described = media_to_reupload.iter().map(|it| {
        let kind = it.content_type.as_deref().unwrap_or("as downloaded");
        format!("{} {:?} {kind}", it.pointer, it.used_as)
    });
    described.collect()
}

/// A client asks its homeserver for what it shows, and that one asks the server of the address.
#[test]
fn no_third_server_sees_who_looks_at_a_message() {
    let content = json!({
        "msgtype": "m.image", "body": "mxc://third.example/named",
        "url": "mxc://third.example/duck",
        "info": {"thumbnail_url": "mxc://third.example/duck#small"},
        "format": "org.matrix.custom.html",
        "formatted_body": "a <img data-mx-emoticon src=\"mxc://third.example/x\" alt=\":duck:\">",
    });
    let out = to_sam("m.room.message", &content).unwrap().unwrap();
    let places: Vec<&str> = out
        .media_to_reupload
        .iter()
        .map(|it| it.pointer.as_str())
        .collect();
    assert_eq!(places, ["/url"]);
    assert_eq!(out.content["info"]["thumbnail_url"], "…");
    let html = out.content["formatted_body"].as_str().unwrap();
    assert!(
        !html.contains("third.example") && html.contains(":duck:"),
        "{html}"
    );
    assert_eq!(out.content["body"], content["body"], "text is text");
}

#[test]
fn replies_threads_edits_and_reactions_find_their_counterparts() {
    let reply = translated(
        "m.room.message",
        json!({
            "msgtype": "m.text",
            "body": format!("> <{SAM}> the lock is dry\n\nso it is"),
            "format": "org.matrix.custom.html",
            "formatted_body": format!("<mx-reply><blockquote><a href=\"https://matrix.to/#/!here:far.example/$one\">In reply to</a> <a href=\"https://matrix.to/#/{SAM}\">{SAM}</a><br>the lock is dry</blockquote></mx-reply>so it is"),
            "m.relates_to": { "m.in_reply_to": { "event_id": "$one" } },
        }),
    );
    assert_eq!(reply["body"], "so it is");
    assert_eq!(reply["formatted_body"], "so it is");
    assert_eq!(reply["m.relates_to"]["m.in_reply_to"]["event_id"], "$eins");

    let thread = translated(
        "m.room.message",
        json!({ "msgtype": "m.text", "body": "in a thread", "m.relates_to": {
            "rel_type": "m.thread", "event_id": "$one", "is_falling_back": true,
            "m.in_reply_to": { "event_id": "$two" },
        } }),
    );
    assert_eq!(
        thread["m.relates_to"],
        json!({ "rel_type": "m.thread", "event_id": "$eins", "is_falling_back": true,
                "m.in_reply_to": { "event_id": "$zwei" } })
    );

    let edit = translated(
        "m.room.message",
        json!({ "msgtype": "m.text", "body": "* new", "m.new_content": { "msgtype": "m.text", "body": "new" },
                "m.relates_to": { "rel_type": "m.replace", "event_id": "$two" } }),
    );
    assert_eq!(edit["m.new_content"]["body"], "new");
    assert_eq!(
        edit["m.relates_to"],
        json!({ "rel_type": "m.replace", "event_id": "$zwei" })
    );

    let reaction =
        json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": "$one", "key": "🦆" } });
    let out = translated("m.reaction", reaction);
    assert_eq!(out["m.relates_to"]["event_id"], "$eins");
    assert_eq!(out["m.relates_to"]["key"], "🦆");
}

#[test]
fn polls_pass_with_their_answers_and_their_end() {
    let start = json!({
        "org.matrix.msc1767.text": "Tea?\n1. yes\n2. no",
        "org.matrix.msc3381.poll.start": {
            "kind": "org.matrix.msc3381.poll.disclosed", "max_selections": 1,
            "question": { "org.matrix.msc1767.text": "Tea?", "body": "Tea?", "msgtype": "m.text" },
            "answers": [
                { "id": "a1", "org.matrix.msc1767.text": "yes" },
                { "id": "a2", "org.matrix.msc1767.text": "no" },
            ],
        },
    });
    assert_eq!(
        translated("org.matrix.msc3381.poll.start", start.clone()),
        start
    );
    let response = |event: &str| {
        json!({ "m.relates_to": { "rel_type": "m.reference", "event_id": event },
                "org.matrix.msc3381.poll.response": { "answers": ["a1"] } })
    };
    let out = translated("org.matrix.msc3381.poll.response", response("$poll"));
    assert_eq!(out["m.relates_to"]["event_id"], "$umfrage");
    assert_eq!(
        out["org.matrix.msc3381.poll.response"]["answers"],
        json!(["a1"])
    );
    let lost = to_sam("org.matrix.msc3381.poll.response", &response("$gone"));
    assert_eq!(lost, Err(TranslateError::PollTarget));
}

#[test]
fn what_refers_to_something_forgotten_goes_without_it_and_its_sender_is_told() {
    let reply = json!({ "msgtype": "m.text", "body": "so it is",
        "m.relates_to": { "m.in_reply_to": { "event_id": "$gone" } } });
    let out = to_sam("m.room.message", &reply).unwrap().unwrap();
    assert_eq!(out.remarks, [SenderRemark::WithoutReply]);
    assert_eq!(
        out.content,
        json!({ "msgtype": "m.text", "body": "so it is" })
    );
    let edit = json!({ "msgtype": "m.text", "body": "* new",
        "m.new_content": { "msgtype": "m.text", "body": "new" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": "$gone" } });
    let out = to_sam("m.room.message", &edit).unwrap().unwrap();
    assert_eq!(out.remarks, [SenderRemark::EditAsNew]);
    assert_eq!(out.content["body"], "new");
    let reaction =
        json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": "$gone", "key": "x" } });
    assert_eq!(
        to_sam("m.reaction", &reaction),
        Err(TranslateError::ReactionTarget)
    );
}

#[test]
fn people_are_named_as_they_are_known_on_the_other_side() {
    let out = translated(
        "m.room.message",
        json!({
            "msgtype": "m.text",
            "body": format!("I am {ALICE}, and you are {SAM}"),
            "format": "org.matrix.custom.html",
            "formatted_body": format!(
                "I am <a href=\"https://matrix.to/#/{ALICE}\">Alice</a>, and you are \
                 <a href=\"https://matrix.to/#/{SAM}\">@sam</a>"
            ),
            "m.mentions": { "user_ids": [SAM, ALICE, "@stranger:elsewhere.example"] },
        }),
    );
    let all = out.to_string();
    assert!(!all.contains("alice.harbour"), "{all}");
    assert_eq!(
        out["m.mentions"]["user_ids"],
        json!([SAMUEL, GHOST, "@stranger:elsewhere.example"])
    );
    assert!(out["body"].as_str().unwrap().contains("@Kim"), "{out}");
    let html = out["formatted_body"].as_str().unwrap();
    assert!(html.contains(SAMUEL) && html.contains(GHOST), "{html}");
}

#[test]
fn what_cannot_cross_is_refused_with_words() {
    for (kind, content, why) in [
        ("m.beacon", json!({ "x": 1 }), TranslateError::LiveLocation),
        (
            "org.matrix.msc4075.rtc.notification",
            json!({ "x": 1 }),
            TranslateError::MatrixRtc,
        ),
        (
            "m.key.verification.request",
            json!({ "x": 1 }),
            TranslateError::Verification,
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.key.verification.request", "body": "" }),
            TranslateError::Verification,
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.text", "body": "x".repeat(70_000) }),
            TranslateError::TooLong,
        ),
        (
            "m.room.message",
            json!(["no", "object"]),
            TranslateError::Malformed,
        ),
    ] {
        assert_eq!(to_sam(kind, &content), Err(why), "{kind}");
        assert!(why.notice_text().len() > 40, "{why:?}");
    }
    let mut deep = json!(1);
    for _ in 0..120 {
        deep = json!([deep]);
    }
    let deep = json!({ "body": deep });
    assert_eq!(
        to_sam("m.room.message", &deep),
        Err(TranslateError::TooDeep)
    );
    // Nothing is left of what was redacted.
    assert_eq!(to_sam("m.room.message", &json!({})), Ok(None));
}

#[test]
fn names_and_topics_of_rooms_name_nobody() {
    let out = with_context(Direction::ToSam, true, |context| {
        let topic = format!("{ALICE} and friends");
        translate_room_text(&topic, context, &Names::default(), TOPIC_CHARS_MAX)
    });
    assert_eq!(out.as_deref(), Some("@Kim and friends"));
}

#[test]
fn what_comes_back_is_named_the_other_way_round() {
    let content = json!({ "msgtype": "m.text", "body": format!("{SAMUEL} to {GHOST}"),
                          "m.mentions": { "user_ids": [GHOST] } });
    let out = with_context(Direction::ToAlice, true, |context| {
        translate("m.room.message", &content, context)
            .unwrap()
            .unwrap()
            .content
    });
    assert!(!out.to_string().contains("samuel"), "{out}");
    assert_eq!(out["m.mentions"]["user_ids"], json!([ALICE]));
    assert_ne!(out, Value::Null);
}

#[test]
fn no_field_is_named_by_the_address_of_media_elsewhere() {
    let packs = json!({
        "mxc://far.example/duck": { "room_id": "!here:far.example" },
        "mxc://third.example/duck": {}, " MXC://far.example/x": {}, "mxc://hs.test/duck": {},
        "plain": { "list": [{ "mxc://far.example/duck": 1 }] },
    });
    let content = json!({ "body": "duck", "url": "mxc://far.example/duck", "packs": packs });
    let out = with_context(Direction::ToSam, true, |context| {
        let context = crate::relay::Context {
            homeserver: ruma::server_name!("hs.test"),
            ..context.clone()
        };
        translate("m.sticker", &content, &context)
    });
    let packs = &out.unwrap().unwrap().content["packs"];
    let expected = json!({ "mxc://hs.test/duck": {}, "plain": { "list": [{}] } });
    assert_eq!(*packs, expected);
}

#[test]
fn a_file_whose_address_cannot_be_passed_on_is_refused() {
    for uri in [
        "mxc://far.example",
        "mxc:///x",
        "mxc://far.example/../x",
        "MXC://far.example/x",
        " mxc://far.example/x",
    ] {
        let file = json!({ "msgtype": "m.file", "body": "x", "file": { "url": uri } });
        let edit = json!({ "msgtype": "m.file", "body": "x", "m.new_content": file,
            "m.relates_to": { "rel_type": "m.replace", "event_id": "$one" } });
        let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": "$one",
            "key": uri } });
        for (kind, content) in [
            ("m.room.message", file),
            ("m.room.message", edit),
            ("m.sticker", json!({ "body": "x", "url": uri })),
            ("m.reaction", reaction),
        ] {
            assert_eq!(
                to_sam(kind, &content),
                Err(TranslateError::Malformed),
                "{content}"
            );
        }
        // A message can do without its thumbnail.
        let video = json!({ "msgtype": "m.video", "body": "x", "url": "mxc://far.example/x",
            "info": { "thumbnail_url": uri } });
        assert!(to_sam("m.room.message", &video).is_ok(), "{uri}");
    }
    let said = json!({ "msgtype": "m.text", "body": "mxc:broken", "org.example.note": "mxc:" });
    assert!(to_sam("m.room.message", &said).is_ok());
}

#[test]
fn an_encrypted_file_that_nobody_can_open_is_refused() {
    let file = json!({ "url": "mxc://far.example/x", "key": { "k": "CCCC" }, "iv": "AAAA" });
    let picture = |file: &Value| json!({ "msgtype": "m.image", "body": "x", "file": file });
    assert!(to_sam("m.room.message", &picture(&file)).is_ok());
    for (field, broken) in [
        ("url", json!("https://far.example/x")),
        ("url", json!(null)),
        ("key", json!(null)),
        ("key", json!("CCCC")),
        ("iv", json!(null)),
    ] {
        let mut file = file.clone();
        file[field] = broken;
        let edit = json!({ "msgtype": "m.image", "body": "x", "m.new_content": picture(&file),
            "m.relates_to": { "rel_type": "m.replace", "event_id": "$one" } });
        let gallery = json!({ "msgtype": "dm.filament.gallery", "body": "x",
            "itemtypes": [{ "itemtype": "m.image", "file": file }] });
        for content in [picture(&file), edit, gallery] {
            let refused = to_sam("m.room.message", &content);
            assert_eq!(refused, Err(TranslateError::Malformed), "{content}");
        }
    }
}

#[test]
fn a_link_in_markdown_is_replaced_whole() {
    let link = format!("https://matrix.to/#/{SAM}");
    let html = format!("<a href=\"{link}\">sam</a>: look");
    for (body, expected) in [
        (format!("[sam]({link}): look"), "@sam: look"),
        (format!("see [x] [Sam [the] sam]({link})"), "see [x] @sam"),
        (format!("[sam ]]({link})"), "@sam"),
        (
            "[Spoiler](mxc://far.example/x)!".to_owned(),
            "[Spoiler] (a file)!",
        ),
    ] {
        let content = json!({ "msgtype": "m.text", "body": body, "formatted_body": html });
        let out = with_context(Direction::ToSam, true, |context| {
            let context = crate::relay::Context {
                homeserver: ruma::server_name!("hs.test"),
                ..context.clone()
            };
            translate("m.room.message", &content, &context)
        });
        assert_eq!(out.unwrap().unwrap().content["body"], expected, "{body}");
    }
}

#[test]
fn the_name_in_a_link_goes_with_an_asker_who_has_none_here() {
    let room = ruma::room_id!("!here:far.example");
    let sender = <&ruma::UserId>::try_from(ALICE).unwrap();
    let context = crate::relay::Context::for_quote(room, sender, ruma::server_name!("hs.test"));
    let line = format!("[Alice Harbour](https://matrix.to/#/{ALICE}): me");
    let shown = crate::relay::translate_line(&line, &context, 100);
    assert_eq!(shown.as_deref(), Some("…: me"));
}

#[test]
fn a_link_without_an_end_keeps_its_distance() {
    for (said, rest) in [
        ("Samuel look", " Samuel look"),
        ("sam look", " look"),
        ("@Sam: look", ": look"),
        ("samples", " samples"),
        ("sam", ""),
    ] {
        let html = format!("<a href=\"https://matrix.to/#/{SAM}\">{said}");
        let content = json!({ "msgtype": "m.text", "body": said, "formatted_body": html });
        let out = translated("m.room.message", content);
        let expected = format!("<a href=\"https://matrix.to/#/{SAMUEL}\">@sam</a>{rest}");
        assert_eq!(out["formatted_body"], expected, "{said}");
    }
}

#[test]
fn what_clients_exchange_is_left_out_and_nobody_is_told() {
    let content = json!({ "room_id": "!here:far.example", "algorithm": "m.megolm.v1.aes-sha2" });
    for kind in [
        "m.room_key",
        "m.room_key_bundle",
        "m.dummy",
        "m.secret.send",
        "m.direct",
        "m.key.verification.start",
        "m.key.verification.cancel",
    ] {
        assert_eq!(to_sam(kind, &content), Ok(None), "{kind}");
    }
}

#[test]
fn what_names_no_kind_of_message_is_refused() {
    let step = json!({ "msgtype": "m.key.verification.start", "body": "x" });
    let edit = json!({ "msgtype": "m.text", "body": "x", "m.new_content": step,
        "m.relates_to": { "rel_type": "m.replace", "event_id": "$one" } });
    for (kind, content, why) in [
        ("", json!({ "body": "x" }), TranslateError::IdentifyingType),
        ("m.room.message", step.clone(), TranslateError::Verification),
        ("m.room.message", edit, TranslateError::Verification),
        (
            "m.rtc.something_new",
            json!({ "x": 1 }),
            TranslateError::MatrixRtc,
        ),
        (
            "org.matrix.msc4143.rtc.new",
            json!({ "x": 1 }),
            TranslateError::MatrixRtc,
        ),
    ] {
        assert_eq!(to_sam(kind, &content), Err(why), "{kind} {content}");
    }
}
