//! Names and messages as they stand in the ghost's sentence.

use proptest::prelude::*;

use ruma::user_id;

use super::*;

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
        "\n".repeat(12_000),
        "\"<&>".repeat(3_000),
        "x".repeat(12_000),
        "x".repeat(46_000),
    ] {
        let content = serde_json::json!({ "msgtype": "m.text", "body": body });
        let quoted = quote("Alice", "m.room.message", &content).unwrap().content;
        let limit = content.to_string().len().max(40_000) + 1_000;
        assert!(quoted.to_string().len() <= limit, "{limit}");
        assert!(
            quoted["body"]
                .as_str()
                .unwrap()
                .starts_with("Alice wrote:\n")
        );
    }
}

proptest! {
    /// A quote never breaks out of its frame, and is always an encrypted-room message we can send.
    #[test]
    fn a_quote_stays_in_its_frame(body in ".{0,400}", name in ".{0,80}") {
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
