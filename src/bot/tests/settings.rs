//! How a handle is set up: its list, its mode, its policy.

use super::*;
use crate::directory::{FreezeReason, Mode, Policy, Reach};

#[tokio::test]
async fn handles_are_listed_with_how_they_are_set_up() {
    let mut talk = Talk::new();
    assert!(
        talk.ask(sam(), "handles")
            .await
            .starts_with("You don't have a handle yet.")
    );
    for text in [
        "claim sam",
        "claim other",
        "mode other strict",
        "policy other nobody",
    ] {
        talk.ask(sam(), text).await;
    }
    let mut tx = talk.directory.begin().await;
    tx.set_verified(&handle("sam"), Some(NOW)).unwrap();
    let note = "<b>complaints</b>".to_owned();
    tx.freeze(&handle("sam"), FreezeReason::Admin { note }, NOW)
        .unwrap();
    tx.commit().await.unwrap();
    let answer = talk.answer(sam(), "list").await.unwrap();
    assert_eq!(
        answer.plain,
        "You have 2 of 5 handles:\n\
         • @other since 14 November 2023, strict, nobody may reach you\n\
         • @sam since 14 November 2023, open, everyone may reach you, verified, frozen by the \
         admin (<b>complaints</b>)"
    );
    assert!(answer.html.contains("&lt;b&gt;complaints&lt;/b&gt;"));
    assert!(!answer.html.contains("<b>"));
}

#[tokio::test]
async fn mode_tells_what_it_means_and_replaces_the_identity_only_when_needed() {
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    assert_eq!(
        talk.ask(sam(), "mode").await,
        "@sam is open. You can choose between `mode sam open` and `mode sam strict`."
    );
    let strict = talk.answer(sam(), "mode sam strict").await.unwrap();
    assert_eq!(
        strict.plain,
        "@sam is strict: nothing that people write passes through this service, not even their \
         first message. You usually can't read that one; then they're asked to send it again. \
         People who reach you by it see your Matrix ID, @samuel:example.org, and know it for good: \
         blocking them later doesn't change that.\n\n\
         To keep someone out, decline the invite and write `block @user:server` to me. Don't let \
         your client block or ignore @_dm_sam:example.org: after that, nobody could reach you by \
         your handle.\n\n\
         This gives @_dm_sam:example.org new keys. People who have met it may see a warning that \
         its identity changed. This is why."
    );
    let replaced = [Effect::ReplaceIdentity {
        ghost: ghost("sam"),
        name: "@sam".to_owned(),
        generation: 1,
    }];
    assert_eq!(strict.effects, replaced);
    assert_eq!(talk.effects(sam(), "mode strict").await, []);
    let open = talk.answer(sam(), "Mode OPEN").await.unwrap();
    assert_eq!(open.effects, replaced);
    assert!(
        open.plain.starts_with(
            "@sam is open: when someone starts a chat with it, it takes their first message, \
             invites you, passes that message on, and leaves. From then on only the two of you \
             can read what you write. People who reach you by it see your Matrix ID, \
             @samuel:example.org, and know it for good"
        ),
        "{}",
        open.plain
    );
    for (typed, expected) in [
        (
            "mode sam sideways",
            "A handle is open, strict or masked. For example: `mode sam strict`",
        ),
        ("mode sam masked", "Mode `masked` is not offered here yet."),
        ("mode sealed", "Mode `sealed` is not offered here yet."),
        ("mode kim open", "@kim is not yours. You have @sam."),
        (
            "mode sam open now",
            "A handle is open, strict or masked. For example: `mode sam strict`",
        ),
    ] {
        assert_eq!(talk.ask(sam(), typed).await, expected);
    }
    talk.ask(sam(), "claim other").await;
    assert_eq!(
        talk.ask(sam(), "mode strict").await,
        "You have several handles, so say which one you mean. For example: `mode sam strict`"
    );
    assert!(!talk.record("sam").unwrap().strict);
    assert!(
        talk.ask(kim(), "mode sam strict")
            .await
            .starts_with("You don't have a handle yet.")
    );
}

#[tokio::test]
async fn with_the_module_the_ghost_stays_out_of_chats_of_local_people() {
    let mut talk = Talk::new();
    talk.options.module_loaded = true;
    let claimed = talk.ask(sam(), "claim sam").await;
    let local =
        "hen people on this server start a chat with it, the chat is with you from the start";
    assert!(claimed.contains(local), "{claimed}");
    assert!(!claimed.contains("block or ignore"), "{claimed}");
    for mode in ["mode strict", "mode open"] {
        let said = talk.ask(sam(), mode).await;
        assert!(said.contains(local), "{said}");
        assert!(!said.contains("when someone starts a chat"), "{said}");
    }
    // Its owner is asked by the ghost, in the room.
    talk.ask(sam(), "policy ask").await;
    let said = talk.ask(sam(), "mode open").await;
    assert!(!said.contains(local), "{said}");
}

#[tokio::test]
async fn policy_decides_who_gets_through() {
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    assert_eq!(
        talk.ask(sam(), "policy sam nobody").await,
        "@sam: from now on nobody reaches you by it. People who try see the same message as if \
         you had blocked them. Chats that you have go on."
    );
    assert_eq!(talk.record("sam").unwrap().policy.direct, Reach::Nobody);
    assert_eq!(
        talk.ask(sam(), "policy").await,
        "@sam: nobody may reach you. You can choose between `policy sam everyone`, \
         `policy sam ask` and `policy sam nobody`."
    );
    assert_eq!(
        talk.ask(sam(), "policy everyone").await,
        "@sam: from now on everyone may reach you. To keep someone out: `block @kim`."
    );
    for (typed, expected) in [
        (
            "policy sam contacts",
            "Policy `contacts` is not offered here yet. For example: `policy sam nobody`",
        ),
        (
            "policy sam sometimes",
            "A policy is everyone, ask or nobody. For example: `policy sam ask`",
        ),
        ("policy kim nobody", "@kim is not yours. You have @sam."),
    ] {
        assert_eq!(talk.ask(sam(), typed).await, expected);
    }
    assert_eq!(talk.record("sam").unwrap().policy, Policy::default());
}

#[tokio::test]
async fn a_name_that_may_link_two_chats_is_given_only_with_a_code() {
    let mut talk = Talk::with(|settings| settings.capabilities.masked = true);
    let asked = talk.answer(sam(), "appear Kim @kim").await.unwrap();
    assert_eq!(asked.effects, []);
    let warning = "Somebody who is in two chats in which you have the same name can tell that both \
                   are you.";
    assert!(asked.plain.contains(warning), "{}", asked.plain);
    let code = talk.code(sam(), "appear Kim @kim").await;
    let set = |name: &str| Effect::SetName {
        person: sam().clone(),
        ghost: ghost("kim"),
        name: name.to_owned(),
    };
    let done = talk.effects(sam(), &format!("confirm {code}")).await;
    assert_eq!(done, [set("Kim")]);
    // Everybody is called like this.
    let done = talk.effects(sam(), "appear someone @kim").await;
    assert_eq!(done, [set("Someone")]);
}

#[tokio::test]
async fn a_mask_is_taken_off_only_with_a_code() {
    for (mode, strict) in [("open", false), ("strict", true)] {
        let mut talk = Talk::with(|settings| settings.capabilities.masked = true);
        talk.ask(sam(), "claim sam").await;
        assert_eq!(talk.effects(sam(), "mode sam masked").await, []);
        let typed = format!("mode sam {mode}");
        let said = talk.answer(sam(), &typed).await.unwrap();
        assert_eq!(said.effects, []);
        assert!(
            said.plain.starts_with(
                "All conversations by @sam end at once, for both sides, and what hasn't been \
                 delivered is lost. From then on, people who start a chat with it see your Matrix \
                 ID, @samuel:example.org. To do it, write `confirm "
            ),
            "{}",
            said.plain
        );
        assert_eq!(talk.record("sam").unwrap().mode, Mode::Masked);
        let code = talk.code(sam(), &typed).await;
        let done = talk
            .answer(sam(), &format!("confirm {code}"))
            .await
            .unwrap();
        assert!(
            done.plain.starts_with(&format!("@sam is {mode}")),
            "{}",
            done.plain
        );
        let ended = Effect::EndConversations {
            ghost: ghost("sam"),
            generation: 1,
            blocked_only: false,
        };
        assert_eq!(done.effects[0], ended);
        assert_eq!(done.effects.len(), 1 + usize::from(strict), "new keys");
        let record = talk.record("sam").unwrap();
        assert_eq!((record.mode, record.strict), (Mode::Open, strict));
    }
}

#[tokio::test]
async fn the_code_to_take_a_mask_off_is_not_good_for_the_next_owner() {
    let mut talk = Talk::with(|settings| {
        settings.capabilities.masked = true;
        settings.quarantine = Duration::ZERO;
    });
    talk.ask(sam(), "claim sam").await;
    talk.ask(sam(), "mode sam masked").await;
    let code = talk.code(sam(), "mode sam open").await;
    let mut tx = talk.directory.begin().await;
    tx.release(sam(), &handle("sam"), NOW).unwrap();
    tx.commit().await.unwrap();
    talk.ask(kim(), "claim sam").await;
    talk.ask(kim(), "mode sam masked").await;
    assert_eq!(
        talk.ask(sam(), &format!("confirm {code}")).await,
        "@sam is not yours."
    );
    assert_eq!(talk.record("sam").unwrap().mode, Mode::Masked);
}

#[tokio::test]
async fn calls_are_a_setting_of_masked_handles_alone() {
    let mut talk = Talk::with(|settings| settings.capabilities.masked = true);
    talk.ask(sam(), "claim sam").await;
    let said = talk.ask(sam(), "calls sam direct").await;
    assert!(said.starts_with("@sam isn't masked"), "{said}");
    talk.ask(sam(), "mode sam masked").await;
    let said = talk.ask(sam(), "calls sam direct").await;
    assert!(said.starts_with("Calls by @sam are direct"), "{said}");
}

#[tokio::test]
async fn on_a_strict_server_every_handle_is_called_strict() {
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    talk.options.strict = true;
    let said = talk.ask(sam(), "mode sam open").await;
    assert!(said.starts_with("@sam is strict"), "{said}");
    assert!(said.contains("makes every handle strict"), "{said}");
    let said = talk.ask(sam(), "policy sam ask").await;
    assert!(said.contains("can't be read, neither by you"), "{said}");
    let said = talk.ask(sam(), "handles").await;
    assert!(said.contains("strict"), "{said}");
}
