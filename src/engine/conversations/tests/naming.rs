//! The name by which somebody is seen in a conversation.

use super::*;

#[tokio::test]
async fn a_new_name_is_for_the_chat_of_two_and_for_no_group() {
    let mut direct = talk();
    direct.people[0].is_alias = true;
    let mut group = Conversation {
        id: ConversationId::new("group"),
        origin: Some(room_id!("!group:hs.test").to_owned()),
        direct: false,
        ..direct.clone()
    };
    group.people[0] = participant("alice", ".pother", Home::Origin { is_present: true });
    group.people[0].is_alias = true;
    let it = Talk::at(origin(), &direct).await;
    let mut batch = Batch::new();
    for conversation in [&direct, &group] {
        let mut lock = it.engine.lock_decisions();
        it.engine
            .write_conversation(&mut lock, conversation, Some(conversation), &mut batch)
            .unwrap();
    }
    it.store.apply(batch).unwrap();
    let alice = &direct.people[0].user;
    let sam = sam();
    let renamed = it.engine.rename_in_direct(alice, &sam, "Kim");
    renamed.await.unwrap();
    let name_in = |id: &ConversationId| {
        let conversation = it.store.get::<Conversations>(id).unwrap().unwrap();
        conversation.people[0].name.clone()
    };
    assert_eq!(name_in(&direct.id), "Kim");
    assert_eq!(name_in(&group.id), "alice");
}
