//! What was deleted while it waited is not sent.

use super::*;
use crate::{
    engine::{failing::Failing, records::EventCopies},
    store::Digest,
};

fn redaction(of: &Value, by: &str) -> Value {
    let of = &of["event_id"];
    let id = format!("$redaction-of-{}", of.as_str().unwrap());
    let events = EventFactory::room(&origin()).sender(by);
    let mut redaction = events.event("m.room.redaction", &id, json!({"redacts": of}));
    redaction["redacts"] = of.clone();
    redaction
}

impl TwoPeople {
    /// Samuel has a device that can be encrypted for, some time later.
    async fn samuel_is_there(&mut self) {
        self.samuel_signs().await;
        self.talk.clock.advance(Duration::from_secs(60));
        self.go_on().await;
        assert!(self.talk.outbox(&origin()).is_empty());
    }
}

#[tokio::test]
async fn a_message_that_was_deleted_while_it_waited_is_never_sent() {
    let mut it = TwoPeople::begin(false).await;
    let wrong = it.alice_says("wrong chat, sorry").await;
    it.go_on().await;
    let id = wrong["event_id"].as_str().unwrap();
    assert_eq!(it.talk.carries(), [id], "nobody can read it yet");
    it.push(&[redaction(&wrong, "@alice:hs.test")]).await;
    it.samuel_is_there().await;
    assert_eq!(it.talk.fake.sent(&portal()), 0);
    assert!(!it.talk.is_kept(id));

    // All that follows is sent.
    it.alice_says("hello").await;
    it.go_on().await;
    assert_eq!(it.talk.fake.sent(&portal()), 1);
}

/// The homeserver pushes what is left of it.
#[tokio::test]
async fn of_a_message_that_was_deleted_before_it_came_nothing_is_said() {
    let mut it = TwoPeople::begin(true).await;
    let mut deleted = it
        .alice_sends(&json!({"msgtype": "m.text", "body": "hm"}))
        .await;
    deleted["content"] = json!({});
    let by = redaction(&deleted, "@alice:hs.test");
    deleted["unsigned"] = json!({"redacted_because": by});
    it.push(&[deleted.clone(), by]).await;
    it.go_on().await;
    assert_eq!(it.talk.fake.sent(&portal()), 0);
    assert_eq!(it.told_to_alice().await, [""; 0]);
    assert!(!it.talk.is_kept(deleted["event_id"].as_str().unwrap()));

    // What follows does not wait for it.
    it.alice_says("hello").await;
    it.go_on().await;
    assert_eq!(it.talk.fake.sent(&portal()), 1);
}

#[tokio::test]
async fn an_edit_of_a_deleted_message_is_not_sent_as_a_new_one() {
    let mut it = TwoPeople::begin(false).await;
    let wrong = it.alice_says("wrong chat").await;
    let edit = json!({
        "msgtype": "m.text", "body": "* wrong chat, sorry",
        "m.new_content": {"msgtype": "m.text", "body": "wrong chat, sorry"},
        "m.relates_to": {"rel_type": "m.replace", "event_id": wrong["event_id"]},
    });
    let edit = it.alice_sends(&edit).await;
    it.push(&[edit, redaction(&wrong, "@alice:hs.test")]).await;
    it.samuel_is_there().await;
    assert_eq!(it.talk.fake.sent(&portal()), 0);
}

#[tokio::test]
async fn a_deletion_that_waits_in_the_outbox_counts_too() {
    let mut it = TwoPeople::begin(true).await;
    let wrong = it
        .alice_sends(&json!({"msgtype": "m.text", "body": "oh no"}))
        .await;
    it.talk.keep(&wrong);
    let id = wrong["event_id"].as_str().unwrap();
    let number = it.talk.put_due(forward(id, RoomRole::Portal(1), true));
    it.talk.put_due(Effect::RedactCopy {
        event: owned_event_id!("$redaction"),
        of: id.try_into().unwrap(),
        sender: 0,
        target: RoomRole::Portal(1),
    });
    it.talk.actor.room.failing = Some(Failing::new(number));
    it.talk.carry_out(number).await;
    assert_eq!(it.talk.fake.sent(&portal()), 0);
}

#[tokio::test]
async fn nobody_else_can_keep_a_message_back() {
    let mut it = TwoPeople::begin(false).await;
    let hello = it.alice_says("hello").await;
    it.push(&[redaction(&hello, "@eve:hs.test")]).await;
    it.samuel_is_there().await;
    assert_eq!(it.talk.fake.sent(&portal()), 1);
}

impl TwoPeople {
    /// The service is started anew: nothing is known but what is in the store.
    fn restart(&mut self) {
        let engine = self.talk.engine.clone();
        let rings = Arc::new(Notify::new());
        self.talk.actor = RoomActor::load(engine, origin(), rings).unwrap();
    }

    fn redacted_in_portal(&self) -> usize {
        let events = self.talk.fake.events(portal().as_str()).into_iter();
        events.filter(|event| event.redacted_by.is_some()).count()
    }
}

#[tokio::test]
async fn a_restart_sends_nothing_that_was_deleted_while_it_waited() {
    let mut it = TwoPeople::begin(false).await;
    let wrong = it.alice_says("wrong chat, sorry").await;
    it.go_on().await;
    it.push(&[redaction(&wrong, "@alice:hs.test")]).await;
    it.restart();
    it.samuel_is_there().await;
    assert_eq!(it.talk.fake.sent(&portal()), 0);
    it.alice_says("hello").await;
    it.go_on().await;
    assert_eq!(it.talk.fake.sent(&portal()), 1);
}

#[tokio::test]
async fn what_was_sent_before_a_restart_is_found_and_deleted() {
    let mut it = TwoPeople::begin(true).await;
    let hello = it
        .alice_sends(&json!({"msgtype": "m.text", "body": "hello"}))
        .await;
    it.push(&[]).await;
    it.talk.keep(&hello);
    let id = hello["event_id"].as_str().unwrap();
    let effect = forward(id, RoomRole::Portal(1), true);
    let number = it.talk.put_due(effect.clone());
    it.talk.carry_out(number).await;
    assert_eq!(it.talk.fake.sent(&portal()), 1);
    // As if the crash had come before it was written down.
    let key = (Digest::of(origin()), 0, Digest::of(portal()));
    let mut batch = Batch::new();
    batch.delete::<EventCopies>(&key);
    it.talk.store.apply(batch).unwrap();
    it.talk.keep(&hello);
    it.talk.put_due(effect);
    it.restart();
    it.talk.clock.advance(Duration::from_secs(60));
    it.push(&[redaction(&hello, "@alice:hs.test")]).await;
    it.go_on().await;
    let sent = it.talk.fake.sent(&portal());
    assert_eq!(sent, 2, "the message and its deletion");
    assert_eq!(it.redacted_in_portal(), 1);
}

#[tokio::test]
async fn a_file_that_is_deleted_during_its_transfer_is_not_sent() {
    let mut it = TwoPeople::begin(true).await;
    let file = ("application/octet-stream".to_owned(), vec![7; 100]);
    it.talk
        .fake
        .with(|server| server.media.insert("video".to_owned(), file));
    let video = json!({"msgtype": "m.video", "body": "harbour.mp4",
                       "file": {"url": "mxc://far.example/video", "v": "v2", "iv": "a",
                                "key": {"k": "b"}}});
    let video = it.alice_sends(&video).await;
    it.push(std::slice::from_ref(&video)).await;
    let held = it.talk.fake.hold("/media/download/", "");
    let (engine, clock) = (it.talk.engine.clone(), it.talk.clock.clone());
    let deletes = async move {
        held.comes().await;
        clock.advance(Duration::from_secs(5));
        let body = json!({"events": [redaction(&video, "@alice:hs.test")]});
        let body = Transaction::parse(body.to_string().as_bytes()).unwrap();
        engine.accept_transaction(body).await.unwrap();
    };
    tokio::join!(it.go_on(), deletes);
    assert_eq!(it.talk.fake.sent(&portal()), 0);
}

/// It may have been sent before it was written down that it would be.
#[tokio::test]
async fn what_waited_when_the_service_crashed_counts_as_sent() {
    let mut it = TwoPeople::begin(false).await;
    let talk = &mut it.talk;
    let is_maybe_sent = async |talk: &mut Talk, number: u64, id: &str| {
        let arrived = InboxItem::Event(message(id, NOW).to_string());
        let items = [((origin(), number), arrived)];
        assert!(talk.actor.room.handle_messages(&items).await.unwrap());
        let (effect, _) = talk.outbox(&origin()).pop().unwrap();
        effect <= talk.actor.room.maybe_sent_until
    };
    let number = talk.engine.next();
    assert!(!is_maybe_sent(talk, number, "$new").await);
    assert!(is_maybe_sent(talk, 0, "$old").await);
    let number = talk.engine.next();
    assert!(!is_maybe_sent(talk, number, "$newer").await);
}

/// What the deleter reads.
fn not_deleted_notices(it: &Talk) -> Vec<String> {
    let notices = it.notices(&origin()).into_iter();
    notices.map(|notice| notice.text()).collect()
}

fn redact_copy(of: &str) -> Effect {
    Effect::RedactCopy {
        event: owned_event_id!("$redaction"),
        of: of.try_into().unwrap(),
        sender: 0,
        target: RoomRole::Portal(1),
    }
}

#[tokio::test]
async fn who_deletes_something_that_cannot_be_deleted_elsewhere_is_told() {
    let redact_all = Effect::RedactCopiesOf {
        person: 0,
        target: RoomRole::Portal(1),
    };
    for effect in [redact_copy("$one"), redact_all] {
        let mut it = Talk::begun().await;
        let number = it.put_due(effect.clone());
        let error = EngineError::Refused(crate::introduction::Refusal::Forbidden);
        let (room, talk) = (&mut it.actor.room, id());
        let given_up = room.give_up_conversation(number, &talk, &effect, &error);
        given_up.await.unwrap();
        let told = not_deleted_notices(&it);
        assert!(
            matches!(&told[..], [text] if text.contains("can still be read")),
            "{told:?}"
        );
    }
}

#[tokio::test]
async fn a_deletion_is_not_told_of_that_the_homeserver_knows_nothing_about() {
    let mut it = TwoPeople::begin(true).await;
    it.alice_says("oh no").await;
    it.go_on().await;
    let of = it.talk.carries();
    assert_eq!((of.len(), it.talk.fake.sent(&portal())), (0, 1));
    let copies = it.talk.store.scan::<EventCopies>(&[], None, 9);
    let of = copies.unwrap().remove(0).1.event;
    // It is gone already.
    it.talk.fake.refuse("/redact/", 404);
    let number = it.talk.put_due(redact_copy(of.as_str()));
    it.talk.carry_out(number).await;
    assert!(not_deleted_notices(&it.talk).is_empty());
}

#[tokio::test]
async fn who_deletes_a_message_that_is_no_longer_remembered_is_told() {
    let mut it = TwoPeople::begin(true).await;
    let body = serde_json::to_vec(&json!({"algorithm": "m.megolm.v1.aes-sha2"})).unwrap();
    let path = format!(
        "/_matrix/client/v3/rooms/{}/send/m.room.encrypted/t",
        origin()
    );
    let sent = it.alice.ask("PUT", &path, "", body).await;
    let sent: Value = serde_json::from_slice(&sent.body).unwrap();
    let of = sent["event_id"].as_str().unwrap();

    // Nothing of it was passed on, and its sender was told then.
    let number = it.talk.put_due(redact_copy(of));
    it.talk.carry_out(number).await;
    assert!(not_deleted_notices(&it.talk).is_empty());

    let remember = it.talk.engine.settings().conversations.remember;
    it.talk.clock.advance(remember + 60 * DAY);
    for (of, is_told) in [("$made-up", false), (of, true)] {
        let number = it.talk.put_due(redact_copy(of));
        it.talk.carry_out(number).await;
        assert_eq!(!not_deleted_notices(&it.talk).is_empty(), is_told, "{of}");
    }
}
