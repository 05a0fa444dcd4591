//! Giving a handle up, and the code that it waits for.

use assert_matches::assert_matches;

use super::*;
use crate::directory::{FreezeReason, HandleState};

#[tokio::test]
async fn a_handle_is_released_only_with_its_code() {
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    assert_eq!(
        talk.ask(sam(), "release").await,
        "Which handle do you want to give up? For example: `release sam`"
    );
    let said = talk.ask(sam(), "release sam").await;
    assert!(
        said.starts_with(
            "Giving up @sam means that people can no longer reach you by it. Chats that began \
             with it go on without it. For 365 days only you can claim it again, after that \
             anyone can. How it's set up is lost: it would be open to everyone. To do it, write `confirm "
        ),
        "{said}"
    );
    assert!(
        said.ends_with(
            "` within 10 minutes. To leave everything as it is, do nothing or write `cancel`."
        ),
        "{said}"
    );
    assert!(talk.record("sam").unwrap().is_active());
    // A new code takes the place of the old one, and is for the one who asked.
    let old = said.split_once("`confirm ").unwrap().1[..4].to_owned();
    let code = talk.code(sam(), "release sam").await;
    assert_ne!(old, code);
    assert!(code.len() == 4 && code.bytes().all(|b| b.is_ascii_digit()));
    let nothing = "Nothing is waiting for a code, or the code has expired. Nothing was changed.";
    assert_eq!(talk.ask(kim(), &format!("confirm {code}")).await, nothing);
    assert_eq!(
        talk.ask(sam(), &format!("confirm {old}")).await,
        "That isn't the code I gave you. You have 2 more tries, or write `cancel`."
    );
    let answer = talk
        .answer(sam(), &format!("Confirm `{code}`"))
        .await
        .unwrap();
    assert_eq!(
        answer.plain,
        "Done: @sam is no longer yours. If you change your mind: `claim sam`."
    );
    assert_eq!(
        answer.effects,
        [Effect::RetireGhost {
            ghost: ghost("sam"),
            generation: 1,
            released_at: NOW,
        }]
    );
    assert_matches!(
        talk.record("sam").unwrap().state,
        HandleState::Quarantined { .. }
    );
    // A code works once, even if the handle is back.
    talk.ask(sam(), "claim sam").await;
    assert_eq!(talk.ask(sam(), &format!("confirm {code}")).await, nothing);
    assert!(talk.record("sam").unwrap().is_active());
    assert_eq!(talk.ask(kim(), "release sam").await, "@sam is not yours.");
    assert_eq!(talk.ask(kim(), "release free").await, "@free is not yours.");
}

#[tokio::test]
async fn who_gives_a_masked_handle_up_reads_that_its_chats_end() {
    let mut talk = Talk::with(|settings| settings.capabilities.masked = true);
    talk.ask(sam(), "claim sam").await;
    talk.ask(sam(), "mode sam masked").await;
    let said = talk.ask(sam(), "release sam").await;
    assert!(
        said.contains("All conversations by @sam end at once, for both sides"),
        "{said}"
    );
    assert!(!said.contains("go on without it"), "{said}");
}

#[tokio::test]
async fn a_code_runs_out_is_dropped_after_three_slips_and_can_be_cancelled() {
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    let code = talk.code(sam(), "release sam").await;
    talk.now = NOW + Duration::from_secs(600);
    let late = talk.ask(sam(), &format!("confirm {code}")).await;
    assert!(late.starts_with("Nothing is waiting"), "{late}");

    let code = talk.code(sam(), "release sam").await;
    let wrong = if code == "0000" { "0001" } else { "0000" };
    assert_eq!(
        talk.ask(sam(), "confirm").await,
        "Add the code I gave you. For example: `confirm 1234`"
    );
    for expected in [
        "That isn't the code I gave you. You have 2 more tries, or write `cancel`.",
        "That isn't the code I gave you. You have one more try, or write `cancel`.",
        "That isn't the code either, so I've dropped what was waiting for it. Nothing was changed.",
    ] {
        assert_eq!(talk.ask(sam(), &format!("confirm {wrong}")).await, expected);
    }
    let after = talk.ask(sam(), &format!("confirm {code}")).await;
    assert!(after.starts_with("Nothing is waiting"), "{after}");

    let code = talk.code(sam(), "release sam").await;
    assert_eq!(
        talk.ask(sam(), "cancel").await,
        "Dropped. Nothing was changed."
    );
    assert_eq!(
        talk.ask(sam(), "cancel").await,
        "Nothing is waiting for a code, so there's nothing to cancel."
    );
    let after = talk.ask(sam(), &format!("confirm {code}")).await;
    assert!(after.starts_with("Nothing is waiting"), "{after}");
    assert!(talk.record("sam").unwrap().is_active());
}

#[tokio::test]
async fn a_code_does_not_release_what_was_frozen_or_given_to_another_meanwhile() {
    let mut talk = Talk::with(|settings| settings.quarantine = Duration::ZERO);
    talk.ask(sam(), "claim sam").await;
    let code = talk.code(sam(), "release sam").await;
    let mut tx = talk.directory.begin().await;
    tx.freeze(&handle("sam"), FreezeReason::GhostNotOurs, NOW)
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        talk.ask(sam(), &format!("confirm {code}")).await,
        "@sam is frozen; ask the admin of this server about it."
    );
    let mut tx = talk.directory.begin().await;
    tx.unfreeze(&handle("sam")).unwrap();
    tx.commit().await.unwrap();

    let code = talk.code(sam(), "release sam").await;
    let mut tx = talk.directory.begin().await;
    tx.revoke(&handle("sam"), NOW).unwrap();
    tx.commit().await.unwrap();
    talk.ask(kim(), "claim sam").await;
    assert_eq!(
        talk.ask(sam(), &format!("confirm {code}")).await,
        "@sam is not yours."
    );
    assert_eq!(talk.record("sam").unwrap().owner, *kim());
}

#[tokio::test]
async fn codes_that_nobody_used_are_swept_away() {
    let mut talk = Talk::new();
    for (person, name) in [(sam(), "sam"), (kim(), "kim")] {
        talk.ask(person, &format!("claim {name}")).await;
        talk.ask(person, &format!("release {name}")).await;
    }
    talk.now = NOW + Duration::from_secs(300);
    let code = talk.code(kim(), "release kim").await;
    talk.now = NOW + Duration::from_secs(600);
    let mut tx = talk.directory.begin().await;
    assert_eq!(sweep_confirmations(&mut tx, talk.now, 10).unwrap(), 2);
    assert_eq!(sweep_confirmations(&mut tx, talk.now, 10).unwrap(), 0);
    tx.commit().await.unwrap();
    let done = talk.ask(kim(), &format!("confirm {code}")).await;
    assert!(done.starts_with("Done: @kim"), "{done}");
}

#[test]
fn a_confirmation_keeps_its_form_on_disk() {
    let action = confirmation::Action::Release {
        handle: handle("Sam"),
        generation: 2,
    };
    assert_eq!(
        serde_json::to_value(action).unwrap(),
        json!({ "release": { "handle": "Sam", "generation": 2 } })
    );
    let action = confirmation::Action::Unmask {
        handle: handle("Sam"),
        generation: 2,
        strict: true,
    };
    assert_eq!(
        serde_json::to_value(action).unwrap(),
        json!({ "unmask": { "handle": "Sam", "generation": 2, "strict": true } })
    );
}
