//! Which messages are kept until everybody has them, and what is said of those that are lost.

use super::*;

#[tokio::test]
async fn a_message_that_is_given_up_is_not_given_up_in_silence() {
    let mut it = Talk::begun().await;
    let arrived = InboxItem::Event(message("$one", NOW).to_string());
    it.actor.room.give_up(1, arrived).await.unwrap();
    let said = it.notices(&origin());
    assert!(
        matches!(&said[..], [Notice::NotForwarded { .. }]),
        "{said:?}"
    );
}

#[tokio::test]
async fn what_is_for_nobody_is_not_kept() {
    let mut it = Talk::begun().await;
    it.repeatable("$one").await;
    assert!(it.is_kept("$one"), "else nothing is shown here");
    let mut alone = talk();
    alone.people[1].home = Home::Portal {
        room: None,
        status: PortalStatus::Closed,
    };
    let mut it = Talk::at(origin(), &alone).await;
    let key = (origin(), it.engine.next());
    let arrived = InboxItem::Event(message("$one", NOW).to_string());
    it.actor
        .room
        .handle_messages(&[(key, arrived)])
        .await
        .unwrap();
    assert_eq!(it.notices(&origin()), [Notice::NobodyThere]);
    assert!(!it.is_kept("$one"));
}

/// What is kept is needed by all who are still to get it.
#[tokio::test]
async fn the_second_masked_person_of_a_group_gets_what_was_said_before_they_came() {
    let mut group = talk();
    group.direct = false;
    let mut it = Talk::at(origin(), &group).await;
    let alice = user_id!("@_dm_.palice:hs.test");
    it.engine
        .machines()
        .provision(alice, "Alice")
        .await
        .unwrap();
    it.fake
        .add_room(&portal(), &[alice, user_id!("@samuel:hs.test")]);
    // Not encrypted, and of a kind that is not carried: each is done at once.
    let mut event = message("$one", NOW);
    event["type"] = json!("m.dummy");
    it.keep(&event);
    let first = it.put_due(forward("$one", RoomRole::Portal(1), true));
    let second = it.put_due(forward("$one", RoomRole::Portal(1), true));
    it.carry_out(first).await;
    assert!(it.is_kept("$one"), "another one is to get it");
    it.carry_out(second).await;
    assert!(!it.is_kept("$one"));

    // And by a ghost that is on its way in.
    it.keep(&event);
    let invite = Invite {
        asker: user_id!("@alice:hs.test").to_owned(),
        admission: Admission::LeaveAlone,
    };
    let kim = &Ghost::new(user_id!("@_dm_kim:hs.test").to_owned());
    let mut introduction = Introduction::found(&origin(), kim, invite, it.engine.now());
    let pending = PendingEvent::new(owned_event_id!("$one"), false);
    introduction.pending.push(pending);
    it.actor.room.record.introductions.push(introduction);
    let third = it.put_due(forward("$one", RoomRole::Portal(1), true));
    it.carry_out(third).await;
    assert!(it.is_kept("$one"), "Kim is to get it");
}

#[tokio::test]
async fn what_is_not_there_any_more_is_said_to_be_lost() {
    let mut it = Talk::begun().await;
    let number = it.put_due(forward("$gone", RoomRole::Portal(1), true));
    it.carry_out(number).await;
    let said = it.notices(&origin());
    assert!(
        matches!(&said[..], [Notice::NotForwarded { .. }]),
        "{said:?}"
    );
}

/// The asker began another chat, and the conversation goes on there.
#[tokio::test]
async fn what_waits_in_a_room_that_was_moved_away_from_is_not_lost_in_silence() {
    let old = room_id!("!old:hs.test").to_owned();
    let mut it = Talk::at(old.clone(), &talk()).await;
    let number = it.put_due(forward("$queued", RoomRole::Portal(1), true));
    it.carry_out(number).await;
    assert_eq!(it.notices(&origin()).len(), 1, "tried, and not found");

    let mut late = message("$late", NOW);
    late["room_id"] = json!(old);
    let mut batch = Batch::new();
    let key = (old, it.engine.next());
    let arrived = InboxItem::Event(late.to_string());
    batch.put::<Inbox>(&key, &arrived).unwrap();
    it.store.apply(batch).unwrap();
    it.engine.machines().provision(&sam(), "Sam").await.unwrap();
    let number = it.put_due(Effect::LeaveRoom);
    it.carry_out(number).await;
    assert_eq!(it.notices(&origin()).len(), 2);
}
