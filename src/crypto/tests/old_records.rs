//! What a ghost keeps of long conversations, and of people it has introduced.

use std::time::Duration;

use matrix_sdk_crypto::{
    Account,
    olm::InboundGroupSession,
    store::{CryptoStore as _, types::Changes},
};
use ruma::{OwnedRoomId, device_id};

use super::{
    super::{
        replay_guard::{ReplayGuard, ReplayPart},
        store::{
            GhostStore, OLM_UNUSED_FOR, RoomKeyFate, RoomKeyFilter, SUPERSEDED_FOR, while_receiving,
        },
    },
    *,
};
use crate::{
    clock::{Clock as _, SystemClock, Timestamp},
    store::Batch,
};

const ALICE: &str = "@alice:hs.test";
const HOUR: Duration = Duration::from_secs(3600);

impl World {
    fn sams_store(&self) -> GhostStore {
        self.machines.0.stores.existing(sam()).unwrap().unwrap()
    }

    /// Sweeps while no event waits.
    async fn sweep(&self) {
        self.machines.sweep(|_| Ok(Vec::new())).await.unwrap();
    }

    /// The number of group sessions, of their entries in the index, and of replay records.
    async fn counts(&self) -> (usize, usize, usize) {
        let sessions = self.sams_store().get_inbound_group_sessions().await;
        let parts = self.store.scan::<ReplayGuard>(&[], None, 10_000).unwrap();
        let index = self.sams_store().count_index_entries();
        (sessions.unwrap().len(), index, parts.len())
    }
}

fn session_of(event: &RawValue) -> String {
    let event: Value = serde_json::from_str(event.get()).unwrap();
    event["content"]["session_id"].as_str().unwrap().to_owned()
}

/// Lets a ghost receive the key of a session once more. Returns whether it keeps it.
async fn receives_again(world: &World, session: &InboundGroupSession) -> bool {
    let changes = Changes {
        inbound_group_sessions: vec![session.clone()],
        ..Default::default()
    };
    let store = world.sams_store();
    let (saved, _) = while_receiving(store.save_changes(changes)).await;
    saved.unwrap();
    let found = store.get_inbound_group_session(session.room_id(), session.session_id());
    found.await.unwrap().is_some()
}

#[tokio::test]
async fn a_long_conversation_leaves_one_session_of_each_device_and_its_replay_records() {
    const SESSIONS: usize = 5;
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let mut events = Vec::new();
    // A client begins a session after a hundred messages.
    for n in 0..100 * SESSIONS {
        let event = alice.says(room(), &[sam()], &n.to_string()).await;
        if n % 100 == 0 {
            world.deliver(sam()).await;
        }
        world.decrypt(&event).await.unwrap();
        events.push(event);
    }
    assert_eq!(world.counts().await, (SESSIONS, SESSIONS, 7 * SESSIONS));
    let first = session_of(&events[0]);
    let kept = world.sams_store();
    let kept = kept.get_inbound_group_session(room(), &first).await;
    let kept = kept.unwrap().unwrap();

    world.clock.advance(SUPERSEDED_FOR - HOUR);
    world.sweep().await;
    assert_eq!(world.counts().await.0, SESSIONS, "messages may be late");
    world.clock.advance(2 * HOUR);
    // An event waits that the second session was used for.
    let second = session_of(&events[100]);
    let waits = |_: &UserId| Ok(vec![(room().to_owned(), second.clone())]);
    world.machines.sweep(waits).await.unwrap();
    assert_eq!(world.counts().await, (2, 2, 2 * 7));
    world.sweep().await;
    assert_eq!(world.counts().await, (1, 1, 7));
    // Neither the first message nor another event with it can be read.
    assert!(!receives_again(&world, &kept).await);
    assert!(matches!(
        world.decrypt(&events[0]).await,
        Err(DecryptError::NoKey { .. })
    ));
    let last = &events[100 * SESSIONS - 1];
    world.decrypt(last).await.unwrap();
    let next = alice.says(room(), &[sam()], "next").await;
    world.deliver(sam()).await;
    assert_eq!(world.decrypt(&next).await.unwrap(), "next");
}

#[tokio::test]
async fn the_replay_records_of_a_session_go_with_it_whatever_deleted_it() {
    const FLOOD: usize = 210;
    let world = World::with_sam().await;
    let store = world.machines.0.stores.ghost(sam()).unwrap();
    store.set_room_key_filter(RoomKeyFilter {
        judge: Arc::new(|_: &RoomId| RoomKeyFate::Keep),
        clock: world.clock.clone(),
    });
    let phone = Account::with_device_id("@eve:evil.test".try_into().unwrap(), device_id!("P"));
    let mut batch = Batch::new();
    let mut sessions = Vec::new();
    for _ in 0..FLOOD {
        let (_, session) = phone.create_group_session_pair_with_defaults(room()).await;
        let id = session.session_id().to_owned();
        let place = (sam().to_owned(), room().to_owned(), id, 0);
        let part = ReplayPart::default();
        batch.put::<ReplayGuard>(&place, &part).unwrap();
        sessions.push(session);
    }
    world.store.apply(batch).unwrap();
    for session in &sessions {
        receives_again(&world, session).await;
    }
    assert_eq!(world.counts().await, (200, 200, FLOOD));
    world.sweep().await;
    assert_eq!(world.counts().await, (200, 200, 200));
    assert!(!receives_again(&world, &sessions[0]).await);
    world.machines.forget_room(sam(), room()).await.unwrap();
    assert_eq!(world.counts().await, (0, 0, 0));
}

/// A world with the time of the system, by which the library says when it saw devices and used
/// sessions.
async fn world_of_now() -> World {
    let Timestamp(now) = SystemClock.now();
    let clock = Arc::new(TestClock::at(now));
    let world = World::with(|settings| settings.clock = clock.clone()).await;
    let world = World { clock, ..world };
    world.machines.provision(sam(), "Sam").await.unwrap();
    world.machines.expect_room(sam(), room()).await.unwrap();
    world
}

#[tokio::test]
async fn people_with_whom_a_ghost_shares_no_room_leave_no_records() {
    const PEOPLE: usize = 10;
    let world = world_of_now().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let talk = alice.says(room(), &[sam()], "hello").await;
    world.deliver(sam()).await;
    world.decrypt(&talk).await.unwrap();
    let none = world.sams_store().people_counts();
    let mut last = None;
    for n in 0..PEOPLE {
        let room = OwnedRoomId::try_from(format!("!with{n}:hs.test")).unwrap();
        let person = Person::new(&world.fake, &format!("@p{n}:hs.test")).await;
        world.machines.expect_room(sam(), &room).await.unwrap();
        let event = person.says(&room, &[sam()], "hello").await;
        world.deliver(sam()).await;
        let decrypting = world.machines.decrypt(sam(), &room, &event);
        decrypting.await.unwrap();
        world.machines.forget_room(sam(), &room).await.unwrap();
        last = Some(person);
    }
    let all = world.sams_store().people_counts();
    assert!(all.0 >= none.0 + PEOPLE, "{all:?}");
    world.sweep().await;
    assert_eq!(world.sams_store().people_counts(), all, "within a day");
    world.clock.advance(25 * HOUR);
    world.sweep().await;
    let left = world.sams_store().people_counts();
    assert_eq!((left.0, left.1, left.2), (none.0, none.1, none.2));
    assert_eq!(
        left.3, all.3,
        "the other side goes on using its Olm session"
    );
    // Somebody who comes again is read, and so is Alice.
    let last = last.unwrap();
    let again = room_id!("!again:hs.test");
    world.machines.expect_room(sam(), again).await.unwrap();
    let event = last.says(again, &[sam()], "again").await;
    world.deliver(sam()).await;
    world.machines.decrypt(sam(), again, &event).await.unwrap();
    world.machines.forget_room(sam(), again).await.unwrap();
    world.encrypt(&[alice.user()], "still here").await.unwrap();

    world.clock.advance(OLM_UNUSED_FOR + HOUR);
    world.sweep().await;
    assert_eq!(world.sams_store().people_counts().3, none.3, "Alice's");
    let event = alice.says(room(), &[sam()], "me too").await;
    world.deliver(sam()).await;
    world.decrypt(&event).await.unwrap();
}

#[tokio::test]
async fn a_used_fallback_key_of_a_quiet_ghost_is_replaced_and_forgotten() {
    let world = World::with_sam().await;
    let device = world.device(sam());
    world.fake.claim_all(sam(), &device);
    let first = world.fake.fallback(sam(), &device);
    let alice = Person::new(&world.fake, ALICE).await;
    let event = alice.says(room(), &[sam()], "with the fallback key").await;
    let held_back = world.fake.take_incoming(sam(), &device);
    let news = IncomingCrypto {
        to_device: Vec::new(),
        otk_counts: held_back.otk_counts.clone(),
        fallback_types: held_back.fallback_types.clone(),
        ..Default::default()
    };
    let received = world.machines.receive_and_respond(sam(), news).await;
    received.unwrap();
    // Nothing comes for the ghost from here on.
    world.clock.advance(HOUR + Duration::from_secs(1));
    world.sweep().await;
    let second = world.fake.fallback(sam(), &device);
    assert_ne!(second, first);
    world.clock.advance(HOUR + Duration::from_secs(1));
    world.sweep().await;
    let received = world.machines.receive_and_respond(sam(), held_back).await;
    assert!(received.unwrap().is_empty(), "the first key is forgotten");
    world.decrypt(&event).await.unwrap_err();
}
