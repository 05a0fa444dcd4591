//! Requests of people who ask first.

use assert_matches::assert_matches;
use ruma::{event_id, room_id};

use super::*;
use crate::{
    bot::input::COMMAND_AGE_MAX,
    directory::{ReachQuery, Request, Verdict},
};

/// Sam wants to be asked first, and Alice has asked.
async fn asked() -> (Talk, Request) {
    let mut talk = Talk::new();
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
    let (mut talk, _) = asked().await;
    talk.ask(sam(), "block @alice:example.org").await;
    assert_eq!(talk.effects(sam(), "accept 1").await, [answered(false)]);
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
