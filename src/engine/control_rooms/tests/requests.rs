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
async fn askers_do_not_wait_for_an_owner_who_cannot_be_invited() {
    let house = House::new().await;
    let (kim, by) = (testing::person("@kim:far.org"), ClaimedBy::Person);
    let handle = Handle::parse("kim", &HandleRules::default()).unwrap();
    let mut tx = house.engine.directory().begin().await;
    let record = tx.claim(kim, &handle, by, house.engine.now()).unwrap();
    let asked_in = room_id!("!asked:hs.test").to_owned();
    let request = Request {
        handle: record.handle,
        generation: record.generation,
        asker: testing::person("@alice:hs.test").clone(),
        room: asked_in.clone(),
        ghost: ids::Ghost::new(owned_user_id!("@_dm_kim:hs.test")),
        since: house.engine.now(),
        mode: Mode::Open,
        shown: None,
        line_shown: None,
        asker_alias: None,
    };
    tx.open_request(kim, &request).unwrap().unwrap();
    tx.commit().await.unwrap();
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
