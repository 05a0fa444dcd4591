//! Several ghosts whom Alice has invited into one group.

mod companions;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ruma::{OwnedEventId, UserId};

use super::{
    orders::{inputs, later, refusals},
    *,
};

fn ghost_of(name: &str) -> Ghost {
    Ghost::new(UserId::parse(format!("@_dm_{name}:example.org")).unwrap())
}

fn admission_of(name: &str, kind: &str) -> Admission {
    Admission::Introduce {
        owner: Person::new(UserId::parse(format!("@{name}:example.org")).unwrap()),
        handle: name.to_owned(),
        strict: kind == "strict",
        back_to: None,
        asks_first: kind == "asks first",
        masked: kind == "masked",
    }
}

fn quote_by(name: &str, event: OwnedEventId) -> (Ghost, Effect) {
    (ghost_of(name), pass_on(event))
}

fn notice_by(name: &str, notice: IntroductionNotice) -> (Ghost, Effect) {
    (ghost_of(name), Effect::SendNotice { notice })
}

/// A group with Alice and ghosts: effects are collected, and carried out only when asked for.
struct Group {
    here: Vec<Introduction>,
    view: RoomState,
    now: Timestamp,
    effects: Vec<(Ghost, Effect)>,
    tried: Vec<(Ghost, Effect)>,
    /// The messages that were passed on, and by which ghost.
    passed_on: Vec<(Ghost, Effect)>,
}

impl Group {
    /// Alice has invited these ghosts.
    fn of(ghosts: &[(&str, &str)]) -> Self {
        let mut group = Self {
            here: Vec::new(),
            view: view(&[]),
            now: START,
            effects: Vec::new(),
            tried: Vec::new(),
            passed_on: Vec::new(),
        };
        group.view.members.clear();
        group.view.members.insert(alice(), "join".to_owned());
        for (name, kind) in ghosts {
            group.invites(name, kind);
        }
        group
    }

    fn invites(&mut self, name: &str, kind: &str) {
        let ghost = ghost_of(name).into();
        self.view.members.insert(ghost, "invite".to_owned());
        self.feed(
            &ghost_of(name),
            &Input::Invited(Invite {
                asker: alice(),
                admission: admission_of(name, kind),
            }),
        );
    }

    fn feed(&mut self, ghost: &Ghost, input: &Input) {
        let (room, rules) = (room_id!("!room"), Rules::default());
        let effects = decide_in_room(&mut self.here, room, ghost, input, self.now, &rules);
        self.effects.extend(effects);
    }

    /// All ghosts hear a message of Alice.
    fn says(&mut self, event: OwnedEventId, kind: MessageKind) {
        for ghost in self.open() {
            let input = Input::Message {
                event: event.clone(),
                sender: alice(),
                kind: kind.clone(),
            };
            self.feed(&ghost, &input);
        }
    }

    fn open(&self) -> Vec<Ghost> {
        let open = self.here.iter().filter(|it| it.is_open());
        open.map(|it| it.ghost.clone()).collect()
    }

    fn after(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        for ghost in self.open() {
            self.feed(&ghost, &Input::Tick);
        }
    }

    fn carry_out(&mut self) {
        self.carry_out_with(|_, _| None);
    }

    /// Tries everything that is due. An effect fails if `refuse` has a reason.
    fn carry_out_with(&mut self, mut refuse: impl FnMut(&Ghost, &Effect) -> Option<Refusal>) {
        while !self.effects.is_empty() {
            self.carry_out_next(&mut refuse);
        }
    }

    fn carry_out_next(&mut self, refuse: &mut impl FnMut(&Ghost, &Effect) -> Option<Refusal>) {
        let (ghost, effect) = self.effects.remove(0);
        if self.is_settled(&ghost, &effect) {
            return self.feed(&ghost, &Input::Done(effect));
        }
        self.tried.push((ghost.clone(), effect.clone()));
        let input = match (refuse(&ghost, &effect), effect) {
            (Some(why), effect) => Input::Refused(effect, why),
            (None, Effect::Look) => Input::Looked(self.view.clone()),
            (None, effect) => Input::Done(effect),
        };
        let owner = self.introduction(&ghost).owner().cloned();
        if let Input::Done(quote @ Effect::PassOn { .. }) = &input {
            self.passed_on.push((ghost.clone(), quote.clone()));
        }
        match (&input, owner) {
            (Input::Done(Effect::InviteOwner), Some(owner)) => {
                self.view.members.insert(owner.into(), "invite".to_owned());
            }
            (Input::Done(Effect::Join), _) => {
                let ghost = ghost.clone().into();
                self.view.members.insert(ghost, "join".to_owned());
            }
            _ => {}
        }
        self.feed(&ghost, &input);
    }

    /// The service carries out what is due next and stops before it has written that. What was written
    /// is what it goes on with: the effect is still due.
    fn stops_after_next(&mut self) {
        if let Some((ghost, effect)) = self.effects.first().cloned()
            && matches!(effect, Effect::PassOn { .. })
            && !self.is_settled(&ghost, &effect)
        {
            self.passed_on.push((ghost, effect));
        }
        let written = serde_json::to_string(&self.here).unwrap();
        self.here = serde_json::from_str(&written).unwrap();
    }

    /// Whether another ghost has passed a message on while it waited for its turn: the engine then
    /// sends nothing.
    fn is_settled(&self, ghost: &Ghost, effect: &Effect) -> bool {
        let mut pending = self.introduction(ghost).pending.iter();
        matches!(effect, Effect::PassOn { event, .. }
            if pending.any(|pending| pending.event == *event && pending.done))
    }

    fn introduction(&self, ghost: &Ghost) -> &Introduction {
        self.here.iter().find(|it| it.ghost == *ghost).unwrap()
    }

    fn count(&self, wanted: &(Ghost, Effect)) -> usize {
        self.tried.iter().filter(|tried| *tried == wanted).count()
    }

    /// How many replies say this of a message, whichever ghost sends them.
    fn replies(&self, to: &OwnedEventId) -> usize {
        let is_reply =
            |effect: &Effect| matches!(effect, Effect::SendReply { to: of, .. } if of == to);
        self.tried.iter().filter(|(_, it)| is_reply(it)).count()
    }

    /// How often any ghost has sent this notice.
    fn notices(&self, notice: &IntroductionNotice) -> usize {
        let is_one =
            |effect: &Effect| matches!(effect, Effect::SendNotice { notice: it } if it == notice);
        self.tried.iter().filter(|(_, it)| is_one(it)).count()
    }

    /// The owner of a ghost is not in the room any longer.
    fn owner_leaves(&mut self, name: &str) {
        let user = UserId::parse(format!("@{name}:example.org")).unwrap();
        self.view.members.remove(&user);
        let membership = "leave".to_owned();
        self.feed(&ghost_of(name), &Input::Member { user, membership });
    }

    /// Who has tried to quote what, in order.
    fn quotes(&self) -> Vec<(Ghost, Effect)> {
        let is_quote = |(_, effect): &&(Ghost, Effect)| matches!(effect, Effect::PassOn { .. });
        self.tried.iter().filter(is_quote).cloned().collect()
    }

    /// How many owners are invited before the first quote.
    fn invited_before_quote(&self) -> usize {
        let before = self.tried.iter();
        let before = before.take_while(|(_, effect)| !matches!(effect, Effect::PassOn { .. }));
        before
            .filter(|(_, effect)| *effect == Effect::InviteOwner)
            .count()
    }

    fn ends(&mut self) {
        for _ in 0..4 {
            self.carry_out();
            self.after(11_000);
        }
        self.carry_out();
        assert!(self.open().is_empty(), "{:#?}", self.here);
    }
}

const TWO: [(&str, &str); 2] = [("sam", ""), ("kim", "")];

#[test]
fn one_ghost_passes_a_line_on_once_all_owners_are_invited() {
    let mut group = Group::of(&TWO);
    group.carry_out();
    group.says(first(), MessageKind::Line);
    group.ends();
    assert_eq!(group.quotes(), [quote_by("kim", first())]);
    assert_eq!(group.invited_before_quote(), 2);
    for name in ["kim", "sam"] {
        let said = notice_by(name, IntroductionNotice::GroupFromInviteOn);
        assert_eq!(group.count(&said), 0, "the quote says it");
        let power = (ghost_of(name), Effect::HandOver);
        let pair = (ghost_of(name), Effect::RememberPair);
        assert_eq!((group.count(&power), group.count(&pair)), (0, 0));
    }
    let looks_back = |name: &str| group.count(&(ghost_of(name), Effect::LookBack));
    assert!(looks_back("kim") + looks_back("sam") > 0);
}

#[test]
fn a_line_that_one_ghost_hears_before_the_other_has_joined_waits_for_its_owner() {
    let mut group = Group::of(&[("kim", ""), ("sam", "")]);
    // Kim's ghost joins, reads back and invites her while Sam's ghost is still joining.
    let is_kims = |effects: &[(Ghost, Effect)]| {
        effects
            .iter()
            .position(|(ghost, _)| *ghost == ghost_of("kim"))
    };
    group.says(first(), MessageKind::Line);
    while let Some(at) = is_kims(&group.effects) {
        let (ghost, effect) = group.effects.remove(at);
        let input = match effect {
            Effect::Look => Input::Looked(group.view.clone()),
            effect => Input::Done(effect),
        };
        group.feed(&ghost, &input);
    }
    let kim = group.introduction(&ghost_of("kim"));
    assert!(kim.owner_invited_at.is_some() && kim.phase == Phase::Lingering);
    assert_eq!(kim.passing_on, None);
    group.ends();
    assert_eq!(group.quotes(), [quote_by("kim", first())]);
}

#[test]
fn a_line_does_not_wait_long_for_the_owner_of_another_ghost() {
    let mut group = Group::of(&[("kim", ""), ("sam", "")]);
    group.says(first(), MessageKind::Line);
    // Sam's ghost cannot join for a while.
    let sams_join = (ghost_of("sam"), Effect::Join);
    group.effects.retain(|effect| *effect != sams_join);
    group.carry_out();
    assert_eq!(group.quotes(), []);
    group.after(4_900);
    group.carry_out();
    assert_eq!(group.quotes(), []);
    group.after(200);
    group.carry_out();
    assert_eq!(group.quotes(), [quote_by("kim", first())]);
    // He is invited later, and the group is told that he can read from then on.
    group.after(60_000);
    group.feed(&ghost_of("sam"), &Input::Done(Effect::Join));
    group.ends();
    assert_eq!(group.quotes().len(), 1);
    let said = notice_by("sam", IntroductionNotice::GroupFromInviteOn);
    assert_eq!(group.count(&said), 1);
}

#[test]
fn another_ghost_takes_over_when_the_one_that_speaks_cannot() {
    for why in [Refusal::Impossible, Refusal::Forbidden, Refusal::Failing] {
        let mut group = Group::of(&TWO);
        group.carry_out();
        group.says(first(), MessageKind::Line);
        let kims_invite = (ghost_of("kim"), Effect::InviteOwner);
        group.carry_out_with(|ghost, effect| {
            ((ghost, effect) == (&kims_invite.0, &kims_invite.1)).then(|| why.clone())
        });
        assert_eq!(group.quotes(), [quote_by("sam", first())], "{why:?}");
        group.ends();
        assert_eq!(group.quotes().len(), 1, "{why:?}");
    }
}

#[test]
fn only_the_ghost_that_passed_a_line_on_follows_its_edits_and_its_deletion() {
    let mut group = Group::of(&TWO);
    group.carry_out();
    group.says(first(), MessageKind::Line);
    group.carry_out();
    group.says(second(), MessageKind::Edit { of: first() });
    group.says(third(), MessageKind::Redaction { of: first() });
    group.carry_out();
    let edit = Effect::PassOnEdit {
        event: second(),
        of: first(),
    };
    let taken_back = Effect::TakeBack { of: first() };
    for (name, times) in [("kim", 1), ("sam", 0)] {
        assert_eq!(group.count(&(ghost_of(name), edit.clone())), times);
        assert_eq!(group.count(&(ghost_of(name), taken_back.clone())), times);
    }
    group.ends();
}

#[test]
fn one_ghost_asks_for_a_line_again_that_none_could_read() {
    let mut group = Group::of(&TWO);
    group.carry_out();
    group.says(first(), MessageKind::Unreadable);
    group.says(second(), MessageKind::Plaintext);
    group.ends();
    let again = Effect::SendReply {
        to: first(),
        notice: IntroductionNotice::SendAgainUnreadable,
    };
    let asked = |name: &str| group.count(&(ghost_of(name), again.clone()));
    assert_eq!(asked("kim") + asked("sam"), 1, "{:#?}", group.tried);
    let notice = IntroductionNotice::SendAgainEncrypted;
    let asked = |name: &str| group.count(&notice_by(name, notice.clone()));
    assert_eq!(asked("kim") + asked("sam"), 1, "{:#?}", group.tried);
}

#[test]
fn a_line_that_not_all_owners_could_read_is_asked_for_again() {
    let mut group = Group::of(&TWO);
    group.carry_out();
    group.says(first(), MessageKind::Line);
    let sam = vec![sam().into()];
    group.carry_out_with(|_, effect| {
        matches!(effect, Effect::PassOn { .. }).then(|| Refusal::NoSignedDevice(sam.clone()))
    });
    let reply = Effect::SendReply {
        to: first(),
        notice: IntroductionNotice::NotPassedOnInGroup,
    };
    assert_eq!(group.count(&(ghost_of("kim"), reply)), 1);
    group.ends();
    assert_eq!(group.quotes().len(), 1, "nobody tries again");
}

#[test]
fn without_a_line_the_owners_are_invited_and_the_group_is_told() {
    let mut group = Group::of(&TWO);
    group.ends();
    for name in ["kim", "sam"] {
        let said = notice_by(name, IntroductionNotice::GroupFromInviteOn);
        assert_eq!(group.count(&said), 1, "{name}");
        assert_eq!(group.count(&(ghost_of(name), Effect::InviteOwner)), 1);
    }
    assert_eq!(group.quotes(), []);
}

#[test]
fn ghosts_that_pass_nothing_on_are_not_waited_for() {
    for (kind, notice) in [
        ("strict", None),
        ("asks first", Some(IntroductionNotice::AskingFirstInGroup)),
        ("masked", None),
    ] {
        // Its Matrix ID is the smallest.
        let mut group = Group::of(&[("ann", kind), ("kim", ""), ("sam", "")]);
        group.carry_out();
        group.says(first(), MessageKind::Line);
        group.carry_out();
        assert_eq!(group.quotes(), [quote_by("kim", first())], "{kind}");
        if let Some(notice) = notice {
            assert_eq!(group.count(&notice_by("ann", notice)), 1);
        }
    }
}

#[test]
fn the_asker_is_told_what_the_owner_of_a_strict_handle_may_not_be_able_to_read() {
    let told = |group: &Group| {
        let notice = IntroductionNotice::StrictSendAgain;
        group.count(&(ghost_of("sam"), Effect::TellAsker { notice }))
    };
    // Before the invite, while the ghost invites the owner, or never.
    for (early, late, times) in [
        (true, false, 1),
        (false, true, 1),
        (true, true, 1),
        (false, false, 0),
    ] {
        let mut group = Group::of(&[("sam", "strict")]);
        if early {
            group.says(first(), MessageKind::Sealed);
            group.after(500);
        }
        let mut invited = false;
        while !group.effects.is_empty() && !invited {
            invited = group.effects[0].1 == Effect::InviteOwner;
            if invited && late {
                group.says(second(), MessageKind::Sealed);
                group.after(500);
            }
            group.carry_out_next(&mut |_, _| None);
        }
        assert!(invited);
        group.ends();
        assert_eq!(told(&group), times, "{early} {late}");
        assert_eq!(group.quotes(), []);
    }
    // A key that came before the ghost left.
    let mut group = Group::of(&[("sam", "strict")]);
    group.feed(&ghost_of("sam"), &Input::KeyCame);
    group.ends();
    assert_eq!(told(&group), 1);
}

#[test]
fn the_ghost_of_an_owner_who_has_accepted_stays_and_listens_like_the_others() {
    let mut group = Group::of(&[("sam", "asks first")]);
    group.view = view(&[("@eve:example.org", "join")]);
    group.carry_out();
    group.after(6_000);
    group.carry_out();
    // Nothing is kept in a group while the owner is asked.
    group.says(first(), MessageKind::Line);
    assert!(group.introduction(&ghost_of("sam")).pending.is_empty());
    group.after(60_000);
    let accepted = Input::Answered {
        accepted: true,
        masked: false,
    };
    group.feed(&ghost_of("sam"), &accepted);
    group.carry_out();
    let said = notice_by("sam", IntroductionNotice::GroupFromInviteOn);
    assert_eq!(group.count(&said), 1);
    group.says(second(), MessageKind::Line);
    group.ends();
    assert_eq!(group.quotes(), [quote_by("sam", second())]);
    assert_eq!(group.count(&(ghost_of("sam"), Effect::LookBack)), 1);
}

#[test]
fn an_owner_who_accepts_takes_no_message_away_from_a_ghost_that_has_heard_it() {
    // The ghost with the smallest Matrix ID has not heard what was said before the answer.
    let mut group = Group::of(&[("ann", "asks first"), ("kim", "")]);
    group.carry_out();
    let kims_invite = (ghost_of("kim"), Effect::InviteOwner);
    group.says(first(), MessageKind::Line);
    group.effects.retain(|effect| *effect != kims_invite);
    group.carry_out();
    let accepted = Input::Answered {
        accepted: true,
        masked: false,
    };
    group.feed(&ghost_of("ann"), &accepted);
    group.carry_out();
    group.feed(&ghost_of("kim"), &Input::Done(Effect::InviteOwner));
    group.says(second(), MessageKind::Line);
    group.ends();
    let both = [quote_by("kim", first()), quote_by("kim", second())];
    assert_eq!(group.quotes(), both);
}

#[test]
fn an_owner_who_accepts_when_the_others_have_gone_is_quoted_nothing_again() {
    let mut group = Group::of(&[("ann", "asks first"), ("kim", "")]);
    // All hear it while they join.
    group.says(first(), MessageKind::Line);
    group.carry_out();
    for _ in 0..4 {
        group.after(3_000);
        group.carry_out();
    }
    assert_eq!(group.open(), [ghost_of("ann")]);
    assert_eq!(group.quotes(), [quote_by("kim", first())]);
    let accepted = Input::Answered {
        accepted: true,
        masked: false,
    };
    group.feed(&ghost_of("ann"), &accepted);
    group.ends();
    assert_eq!(group.quotes(), [quote_by("kim", first())]);
}

#[test]
fn where_people_see_only_what_comes_after_joining_nothing_is_passed_on() {
    let mut group = Group::of(&TWO);
    group.view.history_visibility = "joined".to_owned();
    group.says(first(), MessageKind::Line);
    group.ends();
    assert_eq!(group.quotes(), []);
    for name in ["kim", "sam"] {
        let said = notice_by(name, IntroductionNotice::GroupFromJoinOn);
        assert_eq!(group.count(&said), 1, "{name}");
    }
}

#[test]
fn ghosts_that_two_people_invited_speak_each_for_their_asker() {
    let mut group = Group::of(&[("sam", "")]);
    let kim = Input::Invited(Invite {
        asker: ruma::owned_user_id!("@dora:example.org"),
        admission: admission_of("kim", ""),
    });
    group
        .view
        .members
        .insert(ghost_of("kim").into(), "invite".to_owned());
    let dora = ruma::owned_user_id!("@dora:example.org");
    group.view.members.insert(dora, "join".to_owned());
    group.feed(&ghost_of("kim"), &kim);
    group.carry_out();
    group.says(first(), MessageKind::Line);
    group.ends();
    assert_eq!(group.quotes(), [quote_by("sam", first())]);
}

proptest! {
    /// Whatever happens in whatever order: all ghosts leave, and no message stands twice in the
    /// room, whichever ghost quotes it.
    #[test]
    fn a_group_reads_no_message_twice(
        steps in proptest::collection::vec(
            (inputs(), 0..4usize, 0..4u8, proptest::collection::vec(refusals(), 8)),
            0..60,
        ),
        anns in prop_oneof![Just(""), Just("strict"), Just("asks first")],
        from_join: bool,
    ) {
        let names = ["ann", "kim", "sam"];
        let mut group = Group::of(&[("ann", anns), ("kim", ""), ("sam", "")]);
        if from_join {
            group.view.history_visibility = "joined".to_owned();
        }
        let mut said = BTreeSet::new();
        for ((pause, input), whose, then, refusals) in steps {
            group.now = later(group.now, pause);
            // The inbox hands over each event once.
            let is_again = match &input {
                Input::Message { event, .. } => !said.insert(event.clone()),
                _ => false,
            };
            // What happens in the room, all ghosts see; the rest concerns one of them, or all.
            match (&input, names.get(whose)) {
                // A masked handle's ghost stays in a conversation.
                (Input::Answered { masked: true, .. }, _) => {}
                _ if is_again => {}
                (Input::Message { .. } | Input::Member { .. }, _) | (_, None) => {
                    for ghost in group.open() {
                        group.feed(&ghost, &input);
                    }
                }
                (Input::Invited(_), Some(_)) => {}
                (_, Some(name)) => group.feed(&ghost_of(name), &input),
            }
            if then == 2 {
                group.stops_after_next();
            }
            if then < 2 {
                let mut refusals = refusals.into_iter();
                // What was sent before a stop is sent again with the same transaction id.
                let sent = group.passed_on.clone();
                group.carry_out_with(|ghost, effect| {
                    let must_succeed = matches!(effect, Effect::Leave { .. } | Effect::Forget)
                        || sent.contains(&(ghost.clone(), effect.clone()));
                    refusals.next().flatten().filter(|_| !must_succeed)
                });
                stands_once(&group)?;
            }
        }
        for pause in [11_000, 8 * 24 * 3600 * 1000].repeat(10) {
            group.carry_out();
            group.after(pause);
        }
        group.carry_out();
        prop_assert!(group.open().is_empty());
        stands_once(&group)?;
    }
}

/// Checks that each message has been quoted once, by one ghost, unless its quote was taken back.
fn stands_once(group: &Group) -> Result<(), TestCaseError> {
    let mut quotes: BTreeMap<OwnedEventId, i32> = BTreeMap::new();
    let mut sent: Vec<&(Ghost, Effect)> = Vec::new();
    for one in &group.passed_on {
        // After a stop with the same transaction id, so that it stands there once.
        if !sent.contains(&one) {
            sent.push(one);
        }
    }
    for (_, effect) in sent {
        if let Effect::PassOn { event, .. } = effect {
            *quotes.entry(event.clone()).or_default() += 1;
        }
    }
    for (_, effect) in &group.tried {
        if let Effect::TakeBack { of } = effect {
            *quotes.entry(of.clone()).or_default() -= 1;
        }
    }
    let twice: Vec<_> = quotes.into_iter().filter(|(_, times)| *times > 1).collect();
    prop_assert!(twice.is_empty(), "{twice:?}: {:?}", group.tried);
    Ok(())
}
