//! The bot's answers, as people read them.

use assert_matches::assert_matches;
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};
use ruma::{room_id, server_name, user_id};

use super::*;
use crate::{
    directory::{
        Directory, DirectorySettings, FreezeReason, HandleRecord, HandleState, Policy, Reach,
    },
    engine::{Message, Spokesperson as _},
    handle::HandleRules,
    store::Store,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn sam() -> &'static UserId {
    user_id!("@samuel:example.org")
}

fn kim() -> &'static UserId {
    user_id!("@kimberly:example.org")
}

fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

fn handle(name: &str) -> Handle {
    Handle::parse(name, &HandleRules::default()).unwrap()
}

/// A control room for everybody, at a time that the test sets.
struct Talk {
    directory: Directory,
    context: BotContext,
    rng: StdRng,
    now: Timestamp,
}

impl Talk {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut DirectorySettings)) -> Self {
        let mut settings = DirectorySettings::new(server_name!("example.org").to_owned());
        change(&mut settings);
        Talk {
            directory: Directory::new(Store::in_memory(), settings),
            context: BotContext {
                bot: user_id!("@_dm_.bot:example.org").to_owned(),
                commands_per_minute: 1000,
            },
            rng: StdRng::seed_from_u64(7),
            now: NOW,
        }
    }

    async fn answer(&mut self, person: &UserId, text: &str) -> Option<Answer> {
        self.answer_sent_at(person, text, self.now).await
    }

    async fn answer_sent_at(
        &mut self,
        person: &UserId,
        text: &str,
        sent_at: Timestamp,
    ) -> Option<Answer> {
        let mut change = self.directory.begin().await;
        let answer = answer(
            person,
            text,
            sent_at,
            &mut change,
            &self.context,
            self.now,
            &mut self.rng,
        )
        .unwrap();
        change.commit().await.unwrap();
        answer
    }

    /// The plain text of the answer.
    async fn ask(&mut self, person: &UserId, text: &str) -> String {
        self.answer(person, text).await.expect("an answer").plain
    }

    async fn effects(&mut self, person: &UserId, text: &str) -> Vec<BotEffect> {
        self.answer(person, text).await.expect("an answer").effects
    }

    /// The code in what the bot says to `release sam`.
    async fn code(&mut self, person: &UserId, text: &str) -> String {
        let said = self.ask(person, text).await;
        let (_, rest) = said.split_once("`confirm ").expect("a code");
        rest.split_once('`').expect("a code").0.to_owned()
    }

    fn record(&self, name: &str) -> Option<HandleRecord> {
        self.directory.lookup(&handle(name)).unwrap()
    }
}

#[tokio::test]
async fn somebody_comes_claims_and_is_told_what_follows() {
    let mut talk = Talk::new();
    let change = talk.directory.begin().await;
    assert_eq!(
        greeting(sam(), &change).unwrap().plain,
        "Hello! I look after the handles of example.org. With a handle people can start an \
         encrypted chat with you, knowing nothing but that name.\n\n\
         To get one, pick a name and write, for example, `claim sam`. To write to somebody: \
         `dm @kim`. All I can do: `help`."
    );
    drop(change);

    let answer = talk.answer(sam(), "claim @Sam").await.unwrap();
    assert_eq!(
        answer.plain,
        "@Sam is yours. In a moment people can reach you by starting a chat with \
         @_dm_sam:example.org, or with this link: \
         https://matrix.to/#/@_dm_sam:example.org\n\n\
         It introduces people to you and leaves: what you write is then between you. Whoever it \
         introduces sees your Matrix ID, @samuel:example.org, and knows it from then on.\n\n\
         To be left alone: `policy Sam nobody`. All you can do: `help`."
    );
    assert_eq!(
        answer.html.split_once(", or").unwrap().0,
        "<strong>@Sam</strong> is yours. In a moment people can reach you by starting a chat with \
         <strong>@_dm_sam:example.org</strong>"
    );
    assert_eq!(
        answer.effects,
        [BotEffect::ProvisionGhost {
            handle: handle("sam"),
            generation: 1
        }]
    );
    let change = talk.directory.begin().await;
    let again = greeting(sam(), &change).unwrap().plain;
    assert!(
        again.contains("You have @Sam. To see more of it, write `handles`."),
        "{again}"
    );
}

#[tokio::test]
async fn help_shows_what_this_person_can_do_now() {
    let mut talk = Talk::with(|settings| settings.handles_per_person = 1);
    assert_eq!(
        talk.ask(sam(), "help").await,
        "You have no handle yet. To get one, pick a name and write, for example, `claim sam`.\n\
         • `claim sam` makes a handle yours\n\
         • `dm @sam` gives you a link that starts a chat with somebody\n\
         • `whoami` shows what I know about you\n\
         • `help` shows this"
    );
    talk.ask(sam(), "claim sam").await;
    assert_eq!(
        talk.ask(sam(), "HELP!").await,
        "What you can write to me:\n\
         • `handles` shows your handles and how they are set up\n\
         • `dm @sam` gives you a link that starts a chat with somebody\n\
         • `mode sam open|strict|masked` sets how people are introduced to you\n\
         • `policy sam everyone|ask|nobody` sets who may reach you\n\
         • `block @kim` keeps a person out, whichever handle of theirs they use\n\
         • `release sam` gives one of your handles up\n\
         • `whoami` shows what I know about you\n\
         • `help` shows this"
    );
    talk.ask(sam(), "block @alice:example.org").await;
    talk.ask(sam(), "release sam").await;
    let help = talk.ask(sam(), "").await;
    for shown in ["`unblock @kim`", "`confirm 1234`", "`cancel`"] {
        assert!(help.contains(shown), "{help}");
    }
    assert_eq!(
        talk.ask(sam(), "help unblock").await,
        "`unblock @kim` takes a block back; without a name it shows whom you blocked."
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
            "@old was given up not long ago, so nobody else can have it yet. It is free again on \
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
            "Handles of elsewhere.org are given out there; here you get one of ours. For example: \
             `claim sam`",
        ),
        (
            "claim https://matrix.to/#/#room:example.org",
            "That cannot be a handle; a handle is a single name. For example: `claim sam`",
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
        "@s_a_m looks like your own @sam, and one of them has to be enough."
    );
    for name in ["two", "three", "four", "five"] {
        assert_matches!(
            talk.effects(sam(), &format!("claim {name}")).await[..],
            [BotEffect::ProvisionGhost { .. }]
        );
    }
    talk.now = NOW + Duration::from_secs(3 * 86_400);
    assert_eq!(
        talk.ask(sam(), "claim six").await,
        "You have 5 handles, and more are not allowed here; release one first."
    );
}

#[tokio::test]
async fn the_owner_of_a_handle_hears_of_look_alikes() {
    let mut talk = Talk::new();
    talk.ask(kim(), "claim modern").await;
    let effects = talk.effects(sam(), "claim rnodern").await;
    assert_matches!(&effects[..], [BotEffect::Tell { person, plain, html }] => {
        assert_eq!(person, kim());
        assert_eq!(
            plain,
            "Somebody wanted to claim @rnodern, which looks like your @modern. They did not get \
             it. You need not do anything."
        );
        assert!(html.contains("<strong>@rnodern</strong>"));
    });
}

#[tokio::test]
async fn handles_are_listed_with_how_they_are_set_up() {
    let mut talk = Talk::new();
    assert!(
        talk.ask(sam(), "handles")
            .await
            .starts_with("You have no handle yet.")
    );
    for text in [
        "claim sam",
        "claim other",
        "mode other strict",
        "policy other nobody",
    ] {
        talk.ask(sam(), text).await;
    }
    let mut change = talk.directory.begin().await;
    change.set_verified(&handle("sam"), Some(NOW)).unwrap();
    let note = "<b>complaints</b>".to_owned();
    change
        .freeze(&handle("sam"), FreezeReason::Admin { note }, NOW)
        .unwrap();
    change.commit().await.unwrap();
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
         first message. It may happen that you cannot read that one; then they are asked to send \
         it again. Whoever it introduces to you sees your Matrix ID, @samuel:example.org, and \
         knows it for good: blocking them later does not change that.\n\n\
         This gives @_dm_sam:example.org new keys. People who had to do with it may see a warning \
         that its identity changed; that is this change."
    );
    let replaced = [BotEffect::ReplaceIdentity {
        handle: handle("sam"),
        generation: 1,
    }];
    assert_eq!(strict.effects, replaced);
    assert_eq!(talk.effects(sam(), "mode strict").await, []);
    let open = talk.answer(sam(), "Mode OPEN").await.unwrap();
    assert_eq!(open.effects, replaced);
    assert!(
        open.plain.starts_with(
            "@sam is open: it takes the first message of whoever starts a chat, invites you, \
             passes that message on, and leaves. From then on only the two of you can read what \
             you write. Whoever it introduces to you sees your Matrix ID, @samuel:example.org, \
             and knows it for good"
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
            .starts_with("You have no handle yet.")
    );
}

#[tokio::test]
async fn policy_decides_who_gets_through() {
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    assert_eq!(
        talk.ask(sam(), "policy sam nobody").await,
        "@sam: from now on nobody reaches you by it. Whoever tries is told \"not now\", in the \
         same words as if you had blocked them. Chats that you have go on."
    );
    assert_eq!(talk.record("sam").unwrap().policy.direct, Reach::Nobody);
    assert_eq!(
        talk.ask(sam(), "policy").await,
        "@sam: nobody may reach you. You can choose between `policy sam everyone`, \
         `policy sam ask` and `policy sam nobody`."
    );
    assert_eq!(
        talk.ask(sam(), "policy everyone").await,
        "@sam: from now on everyone may reach you. To keep somebody out: `block @kim`."
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
        "That is a Matrix ID, so you need no handle: https://matrix.to/#/@samuel:example.org"
    );
    assert_eq!(
        talk.ask(alice(), "dm @sam@elsewhere.org").await,
        "Handles of elsewhere.org are looked after there. If @sam@elsewhere.org exists, this \
         starts a chat: https://matrix.to/#/@_dm_sam:elsewhere.org"
    );
    assert_eq!(
        talk.ask(alice(), "dm").await,
        "Say whom you want to write to. For example: `dm @sam`"
    );
    let mut change = talk.directory.begin().await;
    let room = room_id!("!theirs:example.org");
    change
        .remember_pair(alice(), &handle("sam"), 1, room, NOW)
        .unwrap();
    change.commit().await.unwrap();
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
    let mut talk = Talk::with(|settings| settings.asks_per_sender = 5);
    talk.ask(sam(), "claim sam").await;
    let mut said = Vec::new();
    said.push(talk.ask(alice(), "dm free").await.replace("@free", "@sam"));
    talk.ask(sam(), "policy sam nobody").await;
    said.push(talk.ask(alice(), "dm sam").await);
    talk.ask(sam(), "policy sam everyone").await;
    talk.ask(sam(), "block @alice:example.org").await;
    said.push(talk.ask(alice(), "dm sam").await);
    talk.ask(sam(), "unblock @alice:example.org").await;
    let mut change = talk.directory.begin().await;
    change
        .freeze(&handle("sam"), FreezeReason::GhostNotOurs, NOW)
        .unwrap();
    change.commit().await.unwrap();
    said.push(talk.ask(alice(), "dm sam").await);
    let mut change = talk.directory.begin().await;
    change.unfreeze(&handle("sam")).unwrap();
    change.commit().await.unwrap();
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
            "I cannot bring you together with @sam now. Perhaps nobody has this handle, perhaps \
             its owner is not taking new conversations, perhaps you have started many today. I do \
             not know more than this to tell you."
        );
    }
}

#[tokio::test]
async fn a_person_is_blocked_and_the_client_is_not_forgotten() {
    let mut talk = Talk::new();
    assert!(
        talk.ask(sam(), "block @kim")
            .await
            .starts_with("You have no handle yet.")
    );
    talk.ask(sam(), "claim sam").await;
    talk.ask(kim(), "claim kim").await;
    assert_eq!(
        talk.ask(sam(), "block @kim").await,
        "Blocked: @kim cannot reach you by @sam any more, with none of their handles. They are \
         not told; they see the same as when you take no new conversations.\n\n\
         This holds for new chats by handle. If they know your Matrix ID or you have a chat with \
         them, ignore them in your client too: open their profile and choose \"Ignore\". To undo: \
         `unblock @kim`."
    );
    assert!(
        talk.ask(kim(), "dm sam")
            .await
            .starts_with("I cannot bring you together")
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
        "You have no such block of @kimberly:example.org. A block is taken back by the name it \
         was made with; `unblock` alone shows them."
    );
    assert_eq!(
        talk.ask(sam(), "unblock @kim").await,
        "Unblocked: @kim can reach you again, as your policy allows. If you ignored them in your \
         client, end that there."
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
            "I did not understand all of that. For example: `block @kim on @sam`",
        ),
    ] {
        assert_eq!(talk.ask(sam(), typed).await, expected);
    }
    talk.ask(sam(), "unblock @eve:elsewhere.org").await;
    assert_eq!(talk.ask(sam(), "blocks").await, "You have blocked nobody.");
}

#[tokio::test]
async fn a_handle_is_released_only_with_its_code() {
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    assert_eq!(
        talk.ask(sam(), "release").await,
        "Say which handle you give up. For example: `release sam`"
    );
    let said = talk.ask(sam(), "release sam").await;
    assert!(
        said.starts_with(
            "Giving up @sam means: nobody can reach you by it any more, and chats that were begun \
             by it go on without it. For 365 days only you can claim it again, after that anybody \
             can. To do it, write `confirm "
        ),
        "{said}"
    );
    assert!(
        said.ends_with(
            "` within 10 minutes. To leave all as it is, do nothing, or write `cancel`."
        ),
        "{said}"
    );
    assert!(talk.record("sam").unwrap().is_active());
    // A new code takes the place of the old one, and is for the one who asked.
    let old = said.split_once("`confirm ").unwrap().1[..4].to_owned();
    let code = talk.code(sam(), "release sam").await;
    assert_ne!(old, code);
    assert!(code.len() == 4 && code.bytes().all(|b| b.is_ascii_digit()));
    let nothing = "Nothing waits for a code, or its time has run out. Nothing was changed.";
    assert_eq!(talk.ask(kim(), &format!("confirm {code}")).await, nothing);
    assert_eq!(
        talk.ask(sam(), &format!("confirm {old}")).await,
        "That is not the code I gave you. You have 2 more tries, or write `cancel`."
    );
    let answer = talk
        .answer(sam(), &format!("Confirm `{code}`"))
        .await
        .unwrap();
    assert_eq!(
        answer.plain,
        "Done: @sam is not yours any more. If you change your mind: `claim sam`."
    );
    assert_eq!(
        answer.effects,
        [BotEffect::RetireGhost {
            handle: handle("sam"),
            generation: 1
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
async fn a_code_runs_out_is_dropped_after_three_slips_and_can_be_cancelled() {
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    let code = talk.code(sam(), "release sam").await;
    talk.now = NOW + Duration::from_secs(600);
    let late = talk.ask(sam(), &format!("confirm {code}")).await;
    assert!(late.starts_with("Nothing waits"), "{late}");

    let code = talk.code(sam(), "release sam").await;
    let wrong = if code == "0000" { "0001" } else { "0000" };
    assert_eq!(
        talk.ask(sam(), "confirm").await,
        "The code I gave you belongs behind it. For example: `confirm 1234`"
    );
    for expected in [
        "That is not the code I gave you. You have 2 more tries, or write `cancel`.",
        "That is not the code I gave you. You have one more try, or write `cancel`.",
        "That is not the code either, so I have dropped what waited for it. Nothing was changed.",
    ] {
        assert_eq!(talk.ask(sam(), &format!("confirm {wrong}")).await, expected);
    }
    let after = talk.ask(sam(), &format!("confirm {code}")).await;
    assert!(after.starts_with("Nothing waits"), "{after}");

    let code = talk.code(sam(), "release sam").await;
    assert_eq!(
        talk.ask(sam(), "cancel").await,
        "Dropped. Nothing was changed."
    );
    assert_eq!(
        talk.ask(sam(), "cancel").await,
        "Nothing waits for a code, so there is nothing to cancel."
    );
    let after = talk.ask(sam(), &format!("confirm {code}")).await;
    assert!(after.starts_with("Nothing waits"), "{after}");
    assert!(talk.record("sam").unwrap().is_active());
}

#[tokio::test]
async fn a_code_does_not_release_what_was_frozen_or_given_to_another_meanwhile() {
    let mut talk = Talk::with(|settings| settings.quarantine = Duration::ZERO);
    talk.ask(sam(), "claim sam").await;
    let code = talk.code(sam(), "release sam").await;
    let mut change = talk.directory.begin().await;
    change
        .freeze(&handle("sam"), FreezeReason::GhostNotOurs, NOW)
        .unwrap();
    change.commit().await.unwrap();
    assert_eq!(
        talk.ask(sam(), &format!("confirm {code}")).await,
        "@sam is frozen; ask the admin of this server about it."
    );
    let mut change = talk.directory.begin().await;
    change.unfreeze(&handle("sam")).unwrap();
    change.commit().await.unwrap();

    let code = talk.code(sam(), "release sam").await;
    let mut change = talk.directory.begin().await;
    change.revoke(&handle("sam"), NOW).unwrap();
    change.commit().await.unwrap();
    talk.ask(kim(), "claim sam").await;
    assert_eq!(
        talk.ask(sam(), &format!("confirm {code}")).await,
        "@sam is not yours."
    );
    assert_eq!(talk.record("sam").unwrap().owner, kim());
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
    let mut change = talk.directory.begin().await;
    assert_eq!(sweep(&mut change, talk.now, 10).unwrap(), 2);
    assert_eq!(sweep(&mut change, talk.now, 10).unwrap(), 0);
    change.commit().await.unwrap();
    let done = talk.ask(kim(), &format!("confirm {code}")).await;
    assert!(done.starts_with("Done: @kim"), "{done}");
}

#[tokio::test]
async fn an_old_command_is_not_run() {
    let mut talk = Talk::new();
    let old = NOW - FRESH - Duration::from_secs(60);
    assert_eq!(
        talk.answer_sent_at(sam(), "claim sam", old)
            .await
            .unwrap()
            .plain,
        "This reached me 11 minutes after you sent it, so I have not done it. If you still want \
         it, send it again."
    );
    let future = NOW + FRESH + Duration::from_secs(1);
    let said = talk
        .answer_sent_at(sam(), "claim sam", future)
        .await
        .unwrap()
        .plain;
    assert!(
        said.starts_with("Your message carries a time that lies in the future"),
        "{said}"
    );
    assert_eq!(talk.record("sam"), None);
}

#[tokio::test]
async fn what_is_no_command_gets_the_nearest_one() {
    let mut talk = Talk::new();
    for (typed, expected) in [
        (
            "clam sam",
            "I do not know `clam`. Did you mean `claim sam`? `help` shows all I can do.",
        ),
        (
            "@Kim",
            "I do not know `@Kim`. To write to somebody, put `dm` before it: `dm @Kim`. `help` \
             shows all I can do.",
        ),
        (
            "what is this",
            "I do not know `what`. `help` shows all I can do.",
        ),
        ("a`b", "I do not know `a'b`. `help` shows all I can do."),
        (
            "claim sam\nclaim kim",
            "One command per message, please. I have done none of these.",
        ),
    ] {
        assert_eq!(talk.ask(sam(), typed).await, expected);
    }
    let long = talk.ask(sam(), &"x".repeat(999)).await;
    assert!(long.chars().count() < 100, "{long}");
    assert_eq!(
        talk.ask(sam(), &"x".repeat(1001)).await,
        "That is longer than any command of mine, so I have not read it. `help` shows what I \
         understand."
    );
    let html = talk.answer(sam(), "<img/src=x>").await.unwrap().html;
    assert!(
        html.contains("&lt;img/src=x&gt;") && !html.contains("<img"),
        "{html}"
    );
    assert_eq!(talk.directory.handles_of(sam()).unwrap(), []);
}

#[tokio::test]
async fn a_flood_is_answered_once_and_then_met_with_silence() {
    let mut talk = Talk::new();
    talk.context.commands_per_minute = 3;
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(
            talk.answer(sam(), "whoami")
                .await
                .map(|answer| answer.plain),
        );
    }
    let flood =
        "That is a lot at once. I stop listening for a minute; after that, go on.".to_owned();
    assert!(
        answers[..3]
            .iter()
            .all(|said| said.as_ref().is_some_and(|said| *said != flood))
    );
    assert_eq!(answers[3], Some(flood));
    assert_eq!(answers[4..], vec![None; 6]);
    assert!(talk.answer(kim(), "whoami").await.is_some());
    talk.now = NOW + Duration::from_secs(120);
    assert!(talk.answer(sam(), "whoami").await.is_some());
}

#[tokio::test]
async fn whoami_says_what_is_kept() {
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    talk.ask(sam(), "claim other").await;
    talk.ask(sam(), "block @kim:example.org all").await;
    assert_eq!(
        talk.ask(sam(), "whoami").await,
        "You are @samuel:example.org. You have @other and @sam. You have blocked one person.\n\n\
         I am @_dm_.bot:example.org. I keep your Matrix ID, your handles and how they are set up, \
         whom you blocked, and for 90 days who was introduced to whom. What you write to each \
         other I do not keep."
    );
}

#[test]
fn a_pending_action_keeps_its_form_on_disk() {
    let action = pending::Action::Release {
        handle: handle("Sam"),
        generation: 2,
    };
    assert_eq!(
        serde_json::to_value(action).unwrap(),
        serde_json::json!({ "release": { "handle": "Sam", "generation": 2 } })
    );
}

#[tokio::test]
async fn what_is_not_text_counts_like_a_command() {
    let talk = Talk::new();
    let bot = Bot::new(talk.context.bot.clone());
    let content = serde_json::json!({"msgtype": "m.image", "body": "picture.png"});
    let mut rng = StdRng::seed_from_u64(7);
    let mut answers = 0;
    for _ in 0..200 {
        let mut change = talk.directory.begin().await;
        let message = Message {
            person: sam(),
            event_type: "m.room.message",
            content: &content,
            sent_at: NOW,
            now: NOW,
        };
        let answer = bot.answer(message, &mut change, &mut rng).unwrap();
        change.commit().await.unwrap();
        answers += usize::from(answer.words.is_some());
    }
    assert_eq!(answers, 21, "twenty, and that it is too much");
}

#[tokio::test]
async fn whoever_claims_too_late_on_their_server_reads_what_to_do() {
    let mut talk = Talk::with(|settings| settings.claims_per_server = 1);
    let (one, other) = (user_id!("@p1:far.org"), user_id!("@p2:far.org"));
    assert!(talk.ask(one, "claim grab").await.contains("is yours"));
    assert_eq!(
        talk.ask(other, "claim more").await,
        "The people of far.org have claimed as many handles here today as one other server may; \
         please try again tomorrow, or ask the admin of this server."
    );
}

#[test]
fn what_is_not_text_is_answered_in_words() {
    assert_eq!(
        not_text().plain,
        "I only read text. Write `help` to see what I can do."
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is typed: an answer, of bounded length, with no HTML but ours.
    #[test]
    fn nothing_that_is_typed_breaks_the_bot(
        command in "(claim|release|mode|policy|dm|block|unblock|confirm|help|cancel|handles|x)",
        rest in "\\PC{0,60}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut talk = Talk::new();
            talk.ask(sam(), "claim sam").await;
            let answer = talk.answer(sam(), &format!("{command} {rest}")).await.unwrap();
            assert!(!answer.plain.is_empty() && answer.plain.len() < 2000);
            let mut html = answer.html;
            for ours in ["<strong>", "</strong>", "<code>", "</code>", "<br>", "</a>", "<a href=\""] {
                html = html.replace(ours, "");
            }
            html = html.replace("\">", "");
            assert!(!html.contains(['<', '>', '"']), "{html}");
            assert!(talk.record("sam").unwrap().is_active());
        });
    }
}

/// Sam likes to be asked, and Alice has asked.
async fn asked() -> (Talk, crate::directory::Request) {
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    let said = talk.ask(sam(), "policy sam ask").await;
    assert!(said.contains("people ask first"), "{said}");
    let request = crate::directory::Request {
        handle: handle("sam"),
        generation: talk.record("sam").unwrap().generation,
        asker: alice().to_owned(),
        room: room_id!("!waits:example.org").to_owned(),
        ghost: user_id!("@_dm_sam:example.org").to_owned(),
        since: NOW,
        shown: None,
        masked_as: None,
    };
    let mut change = talk.directory.begin().await;
    assert_eq!(change.open_request(sam(), &request).unwrap(), Some(1));
    change
        .request_shown(sam(), 1, ruma::event_id!("$shown").to_owned())
        .unwrap();
    change.commit().await.unwrap();
    (talk, request)
}

fn answered(accepted: bool) -> BotEffect {
    BotEffect::AnswerRequest {
        room: room_id!("!waits:example.org").to_owned(),
        ghost: user_id!("@_dm_sam:example.org").to_owned(),
        accepted,
    }
}

async fn reacts(talk: &mut Talk, to: &str, key: &str, sent_at: Timestamp) -> Option<Answer> {
    let mut change = talk.directory.begin().await;
    let to = ruma::EventId::parse(to).unwrap();
    let answer = react(sam(), &to, key, sent_at, &mut change, talk.now).unwrap();
    change.commit().await.unwrap();
    answer
}

#[tokio::test]
async fn a_request_is_answered_in_words() {
    for (typed, accepted) in [
        ("accept", true),
        ("accept 1", true),
        ("accept #1", true),
        ("decline 1", false),
        ("block 1", false),
    ] {
        let (mut talk, _) = asked().await;
        let list = talk.ask(sam(), "requests").await;
        assert!(list.contains("1: @alice:example.org"), "{list}");
        assert_eq!(
            talk.effects(sam(), typed).await,
            [answered(accepted)],
            "{typed}"
        );
        let again = talk.ask(sam(), typed).await;
        assert!(talk.effects(sam(), typed).await.is_empty(), "{again}");
        let ask = crate::directory::Ask {
            asker: alice(),
            handle: &handle("sam"),
            now: NOW,
        };
        let verdict = talk.directory.verdict(&ask).unwrap();
        match typed.split(' ').next() {
            // Whom the owner accepted once need not ask again.
            Some("accept") => assert!(verdict.is_introduce(), "{verdict:?}"),
            Some("decline") => assert_matches!(verdict, crate::directory::Verdict::Request { .. }),
            _ => assert_matches!(verdict, crate::directory::Verdict::NotNow(_)),
        }
    }
    let (mut talk, _) = asked().await;
    let said = talk.ask(sam(), "accept 7").await;
    assert!(said.contains("no request 7"), "{said}");
    assert!(talk.effects(kim(), "accept 1").await.is_empty(), "not hers");
    assert_eq!(
        talk.ask(kim(), "requests").await,
        "Nobody asks to chat with you at the moment."
    );
}

#[tokio::test]
async fn a_request_is_answered_with_a_reaction_to_the_message_that_shows_it() {
    for (key, accepted) in [("✅", true), ("👍🏾", true), ("❌", false), ("🚫", false)] {
        let (mut talk, _) = asked().await;
        let other = reacts(&mut talk, "$other", key, NOW).await;
        assert_eq!(other, None, "another message");
        assert_eq!(reacts(&mut talk, "$shown", "🎉", NOW).await, None);
        let old = NOW - FRESH - Duration::from_millis(1);
        let late = reacts(&mut talk, "$shown", key, old).await.unwrap();
        assert!(
            late.plain.contains("send it again") && late.effects.is_empty(),
            "{late:?}"
        );
        assert_eq!(reacts(&mut talk, "$other", key, old).await, None);
        let answer = reacts(&mut talk, "$shown", key, NOW).await.unwrap();
        assert_eq!(answer.effects, [answered(accepted)], "{key}");
        assert_eq!(reacts(&mut talk, "$shown", key, NOW).await, None, "once");
    }
}

#[tokio::test]
async fn whom_the_owner_blocked_meanwhile_is_not_let_in() {
    let (mut talk, _) = asked().await;
    talk.ask(sam(), "block @alice:example.org").await;
    assert_eq!(talk.effects(sam(), "accept 1").await, [answered(false)]);
}

#[tokio::test]
async fn a_request_shows_who_asks_and_the_opening_line_and_nothing_as_html() {
    let (mut talk, request) = asked().await;
    let mut shown = crate::engine::Shown {
        number: 1,
        request: &request,
        name: "Alice",
        line: Some("Hello <b>Sam</b>,\nmay I?"),
        now: NOW,
    };
    let say = request::show(&shown, &talk.directory, NOW).unwrap();
    assert_eq!(
        say.plain(),
        "Request 1: Alice (@alice:example.org) asks to chat with you by your handle @sam. They \
         write:\n> Hello <b>Sam</b>,\n> may I?\n\nAnswer with a reaction to this message: ✅ \
         accepts, ❌ declines, 🚫 blocks them. Or write `accept 1`, `decline 1` or `block 1`. If \
         you accept, they see your Matrix ID. If you do nothing, they are not told why."
    );
    assert!(say.html().contains("&lt;b&gt;"), "{}", say.html());

    // Of several handles only one is shown: nobody is to know that they belong together.
    talk.ask(alice(), "claim alice").await;
    talk.now = NOW + Duration::from_secs(3 * 86_400);
    talk.ask(alice(), "claim wonder").await;
    shown.now = talk.now;
    shown.line = None;
    let say = request::show(&shown, &talk.directory, talk.now).unwrap();
    assert!(
        say.plain()
            .contains("(@alice:example.org, handle @alice for 3 days)"),
        "{}",
        say.plain()
    );
    assert!(!say.plain().contains("wonder") && !say.plain().contains("write:\n>"));
}
