//! A conversation that goes on in an engine that is not started: its actor does what it is told.

use std::{sync::Arc, time::Duration};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, owned_event_id, room_id, user_id};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    clock::Timestamp,
    engine::{
        Engine,
        actors::actor::RoomActor,
        records::{
            Arrived, Conversations, CopiesOf, Copy, Due, Inbox, Kept, OpenWork, Outbox, SeatHere,
            Seen, What,
        },
    },
    introduction::{Admission, Heard, Introduction, Invite},
    matrix::Transaction,
    relay::{Conversation, Effect, Input, Participant, Place, Saying, Seat, Secret, Standing},
    store::{Batch, Store, prefix},
    testing::{self, FakeHomeserver, NOW, Person, TestClock, TestEngine},
};

const ID: &str = "talk";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn origin() -> OwnedRoomId {
    room_id!("!origin:hs.test").to_owned()
}

fn portal() -> OwnedRoomId {
    room_id!("!portal:hs.test").to_owned()
}

fn sam() -> OwnedUserId {
    user_id!("@_dm_sam:hs.test").to_owned()
}

fn person(name: &str, ghost: &str, seat: Seat) -> Participant {
    Participant {
        user: format!("@{name}:hs.test").try_into().unwrap(),
        ghost: format!("@_dm_{ghost}:hs.test").try_into().unwrap(),
        name: name.to_owned(),
        own_ghost: false,
        seat,
        known_as: Vec::new(),
    }
}

/// Alice and `@sam`, who is masked.
fn talk() -> Conversation {
    let room = Some(portal());
    let standing = Standing::Joined;
    Conversation {
        id: ID.to_owned(),
        origin: Some(origin()),
        direct: true,
        secret: Secret([7; 32]),
        people: vec![
            person("alice", ".palice", Seat::Origin { here: true }),
            person("samuel", "sam", Seat::Portal { room, standing }),
        ],
        begun_at: NOW,
        led_back_at: None,
        told_of_room_calls: Vec::new(),
        ended: false,
    }
}

struct Talk {
    actor: RoomActor,
    engine: Engine,
    store: Store,
    fake: FakeHomeserver,
    clock: Arc<TestClock>,
}

impl Talk {
    /// The conversation as it is, seen from the room of one of its places.
    async fn at(room: OwnedRoomId, talk: &Conversation) -> Self {
        let TestEngine {
            engine,
            store,
            fake,
            clock,
        } = testing::engine().build().await;
        let mut batch = Batch::new();
        batch.put::<Conversations>(&ID.to_owned(), talk).unwrap();
        store.apply(batch).unwrap();
        store.flush_blocking().unwrap();
        let mut actor = RoomActor::load(engine.clone(), room, Arc::new(Notify::new())).unwrap();
        actor.room.record.seat = Some(SeatHere {
            conversation: ID.to_owned(),
            ghosts: vec![sam()],
            awaited: false,
        });
        actor.room.settle(Batch::new(), []).unwrap();
        Self {
            actor,
            engine,
            store,
            fake,
            clock,
        }
    }

    async fn begun() -> Self {
        Self::at(origin(), &talk()).await
    }

    async fn provisioned() -> Self {
        let it = Self::begun().await;
        it.engine.machines().provision(&sam(), "Sam").await.unwrap();
        it
    }

    fn outbox(&self, room: &OwnedRoomId) -> Vec<(u64, What)> {
        let all = self.store.scan::<Outbox>(&prefix(room), None, 1000);
        let all = all.unwrap().into_iter();
        all.map(|((_, number), due)| (number, due.what)).collect()
    }

    /// Which events are to be carried.
    fn carries(&self) -> Vec<String> {
        let all = self.outbox(&self.actor.room.id).into_iter();
        all.filter_map(|(_, what)| match what {
            What::Relay {
                effect: Effect::Carry { event, .. },
                ..
            } => Some(event.to_string()),
            _ => None,
        })
        .collect()
    }

    /// What is to be said in a room.
    fn sayings(&self, room: &OwnedRoomId) -> Vec<Saying> {
        let all = self.outbox(room).into_iter();
        all.filter_map(|(_, what)| match what {
            What::Relay {
                effect: Effect::Say { saying, .. },
                ..
            } => Some(saying),
            _ => None,
        })
        .collect()
    }

    fn is_kept(&self, event: &str) -> bool {
        let key = (self.actor.room.id.clone(), event.try_into().unwrap());
        self.store.contains::<Kept>(&key).unwrap()
    }

    fn put_due(&self, effect: Effect) -> u64 {
        let number = self.engine.next();
        let due = Due {
            since: self.engine.now(),
            what: What::Relay {
                conversation: ID.to_owned(),
                effect,
            },
        };
        let mut batch = Batch::new();
        let key = (self.actor.room.id.clone(), number);
        batch.put::<Outbox>(&key, &due).unwrap();
        self.store.apply(batch).unwrap();
        number
    }

    fn keep(&self, event: &Value) {
        let mut batch = Batch::new();
        let id = event["event_id"].as_str().unwrap().try_into().unwrap();
        let key = (self.actor.room.id.clone(), id);
        batch.put::<Kept>(&key, &event.to_string()).unwrap();
        self.store.apply(batch).unwrap();
    }

    async fn carry_out(&mut self, number: u64) {
        let due = self.outbox(&self.actor.room.id).into_iter();
        let due = due.into_iter().find(|(n, _)| *n == number).unwrap();
        let due = Due {
            since: self.engine.now(),
            what: due.1,
        };
        self.actor.room.carry_out(number, due).await.unwrap();
    }

    /// Takes in one message, and says whether it may be carried on before it is durable.
    async fn repeatable(&mut self, id: &str) -> bool {
        let key = (self.actor.room.id.clone(), self.engine.next());
        let arrived = Arrived::Event(message(id, NOW).to_string());
        assert!(
            self.actor
                .room
                .take_messages(&[(key, arrived)])
                .await
                .unwrap()
        );
        let (number, what) = self.outbox(&self.actor.room.id).pop().unwrap();
        self.actor.room.is_repeatable(number, &what).unwrap()
    }

    fn change(&self) {
        let mut batch = Batch::new();
        let led_back = Input::LedBack {
            at: self.engine.now(),
            person: 0,
        };
        let (lock, _) = self.engine.converse(ID, &[led_back], &mut batch).unwrap();
        self.store.apply(batch).unwrap();
        drop(lock);
    }

    /// Looks for what may have been lost before a message.
    async fn make_sure(&mut self, id: &str) {
        let event = message(id, self.engine.now());
        let json = event.to_string();
        let parsed = crate::engine::event::RoomEvent::parse(&json, None).unwrap();
        self.actor.room.make_sure(parsed, &json).await.unwrap();
    }
}

fn message(id: &str, sent_at: Timestamp) -> Value {
    json!({
        "type": "m.room.encrypted", "event_id": id, "room_id": origin(),
        "sender": "@alice:hs.test", "origin_server_ts": sent_at, "content": {"ciphertext": id},
    })
}

fn membership(of: &str, membership: &str, before: Option<&str>) -> Value {
    let mut event = json!({
        "type": "m.room.member", "event_id": format!("${of}-{membership}"), "room_id": origin(),
        "sender": "@alice:hs.test", "origin_server_ts": NOW, "state_key": of,
        "content": {"membership": membership},
    });
    if let Some(before) = before {
        event["unsigned"] = json!({"prev_content": {"membership": before}});
    }
    event
}

fn carry(event: &str, to: Place, last: bool) -> Effect {
    Effect::Carry {
        event: event.try_into().unwrap(),
        from: 0,
        to,
        last,
    }
}

#[tokio::test]
async fn what_is_decided_on_a_change_that_a_crash_could_take_is_made_sure_of() {
    let mut it = Talk::begun().await;
    assert!(it.repeatable("$one").await);
    it.change();
    assert!(!it.repeatable("$two").await);
    it.store.flush_blocking().unwrap();
    assert!(it.repeatable("$three").await);
}

#[tokio::test]
async fn what_others_may_have_seen_is_durable_before_its_conversation_changes() {
    let mut it = Talk::begun().await;
    assert!(it.repeatable("$one").await);
    let decided = it.store.applied();
    assert!(it.store.durable() < decided, "else nothing is shown here");
    it.change();
    assert!(it.store.durable() >= decided);
}

#[tokio::test]
async fn nobody_begins_with_what_has_arrived_and_is_not_durable() {
    let mut it = Talk::begun().await;
    let body = json!({"events": [message("$one", NOW)]});
    let body = Transaction::parse(body.to_string().as_bytes()).unwrap();
    let mut taken = crate::engine::inbox::accept::Taken::default();
    let raw = &body.events[0];
    it.engine.take_event(raw, None, &mut taken).unwrap();
    it.store.apply(taken.take_batch().unwrap()).unwrap();
    taken.until = it.engine.next();
    it.actor.step().await.unwrap();
    assert!(it.carries().is_empty(), "it is not durable");
    assert!(!it.engine.retire_actor(&origin()).unwrap(), "it is there");
    it.store.flush_blocking().unwrap();
    it.engine.has_arrived(taken.until);
    // The first event of a room is looked at alone: nobody knows what was before it.
    it.fake.put_history(origin().as_str(), Vec::new());
    it.engine.machines().provision(&sam(), "Sam").await.unwrap();
    it.actor.step().await.unwrap();
    assert_eq!(it.carries(), ["$one"]);
}

#[tokio::test]
async fn a_room_with_something_left_to_do_keeps_its_actor() {
    let it = Talk::begun().await;
    assert!(it.engine.retire_actor(&origin()).unwrap());
    it.put_due(Effect::Depart);
    assert!(!it.engine.retire_actor(&origin()).unwrap());
}

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
    it.make_sure("$new").await;
    assert_eq!(it.carries(), ["$lost", "$new"]);
}

#[tokio::test]
async fn whoever_dates_old_messages_as_new_does_not_have_them_carried_again() {
    let mut it = Talk::provisioned().await;
    let key = (origin(), owned_event_id!("$carried"), portal());
    let copy = Copy {
        event: owned_event_id!("$copy"),
        by: 0,
    };
    let mut batch = Batch::new();
    batch.put::<CopiesOf>(&key, &copy).unwrap();
    it.store.apply(batch).unwrap();
    let history = vec![
        message("$lost", NOW),
        message("$carried", NOW),
        message("$before", NOW),
    ];
    it.fake.put_history(origin().as_str(), history);
    it.make_sure("$new").await;
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
    it.make_sure("$new").await;
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
    it.engine.sync_until_empty(&sam()).await.unwrap();
    let seen = |event: &str| it.store.contains::<Seen>(&event.try_into().unwrap());
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
    it.engine.sync_until_empty(&sam()).await.unwrap();
    assert!(seen("$lost").unwrap() && seen("$new").unwrap());
    assert!(!seen("$long-before").unwrap());
}

#[tokio::test]
async fn what_cannot_be_looked_up_does_not_cost_the_message_that_is_here() {
    let mut it = Talk::provisioned().await;
    let (key, json) = ((origin(), it.engine.next()), message("$one", NOW));
    let mut batch = Batch::new();
    batch
        .put::<Inbox>(&key, &Arrived::AfterGap(json.to_string()))
        .unwrap();
    it.store.apply(batch).unwrap();
    it.engine.has_arrived(it.engine.next());
    it.fake.refuse_history(502);
    assert!(it.actor.step().await.is_err(), "it is tried again");
    it.clock.advance(Duration::from_secs(3 * 60));
    it.actor.step().await.unwrap();
    assert_eq!(it.carries(), ["$one"]);
}

#[tokio::test]
async fn a_message_that_is_given_up_is_not_given_up_in_silence() {
    let mut it = Talk::begun().await;
    let arrived = Arrived::Event(message("$one", NOW).to_string());
    it.actor.room.give_up(1, arrived).unwrap();
    let said = it.sayings(&origin());
    assert!(matches!(&said[..], [Saying::NotCarried { .. }]), "{said:?}");
}

#[tokio::test]
async fn what_is_for_nobody_is_not_kept() {
    let mut it = Talk::begun().await;
    it.repeatable("$one").await;
    assert!(it.is_kept("$one"), "else nothing is shown here");
    let mut alone = talk();
    alone.people[1].seat = Seat::Portal {
        room: None,
        standing: Standing::Gone,
    };
    let mut it = Talk::at(origin(), &alone).await;
    let key = (origin(), it.engine.next());
    let arrived = Arrived::Event(message("$one", NOW).to_string());
    it.actor
        .room
        .take_messages(&[(key, arrived)])
        .await
        .unwrap();
    assert_eq!(it.sayings(&origin()), [Saying::NobodyThere]);
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
    let first = it.put_due(carry("$one", Place::Portal(1), true));
    let second = it.put_due(carry("$one", Place::Portal(1), true));
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
    let kim = user_id!("@_dm_kim:hs.test");
    let mut is = Introduction::found(&origin(), kim, invite, it.engine.now());
    is.heard.push(Heard {
        event: owned_event_id!("$one"),
        edit: None,
        done: false,
        unreadable: false,
    });
    it.actor.room.record.introductions.push(is);
    let third = it.put_due(carry("$one", Place::Portal(1), true));
    it.carry_out(third).await;
    assert!(it.is_kept("$one"), "Kim is to get it");
}

#[tokio::test]
async fn what_is_not_there_any_more_is_said_to_be_lost() {
    let mut it = Talk::begun().await;
    let number = it.put_due(carry("$gone", Place::Portal(1), true));
    it.carry_out(number).await;
    let said = it.sayings(&origin());
    assert!(matches!(&said[..], [Saying::NotCarried { .. }]), "{said:?}");
}

/// The asker began another chat, and the conversation goes on there.
#[tokio::test]
async fn what_waits_in_a_room_that_was_moved_away_from_is_not_lost_in_silence() {
    let old = room_id!("!old:hs.test").to_owned();
    let mut it = Talk::at(old.clone(), &talk()).await;
    let number = it.put_due(carry("$queued", Place::Portal(1), true));
    it.carry_out(number).await;
    assert_eq!(it.sayings(&origin()).len(), 1, "tried, and not found");

    let mut late = message("$late", NOW);
    late["room_id"] = json!(old);
    let mut batch = Batch::new();
    let key = (old, it.engine.next());
    let arrived = Arrived::Event(late.to_string());
    batch.put::<Inbox>(&key, &arrived).unwrap();
    it.store.apply(batch).unwrap();
    it.engine.machines().provision(&sam(), "Sam").await.unwrap();
    let number = it.put_due(Effect::Depart);
    it.carry_out(number).await;
    assert_eq!(it.sayings(&origin()).len(), 2);
}

#[tokio::test]
async fn nobody_is_invited_to_what_is_over() {
    let mut over = talk();
    over.ended = true;
    over.people[1].seat = Seat::Portal {
        room: None,
        standing: Standing::Unasked,
    };
    let mut it = Talk::at(origin(), &over).await;
    it.keep(&message("$one", NOW));
    let number = it.put_due(carry("$one", Place::Portal(1), true));
    it.carry_out(number).await;
    let log = it.fake.log();
    let made = log.iter().find(|line| line.contains("createRoom"));
    assert_eq!(made, None);
    assert!(!it.is_kept("$one"));
}

/// Alice and `@sam` go on, and Kim, who is masked too, is gone.
async fn without_kim() -> (Talk, OwnedUserId) {
    let mut group = talk();
    group.direct = false;
    let (room, standing) = (None, Standing::Gone);
    let kim = person("kim", "kim", Seat::Portal { room, standing });
    let ghost = kim.ghost.clone();
    group.people.push(kim);
    let mut it = Talk::at(origin(), &group).await;
    it.engine.machines().provision(&ghost, "Kim").await.unwrap();
    let seat = it.actor.room.record.seat.as_mut().unwrap();
    seat.ghosts.push(ghost.clone());
    it.actor.room.settle(Batch::new(), []).unwrap();
    it.fake.put_into_rooms(&ghost, &[origin().as_str()], &[]);
    (it, ghost)
}

impl Talk {
    fn works_here(&self, ghost: &OwnedUserId) -> bool {
        let key = (ghost.clone(), self.actor.room.id.clone());
        self.store.contains::<OpenWork>(&key).unwrap()
    }

    /// An invite of a ghost is in the inbox, and was not handled yet.
    fn invite_arrives(&self, ghost: &OwnedUserId) {
        let invite = membership(ghost.as_str(), "invite", None);
        let mut batch = Batch::new();
        let key = (origin(), self.engine.next());
        let arrived = Arrived::Event(invite.to_string());
        batch.put::<Inbox>(&key, &arrived).unwrap();
        self.store.apply(batch).unwrap();
    }

    fn asked_to_leave(&self) -> bool {
        let log = self.fake.log();
        log.iter().any(|request| request.contains("/leave"))
    }

    async fn leaves(&mut self, sent_away: bool) {
        let person = 2;
        let number = self.put_due(Effect::Leave { person, sent_away });
        self.carry_out(number).await;
    }
}

#[tokio::test]
async fn the_ghost_of_whoever_is_gone_leaves_a_group_alone() {
    let (mut it, ghost) = without_kim().await;
    it.leaves(false).await;
    assert!(it.fake.rooms_of(&ghost).is_empty());
    assert!(!it.actor.room.seat_has(&ghost) && !it.works_here(&ghost));
    assert!(it.actor.room.seat_has(&sam()) && it.works_here(&sam()));
}

/// The room deals with what has arrived only after everything that is due in it.
#[tokio::test]
async fn a_ghost_leaves_although_the_invite_that_it_came_by_was_not_handled_yet() {
    let (mut it, ghost) = without_kim().await;
    it.invite_arrives(&ghost);
    let mut batch = Batch::new();
    let again = Arrived::Invite {
        user: ghost.clone(),
        state: vec![membership(ghost.as_str(), "invite", None).to_string()],
    };
    let key = (origin(), it.engine.next());
    batch.put::<Inbox>(&key, &again).unwrap();
    it.store.apply(batch).unwrap();
    it.leaves(false).await;
    assert!(it.fake.rooms_of(&ghost).is_empty());
    assert!(!it.actor.room.seat_has(&ghost) && !it.works_here(&ghost));
    // That invite does not call it back: not as it was pushed, nor as a sync shows it.
    it.actor.room.engine.store().flush().await.unwrap();
    it.engine.has_arrived(it.engine.next());
    while it.actor.step().await.unwrap() {}
    assert!(it.actor.room.record.introductions.is_empty());
    assert!(it.fake.rooms_of(&ghost).is_empty());
}

/// Else it would decline the invite, and never come back.
#[tokio::test]
async fn a_ghost_that_was_sent_away_does_not_leave_what_it_may_be_invited_to_again() {
    let (mut it, ghost) = without_kim().await;
    it.fake.put_into_rooms(&ghost, &[], &[]);
    let machines = it.engine.machines().clone();
    machines.expect_room(&ghost, &origin()).await.unwrap();
    it.leaves(true).await;
    assert!(!it.asked_to_leave(), "it is not there");
    assert!(!it.actor.room.seat_has(&ghost) && !it.works_here(&ghost));
    assert!(!machines.expects_room(&ghost, &origin()).unwrap());

    // The invite has arrived, and with it perhaps a key.
    let (mut it, ghost) = without_kim().await;
    it.fake.put_into_rooms(&ghost, &[], &[origin().as_str()]);
    let machines = it.engine.machines().clone();
    machines.expect_room(&ghost, &origin()).await.unwrap();
    it.invite_arrives(&ghost);
    it.leaves(true).await;
    assert!(!it.asked_to_leave(), "that would decline the invite");
    assert!(!it.actor.room.seat_has(&ghost));
    assert!(machines.expects_room(&ghost, &origin()).unwrap());
}

/// After a restore it may be that a ghost was sent away since the backup.
#[tokio::test]
async fn whoever_was_sent_away_since_the_backup_is_out_of_the_conversation() {
    let mut group = talk();
    group.direct = false;
    let standing = Standing::Joined;
    let room = Some(room_id!("!kims:hs.test").to_owned());
    let kim = person("kim", "kim", Seat::Portal { room, standing });
    group.people.push(kim);
    // In the group, and in the conversation of two.
    for (talk, is_there) in [(&group, true), (&group, false), (&talk(), false)] {
        let it = Talk::at(origin(), talk).await;
        it.engine.machines().provision(&sam(), "Sam").await.unwrap();
        let rooms: &[&str] = if is_there { &["!origin:hs.test"] } else { &[] };
        it.fake.put_into_rooms(&sam(), rooms, &[]);
        it.engine.take_stock().await.unwrap();
        let now = it.store.get::<Conversations>(&ID.to_owned()).unwrap();
        let now = now.unwrap();
        assert_eq!(now.people[1].takes_part(), is_there);
        assert_eq!(now.ended, talk.direct);
        assert_eq!(it.works_here(&sam()), is_there);
        if !is_there {
            assert!(matches!(it.sayings(&portal())[..], [Saying::Ended]));
        }
    }
}

#[tokio::test]
async fn nobody_is_invited_again_who_is_gone() {
    let (mut it, _) = without_kim().await;
    let number = it.put_due(Effect::Furnish { person: 2 });
    it.carry_out(number).await;
    let log = it.fake.log();
    let made = log.iter().find(|line| line.contains("createRoom"));
    assert_eq!(made, None);
}

#[tokio::test]
async fn a_ghost_that_waits_for_a_slow_server_keeps_nobody_waiting() {
    let it = Talk::provisioned().await;
    let alice = Person::new(&it.fake, "@alice:hs.test").await;
    let machines = it.engine.machines().clone();
    machines.expect_room(&sam(), &origin()).await.unwrap();
    let event = alice.says(&origin(), &[&sam()], "hello").await;
    let device = it.engine.machines().device_of(&sam()).unwrap().unwrap();
    let mut messages = Vec::new();
    for message in it.fake.take_incoming(&sam(), &device).to_device {
        let mut message: Value = serde_json::from_str(message.get()).unwrap();
        message["to_user_id"] = json!(sam());
        message["to_device_id"] = json!(device);
        messages.push(message);
    }
    assert!(!messages.is_empty());
    let body = json!({"events": [], "de.sorunome.msc2409.to_device": messages});
    let body = Transaction::parse(body.to_string().as_bytes()).unwrap();
    let ghost = sam();
    let drained = machines.while_errands_wait(&ghost, async {
        it.engine.transaction(body).await.unwrap();
        let drained = it.engine.drain_to_device();
        tokio::time::timeout(Duration::from_secs(10), drained).await
    });
    drained.await.expect("it waits for nobody");
    let id: OwnedEventId = serde_json::from_str::<Value>(event.get()).unwrap()["event_id"]
        .as_str()
        .unwrap()
        .try_into()
        .unwrap();
    it.actor
        .room
        .decrypt(&sam(), &id, event.get())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stop_waits_for_no_receipt() {
    let it = Talk::begun().await;
    it.actor
        .room
        .show_delivery(&talk(), Place::Origin, &owned_event_id!("$one"));
    let stopped = tokio::time::timeout(Duration::from_secs(1), it.engine.stop());
    stopped.await.expect("it waits for nobody").unwrap();
}

#[tokio::test]
async fn whoever_has_left_shows_no_delivery() {
    let mut it = Talk::provisioned().await;
    let event = owned_event_id!("$one");
    it.actor.room.deliveries.note(sam(), event);
    let (mut batch, talk) = (Batch::new(), talk());
    it.actor
        .room
        .depart(ID, Some(&talk), &mut batch)
        .await
        .unwrap();
    assert_eq!(it.actor.room.deliveries.take(), None);
}
