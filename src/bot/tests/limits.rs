//! Messages that come too late, or too many.

use super::*;
use crate::bot::input::COMMAND_AGE_MAX;

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
async fn a_flood_is_answered_once_and_then_met_with_silence() {
    let mut talk = Talk::new();
    talk.options.commands_per_minute = 3;
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(
            talk.answer(sam(), "whoami")
                .await
                .map(|answer| answer.plain),
        );
    }
    let flood =
        "That's a lot at once. I'll stop listening for a minute, then you can go on.".to_owned();
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
