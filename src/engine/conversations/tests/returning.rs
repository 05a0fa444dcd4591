//! A new chat with the ghost of a person who is shown in one conversation.

use super::*;
use crate::{
    engine::records::DirectConversations,
    introduction::{self, IntroductionNotice},
};

fn alices_ghost() -> Ghost {
    Ghost::new(user_id!("@_dm_.palice:hs.test").to_owned())
}

/// The conversation, in which Samuel sees Alice by a ghost of her own.
async fn with_alias() -> Talk {
    let it = Talk::at(portal(), &talk()).await;
    let ghost = alices_ghost();
    it.engine.machines().provision(&ghost, "Kim").await.unwrap();
    let mut batch = Batch::new();
    let key = (samuel(), ghost);
    batch.put::<DirectConversations>(&key, &id()).unwrap();
    it.store.apply(batch).unwrap();
    it
}

fn samuel() -> crate::ids::Person {
    testing::person("@samuel:hs.test").clone()
}

/// Somebody invites a ghost into a new room. Returns the room's actor, and what is due there.
async fn invited(
    it: &Talk,
    room: &str,
    by: &str,
    ghost: &Ghost,
) -> (RoomActor, Vec<introduction::Effect>) {
    let room: OwnedRoomId = room.try_into().unwrap();
    it.fake.invite(&room, by.try_into().unwrap(), ghost);
    let events = EventFactory::room(&room).sender(by);
    let mut invite = events.member(ghost.as_str(), "invite");
    invite["content"]["is_direct"] = json!(true);
    let bell = Arc::new(Notify::new());
    let mut actor = RoomActor::load(it.engine.clone(), room.clone(), bell).unwrap();
    let arrived = InboxItem::Event(invite.to_string());
    let number = it.engine.next();
    actor.room.dispatch(number, arrived).await.unwrap();
    let due = it.outbox(&room).into_iter();
    let due = due.filter_map(|(_, what)| match what {
        QueuedEffect::Introduction { effect, .. } => Some(effect),
        _ => None,
    });
    (actor, due.collect())
}

#[tokio::test]
async fn a_new_chat_with_the_ghost_of_a_person_leads_back_every_time() {
    let it = with_alias().await;
    let samuel_here = Person::new(&it.fake, samuel().as_str()).await;
    samuel_here.sign().await;
    for room in ["!one:hs.test", "!two:hs.test"] {
        let ghost = alices_ghost();
        let (mut actor, due) = invited(&it, room, samuel().as_str(), &ghost).await;
        assert_eq!(due, [introduction::Effect::Join]);
        while actor.step().await.unwrap() {}
        let room = &actor.room.id;
        assert_eq!(it.fake.sent(room), 1, "it says where they talk");
        assert_eq!(it.fake.membership(room, &ghost), "leave");
    }
    let notice = IntroductionNotice::BackToPerson { room: portal() };
    let words = notice.plain("Someone");
    assert!(words.contains("https://matrix.to/#/!portal:hs.test") && !words.contains('@'));
}

#[tokio::test]
async fn the_ghost_of_a_person_declines_everybody_else() {
    let it = with_alias().await;
    let (mut actor, due) = invited(&it, "!e:evil.org", "@eve:evil.org", &alices_ghost()).await;
    assert!(due.is_empty());
    it.clock.advance(Duration::from_secs(2));
    while actor.step().await.unwrap() {}
    let room = &actor.room.id;
    assert_eq!(it.fake.membership(room, &alices_ghost()), "leave");
    assert!(!it.fake.log().iter().any(|line| line.contains("/join")));
}

#[tokio::test]
async fn the_ghost_of_a_person_declines_after_their_conversation_has_ended() {
    let it = with_alias().await;
    let ghost = alices_ghost();
    it.engine.machines().retire(&ghost).await.unwrap();
    let (mut actor, due) = invited(&it, "!one:hs.test", samuel().as_str(), &ghost).await;
    assert!(due.is_empty());
    it.clock.advance(Duration::from_secs(2));
    while actor.step().await.unwrap() {}
    let room = &actor.room.id;
    assert_eq!(it.fake.membership(room, &ghost), "leave");
    let events = it.fake.events(room.as_str());
    let left: Value = serde_json::from_str(events.last().unwrap().content.get()).unwrap();
    assert_eq!(left["reason"], introduction::Reason::NotNow.words());
}

#[tokio::test]
async fn nobody_is_made_for_an_invite_of_a_name_that_no_handle_has() {
    let it = with_alias().await;
    let nobody = Ghost::new(user_id!("@_dm_.pnobody:hs.test").to_owned());
    let before = it.fake.log().len();
    let (mut actor, due) = invited(&it, "!one:hs.test", samuel().as_str(), &nobody).await;
    assert!(due.is_empty());
    it.clock.advance(Duration::from_secs(2));
    while actor.step().await.unwrap() {}
    assert_eq!(it.fake.membership(&actor.room.id, &nobody), "invite");
    assert_eq!(it.fake.log().len(), before, "nothing is asked for");
}
