//! A service out of a backup, on the fake homeserver: what it drops, takes up and freezes, also when
//! it is interrupted at any request.

use ruma::{OwnedUserId, UserId, owned_room_id, owned_user_id, room_id};
use serde_json::json;

use crate::{
    bot::{Effect, NoticeText},
    crypto::store::GhostStores,
    directory::{ClaimedBy, FreezeReason, HandleState},
    engine::{
        Engine,
        control_room::{Control, ControlEffect, Occasion},
        maintenance::restore::prepare,
        records::{
            ActiveRoomsByGhost, ControlRooms, Inbox, InboxItem, Outbox, OutboxItem, QueuedEffect,
            RestoreProgress, RestoreRecord, RoomRecord, Rooms, RoomsToNotify, SyncTokens, ToDevice,
            ToDeviceItem,
        },
    },
    handle::{Handle, HandleRules},
    ids::{Ghost, Person},
    introduction::{Introduction, Phase},
    store::{BackupInfo, Batch, Store, StoreKey, StoreOptions, prefix},
    testing::{self, EventFactory, FakeHomeserver, NOW, When, bot},
};

fn ghost(name: &str) -> OwnedUserId {
    UserId::parse(format!("@_dm_{name}:hs.test")).unwrap()
}

fn handle(name: &str) -> Handle {
    Handle::parse(name, &HandleRules::default()).unwrap()
}

async fn engine(store: &Store, fake: &FakeHomeserver) -> Engine {
    let built = testing::engine().store(store).homeserver(fake).build();
    built.await.engine
}

fn introduction(name: &str, room: &str) -> Introduction {
    let room = ruma::RoomId::parse(room).unwrap();
    let owner = Person::new(owned_user_id!("@owner:hs.test"));
    let mut introduction = testing::introduction(&room, &Ghost::new(ghost(name)), owner, name);
    introduction.phase = Phase::Lingering;
    introduction
}

/// Sam and Kim have handles; each ghost is in the midst of introductions; things are waiting.
async fn lived(store: &Store, fake: &FakeHomeserver) {
    let engine = engine(store, fake).await;
    engine
        .machines()
        .provision(&bot(), "Stonechat")
        .await
        .unwrap();
    for name in ["sam", "kim"] {
        let owner = testing::person(&format!("@{name}:hs.test"));
        let mut tx = engine.directory().begin().await;
        tx.claim(owner, &handle(name), ClaimedBy::Person, NOW)
            .unwrap();
        tx.commit().await.unwrap();
        engine
            .machines()
            .provision(&ghost(name), name)
            .await
            .unwrap();
    }
    let mut batch = Batch::new();
    for room in ["!joined:hs.test", "!left:hs.test", "!invited:hs.test"] {
        let record = RoomRecord {
            introductions: vec![introduction("sam", room)],
            ..RoomRecord::default()
        };
        let room = ruma::RoomId::parse(room).unwrap();
        batch.put::<Rooms>(&room, &record).unwrap();
        batch
            .put::<ActiveRoomsByGhost>(&(ghost("sam"), room), &())
            .unwrap();
    }
    let control = owned_room_id!("!control:hs.test");
    let person = testing::person("@sam:hs.test");
    let record = RoomRecord {
        control: Some(Control::made(person.clone(), NOW)),
        ..RoomRecord::default()
    };
    batch.put::<Rooms>(&control, &record).unwrap();
    batch.put::<ControlRooms>(person, &control).unwrap();
    let notice = ControlEffect::SendNotice {
        notice: NoticeText::default(),
        source: String::new(),
        occasion: Occasion::Answer,
    };
    let task = Effect::RetireGhost {
        generation: 1,
        released_at: NOW,
        ghost: Ghost::new(ghost("old")),
    };
    for (number, effect) in [(1, notice), (2, ControlEffect::Bot(task))] {
        let due = OutboxItem {
            since: NOW,
            what: QueuedEffect::Control(effect),
        };
        batch
            .put::<Outbox>(&(control.clone(), number), &due)
            .unwrap();
    }
    let event = InboxItem::Event("{}".to_owned());
    batch.put::<Inbox>(&(control, 3), &event).unwrap();
    let item = ToDeviceItem {
        user: ghost("sam"),
        json: "{}".to_owned(),
    };
    batch.put::<ToDevice>(&(ghost("sam"), 4), &item).unwrap();
    batch
        .put::<SyncTokens>(&ghost("sam"), &"old".to_owned())
        .unwrap();
    store.commit(batch).await.unwrap();
}

struct World {
    fake: FakeHomeserver,
    key: StoreKey,
    backup: Vec<u8>,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let fake = FakeHomeserver::start().await;
        let key = StoreKey::random().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("before");
        let store = Store::open(&path, &key, &StoreOptions::default()).unwrap();
        lived(&store, &fake).await;
        let mut backup = Vec::new();
        let made = BackupInfo {
            at: NOW,
            version: "0.0.0".to_owned(),
        };
        GhostStores::open(&store)
            .unwrap()
            .export(&mut backup, &crate::engine::NOT_IN_BACKUPS, &made)
            .unwrap();
        fake.put_into_rooms(
            &ghost("sam"),
            &["!joined:hs.test", "!since:hs.test"],
            &["!invited:hs.test"],
        );
        fake.put_into_rooms(&bot(), &["!control:hs.test"], &[]);
        let events = EventFactory::room(room_id!("!since:hs.test")).sender("@bob:hs.test");
        let asked = events.member(ghost("sam").as_str(), "invite");
        fake.put_history("!since:hs.test", vec![asked]);
        let events = EventFactory::room(room_id!("!control:hs.test")).sender("@sam:hs.test");
        let said = events.encrypted("$said");
        fake.put_history("!control:hs.test", vec![said]);
        Self {
            fake,
            key,
            backup,
            folder,
        }
    }

    fn restore(&self, name: &str) -> Store {
        let path = self.folder.path().join(name);
        let options = StoreOptions::default();
        Store::import(&mut &*self.backup, &path, &self.key, &options).unwrap();
        Store::open(&path, &self.key, &options).unwrap()
    }
}

/// What must hold when the restore is done.
fn as_it_should_be(store: &Store, fake: &FakeHomeserver, engine: &Engine) {
    assert!(!store.is_restored().unwrap());
    for user in [bot(), ghost("sam"), ghost("kim")] {
        let device = engine.machines().device_of(&user).unwrap().unwrap();
        assert_eq!(fake.devices(&user), [device.as_str()]);
        assert_eq!(fake.ever_published(&user), (1, 1));
        assert!(store.contains::<SyncTokens>(&user).unwrap());
    }
    let of = |room: &str| {
        let room = ruma::RoomId::parse(room).unwrap();
        let record = store.get::<Rooms>(&room).unwrap().unwrap_or_default();
        let introduction = record.introductions.into_iter().next();
        introduction.map(|introduction| {
            (
                introduction.phase,
                introduction.resumed,
                introduction.invite.asker,
            )
        })
    };
    let alice = owned_user_id!("@alice:hs.test");
    assert_eq!(of("!joined:hs.test"), Some((Phase::Joining, true, alice)));
    assert_eq!(of("!left:hs.test").unwrap().0, Phase::Over);
    assert_eq!(of("!invited:hs.test"), None, "looked at as a new one");
    let bob = owned_user_id!("@bob:hs.test");
    assert_eq!(of("!since:hs.test"), Some((Phase::Joining, true, bob)));
    let invited = owned_room_id!("!invited:hs.test");
    let waiting = store.scan::<Inbox>(&prefix(&invited), None, 9).unwrap();
    assert!(!waiting.is_empty() && matches!(waiting[0].1, InboxItem::Invite { .. }));
    let visits = store.scan::<RoomsToNotify>(&[], None, 9).unwrap();
    let control = owned_room_id!("!control:hs.test");
    assert_eq!(visits, [(control, testing::person("@sam:hs.test").clone())]);
    let seen = engine.seen(ruma::event_id!("$said")).unwrap();
    assert!(seen.unwrap().handled);
}

#[test]
fn what_waited_is_dropped_once_and_what_comes_later_is_not() {
    let store = Store::in_memory();
    prepare(&store, NOW).unwrap();
    assert!(
        !store.contains::<RestoreProgress>(&0).unwrap(),
        "never restored"
    );
}

#[tokio::test]
async fn a_restored_service_has_new_devices_and_takes_up_what_was_under_way() {
    let world = World::new().await;
    let store = world.restore("after");
    let engine = engine(&store, &world.fake).await;
    // Only what is still to be done to ghosts is left.
    let due = store.scan::<Outbox>(&[], None, 9).unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].1.what.kind(), "retire-ghost");
    assert!(store.scan::<Inbox>(&[], None, 9).unwrap().is_empty());
    assert!(store.scan::<ToDevice>(&[], None, 9).unwrap().is_empty());
    engine.restore().await.unwrap();
    as_it_should_be(&store, &world.fake, &engine);
    let record: RestoreRecord = store.get::<RestoreProgress>(&0).unwrap().unwrap();
    assert_eq!((record.new_devices, record.changed.len()), (3, 0));
    // The next start does nothing of it again.
    let requests = world.fake.log().len();
    engine.restore().await.unwrap();
    assert_eq!(world.fake.log().len(), requests);
}

#[tokio::test]
async fn it_goes_on_wherever_a_request_fails() {
    let world = World::new().await;
    for when in [When::Before, When::After] {
        for request in 0.. {
            // The same backup again and again: what an earlier one left is replaced as well.
            let store = world.restore(&format!("{when:?}{request}"));
            let first = engine(&store, &world.fake).await;
            world.fake.fail(request, when);
            let failed = first.restore().await;
            if world.fake.failure_pending() {
                assert!(failed.is_ok() && request > 20, "{request}");
                world.fake.no_failure();
                break;
            }
            if let Err(error) = failed {
                assert!(error.is_transient(), "{request}: {error}");
                assert!(store.is_restored().unwrap());
            }
            drop(first);
            let again = engine(&store, &world.fake).await;
            again.restore().await.unwrap();
            as_it_should_be(&store, &world.fake, &again);
        }
    }
}

#[tokio::test]
async fn the_keys_of_a_replaced_database_are_destroyed_once_there_is_no_way_back() {
    let world = World::new().await;
    let store = world.restore("after");
    let replaced = store.folder().unwrap().join("replaced-20261123T101500");
    std::fs::create_dir(&replaced).unwrap();
    let file = replaced.join("shred.keys");
    let before = std::fs::read(world.folder.path().join("before/shred.keys")).unwrap();
    std::fs::write(&file, &before).unwrap();
    let first = engine(&store, &world.fake).await;
    world.fake.fail(3, When::Before);
    first.restore().await.unwrap_err();
    assert_eq!(
        std::fs::read(&file).unwrap(),
        before,
        "one may still go back"
    );
    drop(first);

    let again = engine(&store, &world.fake).await;
    again.restore().await.unwrap();
    let destroyed = || {
        let after = std::fs::read(&file).unwrap();
        let keys = &after[64..];
        after.len() == before.len() && after[..64] == before[..64] && keys.iter().all(|b| *b == 0)
    };
    assert!(before.len() > 64 && destroyed());
    // As after a crash in between.
    std::fs::write(&file, &before).unwrap();
    again.restore().await.unwrap();
    assert!(destroyed());
}

#[tokio::test]
async fn handles_that_changed_since_the_backup_are_frozen() {
    let world = World::new().await;
    // After the backup: Kim's handle changes hands; Sam claims a second one, named as he is.
    let other = Store::in_memory();
    let since = engine(&other, &world.fake).await;
    let lou = ghost("lou");
    since.machines().provision(&lou, "@lou").await.unwrap();
    let intruder = crate::testing::Person::new(&world.fake, ghost("kim").as_str()).await;
    world
        .fake
        .put_into_rooms(intruder.user(), &["!somewhere:hs.test"], &[]);

    let store = world.restore("after");
    // Lou talks with the bot, so the name is one to ask for.
    let mut batch = Batch::new();
    let (room, lous) = (
        owned_room_id!("!lou:hs.test"),
        testing::person("@Lou:hs.test"),
    );
    batch.put::<ControlRooms>(lous, &room).unwrap();
    store.commit(batch).await.unwrap();
    let engine = engine(&store, &world.fake).await;
    engine.restore().await.unwrap();
    let state = |name: &str| {
        let record = engine.directory().lookup(&handle(name)).unwrap();
        record.map(|record| (record.owner, record.state))
    };
    let frozen = HandleState::Frozen {
        reason: FreezeReason::ChangedSinceBackup,
        since: NOW,
    };
    let kim = testing::person("@kim:hs.test").clone();
    assert_eq!(state("kim"), Some((kim, frozen.clone())));
    assert_eq!(
        state("lou"),
        Some((Person::new(lou.clone()), frozen)),
        "nobody's"
    );
    assert_eq!(state("sam").unwrap().1, HandleState::Active);
    assert!(world.fake.rooms_of(&ghost("kim")).is_empty());
    let record = store.get::<RestoreProgress>(&0).unwrap().unwrap();
    assert_eq!(record.changed.len(), 2, "{:?}", record.changed);
    let mut tx = engine.directory().begin().await;
    let anybody = testing::person("@eve:hs.test");
    let claimed = tx.claim(anybody, &handle("lou"), ClaimedBy::Person, NOW);
    assert!(claimed.is_err(), "{claimed:?}");
}

#[tokio::test]
async fn what_was_sent_to_the_device_of_before_is_for_nobody() {
    let world = World::new().await;
    let store = world.restore("after");
    let engine = engine(&store, &world.fake).await;
    let sam = ghost("sam");
    let old = world.fake.devices(&sam).remove(0);
    engine.restore().await.unwrap();
    let new = engine.machines().device_of(&sam).unwrap().unwrap();
    assert_ne!(old, new);
    let to = |device: Option<&str>| {
        let message = json!({
            "type": "m.room.encrypted", "sender": "@alice:hs.test", "content": {},
            "to_user_id": sam, "to_device_id": device,
        });
        serde_json::value::to_raw_value(&message).unwrap()
    };
    let all = vec![to(Some(&old)), to(Some(new.as_str())), to(None)];
    let kept = engine.for_present_device(&sam, all).unwrap();
    assert_eq!(kept.len(), 2);
    assert!(!kept.iter().any(|message| message.get().contains(&old)));
}

#[tokio::test]
async fn no_amount_of_what_a_sync_shows_keeps_a_restored_service_from_starting() {
    let built = testing::engine().build().await;
    let bot = bot();
    let provisioned = built.engine.machines().provision(&bot, "Bot");
    provisioned.await.unwrap();
    for n in 0..20 {
        let room = ruma::RoomId::parse(format!("!r{n}:hs.test")).unwrap();
        let content = json!({"body": "a".repeat(100 * 1024)});
        let events = EventFactory::room(&room);
        let events =
            (0..22).map(|m| events.event("m.room.message", &format!("${n}.{m}"), content.clone()));
        built
            .fake
            .put_timeline(room.as_str(), events.collect(), false);
    }
    built.engine.resync_all().await.unwrap();
    assert!(built.store.contains::<SyncTokens>(&bot).unwrap());
}
