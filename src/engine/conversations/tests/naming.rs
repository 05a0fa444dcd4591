//! The name by which somebody is seen in a conversation.

use super::*;
use crate::engine::conversations::aliases::aliases;

#[tokio::test]
async fn a_new_name_is_for_the_chat_of_two_and_for_no_group() {
    let (it, direct, group) = direct_and_group(true).await;
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

#[test]
fn a_mention_has_the_name_that_a_person_has_in_the_room_where_it_is_read() {
    let mut conversation = talk();
    conversation.direct = false;
    let name_to = |conversation: &Conversation, target: RoomRole, called: &[(&str, &str)]| {
        let called = called.iter();
        let called = called.map(|(user, name)| ((*user).try_into().unwrap(), (*name).to_owned()));
        let called = called.collect();
        let source = match target {
            RoomRole::Origin => RoomRole::Portal(1),
            RoomRole::Portal(_) => RoomRole::Origin,
        };
        let all = aliases(conversation, source, target, Some(&called)).into_iter();
        all.map(|alias| alias.name).collect::<Vec<_>>()
    };
    conversation.people[0].name = "Someone".to_owned();
    conversation.people[1].name = "@sam".to_owned();
    let called = [
        ("@alice:hs.test", "Alice @ the harbour"),
        ("@_dm_sam:hs.test", "another name"),
    ];
    let to_origin = name_to(&conversation, RoomRole::Origin, &called);
    assert_eq!(to_origin, ["Alice the harbour", "@sam"]);
    // Nobody else learns it.
    let to_sam = name_to(&conversation, RoomRole::Portal(1), &called);
    assert_eq!(to_sam[0], "Someone");
    // Without a display name, clients show the Matrix ID.
    let to_origin = name_to(&conversation, RoomRole::Origin, &[]);
    assert_eq!(to_origin[0], "alice");
}

/// Returns whom a ghost in one room of a conversation stands for in another one.
fn meant_by(conversation: &Conversation, ghost: &str, rooms: (RoomRole, RoomRole)) -> Vec<String> {
    let all = aliases(conversation, rooms.0, rooms.1, None).into_iter();
    all.filter(|alias| alias.source == *ghost)
        .map(|alias| alias.target.to_string())
        .collect()
}

fn in_portal(user: &str, status: PortalStatus) -> crate::conversation::Participant {
    let room = None;
    participant(user, "kim", Home::Portal { room, status })
}

#[test]
fn a_mention_means_who_takes_part_and_the_owner_of_the_room() {
    const KIM: &str = "@_dm_kim:hs.test";
    let (origin, sams, third) = (RoomRole::Origin, RoomRole::Portal(1), RoomRole::Portal(2));
    let mut conversation = talk();
    conversation.direct = false;
    // The handle has a new owner.
    let former = in_portal("kimberly", PortalStatus::Closed);
    let present = in_portal("kim", PortalStatus::Joined);
    conversation.people.extend([former, present]);
    let fourth = RoomRole::Portal(3);
    let to_owner = meant_by(&conversation, KIM, (origin, fourth));
    assert_eq!(to_owner, ["@kim:hs.test"]);
    let to_sam = meant_by(&conversation, KIM, (origin, sams));
    assert_eq!(to_sam, [KIM]);

    // Alice is seen by her masked handle, and somebody invited its ghost too.
    let mut conversation = talk();
    conversation.direct = false;
    conversation.people[0].ghost = Ghost::new(KIM.try_into().unwrap());
    let masked = in_portal("alice", PortalStatus::Joined);
    conversation.people.push(masked);
    let both = ["@alice:hs.test", KIM];
    assert_eq!(meant_by(&conversation, KIM, (sams, origin)), both);
    let to_owner = meant_by(&conversation, KIM, (sams, third));
    assert_eq!(to_owner, ["@alice:hs.test"]);
    // That the masked one is gone does not make it known who she was.
    conversation.people[2] = in_portal("alice", PortalStatus::Closed);
    assert_eq!(meant_by(&conversation, KIM, (sams, origin)), both);
}
