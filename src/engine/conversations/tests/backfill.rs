//! What may have been lost before a message, and what is not for the ghost.

use super::*;
use crate::engine::event::RoomEvent;

#[tokio::test]
async fn after_a_quiet_week_nothing_is_carried_again() {
    let mut it = Talk::provisioned().await;
    let week_ago = NOW - 8 * DAY;
    let lost = NOW - 2 * DAY;
    let history = vec![
        message("$lost", lost),
        message("$older", week_ago),
        message("$oldest", week_ago - Duration::from_millis(1)),
    ];
    it.fake.put_history(origin().as_str(), history);
    it.backfill_before("$new").await;
    assert_eq!(it.carries(), ["$lost", "$new"]);
}

#[tokio::test]
async fn old_messages_that_are_dated_as_new_are_not_carried_again() {
    let mut it = Talk::provisioned().await;
    it.note_copy("$carried", &owned_event_id!("$copy"), 0);
    let history = vec![
        message("$lost", NOW),
        message("$carried", NOW),
        message("$before", NOW),
    ];
    it.fake.put_history(origin().as_str(), history);
    it.backfill_before("$new").await;
    assert_eq!(it.carries(), ["$lost", "$new"]);
}

#[tokio::test]
async fn what_was_said_before_the_ghost_came_is_not_for_it() {
    let mut it = Talk::provisioned().await;
    let sam = sam();
    let history = vec![
        message("$lost", NOW),
        membership(sam.as_str(), "join", Some("invite")),
        message("$while-invited", NOW),
        membership(sam.as_str(), "invite", None),
        message("$before", NOW),
    ];
    it.fake.put_history(origin().as_str(), history);
    it.backfill_before("$new").await;
    assert_eq!(it.carries(), ["$while-invited", "$lost", "$new"]);

    let begins = |event: Value| {
        let raw = serde_json::value::to_raw_value(&event).unwrap();
        crate::engine::inbox::gap::begins_for(&sam, &raw)
    };
    assert!(begins(membership(sam.as_str(), "join", None)));
    assert!(begins(membership(sam.as_str(), "join", Some("leave"))));
    assert!(!begins(membership(sam.as_str(), "join", Some("join"))));
    assert!(!begins(membership("@alice:hs.test", "join", None)));
    assert!(!begins(message("$one", NOW)));
}

#[tokio::test]
async fn a_sync_of_a_room_with_history_brings_what_came_after_the_ghost() {
    let it = Talk::provisioned().await;
    let timeline = vec![
        message("$before", NOW),
        membership(sam().as_str(), "invite", None),
        message("$after", NOW),
    ];
    it.fake.put_timeline(origin().as_str(), timeline, true);
    let older = vec![message("$long-before", NOW)];
    it.fake.put_history(origin().as_str(), older);
    it.engine.sync_all_pending(&sam()).await.unwrap();
    let seen = |event: &str| it.engine.has_arrived(event.try_into().unwrap());
    assert!(seen("$after").unwrap());
    assert!(!seen("$before").unwrap());
    assert!(!seen("$long-before").unwrap());

    // It has been there for long.
    it.fake
        .put_timeline(origin().as_str(), vec![message("$new", NOW)], true);
    let older = vec![
        message("$lost", NOW),
        membership(sam().as_str(), "invite", None),
        message("$long-before", NOW),
    ];
    it.fake.put_history(origin().as_str(), older);
    it.engine.sync_all_pending(&sam()).await.unwrap();
    assert!(seen("$lost").unwrap() && seen("$new").unwrap());
    assert!(!seen("$long-before").unwrap());
}

#[tokio::test]
async fn what_cannot_be_looked_up_does_not_cost_the_message_that_is_here() {
    let mut it = Talk::provisioned().await;
    let (key, json) = ((origin(), it.engine.next()), message("$one", NOW));
    let mut batch = Batch::new();
    batch
        .put::<Inbox>(&key, &InboxItem::AfterGap(json.to_string()))
        .unwrap();
    it.store.apply(batch).unwrap();
    it.engine.mark_durable(it.engine.next());
    it.fake.refuse_history(502);
    assert!(it.actor.step().await.is_err(), "it is tried again");
    it.clock.advance(Duration::from_secs(3 * 60));
    it.actor.step().await.unwrap();
    assert_eq!(it.carries(), ["$one"]);
}

#[tokio::test]
async fn only_the_homeserver_can_say_that_there_is_nothing_to_be_read_back() {
    let mut it = Talk::provisioned().await;
    let event = message("$new", NOW);
    let json = event.to_string();
    let parsed = RoomEvent::parse(&json, None).unwrap();
    it.fake
        .put_history(origin().as_str(), vec![message("$lost", NOW)]);
    // A proxy without a homeserver behind it answers everything with 404.
    it.fake.refuse_history_as_a_proxy(404);
    let refused = backfill(&mut it.actor.room, parsed, &json).await;
    assert!(refused.unwrap_err().is_transient());
    assert_eq!(it.carries(), [""; 0]);
}

fn by_bob(id: &str, sent_at: Timestamp) -> Value {
    let events = EventFactory::room(&origin()).sender("@bob:far.example");
    events.sent_at(sent_at).encrypted(id)
}

/// Bob, of another homeserver, talks with `@sam`. Nothing was lost so far.
async fn talk_with_bob() -> Talk {
    let mut talk = talk();
    talk.people[0].user = testing::person("@bob:far.example").clone();
    let it = Talk::at(origin(), &talk).await;
    it.engine.machines().provision(&sam(), "Sam").await.unwrap();
    let first = by_bob("$first", NOW).to_string();
    let first = RoomEvent::parse(&first, None).unwrap();
    assert!(it.engine.is_after_gap(&first).unwrap(), "since the start");
    assert!(!it.engine.is_after_gap(&first).unwrap());
    it
}

impl Talk {
    /// Accepts events and handles them.
    async fn receive(&mut self, events: &[Value]) {
        let body = json!({ "events": events }).to_string();
        let body = Transaction::parse(body.as_bytes()).unwrap();
        self.engine.accept_transaction(body).await.unwrap();
        let arrived = self.store.scan::<Inbox>(&prefix(&origin()), None, 1000);
        for ((_, number), item) in arrived.unwrap() {
            self.actor.room.dispatch(number, item).await.unwrap();
        }
    }

    fn requests(&self, part: &str) -> usize {
        let log = self.fake.log();
        log.iter().filter(|request| request.contains(part)).count()
    }
}

#[tokio::test]
async fn a_late_event_of_another_server_brings_those_before_it_in_order() {
    let mut it = talk_with_bob().await;
    let minute_ago = NOW - Duration::from_secs(60);
    let missing = ["$five", "$four", "$three", "$two", "$one"];
    let history = missing.map(|id| by_bob(id, minute_ago)).to_vec();
    it.fake.put_history(origin().as_str(), history);
    it.receive(&[by_bob("$six", minute_ago)]).await;
    let all = ["$one", "$two", "$three", "$four", "$five", "$six"];
    assert_eq!(it.carries(), all);
}

#[tokio::test]
async fn events_that_are_not_late_or_of_our_own_server_cost_no_look_at_the_history() {
    let mut it = talk_with_bob().await;
    it.receive(&[by_bob("$one", NOW)]).await;
    let minute_ago = NOW - Duration::from_secs(60);
    it.receive(&[message("$two", minute_ago)]).await;
    assert_eq!(it.requests("/context/") + it.requests("/messages"), 0);
}

#[tokio::test]
async fn of_many_late_events_only_the_first_costs_a_look_at_the_history() {
    let mut it = talk_with_bob().await;
    let minute_ago = NOW - Duration::from_secs(60);
    let burst: Vec<String> = (0..100).map(|n| format!("$event{n}")).collect();
    let events: Vec<Value> = burst.iter().map(|id| by_bob(id, minute_ago)).collect();
    it.fake.put_history(origin().as_str(), Vec::new());
    it.fake
        .put_continuation(origin().as_str(), events[1..].to_vec());
    it.receive(&events).await;
    assert_eq!(it.carries(), burst);
    assert_eq!(it.requests("/context/"), 1);
    // Another cut.
    it.fake.put_continuation(origin().as_str(), Vec::new());
    it.receive(&[by_bob("$again", minute_ago)]).await;
    assert_eq!(it.requests("/context/"), 2);
}

#[tokio::test]
async fn a_server_whose_clock_is_wrong_costs_no_look_and_hides_no_gap() {
    for skew in [-15_i64, 300] {
        let mut it = talk_with_bob().await;
        // What the clock of Bob's server shows.
        let engine = it.engine.clone();
        let shown = || Timestamp(engine.now().0.checked_add_signed(skew * 1000).unwrap());
        // His server was silent, and is unknown.
        it.clock.advance(Duration::from_secs(2 * 60 * 60));
        it.receive(&[by_bob("$one", shown())]).await;
        let looks = it.requests("/context/");
        for id in ["$two", "$three", "$four"] {
            it.clock.advance(Duration::from_secs(400));
            it.receive(&[by_bob(id, shown())]).await;
        }
        assert_eq!(it.requests("/context/"), looks, "a clock {skew} s ahead");
        // A cut of a minute.
        let written = shown();
        it.clock.advance(Duration::from_secs(60));
        let history = ["$seven", "$six", "$five"].map(|id| by_bob(id, written));
        it.fake.put_history(origin().as_str(), history.to_vec());
        it.receive(&[by_bob("$eight", written)]).await;
        assert_eq!(it.carries()[4..], ["$five", "$six", "$seven", "$eight"]);
    }
}

/// A group of Alice, Bob of another homeserver, and `@sam`. Nothing was lost so far.
async fn group_with_bob() -> Talk {
    let mut group = talk();
    group.direct = false;
    let home = Home::Origin { is_present: true };
    let mut bob = participant("bob", ".pbob", home);
    bob.user = testing::person("@bob:far.example").clone();
    group.people.push(bob);
    let it = Talk::at(origin(), &group).await;
    it.engine.machines().provision(&sam(), "Sam").await.unwrap();
    it
}

/// Synapse pushes what it refuses, such as an event of a person who is banned that their server
/// dates to before the ban.
#[tokio::test]
async fn a_membership_that_the_room_does_not_know_of_changes_nothing() {
    let mut it = group_with_bob().await;
    let bob = testing::person("@bob:far.example").clone();
    let is_here = |it: &Talk| {
        let talk = it.store.get::<Conversations>(&id()).unwrap().unwrap();
        talk.speaker_at(RoomRole::Origin, &bob).is_some()
    };
    let bobs = EventFactory::room(&origin()).sender(bob.as_str());
    let alice = user_id!("@alice:hs.test");
    it.fake.add_room(&origin(), &[alice, &sam(), &bob]);
    // Somebody removes him who no longer may: the homeserver pushes it, and he stays.
    let far = EventFactory::room(&origin()).sender("@mallory:far.example");
    let mut refused = far.member(bob.as_str(), "leave");
    refused["event_id"] = json!("$refused");
    it.receive(&[refused]).await;
    assert!(is_here(&it));
    it.fake.put_into_rooms(&bob, &[], &[]);
    it.receive(&[bobs.member(bob.as_str(), "leave")]).await;
    assert!(!is_here(&it));
    it.receive(&[bobs.member(bob.as_str(), "join")]).await;
    assert!(!is_here(&it));
    // One that the homeserver shows was true, and what he wrote meanwhile is passed on.
    it.fake.put_history(origin().as_str(), Vec::new());
    let mut shown = bobs.member(bob.as_str(), "join");
    shown["event_id"] = json!("$shown");
    it.receive(&[shown]).await;
    assert!(is_here(&it));
    let mut left = bobs.member(bob.as_str(), "leave");
    left["event_id"] = json!("$left");
    it.receive(&[left]).await;
    assert!(!is_here(&it));
    // He is invited again.
    it.fake.put_into_rooms(&bob, &[origin().as_str()], &[]);
    let mut again = bobs.member(bob.as_str(), "join");
    again["event_id"] = json!("$again");
    it.receive(&[again]).await;
    assert!(is_here(&it));
}

#[tokio::test]
async fn what_others_said_during_a_cut_does_not_hide_what_was_missed() {
    let mut it = group_with_bob().await;
    let mut batch = Batch::new();
    for known in ["$alice-1", "$alice-2", "$bob-0"] {
        let id = known.try_into().unwrap();
        it.engine.mark_seen(id, true, &mut batch).unwrap();
    }
    it.store.apply(batch).unwrap();
    let history = vec![
        by_bob("$bob-3", NOW),
        message("$alice-2", NOW),
        by_bob("$bob-2", NOW),
        message("$alice-1", NOW),
        by_bob("$bob-1", NOW),
        // From before the cut.
        by_bob("$bob-0", NOW),
        by_bob("$bob-forgotten", NOW),
    ];
    it.fake.put_history(origin().as_str(), history);
    let event = by_bob("$bob-4", NOW);
    let json = event.to_string();
    let parsed = RoomEvent::parse(&json, None).unwrap();
    let room = &mut it.actor.room;
    backfill(room, parsed, &json).await.unwrap();
    let missed = ["$bob-1", "$bob-2", "$bob-3", "$bob-4"];
    assert_eq!(it.carries(), missed);
}

#[tokio::test]
async fn a_false_time_hides_nothing_that_was_missed_before_it() {
    let mut it = group_with_bob().await;
    let history = vec![
        by_bob("$two", NOW),
        by_bob("$false", NOW - 8 * DAY),
        by_bob("$one", NOW),
    ];
    it.fake.put_history(origin().as_str(), history.clone());
    it.backfill_before("$three").await;
    assert_eq!(it.carries(), ["$one", "$two", "$three"]);

    let it = group_with_bob().await;
    let newest = vec![message("$new", NOW)];
    it.fake.put_timeline(origin().as_str(), newest, true);
    it.fake.put_history(origin().as_str(), history);
    it.engine.sync_all_pending(&sam()).await.unwrap();
    let seen = |event: &str| it.engine.has_arrived(event.try_into().unwrap());
    assert!(seen("$one").unwrap() && seen("$two").unwrap());
    assert!(!seen("$false").unwrap());
}

/// A group with Bob and Carol, whose removal by Alice cannot be handled at the moment.
async fn group_with_failing_removal() -> (Talk, Value) {
    let it = group_with_bob().await;
    let carol = "@carol:hs.test";
    let mut talk = it.store.get::<Conversations>(&id()).unwrap().unwrap();
    let home = Home::Origin { is_present: true };
    let mut other = participant("carol", ".pcarol", home);
    other.user = testing::person(carol).clone();
    talk.people.push(other);
    let mut batch = Batch::new();
    batch.put::<Conversations>(&id(), &talk).unwrap();
    it.store.apply(batch).unwrap();
    it.fake.refuse("/state", 502);
    let alices = EventFactory::room(&origin()).sender("@alice:hs.test");
    let mut removed = alices.member(carol, "leave");
    removed["content"]["redact_events"] = json!(true);
    removed["event_id"] = json!("$removed");
    (it, removed)
}

impl Talk {
    /// The ids of the events in the origin's inbox.
    fn waiting(&self) -> Vec<String> {
        let waiting = self.store.scan::<Inbox>(&prefix(&origin()), None, 100);
        let ids = waiting.unwrap().into_iter().map(|(_, item)| match item {
            InboxItem::Event(json) | InboxItem::AfterGap(json) => {
                let event = RoomEvent::parse(&json, Some(&origin())).unwrap();
                event.id.to_string()
            }
            other => format!("{other:?}"),
        });
        ids.collect()
    }
}

#[tokio::test]
async fn a_missed_event_that_fails_costs_nothing_that_others_said_after_it() {
    let (mut it, removed) = group_with_failing_removal().await;
    let history = vec![
        by_bob("$two", NOW),
        message("$after", NOW),
        removed,
        by_bob("$one", NOW),
    ];
    it.fake.put_history(origin().as_str(), history);
    let behind = vec![message("$behind", NOW), by_bob("$four", NOW)];
    it.fake.put_continuation(origin().as_str(), behind);
    let event = by_bob("$three", NOW);
    let json = event.to_string();
    let parsed = RoomEvent::parse(&json, None).unwrap();
    backfill(&mut it.actor.room, parsed, &json).await.unwrap();
    assert_eq!(it.carries(), ["$one", "$two", "$three", "$four"]);
    assert_eq!(it.waiting(), ["$removed", "$after", "$behind"]);
}

#[tokio::test]
async fn what_somebody_says_after_a_failed_event_of_theirs_waits_behind_it_and_not_forever() {
    let (mut it, removed) = group_with_failing_removal().await;
    let history = vec![message("$after", NOW), removed];
    it.fake.put_history(origin().as_str(), history);
    let (key, last) = ((origin(), it.engine.next()), message("$last", NOW));
    let mut batch = Batch::new();
    batch
        .put::<Inbox>(&key, &InboxItem::AfterGap(last.to_string()))
        .unwrap();
    it.store.apply(batch).unwrap();
    it.engine.mark_durable(it.engine.next());
    it.actor.step().await.unwrap();
    assert_eq!(it.waiting(), ["$removed", "$after", "$last"]);
    assert_eq!(it.carries(), [""; 0]);
    for _ in 0..200 {
        it.engine.mark_durable(it.engine.next());
        // So do effects for people who are not there in this test.
        if it.actor.step().await.is_err() {
            it.clock.advance(Duration::from_secs(60));
        }
        if it.waiting().is_empty() {
            break;
        }
    }
    assert_eq!(it.waiting(), [""; 0]);
}

#[tokio::test]
async fn what_was_left_to_the_inbox_is_not_overtaken_by_what_a_later_reading_finds() {
    let (mut it, removed) = group_with_failing_removal().await;
    let read = async |it: &mut Talk, id: &str, history: Vec<Value>| {
        it.fake.put_history(origin().as_str(), history);
        let event = by_bob(id, NOW);
        let json = event.to_string();
        let parsed = RoomEvent::parse(&json, None).unwrap();
        backfill(&mut it.actor.room, parsed, &json).await.unwrap();
    };
    read(&mut it, "$one", vec![removed.clone()]).await;
    assert_eq!(it.waiting(), ["$removed"]);
    // What Bob said is known: a reading ends there if nothing was left.
    let known = by_bob("$one", NOW);
    let history = vec![message("$after", NOW), known, removed];
    read(&mut it, "$two", history).await;
    assert_eq!(it.carries(), ["$one", "$two"]);
    assert_eq!(it.waiting(), ["$removed", "$after"]);
}

#[tokio::test]
async fn all_gaps_of_a_room_have_a_minute_together_and_then_little_each() {
    let it = talk_with_bob().await;
    let (engine, left) = (&it.engine, |room: &OwnedRoomId| {
        it.engine.gap_time(room).as_secs()
    });
    assert_eq!(left(&origin()), 60);
    engine.note_gap_time(&origin(), Duration::from_secs(50));
    assert_eq!(left(&origin()), 10);
    it.clock.advance(Duration::from_secs(9 * 60));
    engine.note_gap_time(&origin(), Duration::from_secs(50));
    assert_eq!(left(&origin()), 3);
    assert_eq!(left(&portal()), 60, "another room");
    it.clock.advance(Duration::from_secs(60));
    assert_eq!(left(&origin()), 60, "that was long ago");
}

#[tokio::test]
async fn a_gap_that_cannot_be_read_is_not_tried_with_each_event() {
    let mut it = talk_with_bob().await;
    let late = |it: &Talk, id: &str| by_bob(id, it.engine.now() - Duration::from_secs(60));
    it.fake.refuse_history(502);
    let (key, json) = ((origin(), it.engine.next()), late(&it, "$one"));
    let mut batch = Batch::new();
    batch
        .put::<Inbox>(&key, &InboxItem::AfterGap(json.to_string()))
        .unwrap();
    it.store.apply(batch).unwrap();
    it.engine.mark_durable(it.engine.next());
    assert!(it.actor.step().await.is_err(), "it is tried again");
    it.clock.advance(Duration::from_secs(3 * 60));
    it.actor.step().await.unwrap();
    assert_eq!(it.carries(), ["$one"]);
    let looks = it.requests("/context/");
    let second = late(&it, "$two");
    it.receive(&[second]).await;
    assert_eq!(it.carries(), ["$one", "$two"]);
    assert_eq!(it.requests("/context/"), looks);
    let alice = user_id!("@alice:hs.test");
    assert!(
        !it.engine.gap_failed_lately(&origin(), alice),
        "of another server"
    );
    it.clock.advance(Duration::from_secs(11 * 60));
    it.fake.put_history(origin().as_str(), Vec::new());
    let bob = testing::person("@bob:far.example");
    assert!(!it.engine.gap_failed_lately(&origin(), bob));
}

#[tokio::test]
async fn a_sync_that_skips_events_brings_what_stands_among_known_ones() {
    let it = group_with_bob().await;
    let (id, mut batch) = (owned_event_id!("$known"), Batch::new());
    it.engine.mark_seen(&id, true, &mut batch).unwrap();
    it.store.apply(batch).unwrap();
    let newest = vec![message("$new", NOW)];
    it.fake.put_timeline(origin().as_str(), newest, true);
    let older = vec![message("$known", NOW), by_bob("$missed", NOW)];
    it.fake.put_history(origin().as_str(), older);
    it.engine.sync_all_pending(&sam()).await.unwrap();
    let seen = |event: &str| it.engine.has_arrived(event.try_into().unwrap());
    assert!(seen("$new").unwrap() && seen("$missed").unwrap());
}

#[tokio::test]
async fn what_was_forwarded_long_ago_is_not_forwarded_again_from_behind_a_gap() {
    let mut it = Talk::provisioned().await;
    it.note_copy("$carried", &owned_event_id!("$copy"), 0);
    it.fake.put_history(origin().as_str(), Vec::new());
    let behind = vec![
        message("$old", NOW - 8 * DAY),
        message("$carried", NOW),
        message("$lost", NOW),
    ];
    it.fake.put_continuation(origin().as_str(), behind);
    it.backfill_before("$new").await;
    assert_eq!(it.carries(), ["$new", "$lost"]);
}

#[tokio::test]
async fn what_was_forwarded_long_ago_is_not_forwarded_again_from_a_sync() {
    let it = Talk::provisioned().await;
    it.note_copy("$carried", &owned_event_id!("$copy"), 0);
    let long_ago = NOW - 8 * DAY;
    let timeline = vec![
        message("$carried", long_ago),
        message("$missed", long_ago),
        message("$new", NOW),
    ];
    it.fake.put_timeline(origin().as_str(), timeline, false);
    it.engine.sync_all_pending(&sam()).await.unwrap();
    let seen = |event: &str| it.engine.has_arrived(event.try_into().unwrap());
    assert!(!seen("$carried").unwrap());
    assert!(seen("$missed").unwrap() && seen("$new").unwrap());
}

#[tokio::test]
async fn what_is_read_back_is_not_accepted_while_it_is_handled() {
    let mut it = Talk::provisioned().await;
    let engine = it.engine.clone();
    let accept = async |id: &str| {
        let body = json!({ "events": [message(id, NOW)] }).to_string();
        let body = Transaction::parse(body.as_bytes()).unwrap();
        engine.accept_transaction(body).await.unwrap();
        let waiting = it.store.scan::<Inbox>(&prefix(&origin()), None, 10);
        waiting.unwrap().len()
    };
    let in_hand = engine.take_in_hand(&owned_event_id!("$one")).await;
    assert_eq!(accept("$one").await, 0);
    drop(in_hand);
    assert_eq!(accept("$one").await, 1);

    // Whether an event is accepted is decided before a room handles it, or after.
    let accepting = engine.0.inbox_lock.lock().await;
    let json = message("$two", NOW).to_string();
    let event = RoomEvent::parse(&json, None).unwrap();
    let room = &mut it.actor.room;
    let early = room.handle_event(event.clone(), &json, Batch::new());
    let early = tokio::time::timeout(Duration::from_millis(50), early).await;
    assert!(early.is_err(), "it may be in what is accepted");
    drop(accepting);
    let handled = room.handle_event(event, &json, Batch::new());
    handled.await.unwrap();
    assert_eq!(accept("$two").await, 1);
    assert_eq!(it.carries(), ["$two"]);
}
