//! Claiming a handle.

use assert_matches::assert_matches;

use super::*;
use crate::{permissions::Permissions, testing::let_everybody_claim};

#[tokio::test]
async fn somebody_comes_claims_and_is_told_what_follows() {
    let mut talk = Talk::new();
    let tx = talk.directory.begin().await;
    assert_eq!(
        texts::greeting(sam(), &tx).unwrap().plain,
        "Hello! I look after the handles of example.org. A handle is a name by which people can \
         start an encrypted chat with you. They need to know nothing else about you.\n\n\
         To get one, pick a name and write, for example, `claim sam`. To write to someone: `dm \
         @kim`. All I can do: `help`."
    );
    drop(tx);

    let answer = talk.answer(sam(), "claim @Sam").await.unwrap();
    assert_eq!(
        answer.plain,
        "@Sam is yours. In a moment people can reach you by starting a chat with \
         @_dm_sam:example.org, or with this link: https://matrix.to/#/@_dm_sam:example.org\n\n\
         It introduces people to you and leaves: after that, what you write is between you. People \
         who reach you by it see your Matrix ID, @samuel:example.org, and know it from then on.\n\n\
         To keep someone out, decline the invite and write `block @user:server` to me. Don't let \
         your client block or ignore @_dm_sam:example.org: after that, nobody could reach you by \
         your handle.\n\n\
         To be left alone: `policy Sam nobody`. All you can do: `help`."
    );
    assert_eq!(
        answer.html.split_once(", or").unwrap().0,
        "<strong>@Sam</strong> is yours. In a moment people can reach you by starting a chat with \
         <code>@_dm_sam:example.org</code>"
    );
    assert_eq!(
        answer.effects,
        [Effect::MakeGhost {
            ghost: ghost("sam"),
            name: "@Sam".to_owned(),
            generation: 1,
        }]
    );
    let tx = talk.directory.begin().await;
    let again = texts::greeting(sam(), &tx).unwrap().plain;
    assert!(
        again.contains("You have @Sam. To see how it's set up, write `handles`."),
        "{again}"
    );
}

#[tokio::test]
async fn what_cannot_be_claimed_is_refused_with_the_next_step() {
    let mut talk = Talk::new();
    talk.ask(kim(), "claim modern").await;
    talk.ask(kim(), "claim old").await;
    let code = talk.code(kim(), "release old").await;
    talk.ask(kim(), &format!("confirm {code}")).await;
    for (typed, expected) in [
        (
            "claim",
            "Say which handle you want. For example: `claim sam`",
        ),
        ("claim modern", "@modern is taken. Try another name."),
        (
            "claim rnodern",
            "@rnodern looks too much like @modern, which is taken. Try another name.",
        ),
        (
            "claim adm1n",
            "@adm1n is reserved, so nobody can claim it. Try another name.",
        ),
        (
            "claim old",
            "@old was given up not long ago, so nobody else can have it yet. It's free again on \
             13 November 2024. Until then, try another name.",
        ),
        (
            "claim sam smith",
            "A handle has only the letters a to z, digits and `_`, so ' ' cannot be in it; did \
             you mean `@sam_smith`?",
        ),
        (
            "claim a_very_long_name",
            "A handle has at most 15 characters; try a shorter one.",
        ),
        (
            "claim @sam:example.org",
            "@sam:example.org is a Matrix ID; a handle is a single name. For example: `claim sam`",
        ),
        (
            "claim @sam@elsewhere.org",
            "Handles on elsewhere.org are managed by that server, and here you get one of ours. \
             For example: `claim sam`",
        ),
        (
            "claim https://matrix.to/#/#room:example.org",
            "That can't be a handle; a handle is a single name. For example: `claim sam`",
        ),
    ] {
        assert_eq!(talk.ask(sam(), typed).await, expected);
        assert_eq!(talk.directory.handles_of(sam()).unwrap(), []);
    }
    talk.ask(sam(), "claim sam").await;
    assert_eq!(
        talk.ask(sam(), "claim SAM").await,
        "@sam is yours already. `handles` shows how it is set up."
    );
    assert_eq!(
        talk.ask(sam(), "claim s_a_m").await,
        "@s_a_m looks too much like your own @sam: you can have only one of the two."
    );
    for name in ["two", "three", "four", "five"] {
        assert_matches!(
            talk.effects(sam(), &format!("claim {name}")).await[..],
            [Effect::MakeGhost { .. }]
        );
    }
    talk.now = NOW + Duration::from_secs(3 * 86_400);
    assert_eq!(
        talk.ask(sam(), "claim six").await,
        "You have 5 handles, and more are not allowed here; release one first."
    );
}

#[tokio::test]
async fn a_person_whom_the_admin_gives_no_handle_reads_so_and_is_offered_none() {
    let mut talk = Talk::new();
    let bob = person("@bob:far.org");
    assert_eq!(
        talk.ask(bob, "claim bob").await,
        "You can't have a handle here; ask the admin of this server for one."
    );
    for asked in ["help", "handles", "whoami", "mode masked"] {
        let said = talk.ask(bob, asked).await;
        assert!(
            said.contains("the admin decides who can have one"),
            "{said}"
        );
        assert!(!said.contains("claim"), "{said}");
    }
    // They are let in, and with that they are offered one.
    let mut settings = talk.directory.settings().clone();
    let_everybody_claim(&mut settings);
    assert!(talk.ask(bob, "help").await.contains("`claim sam`"));
    assert!(talk.ask(bob, "claim bob").await.contains("is yours"));
    // The handle that they have stays theirs.
    let own = Permissions::new(&settings.server_name, []);
    settings.permissions.replace(own);
    assert!(talk.ask(bob, "handles").await.contains("@bob"));
    assert!(talk.ask(bob, "policy bob nobody").await.contains("@bob"));
}

#[tokio::test]
async fn a_person_whose_server_is_at_its_limit_reads_what_to_do() {
    let mut talk = Talk::with(|settings| {
        settings.claims_per_server = 1;
        let_everybody_claim(settings);
    });
    let (one, other) = (person("@p1:far.org"), person("@p2:far.org"));
    assert!(talk.ask(one, "claim grab").await.contains("is yours"));
    assert_eq!(
        talk.ask(other, "claim more").await,
        "The people of far.org have claimed as many handles here today as one other server may; \
         please try again tomorrow, or ask the admin of this server."
    );
}

#[tokio::test]
async fn the_owner_of_a_handle_hears_of_look_alikes() {
    let mut talk = Talk::new();
    talk.ask(kim(), "claim modern").await;
    let effects = talk.effects(sam(), "claim rnodern").await;
    assert_matches!(&effects[..], [Effect::Tell { person, notice: NoticeText { plain, html } }] => {
        assert_eq!(person, kim());
        assert_eq!(
            plain,
            "Someone tried to claim @rnodern, which looks like your @modern. They didn't get \
             it. You don't have to do anything."
        );
        assert!(html.contains("<strong>@rnodern</strong>"));
    });
}
