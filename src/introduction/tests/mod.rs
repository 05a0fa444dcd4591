//! Every interleaving as a table of inputs and times.

mod admission;
mod groups;
mod orders;
mod passing_on;
mod people;
mod quotes;
mod requests;
mod restores;
mod rooms;
mod strict;
mod unreadable;

use std::time::Duration;

use ruma::{OwnedEventId, OwnedUserId, owned_event_id, owned_user_id, room_id};

use super::*;
use crate::{
    clock::Timestamp,
    ids::{Ghost, Person},
    matrix::{RoomState, Rotation},
};

const START: Timestamp = Timestamp(1_000_000);

fn alice() -> OwnedUserId {
    owned_user_id!("@alice:example.org")
}

fn sam() -> Person {
    Person::new(owned_user_id!("@sam:example.org"))
}

fn ghost() -> Ghost {
    Ghost::new(owned_user_id!("@_dm_sam:example.org"))
}

fn first() -> OwnedEventId {
    owned_event_id!("$first")
}

fn second() -> OwnedEventId {
    owned_event_id!("$second")
}

fn third() -> OwnedEventId {
    owned_event_id!("$third")
}

fn view(others: &[(&str, &str)]) -> RoomState {
    let mut view = RoomState {
        version: "12".to_owned(),
        encryption: Some(Rotation::default()),
        history_visibility: "invited".to_owned(),
        join_rule: "invite".to_owned(),
        ..RoomState::default()
    };
    for (user, membership) in [
        ("@alice:example.org", "join"),
        ("@_dm_sam:example.org", "join"),
    ]
    .iter()
    .chain(others)
    {
        view.members.insert(
            ruma::UserId::parse(*user).unwrap(),
            (*membership).to_owned(),
        );
    }
    view
}

/// An introduction being played: effects are collected, and carried out only when asked for.
struct Play {
    state: Option<Introduction>,
    now: Timestamp,
    effects: Vec<Effect>,
}

impl Play {
    fn new() -> Self {
        Self {
            state: None,
            now: START,
            effects: Vec::new(),
        }
    }

    fn admitted() -> Self {
        let mut play = Self::new();
        play.feed(Input::Invited(Invite {
            asker: alice(),
            admission: introduce(false),
        }));
        play
    }

    fn strict() -> Self {
        let mut play = Self::new();
        play.feed(Input::Invited(Invite {
            asker: alice(),
            admission: introduce(true),
        }));
        play
    }

    fn feed(&mut self, input: Input) -> &mut Self {
        let (room, rules) = (room_id!("!room"), Rules::default());
        let decision = decide(self.state.take(), room, &ghost(), &input, self.now, &rules);
        if let Some(decision) = decision {
            self.state = Some(decision.state);
            self.effects.extend(decision.effects);
        }
        self
    }

    fn after(&mut self, millis: u64) -> &mut Self {
        self.now = self.now + Duration::from_millis(millis);
        self.feed(Input::Tick)
    }

    /// Carries out everything that is due; looking shows `view`.
    fn carry_out(&mut self, view: &RoomState) -> Vec<Effect> {
        self.carry_out_with(view, |_| None)
    }

    /// Tries everything that is due. An effect fails if `refuse` has a reason.
    fn carry_out_with(
        &mut self,
        view: &RoomState,
        mut refuse: impl FnMut(&Effect) -> Option<Refusal>,
    ) -> Vec<Effect> {
        let mut tried = Vec::new();
        while !self.effects.is_empty() {
            let effect = self.effects.remove(0);
            tried.push(effect.clone());
            match (refuse(&effect), effect) {
                (Some(why), effect) => self.feed(Input::Refused(effect, why)),
                (None, Effect::Look) => self.feed(Input::Looked(view.clone())),
                (None, effect) => self.feed(Input::Done(effect)),
            };
        }
        tried
    }

    fn says(&mut self, event: OwnedEventId, kind: MessageKind) -> &mut Self {
        self.feed(Input::Message {
            event,
            sender: alice(),
            kind,
        })
    }

    fn phase(&self) -> &Phase {
        &self.state.as_ref().unwrap().phase
    }
}

fn introduce(strict: bool) -> Admission {
    Admission::Introduce {
        owner: sam(),
        handle: "Sam".to_owned(),
        strict,
        back_to: None,
        asks_first: false,
        masked: false,
    }
}

fn pass_on(event: OwnedEventId) -> Effect {
    Effect::PassOn { event, edit: None }
}
