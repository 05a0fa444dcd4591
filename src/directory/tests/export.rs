//! What is kept about a person, for that person.

use ruma::{OwnedUserId, room_id};

use super::*;
use crate::handle::{HandleRules, Typed};

/// Sam is masked by one handle and open by another; Kim has asked him, met him and blocked him.
async fn after_a_while() -> Directory {
    let directory = directory_with(|settings| settings.capabilities.masked = true);
    for (owner, name) in [
        (sam(), "sam"),
        (sam(), "heron"),
        (kim(), "kim"),
        (kim(), "old"),
    ] {
        claim(&directory, owner, name, NOW).await.unwrap();
    }
    let typed = |text: &str| Typed::parse(text, &HandleRules::default()).unwrap();
    let request = Request {
        handle: handle("heron"),
        generation: 1,
        asker: kim().clone(),
        room: room_id!("!asks:example.org").to_owned(),
        ghost: Ghost::new(ruma::owned_user_id!("@_dm_heron:example.org")),
        since: NOW,
        mode: Mode::Masked,
        shown: None,
        line_shown: None,
        asker_alias: Some("Someone".to_owned()),
    };
    write(&directory, |tx| {
        tx.set_mode(sam(), &handle("heron"), Mode::Masked, false)?;
        tx.open_request(sam(), &request)?;
        tx.add_contact(&handle("sam"), 1, kim(), NOW)?;
        tx.remember_pair(kim(), &handle("sam"), 1, room_id!("!met:example.org"), NOW)?;
        tx.block(kim(), &typed("@heron"), &BlockScope::All, NOW)?;
        tx.set_appearance(kim(), Some("K".to_owned()))?;
        tx.release(kim(), &handle("old"), NOW).map(drop)
    })
    .await
    .unwrap();
    let (name, by) = (handle("kim"), ActingAdmin::Login("root".to_owned()));
    let order = HandleOrder {
        handle: &name,
        act: &HandleAct::Freeze,
        reason: "looked into",
        by: &by,
    };
    let mut tx = directory.begin().await;
    tx.act_on_handle(&order, NOW).unwrap();
    tx.commit().await.unwrap();
    directory
}

fn named_in(export: &DirectoryExport, who: &Person) -> bool {
    let user: OwnedUserId = who.clone().into();
    let text = serde_json::to_string(export).unwrap();
    text.contains(user.as_str()) || text.contains(user.localpart())
}

#[tokio::test]
async fn a_person_gets_all_that_is_kept_about_them() {
    let directory = after_a_while().await;
    let kims = directory.export_person(kim(), NOW).unwrap();
    let handles: Vec<_> = kims
        .handles
        .iter()
        .map(|it| it.handle.to_string())
        .collect();
    assert_eq!(handles, ["@kim", "@old"]);
    assert_eq!(kims.appearance.as_deref(), Some("K"));
    assert_eq!(kims.blocks[0].who, "@heron");
    assert_eq!(kims.requests_of_theirs[0].handle, "@heron");
    assert_eq!(kims.accepted_by[0].handle, "@sam");
    assert_eq!(kims.introductions[0].room, "!met:example.org");
    let looked_into = Some("looked into".to_owned());
    assert_eq!(
        (&kims.acts[0].reason, kims.acts[0].by_them),
        (&looked_into, false)
    );
    assert!(kims.limits.iter().any(|limit| limit.what == "claims"));
    assert!(kims.requests_to_them.is_empty() && kims.accepted.is_empty());
}

#[tokio::test]
async fn nobody_learns_of_others_what_they_have_not_seen() {
    let directory = after_a_while().await;
    // Kim does not see who has the handles that she reached.
    let kims = directory.export_person(kim(), NOW).unwrap();
    assert!(!named_in(&kims, sam()), "{kims:#?}");
    // Sam does not see who asks his masked handle, nor whom he has as a contact.
    let sams = directory.export_person(sam(), NOW).unwrap();
    assert!(!named_in(&sams, kim()), "{sams:#?}");
    assert_eq!(
        sams.requests_to_them[0].from.as_deref(),
        Some("Someone (#1)")
    );
    assert_eq!(sams.accepted.len(), 1);
    // Of somebody who has done nothing, nothing is kept.
    let alices = directory.export_person(alice(), NOW).unwrap();
    let text = serde_json::to_string(&alices).unwrap();
    assert_eq!(
        text,
        r#"{"permission":"claim","ban":null,"handles":[],"appearance":null,"blocks":[],"requests_to_them":[],"requests_of_theirs":[],"accepted_by":[],"accepted":[],"introductions":[],"limits":[],"ignored_until":null,"acts":[]}"#
    );
}
