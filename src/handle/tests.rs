use proptest::prelude::*;
use ruma::{server_name, user_id};

use super::*;

fn handle(text: &str) -> Handle {
    Handle::parse(text, &HandleRules::default()).unwrap()
}

fn refused(text: &str) -> String {
    Handle::parse(text, &HandleRules::default())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_handle_is_shown_as_typed_and_compared_without_case() {
    let sam = handle("SaM_1");
    assert_eq!(sam.as_shown(), "SaM_1");
    assert_eq!(sam.key(), "sam_1");
    assert_eq!(sam, handle("sam_1"));
    assert_eq!(sam.to_string(), "@SaM_1");
    assert_eq!(sam.ghost_localpart(), "_dm_sam_1");
}

#[test]
fn what_is_no_handle_is_refused_with_words_that_help() {
    assert_eq!(refused(""), "a handle is missing; it looks like `@sam`");
    assert_eq!(
        refused("___"),
        "a handle needs at least one letter or digit besides `_`"
    );
    assert_eq!(
        refused("a_very_long_name"),
        "a handle has at most 15 characters; try a shorter one"
    );
    assert_eq!(
        refused("sam-smith"),
        "a handle has only the letters a to z, digits and `_`, so '-' cannot be in it; \
         did you mean `@sam_smith`?"
    );
    // Cyrillic, which looks the same.
    assert!(
        refused("ѕаm").ends_with("did you mean `@sam`?"),
        "{}",
        refused("ѕаm")
    );
    // Nothing to suggest.
    assert!(
        refused("🦀").ends_with("cannot be in it"),
        "{}",
        refused("🦀")
    );
    let long = HandleRules { min: 3, max: 15 };
    assert_eq!(
        Handle::parse("ab", &long),
        Err(HandleError::TooShort { min: 3 })
    );
}

#[test]
fn no_rules_allow_a_handle_that_would_not_fit_into_a_matrix_id() {
    let rules = HandleRules {
        min: 1,
        max: 10_000,
    };
    assert_eq!(
        Handle::parse(&"a".repeat(65), &rules),
        Err(HandleError::TooLong {
            max: HANDLE_LENGTH_MAX
        })
    );
}

#[test]
fn handles_that_look_alike_share_a_key() {
    for (one, other) in [
        ("modern", "rnodern"),
        ("modern", "MODERN"),
        ("bill", "bi11"),
        ("bill", "B1LL"),
        ("bill", "biII"),
        ("o0o", "OOO"),
        ("vvv", "vw"),
        ("vvv", "wv"),
        ("rnrn", "mm"),
        ("s_a_m", "sam"),
        ("_sam_", "sam"),
        ("l1I", "iil"),
    ] {
        assert_eq!(
            handle(one).lookalike_key(),
            handle(other).lookalike_key(),
            "{one}, {other}"
        );
    }
    for (one, other) in [
        ("sam", "pam"),
        ("ann", "anna"),
        ("nm", "mn"),
        ("vow", "voow"),
    ] {
        assert_ne!(
            handle(one).lookalike_key(),
            handle(other).lookalike_key(),
            "{one}, {other}"
        );
    }
}

#[test]
fn a_ghost_is_found_by_its_localpart_and_nothing_else_is_a_ghost() {
    assert_eq!(Handle::of_ghost("_dm_sam"), Some(handle("sam")));
    for other in [
        "_dm_.bot",
        "_dm_.svc",
        "_dm_.p2345672345672345",
        "_dm_Sam",
        "_dm_",
        "sam",
        "_DM_sam",
    ] {
        assert_eq!(Handle::of_ghost(other), None, "{other}");
    }
}

#[test]
fn people_type_handles_in_many_ways() {
    let local = Typed::Handle {
        handle: handle("sam"),
        server: None,
    };
    let there = Typed::Handle {
        handle: handle("sam"),
        server: Some(server_name!("example.org").to_owned()),
    };
    let person = Typed::Person(user_id!("@sam:example.org").to_owned());
    for (text, expected) in [
        ("sam", &local),
        (" @sam ", &local),
        ("@SAM", &local),
        ("_dm_sam", &local),
        ("@sam@example.org", &there),
        ("sam@example.org", &there),
        ("@_dm_sam:example.org", &there),
        ("_dm_sam:example.org", &there),
        ("https://matrix.to/#/@_dm_sam:example.org", &there),
        (
            "https://matrix.to/#/%40_dm_sam%3Aexample.org?via=example.org",
            &there,
        ),
        ("matrix:u/_dm_sam:example.org?action=chat", &there),
        ("@sam:example.org", &person),
        ("sam:example.org", &person),
        ("https://matrix.to/#/@sam:example.org", &person),
    ] {
        assert_eq!(
            Typed::parse(text, &HandleRules::default()).as_ref(),
            Ok(expected),
            "{text}"
        );
    }
    for text in [
        "",
        "@",
        "@@sam",
        "sam@",
        "sam@example.org@x",
        "https://example.org/sam",
        "https://matrix.to/#/#room:example.org",
        "matrix:r/room:example.org",
        "@:example.org",
        "sam smith",
        "é",
    ] {
        assert!(
            Typed::parse(text, &HandleRules::default()).is_err(),
            "{text}"
        );
    }
    assert_eq!(
        Typed::parse_handle("@sam:example.org", &HandleRules::default())
            .unwrap_err()
            .to_string(),
        "@sam:example.org is a Matrix ID, not a handle; a handle looks like `@sam`"
    );
}

#[test]
fn reserved_names_are_refused_by_their_look() {
    let reserved = ReservedNames::new(["@Acme", "acme-corp"]);
    for name in [
        "admin",
        "Adm1n",
        "a_d_m_i_n",
        "adrnin",
        "ROOT",
        "r00t",
        "acme",
        "ACME_",
        "stonechat",
    ] {
        assert!(reserved.contains(&handle(name)), "{name}");
    }
    for name in ["sam", "adminton", "kim", "rob"] {
        assert!(!reserved.contains(&handle(name)), "{name}");
    }
    assert!(!ReservedNames::default().contains(&handle("acme")));
    assert!(!ReservedNames::new(["", "@", "_"]).contains(&handle("sam")));
}

#[test]
fn every_shipped_name_could_be_typed_and_none_is_there_twice() {
    let mut seen = std::collections::BTreeMap::new();
    for name in reserved::shipped() {
        Handle::parse(name, &HandleRules::WIDEST).unwrap();
        if let Some(other) = seen.insert(lookalike_key(name), name) {
            panic!("{name} and {other} are one name");
        }
    }
    assert!(seen.len() > 150);
}

#[test]
fn a_handle_is_written_as_it_is_shown() {
    let written = serde_json::to_string(&handle("SaM")).unwrap();
    assert_eq!(written, "\"SaM\"");
    assert_eq!(
        serde_json::from_str::<Handle>(&written).unwrap().as_shown(),
        "SaM"
    );
    assert!(serde_json::from_str::<Handle>("\"s m\"").is_err());
}

proptest! {
    #[test]
    fn parsing_never_panics_and_takes_only_what_the_rules_allow(text in any::<String>()) {
        let _ = Typed::parse(&text, &HandleRules::default());
        if let Ok(handle) = Handle::parse(&text, &HandleRules::default()) {
            prop_assert!((1..=15).contains(&text.len()));
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
            prop_assert_eq!(handle.as_shown(), text);
        }
    }

    #[test]
    fn every_handle_comes_back_from_its_ghost(text in "[A-Za-z0-9_]{0,14}[A-Za-z0-9]") {
        let handle = handle(&text);
        prop_assert_eq!(Handle::of_ghost(&handle.ghost_localpart()), Some(handle.clone()));
        let user = handle.ghost_id(server_name!("example.org")).unwrap();
        prop_assert_eq!(handle.ghost_address(server_name!("example.org")), user.to_string());
        let typed = Typed::parse(user.as_str(), &HandleRules::default());
        prop_assert_eq!(typed.map(|t| matches!(t, Typed::Handle { handle: h, .. } if h == handle)), Ok(true));
        prop_assert!(user.validate_strict().is_ok());
    }

    #[test]
    fn case_and_underscores_never_make_another_name(text in "[A-Za-z0-9_]{0,14}[A-Za-z0-9]", at in 0usize..15) {
        let key = lookalike_key(&text);
        prop_assert_eq!(&lookalike_key(&text.to_ascii_uppercase()), &key);
        prop_assert_eq!(&lookalike_key(&text.to_ascii_lowercase()), &key);
        let mut spaced = text.clone();
        spaced.insert(at.min(text.len()), '_');
        prop_assert_eq!(&lookalike_key(&spaced), &key);
    }

    #[test]
    fn each_confusion_keeps_the_key_wherever_it_stands(
        before in "[a-z0-9]{0,6}", after in "[a-z0-9]{0,6}",
        pair in prop::sample::select(vec![("0", "o"), ("1", "l"), ("l", "i"), ("1", "I"), ("rn", "m"), ("vv", "w"), ("O", "0")]),
    ) {
        let one = format!("{before}{}{after}", pair.0);
        let other = format!("{before}{}{after}", pair.1);
        prop_assert_eq!(lookalike_key(&one), lookalike_key(&other));
    }

    #[test]
    fn the_key_is_settled_and_never_empty(text in "[A-Za-z0-9_]{0,14}[A-Za-z0-9]") {
        let key = handle(&text).lookalike_key();
        prop_assert!(!key.is_empty());
        prop_assert_eq!(lookalike_key(&key), key);
    }

    #[test]
    fn keys_put_together_are_the_key_of_both_together(a in "[A-Za-z0-9_]{1,8}", b in "[A-Za-z0-9_]{1,8}") {
        prop_assert_eq!(lookalike_key(&format!("{a}{b}")), lookalike_key(&a) + &lookalike_key(&b));
    }
}

#[test]
fn a_ghost_with_capitals_in_its_name_is_a_misspelt_one() {
    let meant = |localpart: &str| Handle::misspelt_ghost(localpart).map(|it| it.to_string());
    assert_eq!(meant("_dm_Sam").as_deref(), Some("@Sam"));
    assert_eq!(meant("_dm_SAM_1").as_deref(), Some("@SAM_1"));
    for other in [
        "_dm_sam",
        "_dm_.pSam",
        "_dm_Sam.Smith",
        "_DM_Sam",
        "Sam",
        "_dm_",
    ] {
        assert_eq!(meant(other), None, "{other}");
    }
}
