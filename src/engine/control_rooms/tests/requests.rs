//! Requests by askers, as an owner sees them, and what becomes of those that nobody sees.

use ruma::{room_id, server_name};

use super::*;
use crate::{
    directory::{ClaimedBy, Mode, Request},
    engine::{control_rooms::requests::without_asker, records::Inbox},
    handle::{Handle, HandleRules},
    relay::Context,
};

#[test]
fn a_request_of_a_masked_asker_does_not_show_the_name_in_their_profile() {
    let body = "Kim Harbour: hello";
    let content = json!({"msgtype": "m.text", "body": body,
        "com.beeper.per_message_profile": {"id": "x", "displayname": "Kim Harbour"}});
    let (room, kim) = (room_id!("!asked:hs.test"), user_id!("@kim:far.example"));
    let context = Context::for_quote(room, kim, server_name!("hs.test"));
    let shown = without_asker(body, &content, &context);
    assert_eq!(shown.as_deref(), Some("hello"));
}

#[tokio::test]
async fn a_request_that_could_not_be_shown_is_shown_later() {
    let house = House::new().await;
    let room = room_id!("!control:hs.test").to_owned();
    let _actor = house.control_room(&room);
    let request = request_to("sam", &samuel(), &house).await;
    let arrived = || {
        let arrived = house.store.scan::<Inbox>(&prefix(&room), None, 10);
        let items = arrived.unwrap().into_iter().map(|(_, item)| item);
        let asks = |item: &InboxItem| matches!(item, InboxItem::ShowRequest { owner, .. } if *owner == samuel());
        items.filter(asks).count()
    };
    house.engine.sweep_control_rooms().await.unwrap();
    assert_eq!(arrived(), 1);
    let mut tx = house.engine.directory().begin().await;
    let shown = ruma::owned_event_id!("$shown");
    tx.set_request_shown(&samuel(), request, shown).unwrap();
    tx.commit().await.unwrap();
    house.engine.sweep_control_rooms().await.unwrap();
    assert_eq!(arrived(), 1, "they have seen it");
}

/// Somebody asks for a handle, which its owner claims first. Returns the number of the request.
async fn request_to(handle: &str, owner: &ids::Person, house: &House) -> u32 {
    let parsed = Handle::parse(handle, &HandleRules::default()).unwrap();
    let (mut tx, now) = (house.engine.directory().begin().await, house.engine.now());
    let record = tx.claim(owner, &parsed, ClaimedBy::Admin, now).unwrap();
    let request = Request {
        handle: record.handle,
        generation: record.generation,
        asker: testing::person("@alice:hs.test").clone(),
        room: room_id!("!asked:hs.test").to_owned(),
        ghost: ids::Ghost::new(format!("@_dm_{handle}:hs.test").try_into().unwrap()),
        since: now,
        mode: Mode::Open,
        shown: None,
        line_shown: None,
        asker_alias: None,
    };
    let number = tx.open_request(owner, &request).unwrap().unwrap();
    tx.commit().await.unwrap();
    number
}

#[tokio::test]
async fn askers_do_not_wait_for_an_owner_who_cannot_be_invited() {
    let house = House::new().await;
    let kim = testing::person("@kim:far.org");
    let asked_in = room_id!("!asked:hs.test").to_owned();
    request_to("kim", kim, &house).await;
    house.fake.forbid("m.room.member/%40kim");
    house.fake.forbid("m.room.member/@kim");
    let room = house.engine.control_room_of(kim).await.unwrap();
    let mut actor = house.actor(&room);
    steps(&mut actor).await;
    assert!(actor.room.record.control.is_none());
    assert_eq!(house.fake.membership(&room, &bot()), "leave");
    let answers = house
        .store
        .scan::<Inbox>(&prefix(&asked_in), None, 10)
        .unwrap();
    assert!(matches!(
        answers[..],
        [(
            _,
            InboxItem::Answered {
                accepted: false,
                ..
            }
        )]
    ));
}
