//! Requests of people who ask first.

use assert_matches::assert_matches;
use ruma::{event_id, room_id};

use super::*;
use crate::{
    bot::input::COMMAND_AGE_MAX,
    directory::{
        ActingAdmin, BlockScope, GranteeAct, GranteeOrder, Mode, ReachQuery, Request, Verdict,
    },
    handle::{HandleRules, Typed},
    permissions::Grantee,
    testing,
};

/// Sam wants to be asked first, and Alice has asked.
async fn asked() -> (Talk, Request) {
    let mut talk = Talk::with(|settings| settings.capabilities.masked = true);
    talk.ask(sam(), "claim sam").await;
    let said = talk.ask(sam(), "policy sam ask").await;
    assert!(said.contains("people ask first"), "{said}");
    let request = Request {
        handle: handle("sam"),
        generation: talk.record("sam").unwrap().generation,
        asker: alice().to_owned(),
        room: room_id!("!waits:example.org").to_owned(),
        ghost: ghost("sam"),
        since: NOW,
        mode: Mode::Open,
        shown: None,
        line_shown: None,
        asker_alias: None,
    };
    let mut tx = talk.directory.begin().await;
    assert_eq!(tx.open_request(sam(), &request).unwrap(), Some(1));
    tx.set_request_shown(sam(), 1, event_id!("$shown").to_owned())
        .unwrap();
    tx.commit().await.unwrap();
    (talk, request)
}

fn answered(accepted: bool) -> Effect {
    Effect::AnswerRequest {
        room: room_id!("!waits:example.org").to_owned(),
        ghost: ghost("sam"),
        accepted,
        masked: false,
    }
}

async fn reacts(talk: &mut Talk, to: &str, key: &str, sent_at: Timestamp) -> Option<Said> {
    let content = json!({
        "m.relates_to": {"rel_type": "m.annotation", "event_id": to, "key": key},
    });
    talk.answer_event(sam(), "m.reaction", &content, sent_at)
        .await
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
        let ask = ReachQuery {
            asker: alice(),
            handle: &handle("sam"),
            now: NOW,
        };
        let verdict = talk.directory.verdict(&ask).unwrap();
        match typed.split(' ').next() {
            // A person whom the owner accepted once need not ask again.
            Some("accept") => assert!(verdict.is_introduce(), "{verdict:?}"),
            Some("decline") => assert_matches!(verdict, Verdict::Request { .. }),
            _ => assert_matches!(verdict, Verdict::NotNow(_)),
        }
    }
    let (mut talk, _) = asked().await;
    let said = talk.ask(sam(), "accept 7").await;
    assert!(said.contains("no open request 7"), "{said}");
    assert!(talk.effects(kim(), "accept 1").await.is_empty(), "not hers");
    assert_eq!(
        talk.ask(kim(), "requests").await,
        "Nobody is asking to chat with you at the moment."
    );
}

/// A handle may consist of the same digit.
#[tokio::test]
async fn the_number_of_a_request_means_its_asker_wherever_the_block_holds() {
    for (typed, declines) in [
        ("block 1 on @sam", true),
        ("block #1 all", true),
        ("block 1 on @other", false),
    ] {
        let (mut talk, _) = asked().await;
        talk.ask(sam(), "claim other").await;
        let done = talk.answer(sam(), typed).await.unwrap();
        let expected = if declines {
            vec![answered(false)]
        } else {
            Vec::new()
        };
        assert_eq!(done.effects, expected, "{typed}");
        let blocks = talk.ask(sam(), "blocks").await;
        assert!(blocks.contains("@alice:example.org"), "{typed}: {blocks}");
        assert_eq!(
            talk.directory.requests_of(sam()).unwrap().is_empty(),
            declines
        );
    }
    let (mut talk, _) = asked().await;
    let said = talk.ask(sam(), "block #7 on @sam").await;
    assert!(said.contains("no open request 7"), "{said}");
    let said = talk.ask(sam(), "block 1 on @kims").await;
    assert!(said.contains("not yours"), "{said}");
}

#[tokio::test]
async fn who_was_blocked_by_a_number_is_unblocked_by_it() {
    for typed in ["unblock 1", "unblock #1", "unblock 1 on @sam"] {
        let (mut talk, mut request) = asked().await;
        talk.ask(sam(), "decline 1").await;
        request.asker_alias = Some("Someone".to_owned());
        let mut tx = talk.directory.begin().await;
        let number = tx.open_request(sam(), &request).unwrap().unwrap();
        tx.commit().await.unwrap();
        let blocked = talk.ask(sam(), &format!("block {number} on @sam")).await;
        assert!(
            blocked.starts_with(&format!("Blocked: #{number}")),
            "{blocked}"
        );
        let typed = typed.replace('1', &number.to_string());
        let said = talk.ask(sam(), &typed).await;
        assert!(said.starts_with("Unblocked: "), "{typed}: {said}");
        assert_eq!(
            talk.ask(sam(), "blocks").await,
            "You haven't blocked anyone."
        );
    }
}

#[tokio::test]
async fn a_request_is_answered_with_a_reaction_to_the_message_that_shows_it() {
    for (key, accepted) in [("✅", true), ("👍🏾", true), ("❌", false), ("🚫", false)] {
        let (mut talk, _) = asked().await;
        let other = reacts(&mut talk, "$other", key, NOW).await;
        assert_eq!(other, None, "another message");
        assert_eq!(reacts(&mut talk, "$shown", "🎉", NOW).await, None);
        let old = NOW - COMMAND_AGE_MAX - Duration::from_millis(1);
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
    // A block under the name of the request answers it.
    let (mut talk, _) = asked().await;
    let blocked = talk
        .answer(sam(), "block @alice:example.org")
        .await
        .unwrap();
    assert_eq!(blocked.effects, [answered(false)]);
    assert!(blocked.plain.ends_with("I've turned down their request."));
    assert_eq!(talk.directory.requests_of(sam()).unwrap(), []);
    // A block under another name must not show that both names are one person's.
    let (mut talk, _) = asked().await;
    talk.ask(alice(), "claim alice").await;
    let blocked = talk.answer(sam(), "block @alice").await.unwrap();
    assert_eq!(blocked.effects, []);
    assert!(
        blocked.plain.ends_with("`unblock @alice`."),
        "{}",
        blocked.plain
    );
    assert_eq!(talk.directory.requests_of(sam()).unwrap().len(), 1);
    assert_eq!(talk.effects(sam(), "accept 1").await, [answered(false)]);
}

#[tokio::test]
async fn whom_an_admin_banned_meanwhile_is_not_let_in() {
    for banned in [alice(), sam()] {
        let (mut talk, _) = asked().await;
        let by = ActingAdmin::Login("root".to_owned());
        let order = GranteeOrder {
            grantee: &Grantee::Person((**banned).clone()),
            act: GranteeAct::Ban,
            reason: "",
            by: &by,
        };
        let mut tx = talk.directory.begin().await;
        tx.act_on_grantee(&order, NOW).unwrap();
        tx.commit().await.unwrap();
        let answer = talk.answer(sam(), "accept 1").await.unwrap();
        assert_eq!(answer.effects, [answered(false)]);
        assert!(
            answer.plain.contains("no longer lets them reach you"),
            "{}",
            answer.plain
        );
    }
}

#[tokio::test]
async fn a_policy_that_lets_nobody_in_answers_those_who_wait() {
    let (mut talk, _) = asked().await;
    assert_eq!(talk.effects(sam(), "policy sam everyone").await, []);
    let nobody = talk.answer(sam(), "policy sam nobody").await.unwrap();
    assert_eq!(nobody.effects, [answered(false)]);
    assert!(
        nobody
            .plain
            .ends_with("I've turned down those who were waiting for your answer."),
        "{}",
        nobody.plain
    );
    assert_eq!(talk.directory.requests_of(sam()).unwrap(), []);
}

#[tokio::test]
async fn an_owner_is_asked_again_when_the_mode_changed_after_the_request() {
    let (mut talk, mut request) = asked().await;
    let accepted = |masked: bool| {
        [Effect::AnswerRequest {
            room: request.room.clone(),
            ghost: request.ghost.clone(),
            accepted: true,
            masked,
        }]
    };
    set_mode(&talk, Mode::Masked).await;
    let said = reacts(&mut talk, "$shown", "✅", NOW).await.unwrap();
    assert_eq!(said.effects, []);
    assert_eq!(
        said.plain,
        "@sam is masked now, and it wasn't when they asked. If you accept, they don't see your \
         Matrix ID, and this service passes on what you both write and can read it on the way. To \
         accept all the same: `accept 1`."
    );
    let said = talk.answer(sam(), "accept 1").await.unwrap();
    assert_eq!(said.effects, accepted(true));
    assert!(
        said.plain.contains("You don't see each other's Matrix IDs"),
        "{}",
        said.plain
    );

    request.mode = Mode::Masked;
    request.asker_alias = Some("Someone".to_owned());
    let mut tx = talk.directory.begin().await;
    tx.open_request(sam(), &request).unwrap();
    tx.commit().await.unwrap();
    set_mode(&talk, Mode::Open).await;
    let said = talk.answer(sam(), "accept 2").await.unwrap();
    assert_eq!(said.effects, []);
    assert_eq!(
        said.plain,
        "@sam was masked when they asked and no longer is. If you accept, they see your Matrix ID, \
         @samuel:example.org, and know it for good. To accept all the same: `accept 2`."
    );
    assert_eq!(talk.effects(sam(), "accept 2").await, accepted(false));
    // To decline, the mode does not matter.
    request.mode = Mode::Masked;
    let mut tx = talk.directory.begin().await;
    tx.open_request(sam(), &request).unwrap();
    tx.commit().await.unwrap();
    let declined = talk.effects(sam(), "decline 3").await;
    assert!(
        matches!(
            declined[..],
            [Effect::AnswerRequest {
                accepted: false,
                ..
            }]
        ),
        "{declined:?}"
    );
}

/// Lets another person ask, under a mask. Returns the request's number.
async fn ask_masked(talk: &Talk, request: &Request, alias: &str) -> u32 {
    let mut request = request.clone();
    request.asker = testing::person("@eve:example.org").clone();
    request.room = room_id!("!other:example.org").to_owned();
    request.mode = Mode::Masked;
    request.asker_alias = Some(alias.to_owned());
    let mut tx = talk.directory.begin().await;
    let number = tx.open_request(sam(), &request).unwrap();
    tx.commit().await.unwrap();
    number.unwrap()
}

#[tokio::test]
async fn people_who_asked_under_a_mask_are_turned_down_when_it_is_taken_off() {
    let (mut talk, request) = asked().await;
    set_mode(&talk, Mode::Masked).await;
    ask_masked(&talk, &request, "Someone").await;
    let code = talk.code(sam(), "mode sam open").await;
    let done = talk.answer(sam(), &format!("confirm {code}")).await;
    let done = done.unwrap();
    let declined = Effect::AnswerRequest {
        room: room_id!("!other:example.org").to_owned(),
        ghost: ghost("sam"),
        accepted: false,
        masked: true,
    };
    assert!(done.effects.contains(&declined), "{:?}", done.effects);
    assert!(
        done.plain.contains("I've turned down those"),
        "{}",
        done.plain
    );
    let left = talk.directory.requests_of(sam()).unwrap();
    assert_eq!(left.len(), 1, "the one of before the mask: {left:?}");
}

#[tokio::test]
async fn new_keys_turn_down_everyone_who_waits_for_an_answer() {
    let (mut talk, _) = asked().await;
    let done = talk.answer(sam(), "mode sam strict").await.unwrap();
    assert_eq!(done.effects[0], answered(false));
    assert_matches!(done.effects[1], Effect::ReplaceIdentity { .. });
    assert!(
        done.plain.contains("I've turned down those"),
        "{}",
        done.plain
    );
}

#[tokio::test]
async fn a_block_by_another_name_does_not_tell_who_asks_under_a_mask() {
    for (alias, blocked, lets_in) in [
        ("Someone", "@eve:example.org", true),
        ("@eve", "@eve:example.org", true),
        ("@eve", "@eve", false),
    ] {
        let (mut talk, request) = asked().await;
        let eve = testing::person("@eve:example.org");
        talk.ask(eve, "claim eve").await;
        set_mode(&talk, Mode::Masked).await;
        let number = ask_masked(&talk, &request, alias).await;
        // Without the bot, which would decline what was asked under the name that is blocked.
        let mut tx = talk.directory.begin().await;
        let scope = BlockScope::Handle(handle("sam"));
        let target = Typed::parse(blocked, &HandleRules::WIDEST).unwrap();
        tx.block(sam(), &target, &scope, NOW).unwrap();
        tx.commit().await.unwrap();
        let done = talk.answer(sam(), &format!("accept {number}")).await;
        let done = done.unwrap();
        let accepted = matches!(
            done.effects[..],
            [Effect::AnswerRequest { accepted: true, .. }]
        );
        assert_eq!(accepted, lets_in, "{alias} {blocked}: {}", done.plain);
    }
}

async fn set_mode(talk: &Talk, mode: Mode) {
    let mut tx = talk.directory.begin().await;
    tx.set_mode(sam(), &handle("sam"), mode, false).unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn the_bot_names_an_unblock_that_works() {
    for (asker, alias) in [
        (alice(), None),
        (alice(), Some("@Kim")),
        (alice(), Some("Someone")),
        (person("@_dm_x:evil.org"), None),
    ] {
        let (mut talk, mut request) = asked().await;
        talk.ask(sam(), "decline 1").await;
        request.asker = asker.to_owned();
        request.asker_alias = alias.map(str::to_owned);
        let mut tx = talk.directory.begin().await;
        assert_eq!(tx.open_request(sam(), &request).unwrap(), Some(2));
        tx.commit().await.unwrap();
        let said = talk.ask(sam(), "block 2").await;
        let (_, rest) = said.split_once("To undo: `").expect("how to undo it");
        let undo = rest.split_once('`').unwrap().0.to_owned();
        let said = talk.ask(sam(), &undo).await;
        assert!(said.starts_with("Unblocked: "), "{undo}: {said}");
        assert_eq!(
            talk.ask(sam(), "blocks").await,
            "You haven't blocked anyone."
        );
    }
}

#[tokio::test]
async fn a_request_shows_who_asks_and_the_opening_line_and_nothing_as_html() {
    let (mut talk, request) = asked().await;
    let mut shown = ShownRequest {
        number: 1,
        request: &request,
        name: "Alice",
        line: Some("Hello <b>Sam</b>,\nmay I?"),
        now: NOW,
    };
    let text = request_text(&shown, &talk.directory).unwrap();
    assert_eq!(
        text.plain,
        "Request 1: Alice (@alice:example.org) asks to chat with you by your handle @sam. They \
         write:\n\
         > Hello <b>Sam</b>,\n\
         > may I?\n\n\
         Answer with a reaction to this message: ✅ accepts, ❌ declines, 🚫 blocks them. Or write \
         `accept 1`, `decline 1` or `block 1`. If you accept, they see your Matrix ID. If you do \
         nothing, they aren't told why."
    );
    assert!(text.html.contains("&lt;b&gt;"), "{}", text.html);

    // Only one of several handles is shown: nobody may learn that they belong together.
    talk.ask(alice(), "claim alice").await;
    talk.now = NOW + Duration::from_secs(3 * 86_400);
    talk.ask(alice(), "claim wonder").await;
    shown.now = talk.now;
    shown.line = None;
    let text = request_text(&shown, &talk.directory).unwrap();
    assert!(
        text.plain
            .contains("(@alice:example.org, handle @alice for 3 days)"),
        "{}",
        text.plain
    );
    assert!(!text.plain.contains("wonder") && !text.plain.contains("write:\n>"));

    // Nor may the owner learn of a handle that does not let everyone in.
    for policy in ["nobody", "ask"] {
        talk.ask(alice(), &format!("policy alice {policy}")).await;
        let text = request_text(&shown, &talk.directory).unwrap();
        assert!(
            text.plain.contains("handle @wonder for less than a day"),
            "{}",
            text.plain
        );
    }
    talk.ask(alice(), "policy wonder nobody").await;
    let text = request_text(&shown, &talk.directory).unwrap();
    assert!(
        text.plain.contains("(@alice:example.org) asks"),
        "{}",
        text.plain
    );
}

#[tokio::test]
async fn a_reaction_to_the_line_that_came_later_answers_too() {
    for to in ["$shown", "$line"] {
        let (mut talk, _) = asked().await;
        let mut tx = talk.directory.begin().await;
        tx.set_line_shown(sam(), 1, event_id!("$line").to_owned())
            .unwrap();
        tx.commit().await.unwrap();
        let answer = reacts(&mut talk, to, "✅", NOW).await.unwrap();
        assert_eq!(answer.effects, [answered(true)], "{to}");
    }
    assert_eq!(
        crate::bot::late_line_text(1, "Alice", "may I?").plain,
        "Request 1: Alice writes:\n> may I?\n\n\
         A reaction to this message answers the request, too: ✅ accepts, ❌ declines, 🚫 blocks \
         them."
    );
}
