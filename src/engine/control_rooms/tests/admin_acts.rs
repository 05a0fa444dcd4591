//! What the admin does to handles over the admin socket, and what follows from it.

use ruma::OwnedUserId;

use super::*;
use crate::{
    bot,
    clock::Timestamp,
    directory::{ActingAdmin, HandleAct, HandleOrder},
    engine::{
        EngineError,
        records::{Inbox, OwedGhosts, OwedNotices},
    },
    handle::{Handle, HandleRules},
    matrix::MatrixError,
};

impl House {
    async fn act(&self, name: &str, act: HandleAct) -> String {
        let handle = Handle::parse(name, &HandleRules::default()).unwrap();
        let by = ActingAdmin::Login("root".to_owned());
        let order = HandleOrder {
            handle: &handle,
            act: &act,
            reason: "because",
            by: &by,
        };
        self.engine.act_on_handle(&order).await.unwrap().plain
    }

    /// What the bot tells Samuel in his control room.
    fn told(&self, room: &OwnedRoomId) -> Vec<String> {
        let items = self.store.scan::<Inbox>(&prefix(room), None, 10).unwrap();
        let notices = items.into_iter().filter_map(|(_, item)| match item {
            InboxItem::Notify { plain, .. } => Some(plain),
            _ => None,
        });
        notices.collect()
    }
}

#[tokio::test]
async fn a_given_handle_gets_its_ghost_and_its_owner_is_told_even_after_a_crash() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    house.control_room(&room);
    let owner: OwnedUserId = samuel().clone().into();
    let done = house.act("kim", HandleAct::Claim { owner }).await;
    assert!(
        done.starts_with("@kim belongs to @samuel:hs.test now, "),
        "{done}"
    );
    let ghost = ids::Ghost::new(owned_user_id!("@_dm_kim:hs.test"));
    assert!(house.engine.machines().device_of(&ghost).unwrap().is_none());
    // What a crash at this moment leaves behind.
    assert!(house.store.contains::<OwedGhosts>(&ghost).unwrap());
    assert_eq!(
        house.store.scan::<OwedNotices>(&[], None, 9).unwrap().len(),
        1
    );

    house.engine.carry_out_owed().await.unwrap();
    house.engine.tell_owed().await.unwrap();
    assert!(house.engine.machines().device_of(&ghost).unwrap().is_some());
    assert!(
        house
            .store
            .scan::<OwedNotices>(&[], None, 9)
            .unwrap()
            .is_empty()
    );
    let told = house.told(&room);
    assert!(
        told.iter()
            .any(|it| it.starts_with("The admin of this server gave you @kim.")),
        "{told:?}"
    );

    let done = house.act("kim", HandleAct::Release).await;
    assert!(
        done.starts_with("@kim was taken from @samuel:hs.test."),
        "{done}"
    );
    house.engine.carry_out_owed().await.unwrap();
    house.engine.tell_owed().await.unwrap();
    assert!(house.engine.machines().device_of(&ghost).unwrap().is_none());
    assert!(house.told(&room).iter().any(|it| it.contains("> because")));
}

/// A ghost that is made or removed for an owner of this generation.
fn effects(generation: u32) -> [bot::Effect; 3] {
    let ghost = ids::Ghost::new(owned_user_id!("@_dm_kim:hs.test"));
    let name = "@kim".to_owned();
    [
        bot::Effect::MakeGhost {
            ghost: ghost.clone(),
            name: name.clone(),
            generation,
        },
        bot::Effect::ReplaceIdentity {
            ghost: ghost.clone(),
            name,
            generation,
        },
        bot::Effect::RetireGhost {
            ghost,
            generation,
            released_at: Timestamp::default(),
        },
    ]
}

#[tokio::test]
async fn what_waits_for_a_former_owner_neither_replaces_nor_undoes_what_an_admin_ordered() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    let (owner, next) = (samuel().clone().into(), owned_user_id!("@kimberly:hs.test"));
    house.act("kim", HandleAct::Claim { owner }).await;
    house.engine.carry_out_owed().await.unwrap();
    let ghost = ids::Ghost::new(owned_user_id!("@_dm_kim:hs.test"));
    let device = || house.engine.machines().device_of(&ghost).unwrap();
    let first = device();
    house.act("kim", HandleAct::Transfer { owner: next }).await;
    let owed = || house.store.get::<OwedGhosts>(&ghost).unwrap();
    let ordered = owed();
    assert_eq!(ordered.as_ref().unwrap().effect, effects(2)[1]);
    let error = EngineError::Matrix(MatrixError::Refused {
        status: http::StatusCode::FORBIDDEN,
        errcode: Some("M_FORBIDDEN".to_owned()),
        message: String::new(),
    });
    for effect in effects(1) {
        let late = ControlEffect::Bot(effect);
        // Given up: it takes the place of nothing.
        actor.room.give_up_control(1, &late, &error).await.unwrap();
        assert_eq!(owed(), ordered);
        // Carried out: nothing of the next owner's is touched.
        actor.room.perform_control(2, &late).await.unwrap();
        assert_eq!((owed(), device()), (ordered.clone(), first.clone()));
    }
    // A freeze in between keeps nothing of the former owner.
    house.act("kim", HandleAct::Freeze).await;
    house.engine.carry_out_owed().await.unwrap();
    assert_eq!(owed(), None);
    let second = device();
    assert!(second.is_some() && second != first);
    for effect in effects(1) {
        let late = ControlEffect::Bot(effect);
        actor.room.perform_control(3, &late).await.unwrap();
        assert_eq!(device(), second);
    }
}

#[tokio::test]
async fn a_removal_from_before_the_same_owner_claimed_again_removes_nothing() {
    let house = House::new().await;
    let owner: OwnedUserId = samuel().clone().into();
    house.act("kim", HandleAct::Claim { owner }).await;
    house.engine.carry_out_owed().await.unwrap();
    let ghost = ids::Ghost::new(owned_user_id!("@_dm_kim:hs.test"));
    let device = || house.engine.machines().device_of(&ghost).unwrap();
    let (made, claimed_at) = (device(), house.engine.now());
    let removed = |released_at| bot::Effect::RetireGhost {
        ghost: ghost.clone(),
        generation: 1,
        released_at,
    };
    let before = Timestamp(claimed_at.0 - 1);
    let late = removed(before);
    house.engine.carry_out_bot_effect(&late, 1).await.unwrap();
    assert_eq!(device(), made);
    // One from after that has its way, and what is held then gets a new ghost.
    let right = removed(claimed_at);
    house.engine.carry_out_bot_effect(&right, 2).await.unwrap();
    assert!(device().is_some() && device() != made);
}

#[tokio::test]
async fn the_bot_parts_with_an_erased_person_and_keeps_nothing_that_names_them() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    let owner: OwnedUserId = samuel().clone().into();
    house.act("kim", HandleAct::Claim { owner }).await;
    house.engine.carry_out_owed().await.unwrap();
    let ghost = ids::Ghost::new(owned_user_id!("@_dm_kim:hs.test"));
    assert!(house.engine.machines().device_of(&ghost).unwrap().is_some());
    let mut batch = Batch::new();
    house
        .engine
        .keep_notice(&samuel(), "hello", "hello", &mut batch)
        .unwrap();
    house.store.apply(batch).unwrap();
    assert!(house.store.tables_with(samuel().as_str()).len() >= 5);

    let by = ActingAdmin::Login("root".to_owned());
    let done = house
        .engine
        .erase_person(&samuel(), &by, "asked for")
        .await
        .unwrap();
    assert!(done.plain.contains("Nobody can claim @kim"), "{done:?}");
    house.engine.carry_out_owed().await.unwrap();
    steps(&mut actor).await;
    assert_eq!(house.requests_to("/leave"), 1);
    assert!(house.engine.machines().device_of(&ghost).unwrap().is_none());
    // The audit log says who did it.
    let log = crate::directory::audit_log(&house.store, None).unwrap();
    let last = log.acts.last().unwrap();
    assert_eq!(
        (last.record.act.as_str(), last.record.reason.as_str()),
        ("erase", "asked for")
    );
    let kept = house.store.tables_with(samuel().as_str());
    assert_eq!(kept, house.store.tables_with("because"), "the log alone");
}
