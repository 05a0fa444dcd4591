//! Ghosts of people who have gone, and whom nobody invites again.

use super::*;
use crate::engine::{
    control_room::ControlEffect, conversations::failures::not_delivered, event::RoomEvent,
};

#[tokio::test]
async fn nobody_is_invited_to_what_is_over() {
    let mut over = talk();
    over.ended = true;
    over.people[1].home = Home::Portal {
        room: None,
        status: PortalStatus::NotInvited,
    };
    let mut it = Talk::at(origin(), &over).await;
    it.keep(&message("$one", NOW));
    let number = it.put_due(forward("$one", RoomRole::Portal(1), true));
    it.carry_out(number).await;
    let log = it.fake.log();
    let made = log.iter().find(|line| line.contains("createRoom"));
    assert_eq!(made, None);
    assert!(!it.is_kept("$one"));
}

/// Alice and `@sam` go on, and Kim, who is masked too, is gone.
async fn without_kim() -> (Talk, Ghost) {
    let mut group = talk();
    group.direct = false;
    let (room, standing) = (None, PortalStatus::Closed);
    let kim = participant(
        "kim",
        "kim",
        Home::Portal {
            room,
            status: standing,
        },
    );
    let ghost = kim.ghost.clone();
    group.people.push(kim);
    let mut it = Talk::at(origin(), &group).await;
    it.engine.machines().provision(&ghost, "Kim").await.unwrap();
    let here = it.actor.room.record.conversation.as_mut().unwrap();
    here.ghosts.push(ghost.clone());
    it.actor.room.commit(Batch::new(), []).unwrap();
    it.fake.put_into_rooms(&ghost, &[origin().as_str()], &[]);
    (it, ghost)
}

impl Talk {
    fn works_here(&self, ghost: &OwnedUserId) -> bool {
        let key = (ghost.clone(), self.actor.room.id.clone());
        self.store.contains::<ActiveRoomsByGhost>(&key).unwrap()
    }

    /// An invite of a ghost is in the inbox, and was not handled yet.
    fn invite_arrives(&self, ghost: &OwnedUserId) {
        let invite = membership(ghost.as_str(), "invite", None);
        let mut batch = Batch::new();
        let key = (origin(), self.engine.next());
        let arrived = InboxItem::Event(invite.to_string());
        batch.put::<Inbox>(&key, &arrived).unwrap();
        self.store.apply(batch).unwrap();
    }

    fn asked_to_leave(&self) -> bool {
        let log = self.fake.log();
        log.iter().any(|request| request.contains("/leave"))
    }

    async fn leaves(&mut self) {
        let person = 2;
        let number = self.put_due(Effect::RemoveGhost { person });
        self.carry_out(number).await;
    }
}

#[tokio::test]
async fn the_ghost_of_a_person_who_is_gone_leaves_a_group_alone() {
    let (mut it, ghost) = without_kim().await;
    it.leaves().await;
    assert!(it.fake.rooms_of(&ghost).is_empty());
    assert!(!it.actor.room.has_ghost(&ghost) && !it.works_here(&ghost));
    assert!(it.actor.room.has_ghost(&sam()) && it.works_here(&sam()));
}

/// The room deals with what has arrived only after everything that is due in it.
#[tokio::test]
async fn a_conversation_ends_although_a_ghost_may_not_leave_its_room() {
    let mut it = Talk::provisioned().await;
    it.fake.put_into_rooms(&sam(), &[origin().as_str()], &[]);
    let machines = it.engine.machines();
    machines.expect_room(&sam(), &origin()).await.unwrap();
    it.fake.refuse("/leave", 400);
    it.put_due(Effect::LeaveRoom);
    assert!(it.actor.step().await.is_err());
    it.clock.advance(Duration::from_secs(61 * 60));
    it.actor.step().await.unwrap();
    assert!(it.actor.room.record.conversation.is_none());
    assert!(
        !it.engine
            .machines()
            .expects_room(&sam(), &origin())
            .unwrap()
    );
}

#[tokio::test]
async fn a_ghost_leaves_although_the_invite_that_it_came_by_was_not_handled_yet() {
    let (mut it, ghost) = without_kim().await;
    it.invite_arrives(&ghost);
    let mut batch = Batch::new();
    let again = InboxItem::Invite {
        user: ghost.clone().into(),
        state: vec![membership(ghost.as_str(), "invite", None).to_string()],
    };
    let key = (origin(), it.engine.next());
    batch.put::<Inbox>(&key, &again).unwrap();
    it.store.apply(batch).unwrap();
    it.leaves().await;
    assert!(it.fake.rooms_of(&ghost).is_empty());
    assert!(!it.actor.room.has_ghost(&ghost) && !it.works_here(&ghost));
    // That invite does not call it back: not as it was pushed, nor as a sync shows it.
    it.actor.room.engine.store().flush().await.unwrap();
    it.engine.mark_durable(it.engine.next());
    while it.actor.step().await.unwrap() {}
    assert!(it.actor.room.record.introductions.is_empty());
    assert!(it.fake.rooms_of(&ghost).is_empty());
}

#[tokio::test]
async fn an_invite_behind_many_messages_is_seen() {
    let (mut it, ghost) = without_kim().await;
    it.fake.put_into_rooms(&ghost, &[], &[origin().as_str()]);
    let machines = it.engine.machines().clone();
    machines.expect_room(&ghost, &origin()).await.unwrap();
    let mut batch = Batch::new();
    for n in 0..150 {
        let arrived = InboxItem::Event(message(&format!("$m{n}"), NOW).to_string());
        let key = (origin(), it.engine.next());
        batch.put::<Inbox>(&key, &arrived).unwrap();
    }
    it.store.apply(batch).unwrap();
    it.invite_arrives(&ghost);
    it.leaves().await;
    assert!(!it.asked_to_leave(), "that would decline the invite");
    assert!(machines.expects_room(&ghost, &origin()).unwrap());
}

/// Else it would decline the invite, and never come back.
#[tokio::test]
async fn a_ghost_that_was_sent_away_does_not_leave_what_it_may_be_invited_to_again() {
    let (mut it, ghost) = without_kim().await;
    it.fake.put_into_rooms(&ghost, &[], &[]);
    let machines = it.engine.machines().clone();
    machines.expect_room(&ghost, &origin()).await.unwrap();
    it.leaves().await;
    assert!(!it.asked_to_leave(), "it is not there");
    assert!(!it.actor.room.has_ghost(&ghost) && !it.works_here(&ghost));
    assert!(!machines.expects_room(&ghost, &origin()).unwrap());

    // The invite has arrived, and with it perhaps a key.
    let (mut it, ghost) = without_kim().await;
    it.fake.put_into_rooms(&ghost, &[], &[origin().as_str()]);
    let machines = it.engine.machines().clone();
    machines.expect_room(&ghost, &origin()).await.unwrap();
    it.invite_arrives(&ghost);
    it.leaves().await;
    assert!(!it.asked_to_leave(), "that would decline the invite");
    assert!(!it.actor.room.has_ghost(&ghost));
    assert!(machines.expects_room(&ghost, &origin()).unwrap());
}

/// After a restore it may be that a ghost was sent away since the backup.
#[tokio::test]
async fn a_person_who_was_sent_away_since_the_backup_is_out_of_the_conversation() {
    let mut group = talk();
    group.direct = false;
    let standing = PortalStatus::Joined;
    let room = Some(room_id!("!kims:hs.test").to_owned());
    let kim = participant(
        "kim",
        "kim",
        Home::Portal {
            room,
            status: standing,
        },
    );
    group.people.push(kim);
    // In the group, and in the conversation of two.
    for (talk, is_there) in [(&group, true), (&group, false), (&talk(), false)] {
        let it = Talk::at(origin(), talk).await;
        it.engine.machines().provision(&sam(), "Sam").await.unwrap();
        let rooms: &[&str] = if is_there { &["!origin:hs.test"] } else { &[] };
        it.fake.put_into_rooms(&sam(), rooms, &[]);
        it.engine.resync_all().await.unwrap();
        let now = it.store.get::<Conversations>(&id()).unwrap();
        let now = now.unwrap();
        assert_eq!(now.people[1].takes_part(), is_there);
        assert_eq!(now.ended, talk.direct);
        assert_eq!(it.works_here(&sam()), is_there);
        if !is_there {
            assert!(matches!(it.notices(&portal())[..], [Notice::Ended]));
        }
    }
}

#[tokio::test]
async fn nobody_is_invited_again_who_is_gone() {
    let (mut it, _) = without_kim().await;
    let number = it.put_due(Effect::EnsurePortal { person: 2 });
    it.carry_out(number).await;
    let log = it.fake.log();
    let made = log.iter().find(|line| line.contains("createRoom"));
    assert_eq!(made, None);
}

/// The homeserver of a person may answer slowly, so that they decline before we have its answer.
#[tokio::test]
async fn a_decline_that_overtakes_the_answer_to_the_invite_is_final() {
    let mut pending = talk();
    pending.people[1].home = Home::Portal {
        room: Some(portal()),
        status: PortalStatus::InvitePending,
    };
    let mut it = Talk::at(origin(), &pending).await;
    for (ghost, name) in [(sam(), "Sam"), (alices_ghost(), "Alice")] {
        it.engine.machines().provision(&ghost, name).await.unwrap();
    }
    it.fake.add_room(&portal(), &[&alices_ghost()]);
    let engine = it.engine.clone();
    it.fake.at_request("/m.room.member/", 0, move || {
        let declined = Input::Member {
            role: RoomRole::Portal(1),
            user: user_id!("@samuel:hs.test").to_owned(),
            membership: "leave".to_owned(),
            by_others: false,
            redacts: false,
            ghost: None,
        };
        let engine = engine.clone();
        // Runs before the answer to the request arrives.
        tokio::spawn(async move {
            let id = id();
            engine.apply(&id, &[declined], Batch::new()).await.unwrap();
        });
    });
    let number = it.put_due(Effect::EnsurePortal { person: 1 });
    it.carry_out(number).await;
    let known = it.store.get::<Conversations>(&id()).unwrap().unwrap();
    assert!(known.ended && !known.people[1].takes_part());
    let again = it.put_due(Effect::EnsurePortal { person: 1 });
    it.carry_out(again).await;
    let log = it.fake.log();
    let invites = log
        .iter()
        .filter(|request| request.contains("/m.room.member/"));
    assert_eq!(invites.count(), 1);
}

#[tokio::test]
async fn a_masked_person_of_a_group_is_announced_by_their_own_ghost() {
    let (it, kims_ghost) = without_kim().await;
    let mut group = talk();
    group.direct = false;
    group.people.push(participant(
        "kim",
        "kim",
        Home::Portal {
            room: None,
            status: PortalStatus::NotInvited,
        },
    ));
    let announced_by = |person| {
        let handle = "@sam".to_owned();
        let notice = Notice::MaskedInGroup { handle, person };
        let room = &it.actor.room;
        room.speaker(&group, RoomRole::Origin, &notice).unwrap()
    };
    assert_eq!(announced_by(1), sam());
    assert_eq!(announced_by(2), kims_ghost);
}

#[tokio::test]
async fn nothing_waits_for_an_origin_that_everybody_has_left() {
    let mut left = talk();
    left.origin = None;
    left.people[0].home = Home::Origin { is_present: false };
    let mut it = Talk::at(portal(), &left).await;
    it.keep(&message("$one", NOW));
    let late = Effect::ForwardEvent {
        event: owned_event_id!("$one"),
        sender: 1,
        target: RoomRole::Origin,
        is_last: true,
    };
    let redacted = Effect::RedactCopy {
        event: owned_event_id!("$redaction"),
        of: owned_event_id!("$zero"),
        sender: 1,
        target: RoomRole::Origin,
    };
    for effect in [late, redacted] {
        let number = it.put_due(effect);
        it.carry_out(number).await;
    }
    assert_eq!(it.carries(), [""; 0]);
    let text = not_delivered(&left).to_owned();
    let told: Vec<String> = it.notices(&portal()).iter().map(Notice::text).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], text);
    assert!(told[1].contains("couldn't delete"), "{told:?}");
}

/// The room was purged, or the homeserver's database set back to before it was made.
#[tokio::test]
async fn the_other_side_is_told_when_the_homeserver_has_lost_the_origin() {
    let mut it = Talk::provisioned().await;
    let members: [&ruma::UserId; 2] = [&testing::alice(), &sam()];
    it.fake.add_room(&origin(), &members);
    it.engine.compare_rooms(&sam()).await.unwrap();
    let arrived = || {
        it.store
            .scan::<Inbox>(&prefix(&origin()), None, 10)
            .unwrap()
    };
    assert!(arrived().is_empty(), "the ghost is there");
    it.fake
        .with(|server| server.rooms.remove(origin().as_str()));
    it.engine.compare_rooms(&sam()).await.unwrap();
    let lost = arrived();
    assert_eq!(lost.len(), 1);
    for ((_, number), item) in lost {
        it.actor.room.dispatch(number, item).await.unwrap();
    }
    let known = it.store.get::<Conversations>(&id()).unwrap().unwrap();
    assert!(known.ended);
    assert_eq!(it.notices(&portal()).len(), 1);
}

#[tokio::test]
async fn a_tombstone_that_the_room_does_not_know_of_moves_nothing() {
    let mut it = Talk::provisioned().await;
    let alice = user_id!("@alice:hs.test");
    it.fake.add_room(&origin(), &[alice, &sam()]);
    let far = EventFactory::room(&origin()).sender("@mallory:far.example");
    let content = json!({ "body": "gone", "replacement_room": "!new:far.example" });
    let mut refused = far.event("m.room.tombstone", "$gone", content);
    refused["state_key"] = json!("");
    let json = refused.to_string();
    let parsed = RoomEvent::parse(&json, Some(&origin())).unwrap();
    let handled = it
        .actor
        .room
        .handle_in_conversation(parsed, &json, Batch::new());
    handled.await.unwrap();
    assert!(
        it.outbox(&origin()).is_empty(),
        "{:?}",
        it.outbox(&origin())
    );
}

#[tokio::test]
async fn nobodys_ghost_says_what_somebody_else_has_said() {
    let mut it = Talk::provisioned().await;
    let bobs = EventFactory::room(&origin()).sender("@bob:hs.test");
    it.keep(&bobs.sent_at(NOW).encrypted("$bobs"));
    let number = it.put_due(forward("$bobs", RoomRole::Portal(1), true));
    it.carry_out(number).await;
    let log = it.fake.log();
    assert!(!log.iter().any(|line| line.contains("/send/")), "{log:?}");
    let text = not_delivered(&talk()).to_owned();
    assert_eq!(it.notices(&origin()), [Notice::NotForwarded { text }]);
}

/// The conversation has gone on in another room while this one is still being left.
#[tokio::test]
async fn who_writes_into_a_room_that_the_conversation_has_left_is_told() {
    let mut moved = talk();
    let new = room_id!("!new:hs.test").to_owned();
    moved.origin = Some(new.clone());
    let mut it = Talk::at(origin(), &moved).await;
    let json = message("$late", NOW).to_string();
    let parsed = RoomEvent::parse(&json, Some(&origin())).unwrap();
    let handled = it
        .actor
        .room
        .handle_in_conversation(parsed, &json, Batch::new());
    handled.await.unwrap();
    assert_eq!(it.notices(&new).len(), 1, "{:?}", it.outbox(&new));
}

#[tokio::test]
async fn a_room_that_is_left_late_takes_nothing_from_the_one_that_follows_it() {
    let mut it = Talk::provisioned().await;
    let new = room_id!("!new:hs.test").to_owned();
    it.put_due(Effect::LeaveRoom);
    // Alice starts the chat again while the ghost is leaving.
    let (engine, room) = (it.engine.clone(), new.clone());
    let held = it.fake.hold("/leave", "");
    let moving = async {
        held.comes().await;
        let earlier = Vec::new();
        let replaced = Input::OriginReplaced { room, earlier };
        let moved = engine.apply(&id(), &[replaced], Batch::new()).await;
        moved.unwrap();
        drop(held);
    };
    let (left, ()) = tokio::join!(it.actor.step(), moving);
    left.unwrap();
    let now = it.store.get::<Conversations>(&id()).unwrap().unwrap();
    assert_eq!(now.origin, Some(new));
}

#[tokio::test]
async fn a_ghost_that_was_sent_away_and_is_invited_again_comes_back_to_the_room_it_was_in() {
    let mut it = Talk::provisioned().await;
    it.fake.put_into_rooms(&sam(), &[], &[origin().as_str()]);
    let machines = it.engine.machines().clone();
    machines.expect_room(&sam(), &origin()).await.unwrap();
    it.invite_arrives(&sam());
    it.put_due(Effect::LeaveRoom);
    it.actor.step().await.unwrap();
    assert!(!it.asked_to_leave(), "that would decline the invite");
    assert!(it.actor.room.record.conversation.is_none());
    assert!(machines.expects_room(&sam(), &origin()).unwrap());
}

#[tokio::test]
async fn the_bot_takes_nothing_with_it_that_waits_to_be_forwarded() {
    let mut it = Talk::provisioned().await;
    it.keep(&message("$waits", NOW));
    let bot = testing::bot();
    it.engine.machines().provision(&bot, "bot").await.unwrap();
    let forget = ControlEffect::Forget;
    it.actor.room.perform_control(1, &forget).await.unwrap();
    assert!(it.is_kept("$waits"));
}
