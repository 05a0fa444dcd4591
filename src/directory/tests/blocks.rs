//! Blocks.

use assert_matches::assert_matches;

use super::*;
use crate::handle::{HandleRules, Typed};

#[tokio::test]
async fn a_block_is_of_the_person_and_on_one_handle() {
    let directory = directory();
    for (owner, name) in [
        (sam(), "sam"),
        (sam(), "other"),
        (kim(), "kim"),
        (kim(), "quin"),
    ] {
        claim(&directory, owner, name, NOW).await.unwrap();
    }
    let typed = |text: &str| Typed::parse(text, &HandleRules::default()).unwrap();
    let on = BlockScope::Handle(handle("sam"));
    write(&directory, |tx| tx.block(sam(), &typed("@kim"), &on, NOW))
        .await
        .unwrap();
    // Twice is no error and no second block.
    write(&directory, |tx| tx.block(sam(), &typed("@KIM"), &on, NOW))
        .await
        .unwrap();
    assert_eq!(records::<tables::Blocks>(&directory), 1);

    // Kim asks as Kim, whichever handles she has; on Sam's other handle nothing is to be seen.
    assert_eq!(
        label(&reach(&directory, kim(), "sam", NOW).await),
        "blocked"
    );
    assert_eq!(
        label(&reach(&directory, kim(), "other", NOW).await),
        "introduce"
    );
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "introduce"
    );
    assert!(directory.is_invite_blocked(kim(), sam()).unwrap());
    assert!(!directory.is_invite_blocked(alice(), sam()).unwrap());
    assert!(!directory.is_invite_blocked(sam(), kim()).unwrap());

    // Unblocking by another name of the same person tells nothing and does nothing.
    for other in ["@kim:example.org", "@quin"] {
        assert_matches!(
            write(&directory, |tx| tx.unblock(sam(), &typed(other), None)).await,
            Err(DirectoryError::NotBlocked(_))
        );
    }
    write(&directory, |tx| tx.unblock(sam(), &typed("@kim"), None))
        .await
        .unwrap();
    assert_eq!(
        label(&reach(&directory, kim(), "sam", NOW).await),
        "introduce"
    );

    write(&directory, |tx| {
        tx.block(sam(), &typed("@kim:example.org"), &BlockScope::All, NOW)
    })
    .await
    .unwrap();
    assert_eq!(
        label(&reach(&directory, kim(), "sam", NOW).await),
        "blocked"
    );
    assert_eq!(
        label(&reach(&directory, kim(), "other", NOW).await),
        "blocked"
    );
    assert!(directory.is_invite_blocked(kim(), sam()).unwrap());
    let tx = directory.begin().await;
    assert_eq!(
        tx.blocks_of(sam()).unwrap(),
        [("@kim:example.org".to_owned(), None)]
    );
}

#[tokio::test]
async fn a_block_on_a_masked_handle_does_not_show_at_the_matrix_id() {
    let directory = directory_with(|settings| settings.capabilities.masked = true);
    claim(&directory, sam(), "mask", NOW).await.unwrap();
    let mask = handle("mask");
    let mut tx = directory.begin().await;
    tx.set_mode(sam(), &mask, Mode::Masked, false).unwrap();
    let target = Typed::Person(kim().clone().into());
    tx.block(sam(), &target, &BlockScope::Handle(mask.clone()), NOW)
        .unwrap();
    tx.commit().await.unwrap();
    assert!(!directory.is_invite_blocked(kim(), sam()).unwrap());
}

#[tokio::test]
async fn what_cannot_be_blocked_is_refused_with_words() {
    let directory = directory_with(|settings| settings.blocks_per_person = 2);
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    claim(&directory, kim(), "kim", NOW).await.unwrap();
    let on = BlockScope::Handle(handle("sam"));
    for (target, scope, expected) in [
        ("@samuel:example.org", &on, "that is you"),
        ("@sam", &on, "that is you"),
        (
            "@nobody1",
            &on,
            "nobody holds @nobody1 now, so there is nobody to block",
        ),
        (
            "@kim@elsewhere.org",
            &on,
            "@kim belongs to another server; give the Matrix ID instead, like `@name:server`",
        ),
        (
            "@alice:example.org",
            &BlockScope::Handle(handle("kim")),
            "@kim is not yours",
        ),
        (
            "@alice:example.org",
            &BlockScope::Handle(handle("free")),
            "@free is not yours",
        ),
    ] {
        let typed = Typed::parse(target, &HandleRules::default()).unwrap();
        let result = write(&directory, |tx| tx.block(sam(), &typed, scope, NOW)).await;
        assert_eq!(result.unwrap_err().to_string(), expected, "{target}");
    }
    for i in 0..3 {
        let person = Typed::Person(UserId::parse(format!("@p{i}:example.org")).unwrap());
        let result = write(&directory, |tx| tx.block(sam(), &person, &on, NOW)).await;
        assert_eq!(result.is_ok(), i < 2);
    }
}
