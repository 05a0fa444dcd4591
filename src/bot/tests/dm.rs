//! Links that start a chat.

use ruma::room_id;

use super::*;
use crate::directory::FreezeReason;

#[tokio::test]
async fn dm_leads_to_the_owner_of_an_open_handle() {
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    let expected = "This starts a chat with @sam: https://matrix.to/#/@samuel:example.org\n\n\
                    It leads to the owner of the handle, so nobody comes between you.";
    for typed in [
        "dm @sam",
        "DM sam",
        "chat @SAM@example.org",
        "dm https://matrix.to/#/@_dm_sam:example.org",
    ] {
        assert_eq!(
            talk.ask(alice(), typed).await.to_lowercase(),
            expected.to_lowercase()
        );
    }
    assert_eq!(
        talk.ask(sam(), "dm sam").await,
        "@sam is yours: that would be a chat with yourself."
    );
    assert_eq!(
        talk.ask(alice(), "dm @samuel:example.org").await,
        "That's a Matrix ID, so you don't need a handle: https://matrix.to/#/@samuel:example.org"
    );
    assert_eq!(
        talk.ask(alice(), "dm @sam@elsewhere.org").await,
        "Handles on elsewhere.org are managed by that server. If @sam@elsewhere.org exists, \
         this starts a chat: https://matrix.to/#/@_dm_sam:elsewhere.org"
    );
    assert_eq!(
        talk.ask(alice(), "dm").await,
        "Say whom you want to write to. For example: `dm @sam`"
    );
    let mut tx = talk.directory.begin().await;
    let room = room_id!("!theirs:example.org");
    tx.remember_pair(alice(), &handle("sam"), 1, room, NOW)
        .unwrap();
    tx.commit().await.unwrap();
    let said = talk.ask(alice(), "dm sam").await;
    assert!(
        said.starts_with(
            "You have a room with @sam: https://matrix.to/#/!theirs:example.org To start another \
             one: https://matrix.to/#/@samuel:example.org"
        ),
        "{said}"
    );
}

#[tokio::test]
async fn dm_answers_all_who_cannot_get_through_alike() {
    let mut talk = Talk::with(|settings| settings.new_conversations_per_sender = 5);
    talk.ask(sam(), "claim sam").await;
    let mut said = Vec::new();
    said.push(talk.ask(alice(), "dm free").await.replace("@free", "@sam"));
    talk.ask(sam(), "policy sam nobody").await;
    said.push(talk.ask(alice(), "dm sam").await);
    talk.ask(sam(), "policy sam everyone").await;
    talk.ask(sam(), "block @alice:example.org").await;
    said.push(talk.ask(alice(), "dm sam").await);
    talk.ask(sam(), "unblock @alice:example.org").await;
    let mut tx = talk.directory.begin().await;
    tx.freeze(&handle("sam"), FreezeReason::GhostNotOurs, NOW)
        .unwrap();
    tx.commit().await.unwrap();
    said.push(talk.ask(alice(), "dm sam").await);
    let mut tx = talk.directory.begin().await;
    tx.unfreeze(&handle("sam")).unwrap();
    tx.commit().await.unwrap();
    assert!(
        talk.ask(alice(), "dm sam")
            .await
            .starts_with("This starts a chat")
    );
    // It costs what an invite costs: that was her last one today.
    said.push(talk.ask(alice(), "dm sam").await);
    for words in said {
        assert_eq!(
            words,
            "I can't bring you together with @sam now. Perhaps nobody has this handle, perhaps \
             its owner isn't taking new conversations, perhaps you've started many today. \
             That's all I can tell you."
        );
    }
}
