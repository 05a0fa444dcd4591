//! A ghost that stands for two people in one room.

use serde_json::json;

use super::*;
use crate::relay::{Alias, Context};

/// Translates what Samuel writes in his portal for the room of Alice, whom his portal shows by her
/// masked handle. `others` are what else her ghost stands for.
fn to_alices_room(others: &[&str], content: &Value) -> Value {
    let out = with_context(Direction::ToAlice, true, |context| {
        let mut aliases = context.aliases.to_vec();
        for target in others {
            aliases.push(Alias {
                target: (*target).try_into().unwrap(),
                ..aliases[0].clone()
            });
        }
        let context = Context {
            aliases: &aliases,
            ..context.clone()
        };
        translate("m.room.message", content, &context)
    });
    out.unwrap().unwrap().content
}

fn mention() -> Value {
    json!({
        "msgtype": "m.text", "body": format!("Kim: look, {GHOST}"),
        "format": "org.matrix.custom.html",
        "formatted_body": format!("<a href=\"https://matrix.to/#/{GHOST}\">Kim</a>: look, {GHOST}"),
        "m.mentions": { "user_ids": [GHOST] },
        "org.example.user": GHOST,
    })
}

#[test]
fn a_ghost_of_a_person_here_and_of_a_masked_person_names_neither() {
    let out = to_alices_room(&[GHOST], &mention());
    assert_eq!(out["m.mentions"], json!({}));
    assert_eq!(out["body"], "@Kim: look, @Kim");
    assert_eq!(out["formatted_body"], "@Kim: look, @Kim");
    assert_eq!(out["org.example.user"], "@Kim");
    assert!(!out.to_string().contains(ALICE), "{out}");
}

#[test]
fn a_ghost_of_people_who_are_one_user_in_the_other_room_names_that_user() {
    for others in [vec![], vec![ALICE]] {
        let out = to_alices_room(&others, &mention());
        assert_eq!(out["m.mentions"], json!({ "user_ids": [ALICE] }));
        let html = out["formatted_body"].as_str().unwrap();
        assert!(html.contains(&format!("matrix.to/#/{ALICE}")), "{html}");
        assert_eq!(out["org.example.user"], ALICE);
    }
}
