//! What an open handle's ghost does about an event, as its decider says.

use std::time::Duration;

use ruma::{OwnedEventId, OwnedUserId, RoomId, owned_user_id};

use super::passage::{ALICE, HERE};
use crate::{
    ids::{Ghost, Person},
    introduction::{
        Admission, Effect, Input, Introduction, Invite, MessageKind, Phase, Rules, decide,
    },
    matrix::{RoomState, Rotation},
    testing::NOW,
};

/// Messages of Alice that the ghost has passed on.
const PASSED_ON: [&str; 2] = ["$one", "$two"];

/// A direct chat of Alice with Sam's ghost.
struct DirectChat {
    ghost: Ghost,
    state: Option<Introduction>,
}

/// Returns the effects of an event of Alice, which she sent after the ghost had passed on two of her
/// messages.
pub(super) fn effects_of(event: &str, kind: MessageKind) -> Vec<Effect> {
    let mut chat = DirectChat {
        ghost: Ghost::new(owned_user_id!("@_dm_sam:hs.test")),
        state: None,
    };
    let admission = Admission::Introduce {
        owner: Person::new(owned_user_id!("@samuel:hs.test")),
        handle: "sam".to_owned(),
        strict: false,
        back_to: None,
        asks_first: false,
        masked: false,
    };
    let invited = Input::Invited(Invite {
        asker: alice(),
        admission,
    });
    let mut effects = chat.feed(&invited);
    for event in PASSED_ON {
        effects.extend(chat.hear(event, MessageKind::Line));
        chat.carry_out(std::mem::take(&mut effects));
    }
    let phase = chat.state.as_ref().map(|state| &state.phase);
    assert_eq!(phase, Some(&Phase::Lingering));
    chat.hear(event, kind)
}

fn alice() -> OwnedUserId {
    OwnedUserId::try_from(ALICE).unwrap()
}

impl DirectChat {
    fn hear(&mut self, event: &str, kind: MessageKind) -> Vec<Effect> {
        self.feed(&Input::Message {
            event: OwnedEventId::try_from(event).unwrap(),
            sender: alice(),
            kind,
        })
    }

    fn feed(&mut self, input: &Input) -> Vec<Effect> {
        let room = <&RoomId>::try_from(HERE).unwrap();
        let now = NOW + Duration::from_millis(100);
        let rules = Rules::default();
        let decision = decide(self.state.take(), room, &self.ghost, input, now, &rules).unwrap();
        self.state = Some(decision.state);
        decision.effects
    }

    fn carry_out(&mut self, mut effects: Vec<Effect>) {
        while !effects.is_empty() {
            let input = match effects.remove(0) {
                Effect::Look => Input::Looked(self.view()),
                effect => Input::Done(effect),
            };
            effects.extend(self.feed(&input));
        }
    }

    fn view(&self) -> RoomState {
        let mut view = RoomState {
            version: "12".to_owned(),
            encryption: Some(Rotation::default()),
            history_visibility: "invited".to_owned(),
            join_rule: "invite".to_owned(),
            ..RoomState::default()
        };
        for user in [alice(), (*self.ghost).clone()] {
            view.members.insert(user, "join".to_owned());
        }
        view
    }
}
