//! What is passed on, edited and deleted, with keys and a homeserver.

use std::time::Duration;

use matrix_sdk_crypto::EncryptionSettings;
use ruma::{OwnedEventId, RoomId, UserId, event_id, owned_event_id, room_id, user_id};
use serde_json::{Value, json, value::RawValue};

use crate::{
    crypto::IncomingCrypto,
    directory::{ClaimedBy, Request},
    engine::{
        control_room::{Control, ControlPhase},
        event::RoomEvent,
        records::{
            ControlRooms, Inbox, InboxItem, Outbox, OutboxItem, QueuedEffect, QuotedEvents,
            RetainedEvents,
        },
        room::Room,
    },
    handle::{Handle, HandleRules},
    ids::Ghost,
    introduction::{Effect, Phase},
    matrix::Transaction,
    store::{Batch, Store, prefix},
    testing::{self, EventFactory, FakeHomeserver, NOW, Person, TestEngine, bot, encrypted_event},
};

fn here() -> &'static RoomId {
    room_id!("!room:hs.test")
}

fn sam() -> &'static UserId {
    user_id!("@_dm_sam:hs.test")
}

/// Alice in a room with the ghost of Samuel's handle, to which Samuel is invited.
struct Chat {
    room: Room,
    store: Store,
    fake: FakeHomeserver,
    alice: Person,
}

impl Chat {
    async fn in_phase(phase: Phase) -> Self {
        let TestEngine {
            engine,
            store,
            fake,
            ..
        } = testing::engine().build().await;
        let alice = Person::new(&fake, "@alice:hs.test").await;
        let samuel = Person::new(&fake, "@samuel:hs.test").await;
        engine.machines().provision(sam(), "Sam").await.unwrap();
        engine.machines().expect_room(sam(), here()).await.unwrap();
        fake.add_room(here(), &[alice.user(), sam(), samuel.user()]);
        let owner = testing::person("@samuel:hs.test").clone();
        let ghost = Ghost::new(sam().to_owned());
        let mut introduction = testing::introduction(here(), &ghost, owner, "sam");
        introduction.phase = phase;
        introduction.direct = true;
        let mut room = Room::load(engine, here().to_owned()).unwrap();
        room.record.introductions.push(introduction);
        Self {
            room,
            store,
            fake,
            alice,
        }
    }

    /// Alice sends an encrypted message, whose key comes with it.
    async fn says(&mut self, content: Value) -> OwnedEventId {
        let event = self.encrypts(content).await;
        self.receives(self.take_keys()).await;
        self.hears(event.get()).await
    }

    async fn encrypts(&self, content: Value) -> Box<RawValue> {
        self.alice.query(&[sam()]).await;
        let content = serde_json::value::to_raw_value(&content).unwrap();
        let encrypted = self
            .alice
            .encrypt(
                here(),
                &[sam()],
                EncryptionSettings::default(),
                "m.room.message",
                content,
            )
            .await
            .unwrap();
        encrypted_event(self.alice.user(), here(), &encrypted)
    }

    /// Takes the keys that are on their way to the ghost.
    fn take_keys(&self) -> IncomingCrypto {
        let machines = self.room.engine.machines();
        let device = machines.device_of(sam()).unwrap().unwrap();
        self.fake.take_incoming(sam(), &device)
    }

    async fn receives(&self, keys: IncomingCrypto) {
        let machines = self.room.engine.machines();
        machines.receive_and_respond(sam(), keys).await.unwrap();
    }

    async fn hears(&mut self, json: &str) -> OwnedEventId {
        let event = RoomEvent::parse(json, None).unwrap();
        let id = event.id.clone();
        let handled = self.room.handle_event(event, json, Batch::new());
        handled.await.unwrap();
        id
    }

    async fn deletes(&mut self, of: &OwnedEventId) {
        let id = format!("$redaction-of-{}", &of.as_str()[1..]);
        let events = EventFactory::room(here());
        let redaction = events.event("m.room.redaction", &id, json!({ "redacts": of }));
        self.hears(&redaction.to_string()).await;
    }

    /// Alice deletes an event, which is not handled yet.
    async fn deletion_arrives(&self, of: &OwnedEventId) {
        let id = format!("$redaction-of-{}", &of.as_str()[1..]);
        let events = EventFactory::room(here());
        let mut redaction = events.event("m.room.redaction", &id, json!({ "redacts": of }));
        redaction["redacts"] = json!(of);
        let body = json!({ "events": [redaction] });
        let body = Transaction::parse(body.to_string().as_bytes()).unwrap();
        self.room.engine.accept_transaction(body).await.unwrap();
    }

    /// The first effect that is due.
    fn due(&self) -> (u64, OutboxItem) {
        let due = self
            .store
            .scan::<Outbox>(&prefix(&here().to_owned()), None, 1);
        let ((_, number), due) = due.unwrap().remove(0);
        (number, due)
    }

    fn is_kept(&self, event: &OwnedEventId) -> bool {
        let key = (here().to_owned(), event.clone());
        self.store.contains::<RetainedEvents>(&key).unwrap()
    }

    fn quote_of(&self, event: &OwnedEventId) -> Option<OwnedEventId> {
        let key = (here().to_owned(), event.clone());
        self.store.get::<QuotedEvents>(&key).unwrap()
    }

    /// Carries out everything that is due.
    async fn carry_out(&mut self) {
        carry_out(&mut self.room).await;
    }

    /// The room in which the bot answers Samuel.
    async fn control_room(&self) -> Room {
        let engine = self.room.engine.clone();
        engine.machines().provision(&bot(), "Bot").await.unwrap();
        let owner = testing::person("@samuel:hs.test");
        let id = room_id!("!control:hs.test").to_owned();
        self.fake.add_room(&id, &[owner, &bot()]);
        let mut room = Room::load(engine, id.clone()).unwrap();
        let mut control = Control::made(owner.clone(), NOW);
        control.phase = ControlPhase::Ready;
        room.record.control = Some(control);
        let mut batch = Batch::new();
        batch.put::<ControlRooms>(owner, &id).unwrap();
        room.commit(batch, []).unwrap();
        room
    }

    /// Alice's request to Samuel, who claims his handle for it.
    async fn request(&self) -> Request {
        let handle = Handle::parse("sam", &HandleRules::default()).unwrap();
        let owner = testing::person("@samuel:hs.test");
        let mut tx = self.room.engine.directory().begin().await;
        let record = tx.claim(owner, &handle, ClaimedBy::Person, NOW).unwrap();
        tx.commit().await.unwrap();
        Request {
            handle: record.handle,
            generation: record.generation,
            asker: testing::person("@alice:hs.test").clone(),
            room: here().to_owned(),
            ghost: Ghost::new(sam().to_owned()),
            since: NOW,
            mode: record.mode,
            shown: None,
            line_shown: None,
            asker_alias: None,
        }
    }

    /// The effects that are due.
    fn due_effects(&self) -> Vec<Effect> {
        let due = self
            .store
            .scan::<Outbox>(&prefix(&here().to_owned()), None, 100);
        let due = due.unwrap().into_iter();
        due.filter_map(|(_, due)| match due.what {
            QueuedEffect::Introduction { effect, .. } => Some(effect),
            _ => None,
        })
        .collect()
    }

    fn redactions_of(&self, event: &OwnedEventId) -> usize {
        let log = self.fake.log();
        let of = format!("/redact/{event}");
        let encoded = of.replace('$', "%24");
        let is_one = |line: &&String| line.contains(&of) || line.contains(&encoded);
        log.iter().filter(is_one).count()
    }
}

/// Carries out everything that is due in a room.
async fn carry_out(room: &mut Room) {
    loop {
        let store = room.engine.store().clone();
        let due = store.scan::<Outbox>(&prefix(&room.id), None, 1);
        let Some(((_, number), due)) = due.unwrap().pop() else {
            return;
        };
        room.carry_out(number, due).await.unwrap();
    }
}

/// Takes everything from a room's inbox.
async fn take_in(room: &mut Room) {
    let store = room.engine.store().clone();
    let arrived = store.scan::<Inbox>(&prefix(&room.id), None, 10);
    for ((_, number), item) in arrived.unwrap() {
        room.dispatch(number, item).await.unwrap();
    }
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

fn edit(of: &OwnedEventId, body: &str) -> Value {
    json!({
        "msgtype": "m.text", "body": format!("* {body}"), "m.new_content": text(body),
        "m.relates_to": { "rel_type": "m.replace", "event_id": of },
    })
}

#[tokio::test]
async fn of_what_was_deleted_not_even_the_ciphertext_is_kept() {
    let mut chat = Chat::in_phase(Phase::Asking { until: NOW }).await;
    let line = chat.says(text("hello")).await;
    let edited = chat.says(edit(&line, "my number is 555")).await;
    assert!(chat.is_kept(&line) && chat.is_kept(&edited));
    chat.deletes(&edited).await;
    assert!(chat.is_kept(&line) && !chat.is_kept(&edited));
    // The edit before a deleted one counts again.
    let former = chat.says(edit(&line, "hello there")).await;
    let edited = chat.says(edit(&line, "my number is 555")).await;
    chat.deletes(&edited).await;
    assert!(chat.is_kept(&former) && !chat.is_kept(&edited));
    let newest = chat.says(edit(&line, "hello again")).await;
    chat.deletes(&line).await;
    for event in [line, former, newest] {
        assert!(!chat.is_kept(&event));
    }
}

#[tokio::test]
async fn an_edit_that_is_deleted_on_its_way_does_not_reach_the_owner() {
    let mut chat = Chat::in_phase(Phase::Lingering).await;
    let line = chat.says(text("hello")).await;
    chat.carry_out().await;
    let quote = chat.quote_of(&line).unwrap();
    // As an edit of the quote.
    let edited = chat.says(edit(&line, "my number is 555")).await;
    chat.carry_out().await;
    let copy = chat.quote_of(&edited).unwrap();
    chat.deletes(&edited).await;
    chat.carry_out().await;
    assert_eq!(chat.redactions_of(&copy), 1, "{:?}", chat.fake.log());
    assert_eq!(chat.redactions_of(&quote), 0);

    // Instead of a message that waits.
    let second = chat.says(text("and then")).await;
    let edited = chat.says(edit(&second, "and my address is")).await;
    chat.deletes(&edited).await;
    let sent = chat.fake.sent(here());
    chat.carry_out().await;
    assert!(chat.quote_of(&second).is_some());
    assert_eq!(chat.quote_of(&edited), None);
    assert_eq!(chat.fake.sent(here()), sent + 1);
}

#[tokio::test]
async fn what_is_deleted_while_the_homeserver_fails_is_not_passed_on() {
    let mut chat = Chat::in_phase(Phase::Lingering).await;
    let line = chat.says(text("wrong person, sorry")).await;
    chat.fake.refuse("/send/m.room.encrypted/", 500);
    let due = chat.due();
    chat.room.carry_out(due.0, due.1).await.unwrap_err();
    chat.deletion_arrives(&line).await;
    chat.fake.refuse_nothing();
    let sent = chat.fake.sent(here());
    chat.carry_out().await;
    assert_eq!(chat.fake.sent(here()), sent);
    assert_eq!(chat.quote_of(&line), None);

    // An edit of what was passed on.
    let line = chat.says(text("hello")).await;
    chat.carry_out().await;
    let edited = chat.says(edit(&line, "my number is 555")).await;
    chat.deletion_arrives(&edited).await;
    let sent = chat.fake.sent(here());
    chat.carry_out().await;
    assert_eq!(chat.fake.sent(here()), sent);
}

/// Its answer got lost.
#[tokio::test]
async fn what_was_passed_on_before_its_deletion_is_taken_back() {
    let mut chat = Chat::in_phase(Phase::Lingering).await;
    let line = chat.says(text("hello")).await;
    let (number, due) = chat.due();
    let again = OutboxItem {
        since: due.since,
        what: due.what.clone(),
    };
    chat.room.carry_out(number, due).await.unwrap();
    let quote = chat.quote_of(&line).unwrap();
    // As if the crash had come before it was written down.
    let mut batch = Batch::new();
    batch.delete::<QuotedEvents>(&(here().to_owned(), line.clone()));
    batch
        .put::<Outbox>(&(here().to_owned(), number), &again)
        .unwrap();
    chat.store.apply(batch).unwrap();
    let pending = &mut chat.room.record.introductions[0].pending;
    pending.iter_mut().for_each(|pending| pending.done = false);
    chat.deletion_arrives(&line).await;
    let sent = chat.fake.sent(here());
    chat.carry_out().await;
    assert_eq!(chat.fake.sent(here()), sent);
    assert_eq!(chat.quote_of(&line), Some(quote));
}

#[tokio::test]
async fn a_message_is_quoted_again_when_the_edit_in_its_quote_is_deleted() {
    let mut chat = Chat::in_phase(Phase::Waiting {
        on: crate::introduction::WaitFor::Join,
        until: NOW,
        retry: NOW,
    })
    .await;
    let line = chat.says(text("hello")).await;
    let edited = chat.says(edit(&line, "my number is 555")).await;
    let join = EventFactory::room(here()).sender("@samuel:hs.test");
    let join = join.member("@samuel:hs.test", "join");
    chat.hears(&join.to_string()).await;
    chat.carry_out().await;
    let quote = chat.quote_of(&line).unwrap();
    chat.deletes(&edited).await;
    chat.carry_out().await;
    assert_eq!(chat.redactions_of(&quote), 1);
    let again = chat.quote_of(&line).unwrap();
    assert_ne!(again, quote, "another event");
    assert_eq!(chat.redactions_of(&again), 0);
}

#[tokio::test]
async fn what_turns_out_to_be_no_message_is_not_kept() {
    let mut chat = Chat::in_phase(Phase::Asking { until: NOW }).await;
    let verification = json!({ "msgtype": "m.key.verification.request", "body": "" });
    let verification = chat.encrypts(verification).await;
    let message = chat.encrypts(text("hello")).await;
    let keys = chat.take_keys();
    let verification = chat.hears(verification.get()).await;
    let message = chat.hears(message.get()).await;
    let unreadable = |chat: &Chat| {
        let pending = chat.room.record.introductions[0].pending.iter();
        pending.filter(|pending| pending.unreadable).count()
    };
    assert!(chat.is_kept(&verification) && chat.is_kept(&message));
    assert_eq!(unreadable(&chat), 2);
    chat.receives(keys).await;
    let ghost = Ghost::new(sam().to_owned());
    let retried = chat.room.retry_messages_with_key(&ghost, Batch::new());
    retried.await.unwrap();
    assert_eq!(unreadable(&chat), 0);
    assert!(!chat.is_kept(&verification) && chat.is_kept(&message));
}

#[tokio::test]
async fn an_encrypted_request_to_verify_a_ghost_is_declined_and_shown_to_nobody() {
    for phase in [
        Phase::Listening { until: NOW },
        Phase::Asking { until: NOW },
        Phase::Lingering,
    ] {
        let mut chat = Chat::in_phase(phase).await;
        for of in ["@_dm_kim:hs.test", sam().as_str()] {
            let request = json!({ "msgtype": "m.key.verification.request", "body": "", "to": of });
            chat.says(request).await;
        }
        let due = chat.due_effects();
        assert!(
            matches!(due[..], [Effect::DeclineVerification { .. }]),
            "{due:?}"
        );
        assert!(chat.room.record.introductions[0].pending.is_empty());
        let sent = chat.fake.sent(here());
        chat.carry_out().await;
        assert_eq!(chat.fake.sent(here()), sent + 1);
    }
}

#[tokio::test]
async fn a_line_that_comes_after_the_request_is_shown_once() {
    let mut chat = Chat::in_phase(Phase::Asking { until: NOW }).await;
    let engine = chat.room.engine.clone();
    let owner = testing::person("@samuel:hs.test");
    let mut room = chat.control_room().await;
    let control_room = room.id.clone();

    let request = chat.request().await;
    let mut tx = engine.directory().begin().await;
    let number = tx.open_request(owner, &request).unwrap().unwrap();
    let shown = ruma::owned_event_id!("$shown");
    tx.set_request_shown(owner, number, shown).unwrap();
    tx.commit().await.unwrap();

    chat.says(text("may I?")).await;
    chat.carry_out().await;
    let arrived = chat.store.scan::<Inbox>(&prefix(&control_room), None, 10);
    for ((_, number), item) in arrived.unwrap() {
        room.dispatch(number, item).await.unwrap();
    }
    let due = chat.store.scan::<Outbox>(&prefix(&control_room), None, 10);
    for ((_, number), due) in due.unwrap() {
        room.carry_out(number, due).await.unwrap();
    }
    assert_eq!(chat.fake.sent(&control_room), 1);
    let (_, request) = engine.directory().requests_of(owner).unwrap().remove(0);
    assert!(request.line_shown.is_some());
    room.show_line(number, Batch::new()).await.unwrap();
    assert_eq!(chat.fake.sent(&control_room), 1, "only once");
}

#[tokio::test]
async fn the_answers_to_a_request_are_there_to_be_clicked_and_only_the_owner_gives_one() {
    let mut chat = Chat::in_phase(Phase::Asking { until: NOW }).await;
    let engine = chat.room.engine.clone();
    let owner = testing::person("@samuel:hs.test");
    let mut room = chat.control_room().await;
    chat.room.commit(Batch::new(), []).unwrap();
    let request = chat.request().await;
    let mut tx = engine.directory().begin().await;
    let number = tx.open_request(owner, &request).unwrap().unwrap();
    tx.commit().await.unwrap();
    room.show_requests(owner, number, Batch::new())
        .await
        .unwrap();
    carry_out(&mut room).await;
    let offered = |chat: &Chat| {
        let events = chat.fake.events("!control:hs.test").into_iter();
        let reactions = events.filter(|event| event.kind == "m.reaction");
        let offered = reactions.map(|event| {
            let content: Value = serde_json::from_str(event.content.get()).unwrap();
            let relation = &content["m.relates_to"];
            (relation["event_id"].clone(), relation["key"].clone())
        });
        offered.collect::<Vec<_>>()
    };
    let answers = |event: &OwnedEventId| {
        let keys = ["✅", "❌", "🚫"];
        keys.map(|key| (json!(event), json!(key))).to_vec()
    };
    let (_, request) = engine.directory().requests_of(owner).unwrap().remove(0);
    let shown = request.shown.unwrap();
    assert_eq!(offered(&chat), answers(&shown));
    // What is carried out again after a crash is not doubled.
    room.offer_answers(&bot(), &shown).await.unwrap();
    assert_eq!(offered(&chat).len(), 3);

    // A line that comes later can be answered too.
    chat.says(text("may I?")).await;
    chat.carry_out().await;
    take_in(&mut room).await;
    carry_out(&mut room).await;
    let (_, request) = engine.directory().requests_of(owner).unwrap().remove(0);
    let line = request.line_shown.unwrap();
    assert_eq!(offered(&chat), [answers(&shown), answers(&line)].concat());

    for (sender, left) in [(bot(), 1), (owner.clone().into(), 0)] {
        let reaction = json!({ "m.relates_to":
            { "rel_type": "m.annotation", "event_id": shown, "key": "✅" } });
        let events = EventFactory::room(&room.id).sender(sender.as_str());
        let reaction = events.event("m.reaction", &format!("$of{left}"), reaction);
        let arrived = InboxItem::Event(reaction.to_string());
        room.dispatch(engine.next(), arrived).await.unwrap();
        let open = engine.directory().requests_of(owner).unwrap();
        assert_eq!(open.len(), left, "{sender}");
    }
}

#[tokio::test]
async fn a_masked_request_shows_neither_the_asker_nor_their_device() {
    let mut chat = Chat::in_phase(Phase::Asking { until: NOW }).await;
    let key = chat.alice.machine.identity_keys().curve25519.to_base64();
    let line = format!("I am @alice:hs.test, my key is {key}.");
    chat.says(text(&line)).await;
    let engine = chat.room.engine.clone();
    let request = chat.request().await;
    for (alias, shown) in [
        (None, line.as_str()),
        (Some("Someone"), "I am …, my key is …."),
    ] {
        let asker_alias = alias.map(str::to_owned);
        let request = Request {
            asker_alias,
            ..request.clone()
        };
        let (_, asked) = engine.what_is_asked(&request).await.unwrap().unwrap();
        assert_eq!(asked.as_deref(), Some(shown));
    }
}

#[tokio::test]
async fn the_invite_says_who_asks_and_by_which_handle() {
    let mut chat = Chat::in_phase(Phase::Inviting).await;
    let ghost = Ghost::new(sam().to_owned());
    let effect = Effect::ShowAs;
    let show = QueuedEffect::Introduction { ghost, effect };
    chat.room.commit(Batch::new(), [show]).unwrap();
    chat.carry_out().await;
    let events = chat.fake.events(here().as_str()).into_iter();
    let members = events.filter(|event| event.kind == "m.room.member");
    let contents = members.map(|event| serde_json::from_str(event.content.get()).unwrap());
    let names = contents.map(|content: Value| content["displayname"].clone());
    assert!(
        names
            .collect::<Vec<_>>()
            .contains(&json!("alice (via @sam)"))
    );
}

/// Alice is of a server that is away, and has sent a message, whose key has come.
async fn with_a_line_that_waits_for_alices_server() -> (Chat, Box<RawValue>) {
    let mut chat = Chat::in_phase(Phase::Closing).await;
    chat.alice = Person::new(&chat.fake, "@alice:far.test").await;
    let asker = testing::person("@alice:far.test").clone();
    chat.room.record.introductions[0].invite.asker = asker.into();
    chat.room.commit(Batch::new(), []).unwrap();
    let event = chat.encrypts(text("one more thing")).await;
    chat.fake.set_unreachable("far.test", true);
    chat.receives(chat.take_keys()).await;
    (chat, event)
}

fn look() -> QueuedEffect {
    QueuedEffect::Introduction {
        ghost: Ghost::new(sam().to_owned()),
        effect: Effect::Look,
    }
}

fn id_of(json: &str) -> OwnedEventId {
    RoomEvent::parse(json, None).unwrap().id
}

fn transaction(events: &[&RawValue]) -> Transaction {
    let body = json!({ "events": events }).to_string();
    Transaction::parse(body.as_bytes()).unwrap()
}

impl Chat {
    /// What waits in the inbox, in order.
    fn waiting(&self) -> Vec<(u64, InboxItem)> {
        let room = prefix(&here().to_owned());
        let waiting = self.store.scan::<Inbox>(&room, None, 10).unwrap();
        let waiting = waiting.into_iter();
        waiting.map(|((_, number), item)| (number, item)).collect()
    }

    fn waiting_events(&self) -> Vec<OwnedEventId> {
        let waiting = self.waiting().into_iter();
        let events = waiting.filter_map(|(_, item)| match item {
            InboxItem::Event(json) | InboxItem::AfterGap(json) => Some(id_of(&json)),
            _ => None,
        });
        events.collect()
    }
}

#[tokio::test]
async fn a_look_leaves_what_cannot_be_read_at_the_moment_to_the_inbox() {
    let (mut chat, event) = with_a_line_that_waits_for_alices_server().await;
    let history = vec![serde_json::from_str(event.get()).unwrap()];
    chat.fake.put_history(here().as_str(), history);
    for _ in 0..2 {
        chat.room.backfill_for(&look()).await.unwrap();
    }
    let mut waiting = chat.waiting();
    assert_eq!(waiting.len(), 1);
    let (number, item) = waiting.pop().unwrap();
    assert!(chat.room.engine.is_durable(number));

    chat.fake.set_unreachable("far.test", false);
    // Her server is asked in the background.
    let trying = async { while chat.room.dispatch(number, item.clone()).await.is_err() {} };
    let tried = tokio::time::timeout(Duration::from_secs(10), trying);
    tried.await.unwrap();
    assert!(chat.is_kept(&id_of(event.get())), "it is passed on");
}

#[tokio::test]
async fn what_a_person_said_later_does_not_overtake_what_a_look_leaves_to_the_inbox() {
    let (mut chat, line) = with_a_line_that_waits_for_alices_server().await;
    let said = |sender: &str, id: &str| {
        let events = EventFactory::room(here()).sender(sender);
        events.event("m.room.message", id, text("without encryption"))
    };
    let alice = "@alice:far.test";
    let second = said(alice, "$second");
    let third = said(alice, "$third");
    let newest_first = vec![
        third.clone(),
        said("@kim:hs.test", "$kims"),
        second.clone(),
        serde_json::from_str(line.get()).unwrap(),
    ];
    chat.fake.put_history(here().as_str(), newest_first);
    // The homeserver pushes what was sent after the ghost came, and more of it meanwhile.
    let raw = |event: &Value| serde_json::value::to_raw_value(event).unwrap();
    let fourth = raw(&said(alice, "$fourth"));
    let pushed = transaction(&[&raw(&third), &fourth]);
    chat.room.engine.accept_transaction(pushed).await.unwrap();
    chat.room.backfill_for(&look()).await.unwrap();
    let in_order = [
        id_of(line.get()),
        owned_event_id!("$second"),
        owned_event_id!("$third"),
        owned_event_id!("$fourth"),
    ];
    assert_eq!(chat.waiting_events(), in_order);
    let engine = &chat.room.engine;
    assert!(chat.waiting().iter().all(|(n, _)| engine.is_durable(*n)));
    let kims = engine.seen(event_id!("$kims")).unwrap();
    assert!(kims.is_some_and(|seen| seen.handled), "nobody else waits");
}

#[tokio::test]
async fn what_comes_while_it_is_handled_out_of_a_history_is_not_lost_if_that_fails() {
    let (mut chat, line) = with_a_line_that_waits_for_alices_server().await;
    let engine = chat.room.engine.clone();
    let event = RoomEvent::parse(line.get(), None).unwrap();
    let (handled, accepted) = tokio::join!(
        chat.room.handle_event(event, line.get(), Batch::new()),
        engine.accept_transaction(transaction(&[&line])),
    );
    assert!(handled.is_err());
    accepted.unwrap();
    assert_eq!(chat.waiting_events(), [id_of(line.get())]);
    assert!(engine.is_durable(chat.waiting()[0].0));
}

#[tokio::test]
async fn what_was_deleted_before_it_came_is_no_message() {
    let mut chat = Chat::in_phase(Phase::Listening { until: NOW }).await;
    let before = chat.room.record.introductions.clone();
    let deleted = EventFactory::room(here()).event("m.room.encrypted", "$deleted", json!({}));
    let arrived = InboxItem::Event(deleted.to_string());
    let number = chat.room.engine.next();
    chat.room.dispatch(number, arrived).await.unwrap();
    assert_eq!(chat.room.record.introductions, before);
    let due = chat
        .store
        .scan::<Outbox>(&prefix(&here().to_owned()), None, 10)
        .unwrap();
    assert!(due.is_empty());
}
