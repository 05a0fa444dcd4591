//! Blocks.

use super::*;
use crate::{
    directory::{BlockScope, ReachQuery},
    handle::Typed,
};

#[tokio::test]
async fn a_person_is_blocked_and_the_client_is_not_forgotten() {
    let mut talk = Talk::new();
    assert!(
        talk.ask(sam(), "block @kim")
            .await
            .starts_with("You don't have a handle yet.")
    );
    talk.ask(sam(), "claim sam").await;
    talk.ask(kim(), "claim kim").await;
    assert_eq!(
        talk.ask(sam(), "block @kim").await,
        "Blocked: @kim can no longer reach you by @sam, whichever of their handles they use. They \
         aren't told: they see the same message as anyone who can't reach you.\n\n\
         This only affects new chats by handle. If they know your Matrix ID or you have a chat \
         with them, ignore them in your client too: open their profile and choose \"Ignore\". To \
         undo: `unblock @kim`."
    );
    assert!(
        talk.ask(kim(), "dm sam")
            .await
            .starts_with("I can't bring you together")
    );
    talk.ask(sam(), "claim other").await;
    assert_eq!(
        talk.ask(sam(), "block @eve:elsewhere.org").await,
        "You have @other and @sam. On one of them: `block @eve:elsewhere.org on @other`. On all: \
         `block @eve:elsewhere.org all`; then they can find out that these belong together."
    );
    let all = talk.ask(sam(), "block @eve:elsewhere.org all").await;
    assert!(all.contains("by any of your handles"), "{all}");
    assert!(
        all.contains("they can find out that these belong together"),
        "{all}"
    );
    talk.ask(sam(), "block @kim on other").await;
    assert_eq!(
        talk.ask(sam(), "unblock").await,
        "You have blocked:\n\
         • @eve:elsewhere.org on all your handles\n\
         • @kim on @other\n\
         • @kim on @sam"
    );
    assert_eq!(
        talk.ask(sam(), "unblock @kimberly:example.org").await,
        "You haven't blocked @kimberly:example.org under that name. Use the name that you blocked \
         them by: `unblock` alone shows them."
    );
    assert_eq!(
        talk.ask(sam(), "unblock @kim").await,
        "Unblocked: @kim can reach you again, as far as your policy allows. If you ignored them \
         in your client, undo that there."
    );
    assert!(
        talk.ask(kim(), "dm sam")
            .await
            .starts_with("This starts a chat")
    );
    for (typed, expected) in [
        (
            "block",
            "Say whom you mean, by a handle or a Matrix ID. For example: `block @kim`",
        ),
        ("block @sam on sam", "That is you."),
        ("block @samuel:example.org all", "That is you."),
        (
            "block @free all",
            "Nobody holds @free now, so there is nobody to block.",
        ),
        ("block @kim on kim", "@kim is not yours."),
        (
            "block @kim and everybody else",
            "I didn't understand all of that. For example: `block @kim on @sam`",
        ),
    ] {
        assert_eq!(talk.ask(sam(), typed).await, expected);
    }
    talk.ask(sam(), "unblock @eve:elsewhere.org").await;
    assert_eq!(
        talk.ask(sam(), "blocks").await,
        "You haven't blocked anyone."
    );
}

#[tokio::test]
async fn the_answer_to_a_block_says_what_the_person_sees_of_it() {
    let mut talk = Talk::with(|settings| settings.capabilities.masked = true);
    talk.ask(kim(), "claim kim").await;
    talk.ask(sam(), "claim sam").await;
    talk.options.module_loaded = true;
    let said = talk.ask(sam(), "block @kim").await;
    assert!(said.contains("this server tells them"), "{said}");
    assert!(said.contains("only affects new chats"), "{said}");
    talk.ask(sam(), "mode sam masked").await;
    let said = talk.ask(sam(), "block @kim").await;
    // Only the name that is shown there ends a chat: see `Directory::is_blocked_as`.
    let ends = "If you two have a masked chat in which they're called @kim, it ends at once, \
                and they see that. Groups go on, and so do chats in which they have another name.";
    assert!(said.contains(ends), "{said}");
    assert!(!said.contains("this server tells them"), "{said}");
    let said = talk.ask(sam(), "block @kim all").await;
    assert!(said.contains("this server tells them"), "{said}");
}

#[tokio::test]
async fn a_person_of_another_server_who_is_called_like_a_ghost_can_be_blocked() {
    let mallory = person("@_dm_x:evil.org");
    for typed in ["@_dm_x:evil.org", "https://matrix.to/#/@_dm_x:evil.org"] {
        let mut talk = Talk::new();
        talk.ask(sam(), "claim sam").await;
        let said = talk.ask(sam(), &format!("block {typed}")).await;
        assert!(said.starts_with("Blocked: @_dm_x:evil.org"), "{said}");
        let ask = ReachQuery {
            asker: mallory,
            handle: &handle("sam"),
            now: NOW,
        };
        let verdict = talk.directory.verdict(&ask).unwrap();
        assert!(!verdict.is_introduce(), "{verdict:?}");
        let said = talk.ask(sam(), &format!("unblock {typed}")).await;
        assert!(said.starts_with("Unblocked: @_dm_x:evil.org"), "{said}");
        assert!(talk.directory.verdict(&ask).unwrap().is_introduce());
    }
    // A name of ours is a handle, and handles of other servers cannot be blocked.
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    talk.ask(kim(), "claim kim").await;
    let said = talk.ask(sam(), "block @_dm_kim:example.org").await;
    assert!(said.starts_with("Blocked: @kim can"), "{said}");
    let said = talk.ask(sam(), "block @kim@elsewhere.org").await;
    assert!(said.contains("Matrix ID"), "{said}");
}

#[tokio::test]
async fn a_block_whose_name_cannot_be_typed_is_taken_back_by_the_name_that_is_shown() {
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    let Ok(odd) = UserId::parse("@od\u{202e}d:evil.org") else {
        // No such Matrix ID comes from anywhere.
        return;
    };
    let (target, scope) = (Typed::Person(odd), BlockScope::All);
    let mut tx = talk.directory.begin().await;
    tx.block(sam(), &target, &scope, NOW).unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        talk.ask(sam(), "blocks").await,
        "You have blocked:\n• @od\u{fffd}d:evil.org on all your handles"
    );
    let said = talk.ask(sam(), "unblock @od\u{fffd}d:evil.org").await;
    assert!(said.starts_with("Unblocked: "), "{said}");
}

#[tokio::test]
async fn a_mention_means_the_person_and_not_a_handle_of_that_name() {
    let mention = |body: &str, user: &str, name: &str| {
        json!({
            "msgtype": "m.text",
            "body": body,
            "format": "org.matrix.custom.html",
            "formatted_body": format!("block <a href=\"https://matrix.to/#/{user}\">{name}</a>"),
            "m.mentions": { "user_ids": [user] },
        })
    };
    for (content, blocked) in [
        (
            mention(
                "block [@kim:far.example](https://matrix.to/#/@kim:far.example)",
                "@kim:far.example",
                "@kim:far.example",
            ),
            "@kim:far.example",
        ),
        (
            mention("block Kim", "@k.doe:far.example", "Kim"),
            "@k.doe:far.example",
        ),
        (mention("block Kim", "@_dm_kim:example.org", "Kim"), "@kim"),
    ] {
        let mut talk = Talk::new();
        talk.ask(sam(), "claim sam").await;
        talk.ask(kim(), "claim kim").await;
        let said = talk.answer_event(sam(), "m.room.message", &content, NOW);
        let said = said.await.unwrap().plain;
        assert!(
            said.starts_with(&format!("Blocked: {blocked} can")),
            "{said}"
        );
        let list = talk.ask(sam(), "blocks").await;
        assert!(list.ends_with(&format!("• {blocked} on @sam")), "{list}");
    }
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    talk.ask(kim(), "claim kim").await;
    let unclear = mention("block kim", "@k.doe:far.example", "Kim");
    let said = talk.answer_event(sam(), "m.room.message", &unclear, NOW);
    assert!(said.await.unwrap().plain.starts_with("I'm not sure whom"));
    assert_eq!(
        talk.ask(sam(), "blocks").await,
        "You haven't blocked anyone."
    );
}
