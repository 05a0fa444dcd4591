//! Requests to verify an introducing ghost, which clients send unencrypted.

use ruma::{room_id, user_id};
use serde_json::json;

use crate::{
    engine::{
        records::{InboxItem, Outbox, QueuedEffect},
        room::Room,
    },
    ids::Ghost,
    introduction::{Effect, Phase},
    store::prefix,
    testing::{self, EventFactory, NOW, TestEngine},
};

#[tokio::test]
async fn a_request_to_verify_a_ghost_is_declined_and_not_taken_for_a_message() {
    let TestEngine { engine, store, .. } = testing::engine().build().await;
    let (id, sam) = (
        room_id!("!room:hs.test").to_owned(),
        Ghost::new(user_id!("@_dm_sam:hs.test").to_owned()),
    );
    let mut room = Room::load(engine.clone(), id.clone()).unwrap();
    let owner = testing::person("@samuel:hs.test").clone();
    let mut introduction = testing::introduction(&id, &sam, owner, "sam");
    introduction.direct = true;
    introduction.phase = Phase::Listening { until: NOW };
    room.record.introductions.push(introduction.clone());
    let events = EventFactory::room(&id);
    let request = |n: u32, of: &str| {
        let content = json!({"msgtype": "m.key.verification.request", "to": of});
        let request = events.event("m.room.message", &format!("$request{n}"), content);
        InboxItem::Event(request.to_string())
    };
    for (n, of) in [(1, sam.as_str()), (2, "@_dm_kim:hs.test")] {
        let number = engine.next();
        room.dispatch(number, request(n, of)).await.unwrap();
    }
    let due = store.scan::<Outbox>(&prefix(&id), None, 100).unwrap();
    let effects: Vec<Effect> = due
        .into_iter()
        .filter_map(|(_, due)| match due.what {
            QueuedEffect::Introduction { effect, .. } => Some(effect),
            _ => None,
        })
        .collect();
    let event = "$request1".try_into().unwrap();
    assert_eq!(effects, [Effect::DeclineVerification { event }]);
    assert_eq!(room.record.introductions, [introduction]);

    // Of a flood few are declined.
    for n in 3..=200 {
        let number = engine.next();
        room.dispatch(number, request(n, sam.as_str()))
            .await
            .unwrap();
    }
    let due = store.scan::<Outbox>(&prefix(&id), None, 1000).unwrap();
    assert_eq!(due.len(), 5);
}
