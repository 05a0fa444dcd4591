//! Any inputs in any order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use ruma::OwnedEventId;

use super::*;

const DAY: i64 = 24 * 3600 * 1000;

/// What happens, and how long after the step before: a negative time is a clock that was set back.
pub(super) fn inputs() -> impl Strategy<Value = (i64, Input)> {
    let event = (0..6u8).prop_map(|n| OwnedEventId::try_from(format!("$e{n}")).unwrap());
    let person =
        prop_oneof![4 => Just(alice()), 1 => Just(sam().into()), 1 => Just(ghost().into())];
    let membership = prop_oneof![Just("join"), Just("leave"), Just("ban"), Just("invite")];
    let kind = (event.clone(), 0..15u8).prop_map(|(of, n)| match n {
        0 => MessageKind::Edit { of },
        1 => MessageKind::Redaction { of },
        2 => MessageKind::Plaintext,
        3 | 4 => MessageKind::Unreadable,
        5 => MessageKind::Other,
        6 => MessageKind::Sealed,
        7 => MessageKind::Untrusted,
        8 => MessageKind::TooManyDevices,
        9 => MessageKind::Nothing,
        10 => MessageKind::PlainFile,
        11 => MessageKind::Verification,
        _ => MessageKind::Line,
    });
    let input = prop_oneof![
        6 => (event, person.clone(), kind).prop_map(|(event, sender, kind)| {
            // No event changes itself, nor another one that changes.
            let changes = matches!(kind, MessageKind::Edit { .. } | MessageKind::Redaction { .. });
            let event = if changes {
                OwnedEventId::try_from(format!("{event}-changes")).unwrap()
            } else {
                event
            };
            Input::Message { event, sender, kind }
        }),
        1 => (person, membership)
            .prop_map(|(user, m)| Input::Member { user, membership: m.to_owned() }),
        3 => Just(Input::Tick),
        1 => any::<bool>().prop_map(|strict| {
            Input::Invited(Invite { asker: alice(), admission: introduce(strict) })
        }),
        1 => Just(Input::KeyCame),
        1 => Just(Input::Missed),
        1 => (any::<bool>(), prop_oneof![9 => Just(false), 1 => Just(true)])
            .prop_map(|(accepted, masked)| Input::Answered { accepted, masked }),
    ];
    // A clock that jumps, too.
    let pause = prop_oneof![
        12 => 0..4_000i64,
        1 => 0..2 * DAY,
        1 => Just(8 * DAY),
        1 => -DAY..0,
    ];
    (pause, input)
}

/// Why an effect fails, if it does. Leaving and forgetting are tried until they succeed.
pub(super) fn refusals() -> impl Strategy<Value = Option<Refusal>> {
    let sam = || vec![sam().into()];
    prop_oneof![
        9 => Just(None),
        1 => Just(Some(Refusal::NoSignedDevice(sam()))),
        1 => Just(Some(Refusal::KeysUnavailable(sam()))),
        1 => prop_oneof![
            Just(Refusal::Forbidden),
            Just(Refusal::NoSignedDevice(vec![alice()])),
            Just(Refusal::TooManyDevices(vec![alice()])),
            Just(Refusal::Unreadable),
            Just(Refusal::TooLarge),
            Just(Refusal::NotThisKind),
            Just(Refusal::HandleChanged),
            Just(Refusal::Failing),
            Just(Refusal::Impossible),
        ].prop_map(Some),
    ]
}

/// An introduction being played, with a look at what becomes of each message.
struct Watched {
    play: Play,
    view: RoomState,
    tried: Vec<Effect>,
    passed_on: BTreeSet<OwnedEventId>,
    /// What stands in the room as a quote.
    quoted: BTreeSet<OwnedEventId>,
    /// How often the owner was invited.
    invites: usize,
    /// Whether it became a conversation.
    opened: bool,
}

impl Watched {
    fn feed(&mut self, input: &Input) -> Result<(), TestCaseError> {
        let left_before = self.has_left();
        let queued = self.play.effects.len();
        self.play.feed(input.clone());
        let new = &self.play.effects[queued..];
        let passing = |effect: &&Effect| matches!(effect, Effect::PassOn { .. });
        let in_flight = self.play.effects.iter().filter(passing).count();
        prop_assert!(in_flight <= 1, "{in_flight} messages are on their way");
        if let Some(state) = &self.play.state
            && state.hears()
        {
            for pending in state.pending.iter().filter(|pending| pending.done) {
                let passed_on = self.passed_on.contains(&pending.event);
                prop_assert!(passed_on || was_told(state, &pending.event), "{pending:?}");
            }
        }
        if !left_before && self.has_left() {
            self.check_leaving(input, new)?;
        }
        Ok(())
    }

    fn has_left(&self) -> bool {
        let state = self.play.state.as_ref();
        state.is_some_and(|state| matches!(state.phase, Phase::Leaving | Phase::Over))
    }

    /// The ghost leaves with everything passed on or asked for, or says why not, or because
    /// somebody has left or removed it.
    fn check_leaving(&self, input: &Input, effects: &[Effect]) -> Result<(), TestCaseError> {
        let state = self.play.state.as_ref().unwrap();
        let somebody_left = match input {
            Input::Member { .. } => true,
            Input::Refused(Effect::Look | Effect::Join, why) => *why != Refusal::Failing,
            _ => false,
        };
        let says_why = effects.iter().any(|effect| match effect {
            Effect::Leave { reason } => reason.is_some(),
            Effect::SendNotice { notice } => matches!(
                notice,
                IntroductionNotice::OwnerNotInvitable
                    | IntroductionNotice::InviteFailed
                    | IntroductionNotice::OwnerDidNotCome
                    | IntroductionNotice::OwnerCannotRead
            ),
            _ => false,
        });
        if somebody_left || says_why {
            return Ok(());
        }
        for pending in state.pending.iter().filter(|pending| !pending.done) {
            let told = pending.unreadable && was_told(state, &pending.event);
            prop_assert!(told, "{pending:?} is lost by {input:?}: {effects:?}");
        }
        Ok(())
    }

    /// Tries what is due. Each effect fails for the next of these reasons, if it can.
    fn carry_out(&mut self, refusals: &[Option<Refusal>]) -> Result<(), TestCaseError> {
        let mut refusals = refusals.iter().cloned();
        while !self.play.effects.is_empty() {
            let effect = self.play.effects.remove(0);
            self.tried.push(effect.clone());
            if effect == Effect::OpenConversation {
                let state = self.play.state.as_mut();
                self.opened = state.map(Introduction::end).is_some();
                continue;
            }
            let must_succeed = matches!(effect, Effect::Leave { .. } | Effect::Forget);
            let why = refusals.next().flatten().filter(|_| !must_succeed);
            let input = match (why, effect) {
                (Some(why), effect) => Input::Refused(effect, why),
                (None, Effect::Look) => Input::Looked(self.view.clone()),
                (None, effect) => Input::Done(effect),
            };
            match &input {
                Input::Done(Effect::PassOn { event, .. }) => {
                    self.passed_on.insert(event.clone());
                    prop_assert!(self.quoted.insert(event.clone()), "{event} twice");
                }
                Input::Done(Effect::InviteOwner) => self.invites += 1,
                Input::Done(Effect::TakeBack { of })
                | Input::Refused(Effect::TakeBack { of }, _) => {
                    self.quoted.remove(of);
                }
                _ => {}
            }
            self.feed(&input)?;
        }
        Ok(())
    }
}

impl Watched {
    /// The service stops and starts again. What was written is what it goes on with: an effect that
    /// was lost on the way is queued again.
    fn stops(&mut self) {
        let written = serde_json::to_string(&self.play.state).unwrap();
        self.play.state = serde_json::from_str(&written).unwrap();
        let is_lost = self.play.effects.is_empty();
        if let Some(state) = self.play.state.as_ref().filter(|_| is_lost) {
            self.play.effects = state.under_way();
        }
    }
}

/// Whether the asker was told that this message was not passed on.
fn was_told(state: &Introduction, event: &OwnedEventId) -> bool {
    let summary = IntroductionNotice::MoreNotPassedOn;
    state.replied_to.contains(event) || state.notices_sent.contains(&summary)
}

/// Returns the time so many milliseconds after `now`, or before.
pub(super) fn later(now: Timestamp, millis: i64) -> Timestamp {
    Timestamp(now.0.saturating_add_signed(millis))
}

proptest! {
    /// Whatever happens in whatever order: the ghost leaves, forgets as the last thing it does,
    /// passes nothing on before the owner is invited, no message twice, and loses none without a
    /// word.
    #[test]
    fn every_introduction_ends_in_leaving_and_forgetting(
        steps in proptest::collection::vec(
            (inputs(), 0..4u8, proptest::collection::vec(refusals(), 8)),
            0..60,
        ),
        strict: bool,
        asks_first: bool,
        from_join: bool,
    ) {
        let mut play = Play::new();
        let mut admission = introduce(strict);
        if let Admission::Introduce { asks_first: asks, .. } = &mut admission {
            *asks = asks_first;
        }
        play.feed(Input::Invited(Invite { asker: alice(), admission }));
        let mut view = view(&[]);
        if from_join {
            view.history_visibility = "joined".to_owned();
        }
        let mut watched = Watched {
            play,
            view,
            tried: Vec::new(),
            passed_on: BTreeSet::new(),
            quoted: BTreeSet::new(),
            invites: 0,
            opened: false,
        };
        for ((pause, input), then, refusals) in steps {
            watched.play.now = later(watched.play.now, pause);
            watched.feed(&input)?;
            match then {
                0 | 1 => watched.carry_out(&refusals)?,
                2 => watched.stops(),
                _ => {}
            }
        }
        for pause in [11_000, 8 * DAY].repeat(10) {
            watched.carry_out(&[])?;
            watched.play.now = later(watched.play.now, pause);
            watched.feed(&Input::Tick)?;
        }
        watched.carry_out(&[])?;
        prop_assert_eq!(watched.play.phase(), &Phase::Over);
        prop_assert!(watched.invites <= 1);
        let tried = watched.tried;
        let of = |wanted: &Effect| tried.iter().position(|effect| effect == wanted);
        prop_assert!(of(&Effect::Forget).is_some() || watched.opened);
        let passed: Vec<usize> = tried.iter().enumerate()
            .filter(|(_, effect)| matches!(effect, Effect::PassOn { .. }))
            .map(|(at, _)| at)
            .collect();
        for at in &passed {
            prop_assert!(of(&Effect::InviteOwner).is_some_and(|invited| invited < *at));
        }
        if strict {
            prop_assert!(passed.is_empty());
        }
    }
}
