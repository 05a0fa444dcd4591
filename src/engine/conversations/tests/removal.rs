//! What becomes of the words of a person whom a moderator removes.

use super::*;
use crate::engine::event::RoomEvent;

fn parsed(event: &Value) -> RoomEvent {
    RoomEvent::parse(&event.to_string(), None).unwrap()
}

/// A group of Alice, Bob and `@sam`, who is masked.
async fn group() -> Talk {
    let mut group = talk();
    group.direct = false;
    let home = Home::Origin { is_present: true };
    group.people.push(participant("bob", ".pbob", home));
    Talk::at(origin(), &group).await
}

#[tokio::test]
async fn the_copies_of_a_person_are_redacted_and_nobody_elses() {
    let it = group().await;
    let ghosts = ["@_dm_.palice:hs.test", "@_dm_.pbob:hs.test"];
    let ghosts = ghosts.map(|ghost| Ghost::new(ghost.try_into().unwrap()));
    for ghost in &ghosts {
        it.engine.machines().provision(ghost, "X").await.unwrap();
    }
    let samuel = user_id!("@samuel:hs.test");
    it.fake
        .add_room(&portal(), &[&ghosts[0], &ghosts[1], samuel]);
    let content = serde_json::value::to_raw_value(&json!({"body": "x"})).unwrap();
    for (n, (ghost, by)) in [(0, 0), (1, 2), (1, 2), (0, 0), (1, 2)].iter().enumerate() {
        let acting = it.engine.as_user(&ghosts[*ghost]).unwrap();
        let homeserver = it.engine.homeserver();
        let kind = "m.room.message";
        let transaction = format!("t{n}").into();
        let copy = homeserver
            .send_message(acting.actor(), &portal(), kind, &content, transaction)
            .await
            .unwrap();
        it.note_copy(&format!("$original{n}"), &copy, *by);
    }
    let redacted = || {
        let events = it.fake.events(portal().as_str()).into_iter();
        let redacted = events.filter(|event| event.redacted_by.is_some());
        redacted.map(|event| event.sender).collect::<Vec<_>>()
    };
    let conversation = it.store.get::<Conversations>(&id()).unwrap().unwrap();
    for _ in 0..2 {
        it.actor
            .room
            .redact_copies_of(&conversation, 2, RoomRole::Portal(1))
            .await
            .unwrap();
        assert_eq!(redacted(), vec![ghosts[1].to_string(); 3]);
    }
    let log = it.fake.log();
    let asked = log.iter().filter(|asked| asked.contains("/redact/"));
    assert_eq!(asked.count(), 3, "what is done is not done again");

    // One that may not be deleted keeps nobody from deleting the others, and is told of.
    let mut more = Vec::new();
    for n in 0..3 {
        let acting = it.engine.as_user(&ghosts[1]).unwrap();
        let (homeserver, transaction) = (it.engine.homeserver(), format!("more{n}").into());
        let kind = "m.room.message";
        let there = portal();
        let sent = homeserver.send_message(acting.actor(), &there, kind, &content, transaction);
        let copy = sent.await.unwrap();
        it.note_copy(&format!("$more{n}"), &copy, 2);
        more.push(copy);
    }
    it.fake.forbid(&format!("/redact/{}", more[1]));
    let room = &it.actor.room;
    let deleting = room.redact_copies_of(&conversation, 2, RoomRole::Portal(1));
    let refused = deleting.await.unwrap_err();
    assert!(!refused.is_transient(), "{refused}");
    assert_eq!(redacted().len(), 5);
    it.fake.refuse_nothing();
    let deleting = room.redact_copies_of(&conversation, 2, RoomRole::Portal(1));
    deleting.await.unwrap();
    assert_eq!(redacted().len(), 6);

    // A ghost that has left cannot do it, and one that is there does.
    let acting = it.engine.as_user(&ghosts[1]).unwrap();
    let homeserver = it.engine.homeserver();
    homeserver
        .leave(acting.actor(), &portal(), None)
        .await
        .unwrap();
    let first = it.fake.events(portal().as_str());
    let first = first.iter().find(|event| event.kind == "m.room.message");
    let first = first.unwrap().id.as_str().try_into().unwrap();
    it.note_copy("$again", &first, 2);
    it.actor
        .room
        .redact_copies_of(&conversation, 2, RoomRole::Portal(1))
        .await
        .unwrap();
    assert_eq!(redacted().len(), 7);
}

fn kims_portal() -> OwnedRoomId {
    room_id!("!kims:hs.test").to_owned()
}

/// A group of Alice, `@sam` and `@kim`, who are masked, with all ghosts in their rooms.
async fn masked_group() -> Talk {
    let mut group = talk();
    group.direct = false;
    let (room, status) = (Some(kims_portal()), PortalStatus::Joined);
    let home = Home::Portal { room, status };
    group.people.push(participant("kimberly", "kim", home));
    let it = Talk::at(origin(), &group).await;
    let (kim, alice) = (user_id!("@_dm_kim:hs.test"), alices_ghost());
    for ghost in [&sam(), &Ghost::new(kim.to_owned()), &alice] {
        it.engine.machines().provision(ghost, "X").await.unwrap();
    }
    it.fake
        .add_room(&origin(), &[user_id!("@alice:hs.test"), &sam(), kim]);
    it.fake
        .add_room(&portal(), &[&alice, kim, user_id!("@samuel:hs.test")]);
    let kimberly = user_id!("@kimberly:hs.test");
    it.fake
        .add_room(&kims_portal(), &[&alice, &sam(), kimberly]);
    it
}

impl Talk {
    /// Notes that Sam's ghost has sent the copy of an event of his portal.
    async fn sam_has_said(&self, original: &OwnedEventId, there: &OwnedRoomId) -> OwnedEventId {
        let content = serde_json::value::to_raw_value(&json!({"body": "x"})).unwrap();
        let acting = self.engine.as_user(&sam()).unwrap();
        let transaction = format!("{original} {there}").into();
        let copy = self
            .engine
            .homeserver()
            .send_message(
                acting.actor(),
                there,
                "m.room.message",
                &content,
                transaction,
            )
            .await
            .unwrap();
        let mut batch = Batch::new();
        let noted = NewCopy {
            source: &portal(),
            event: original,
            target: there,
            copy: &copy,
            by: 1,
        };
        self.engine.note_copy(&noted, &mut batch).unwrap();
        self.store.apply(batch).unwrap();
        copy
    }

    fn is_redacted(&self, room: &OwnedRoomId, event: &OwnedEventId) -> bool {
        let events = self.fake.events(room.as_str());
        let event = events.iter().find(|it| it.id.as_str() == event.as_str());
        event.unwrap().redacted_by.is_some()
    }
}

fn redact(of: &OwnedEventId, target: RoomRole) -> Effect {
    Effect::RedactCopy {
        event: owned_event_id!("$redaction"),
        of: of.clone(),
        sender: 0,
        target,
    }
}

#[tokio::test]
async fn what_a_masked_person_has_said_is_deleted_for_all_in_the_origin() {
    let mut it = masked_group().await;
    let original = owned_event_id!("$original");
    let here = it.sam_has_said(&original, &origin()).await;
    let there = it.sam_has_said(&original, &kims_portal()).await;
    let other = it
        .sam_has_said(&owned_event_id!("$other"), &kims_portal())
        .await;
    for target in [RoomRole::Portal(1), RoomRole::Portal(2)] {
        let number = it.put_due(redact(&here, target));
        it.carry_out(number).await;
    }
    assert!(it.is_redacted(&kims_portal(), &there));
    assert!(!it.is_redacted(&kims_portal(), &other));
    assert!(it.outbox(&portal()).is_empty());
}

#[tokio::test]
async fn what_a_moderator_deletes_on_its_way_to_a_portal_does_not_arrive_there() {
    let mut it = masked_group().await;
    let original = owned_event_id!("$original");
    let here = it.sam_has_said(&original, &origin()).await;
    let number = it.put_due(redact(&here, RoomRole::Portal(2)));
    it.carry_out(number).await;
    // Where it comes from, the deletion waits behind it.
    let expected = Effect::RedactCopy {
        event: owned_event_id!("$redaction"),
        of: original,
        sender: 1,
        target: RoomRole::Portal(2),
    };
    let waiting = it.outbox(&portal());
    let [(_, QueuedEffect::Conversation { effect, .. })] = &waiting[..] else {
        panic!("{waiting:?}");
    };
    assert_eq!(*effect, expected);
}

#[tokio::test]
async fn only_who_may_redact_deletes_the_words_of_those_whom_they_remove() {
    let it = group().await;
    it.engine.machines().provision(&sam(), "Sam").await.unwrap();
    let (alice, bob) = (user_id!("@alice:hs.test"), user_id!("@bob:hs.test"));
    it.fake.add_room(&origin(), &[alice, bob, &sam()]);
    let conversation = it.store.get::<Conversations>(&id()).unwrap().unwrap();
    for (by, field, value, redacts) in [
        (alice, "redact_events", json!(true), true),
        (alice, "org.matrix.msc4293.redact_events", json!(true), true),
        (alice, "redact_events", json!("true"), false),
        (alice, "reason", json!("spam"), false),
        // Without the power to do so.
        (bob, "redact_events", json!(true), false),
        // By themselves.
        (
            user_id!("@carol:hs.test"),
            "redact_events",
            json!(true),
            false,
        ),
    ] {
        let mut event = EventFactory::room(&origin())
            .sender(by.as_str())
            .member("@carol:hs.test", "ban");
        event["content"][field] = value;
        let room = &it.actor.room;
        let parsed = parsed(&event);
        let asked = room.redacts_with(&parsed, &conversation, RoomRole::Origin);
        assert_eq!(asked.await.unwrap(), redacts, "{event}");
    }
}
