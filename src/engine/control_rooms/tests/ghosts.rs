//! Ghosts that could not be made when their owner was told of them.

use ruma::OwnedUserId;

use super::*;
use crate::{
    bot,
    directory::ClaimedBy,
    engine::{
        EngineError,
        records::{Inbox, OwedGhosts},
    },
    handle::{Handle, HandleRules},
    matrix::MatrixError,
};

#[tokio::test]
async fn a_ghost_that_could_not_be_made_is_made_later_and_its_owner_told() {
    let house = House::new().await;
    let room = owned_room_id!("!control:hs.test");
    let mut actor = house.control_room(&room);
    let handle = Handle::parse("kim", &HandleRules::default()).unwrap();
    let mut tx = house.engine.directory().begin().await;
    let (by, now) = (ClaimedBy::Person, house.engine.now());
    tx.claim(&samuel(), &handle, by, now).unwrap();
    tx.commit().await.unwrap();
    let ghost = ids::Ghost::new(owned_user_id!("@_dm_kim:hs.test"));
    let make = ControlEffect::Bot(bot::Effect::MakeGhost {
        ghost: ghost.clone(),
        name: "@kim".to_owned(),
        generation: 1,
    });
    let refused = || {
        EngineError::Matrix(MatrixError::Refused {
            status: http::StatusCode::FORBIDDEN,
            errcode: Some("M_FORBIDDEN".to_owned()),
            message: String::new(),
        })
    };
    let error = refused();
    let given_up = actor.room.give_up_control(1, &make, &error);
    given_up.await.unwrap();
    let words = |effects: &[ControlEffect]| match effects {
        [ControlEffect::SendNotice { notice, .. }] => notice.plain.clone(),
        other => panic!("{other:?}"),
    };
    let said = words(&house.due(&room));
    assert!(
        said.contains("I'll keep trying") && !said.contains("frozen"),
        "{said}"
    );
    assert!(house.store.contains::<OwedGhosts>(&ghost).unwrap());
    assert_eq!(
        crate::engine::owed_ghosts(&house.store, 9).unwrap(),
        [OwnedUserId::from(ghost.clone())]
    );
    assert!(
        crate::engine::owed_ghosts(&house.store, 0)
            .unwrap()
            .is_empty()
    );

    let machines = house.engine.machines();
    assert!(machines.device_of(&ghost).unwrap().is_none());
    house.engine.carry_out_owed().await.unwrap();
    house.engine.tell_owed().await.unwrap();
    assert!(machines.device_of(&ghost).unwrap().is_some());
    assert!(!house.store.contains::<OwedGhosts>(&ghost).unwrap());
    let told = house.store.scan::<Inbox>(&prefix(&room), None, 10).unwrap();
    assert!(
        matches!(&told[..], [(_, InboxItem::Notify { plain, .. })] if plain.contains("set up now"))
    );
}

#[tokio::test]
async fn what_was_owed_to_a_former_owner_does_not_touch_the_ghost_of_the_next() {
    let house = House::new().await;
    let handle = Handle::parse("kim", &HandleRules::default()).unwrap();
    let ghost = ids::Ghost::new(owned_user_id!("@_dm_kim:hs.test"));
    let make = bot::Effect::MakeGhost {
        ghost: ghost.clone(),
        name: "@kim".to_owned(),
        generation: 1,
    };
    // Nobody holds the handle when it is given up.
    let mut batch = Batch::new();
    house.engine.stage_owed_ghost(&make, &mut batch).unwrap();
    house.store.apply(batch).unwrap();
    let mut tx = house.engine.directory().begin().await;
    let now = house.engine.now();
    let former = ids::Person::new(owned_user_id!("@former:hs.test"));
    tx.claim(&former, &handle, ClaimedBy::Person, now).unwrap();
    tx.release(&former, &handle, now).unwrap();
    tx.claim(&samuel(), &handle, ClaimedBy::Admin, now).unwrap();
    tx.commit().await.unwrap();
    let requests = house.fake.log().len();
    house.engine.carry_out_owed().await.unwrap();
    assert_eq!(house.fake.log().len(), requests);
    assert!(!house.store.contains::<OwedGhosts>(&ghost).unwrap());
}
