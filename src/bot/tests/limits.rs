//! Messages that come too late, or too many.

use ruma::{event_id, room_id};

use super::*;
use crate::{
    bot::input::COMMAND_AGE_MAX,
    directory::{Mode, Reach, Request},
};

#[tokio::test]
async fn an_old_command_is_not_run() {
    let mut talk = Talk::new();
    let old = NOW - COMMAND_AGE_MAX - Duration::from_secs(60);
    assert_eq!(
        talk.answer_sent_at(sam(), "claim sam", old)
            .await
            .unwrap()
            .plain,
        "This reached me 11 minutes after you sent it, so I haven't done it. If you still want \
         it, send it again."
    );
    let future = NOW + COMMAND_AGE_MAX + Duration::from_secs(1);
    let said = talk
        .answer_sent_at(sam(), "claim sam", future)
        .await
        .unwrap()
        .plain;
    assert!(
        said.starts_with("The time on your message is in the future"),
        "{said}"
    );
    assert_eq!(talk.record("sam"), None);
}

#[tokio::test]
async fn after_a_flood_nothing_is_done_for_a_minute() {
    let mut talk = Talk::with(|settings| settings.capabilities.masked = true);
    talk.ask(sam(), "claim sam").await;
    talk.options.commands_per_minute = 3;
    for flood in 0..2 {
        talk.now = NOW + Duration::from_secs(300 + flood * 300);
        for _ in 0..3 {
            assert!(talk.answer(sam(), "policy sam everyone").await.is_some());
        }
        assert_eq!(
            talk.ask(sam(), "policy sam nobody").await,
            "That's a lot at once. I haven't done this one, and for the next minute I ignore \
             whatever you send me. After that, please send it again."
        );
        // None of what follows is done: some of it could undo the rest.
        let began = talk.now;
        for second in 1..60 {
            talk.now = began + Duration::from_secs(second);
            assert_eq!(talk.answer(sam(), "policy sam nobody").await, None);
            assert_eq!(talk.record("sam").unwrap().policy.direct, Reach::Everyone);
        }
        assert!(talk.answer(kim(), "whoami").await.is_some());
        // Then everything is, as if nothing had been.
        talk.now = began + Duration::from_secs(60);
        for _ in 0..3 {
            assert!(talk.answer(sam(), "whoami").await.is_some());
        }
    }
    // Nothing is kept of it.
    talk.now = talk.now + Duration::from_secs(86_400);
    let mut tx = talk.directory.begin().await;
    assert!(tx.sweep(talk.now, 100).unwrap() > 0);
    assert_eq!(tx.sweep(talk.now, 100).unwrap(), 0);
}

#[tokio::test]
async fn one_command_a_minute_after_a_burst_is_no_flood() {
    let mut talk = Talk::new();
    talk.options.commands_per_minute = 3;
    for minute in 0..3 {
        talk.now = NOW + Duration::from_secs(300 + minute * 61);
        for _ in 0..3 {
            let said = talk.ask(sam(), "whoami").await;
            assert!(!said.contains("a lot at once"), "{minute}: {said}");
        }
    }
    assert!(talk.ask(sam(), "whoami").await.contains("a lot at once"));
}

#[tokio::test]
async fn reactions_count_like_commands() {
    let mut talk = Talk::new();
    talk.options.commands_per_minute = 20;
    talk.ask(sam(), "claim sam").await;
    talk.ask(sam(), "policy sam ask").await;
    show_request(&talk).await;
    let reaction = |to: &str| json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": to, "key": "✅"}});
    let old = NOW - COMMAND_AGE_MAX - Duration::from_secs(60);
    let mut answers = 0;
    for _ in 0..200 {
        for (to, counted) in [("$other", false), ("$shown", true)] {
            let reaction = reaction(to);
            let answer = talk.answer_event(sam(), "m.reaction", &reaction, old).await;
            assert!(counted || answer.is_none());
            answers += usize::from(answer.is_some());
        }
    }
    assert_eq!(
        answers, 19,
        "twenty with the commands, and that it is too much"
    );
    talk.now = NOW + Duration::from_secs(61);
    let (reaction, now) = (reaction("$shown"), talk.now);
    let answer = talk.answer_event(sam(), "m.reaction", &reaction, now).await;
    assert_eq!(answer.unwrap().effects.len(), 1);
}

/// Opens a request for `@sam`, shown by the message `$shown`.
async fn show_request(talk: &Talk) {
    let request = Request {
        handle: handle("sam"),
        generation: talk.record("sam").unwrap().generation,
        asker: alice().to_owned(),
        room: room_id!("!waits:example.org").to_owned(),
        ghost: ghost("sam"),
        since: NOW,
        mode: Mode::Open,
        shown: Some(event_id!("$shown").to_owned()),
        line_shown: None,
        asker_alias: None,
    };
    let mut tx = talk.directory.begin().await;
    tx.open_request(sam(), &request).unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn what_is_not_text_counts_like_a_command() {
    let mut talk = Talk::new();
    talk.options.commands_per_minute = 20;
    let content = json!({"msgtype": "m.image", "body": "picture.png"});
    let mut answers = 0;
    for _ in 0..200 {
        let answer = talk
            .answer_event(sam(), "m.room.message", &content, NOW)
            .await;
        answers += usize::from(answer.is_some());
    }
    assert_eq!(answers, 21, "twenty, and that it is too much");
}
