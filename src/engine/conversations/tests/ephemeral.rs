//! Typing: only what changes is sent, and the newest is sent last.

use super::*;

const PORTALS: usize = 3;
const TYPISTS: usize = 5;

/// The room of a masked person.
fn portal_of(n: usize) -> OwnedRoomId {
    format!("!portal{n}:hs.test").try_into().unwrap()
}

/// A group of people in the origin and of masked people in their portals.
async fn group() -> Talk {
    let mut group = talk();
    group.direct = false;
    group.people = (0..TYPISTS)
        .map(|n| {
            let home = Home::Origin { is_present: true };
            participant(&format!("alice{n}"), &format!(".p{n}"), home)
        })
        .collect();
    for n in 0..PORTALS {
        let home = Home::Portal {
            room: Some(portal_of(n)),
            status: PortalStatus::Joined,
        };
        group
            .people
            .push(participant(&format!("sam{n}"), &format!("sam{n}"), home));
    }
    let it = Talk::at(origin(), &group).await;
    let ghosts: Vec<Ghost> = group.people.iter().map(|it| it.ghost.clone()).collect();
    for ghost in &ghosts[..TYPISTS] {
        it.engine
            .machines()
            .provision(ghost, "Alice")
            .await
            .unwrap();
    }
    let members: Vec<&ruma::UserId> = ghosts.iter().map(|ghost| &***ghost).collect();
    for n in 0..PORTALS {
        it.fake.add_room(&portal_of(n), &members);
    }
    it
}

impl Talk {
    /// The homeserver says who types in the origin.
    fn types(&self, people: &[usize]) {
        let named: Vec<String> = people
            .iter()
            .map(|n| format!("@alice{n}:hs.test"))
            .collect();
        let event = json!({"type": "m.typing", "room_id": origin(),
                           "content": {"user_ids": named}});
        let event = serde_json::value::to_raw_value(&event).unwrap();
        self.engine.forward_ephemeral(vec![event]);
    }

    fn typing_requests(&self) -> usize {
        let log = self.fake.log().into_iter();
        log.filter(|asked| asked.contains("/typing/")).count()
    }

    /// Waits until nothing is left to be sent.
    async fn settles(&self) {
        loop {
            let mut tasks = std::mem::take(&mut *self.engine.tasks());
            if tasks.is_empty() {
                return;
            }
            while tasks.join_next().await.is_some() {}
        }
    }

    /// Who is shown as typing in a portal.
    fn shown(&self, n: usize) -> Vec<String> {
        self.fake.with(|server| {
            server.rooms[portal_of(n).as_str()]
                .typing
                .1
                .iter()
                .cloned()
                .collect()
        })
    }
}

#[tokio::test]
async fn only_a_change_of_who_types_is_sent() {
    let it = group().await;
    it.types(&[1]);
    it.settles().await;
    assert_eq!(it.typing_requests(), PORTALS);
    it.types(&[1]);
    it.types(&[]);
    it.types(&[1]);
    it.settles().await;
    // It may have been seen in between.
    let sent = it.typing_requests();
    assert!(sent <= 3 * PORTALS, "{sent}");
    it.types(&[1, 2]);
    it.settles().await;
    assert_eq!(it.typing_requests(), sent + PORTALS);
    assert_eq!(it.shown(0), ["@_dm_.p1:hs.test", "@_dm_.p2:hs.test"]);
    // Nobody whom we know.
    it.types(&[1, 2, 9]);
    it.settles().await;
    assert_eq!(it.typing_requests(), sent + PORTALS);
    // The homeserver forgets who types after thirty seconds.
    it.clock.advance(Duration::from_secs(25));
    it.types(&[1, 2]);
    it.settles().await;
    assert_eq!(it.typing_requests(), sent + 3 * PORTALS);
}

#[tokio::test]
async fn the_newest_is_sent_last_and_holds_up_no_message() {
    let it = group().await;
    let held = it.fake.hold("/typing/", "");
    it.types(&[0]);
    for _ in 0..PORTALS {
        held.comes().await;
    }
    for people in [&[][..], &[0], &[1, 2], &[]] {
        it.types(people);
    }
    // While one is on its way, others wait here.
    let log = it.fake.log();
    assert!(!log.iter().any(|asked| asked.contains("/typing/")));
    let alice = Ghost::new(user_id!("@_dm_.p0:hs.test").to_owned());
    it.engine
        .homeserver()
        .whoami(it.engine.as_user(&alice).unwrap().actor())
        .await
        .unwrap();
    drop(held);
    it.settles().await;
    for n in 0..PORTALS {
        assert!(it.shown(n).is_empty(), "{n}");
    }
    assert_eq!(it.typing_requests(), 2 * PORTALS);
}
