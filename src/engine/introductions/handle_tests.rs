//! A handle that changes, or is its asker's own, while its ghost is invited.

use std::sync::Arc;

use ruma::{OwnedRoomId, owned_room_id, owned_user_id};
use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    bot::Effect as BotEffect,
    directory::{ClaimedBy, Mode},
    engine::{
        actors::actor::RoomActor,
        records::{ControlRooms, Inbox, InboxItem},
    },
    handle::{Handle, HandleRules},
    ids::{Ghost, Person},
    introduction::{Admission, Introduction, Invite, Phase, Reason, Refusal},
    store::{Batch, prefix},
    testing::{self, EventFactory, TestEngine, bot},
};

fn samuel() -> Person {
    Person::new(owned_user_id!("@samuel:hs.test"))
}

fn alice() -> Person {
    Person::new(owned_user_id!("@alice:hs.test"))
}

fn ghost() -> Ghost {
    Ghost::new(owned_user_id!("@_dm_sam:hs.test"))
}

fn chat() -> OwnedRoomId {
    owned_room_id!("!chat:hs.test")
}

/// An engine in which Samuel holds `@sam`, whose ghost is there.
async fn house() -> TestEngine {
    let house = testing::engine().build().await;
    let engine = &house.engine;
    engine.machines().provision(&bot(), "Bot").await.unwrap();
    engine.machines().provision(&ghost(), "@sam").await.unwrap();
    let handle = Handle::parse("sam", &HandleRules::default()).unwrap();
    let mut tx = engine.directory().begin().await;
    tx.claim(&samuel(), &handle, ClaimedBy::Person, engine.now())
        .unwrap();
    tx.commit().await.unwrap();
    house
}

async fn mask(house: &TestEngine) {
    let handle = Handle::parse("sam", &HandleRules::default()).unwrap();
    let mut tx = house.engine.directory().begin().await;
    tx.set_mode(&samuel(), &handle, Mode::Masked, false)
        .unwrap();
    tx.commit().await.unwrap();
}

fn actor(house: &TestEngine) -> RoomActor {
    RoomActor::load(house.engine.clone(), chat(), Arc::new(Notify::new())).unwrap()
}

#[tokio::test]
async fn the_owner_of_a_handle_that_is_masked_by_now_is_not_invited() {
    for masked in [false, true] {
        let house = house().await;
        if masked {
            mask(&house).await;
        }
        house.fake.add_room(&chat(), &[&alice(), &ghost()]);
        let invite = Invite {
            asker: alice().into(),
            admission: Admission::Introduce {
                owner: samuel(),
                handle: "sam".to_owned(),
                strict: false,
                back_to: None,
                asks_first: false,
                masked: false,
            },
        };
        let introduction = Introduction::found(&chat(), &ghost(), invite, house.engine.now());
        let actor = actor(&house);
        let invited = actor.room.invite_owner(&introduction).await;
        assert_eq!(invited.is_err(), masked, "{invited:?}");
        let expected = if masked { "leave" } else { "invite" };
        assert_eq!(house.fake.membership(&chat(), &samuel()), expected);
    }
}

#[tokio::test]
async fn an_owner_who_declines_is_told_how_to_keep_the_asker_out_and_nobody_else() {
    let house = house().await;
    house.fake.add_room(&chat(), &[&alice(), &ghost()]);
    let mut introduction = testing::introduction(&chat(), &ghost(), samuel(), "sam");
    introduction.direct = true;
    introduction.phase = Phase::Lingering;
    introduction.owner_invited_at = Some(house.engine.now());
    let mut actor = actor(&house);
    actor.room.record.introductions.push(introduction);
    let declined = EventFactory::room(&chat()).sender(samuel().as_str());
    let declined = declined.member(samuel().as_str(), "leave");
    let arrived = InboxItem::Event(declined.to_string());
    let number = house.engine.next();
    actor.room.dispatch(number, arrived).await.unwrap();
    while actor.step().await.unwrap() {}
    assert_eq!(house.fake.membership(&chat(), &ghost()), "leave");
    let store = &house.store;
    let room = store.get::<ControlRooms>(&samuel()).unwrap().unwrap();
    let arrived = store.scan::<Inbox>(&prefix(&room), None, 10).unwrap();
    let told = arrived.iter().filter_map(|(_, item)| match item {
        InboxItem::Notify { plain, .. } => Some(plain.as_str()),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    let [told] = told[..] else {
        panic!("{told:?}");
    };
    for part in [
        "You declined the chat that @alice:hs.test started with you by your handle @sam.",
        "`block @alice:hs.test on @sam`",
        "`/unignore @_dm_sam:hs.test`",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[tokio::test]
async fn nobody_is_asked_if_the_mask_was_put_on_or_taken_off_while_the_ghost_listened() {
    for (masked_before, masked_now) in [(false, false), (false, true), (true, false), (true, true)]
    {
        let house = house().await;
        let directory = house.engine.directory();
        if masked_now {
            mask(&house).await;
        }
        house.fake.add_room(&chat(), &[&alice(), &ghost()]);
        let invite = Invite {
            asker: alice().into(),
            admission: Admission::Introduce {
                owner: samuel(),
                handle: "sam".to_owned(),
                strict: false,
                back_to: None,
                asks_first: true,
                masked: masked_before,
            },
        };
        let introduction = Introduction::found(&chat(), &ghost(), invite, house.engine.now());
        let asked = actor(&house).room.ask_owner(&introduction).await;
        let requests = directory.requests_of(&samuel()).unwrap();
        if masked_before == masked_now {
            asked.unwrap();
            let [(_, request)] = requests.as_slice() else {
                panic!("{requests:?}");
            };
            assert_eq!(request.asker_alias.is_some(), masked_now);
        } else {
            let refusal = asked.unwrap_err().refusal();
            assert_eq!(refusal, Refusal::HandleChanged);
            assert_eq!(requests, []);
            assert!(!house.store.contains::<ControlRooms>(&samuel()).unwrap());
        }
    }
}

#[tokio::test]
async fn nobody_is_asked_if_the_mask_is_put_on_while_the_control_room_is_made() {
    let house = house().await;
    house.fake.add_room(&chat(), &[&alice(), &ghost()]);
    let invite = Invite {
        asker: alice().into(),
        admission: Admission::Introduce {
            owner: samuel(),
            handle: "sam".to_owned(),
            strict: false,
            back_to: None,
            asks_first: true,
            masked: false,
        },
    };
    let introduction = Introduction::found(&chat(), &ghost(), invite, house.engine.now());
    let held = house.fake.hold("/createRoom", "");
    let actor = actor(&house);
    let asked = actor.room.ask_owner(&introduction);
    let masked = async {
        held.comes().await;
        mask(&house).await;
        drop(held);
    };
    let (asked, ()) = tokio::join!(asked, masked);
    assert_eq!(asked.unwrap_err().refusal(), Refusal::HandleChanged);
    let requests = house.engine.directory().requests_of(&samuel()).unwrap();
    assert_eq!(requests, []);
}

#[tokio::test]
async fn only_the_bot_tells_owners_that_a_handle_is_theirs() {
    let house = house().await;
    let control_room = owned_room_id!("!control:hs.test");
    let mut batch = Batch::new();
    batch.put::<ControlRooms>(&samuel(), &control_room).unwrap();
    house.store.apply(batch).unwrap();
    let sam = samuel();
    house.fake.invite(&chat(), &sam, &ghost());
    let events = EventFactory::room(&chat()).sender(sam.as_str());
    let invite = events.member(ghost().as_str(), "invite");
    let mut actor = actor(&house);
    let item = InboxItem::Event(invite.to_string());
    actor
        .room
        .dispatch(house.engine.next(), item)
        .await
        .unwrap();
    let told = house
        .store
        .scan::<Inbox>(&prefix(&control_room), None, 10)
        .unwrap();
    assert!(
        matches!(&told[..], [(_, InboxItem::Notify { plain, .. })]
            if plain.starts_with("@sam is yours")),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_release_is_no_different_from_a_decline_for_those_who_wait() {
    let house = house().await;
    house.fake.add_room(&chat(), &[&alice(), &ghost()]);
    let released = BotEffect::RetireGhost {
        ghost: ghost(),
        generation: 1,
        released_at: crate::clock::Timestamp(0),
    };
    house
        .engine
        .carry_out_bot_effect(&released, 1)
        .await
        .unwrap();
    let events = house.fake.events(chat().as_str());
    let left: Value = serde_json::from_str(events.last().unwrap().content.get()).unwrap();
    assert_eq!(left["membership"], "leave");
    assert_eq!(left["reason"], Reason::NotNow.words());
}
