//! Lanes: whose effects are overtaken in a room, because nobody can reach that person.
//!
//! What an outbox holds for one masked person of a conversation is a lane. When the server of a
//! portal's owner does not answer an invite, the owner's lane pauses: its effects stay in the outbox,
//! in their order, and those behind them go on. An effect that must come after all others, as when
//! the ghosts leave, lets none of them pause.

use std::{collections::HashMap, time::Duration};

use ruma::{OwnedRoomId, OwnedServerName, ServerName};

use crate::{
    clock::Timestamp,
    conversation::{Effect, RoomRole},
    engine::records::{OutboxItem, QueuedEffect},
    ids::ConversationId,
};

/// The first pause of a lane; it doubles with each further one. An attempt holds up the room for as
/// long as another server is waited for.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2 * 60);
/// How long other people of a server that did not answer are not tried: less than the first pause, so
/// that the person whom it was about is tried again first.
const SILENT_FOR: Duration = Duration::from_secs(25);
/// How long a person is waited for.
const WAIT: Duration = Duration::from_secs(10 * 60);
/// Maximum number of effects of a room that wait for paused lanes. Beyond it, the person for whom
/// most of them wait is waited for no longer: a flood must not use up what a room looks at.
const HELD_MAX: usize = 1000;
/// Minimum number of effects for which a lane ends because of that: where many people cannot be
/// reached, none of them is to blame.
const FLOOD_MIN: usize = 100;

/// An effect in an outbox, with its room and number.
pub(super) type Queued = ((OwnedRoomId, u64), OutboxItem);

/// A conversation, and the index of a person in it.
type LaneId = (ConversationId, usize);

/// The lanes of a room that pause.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    paused: HashMap<LaneId, PausedLane>,
    /// The servers that did not answer a short while ago, and when.
    silent: HashMap<OwnedServerName, Timestamp>,
    /// Whether an effect is queued that must come after all others.
    is_closing: bool,
}

#[derive(Clone, Copy, Debug)]
struct PausedLane {
    since: Timestamp,
    pause: Duration,
    until: Timestamp,
}

/// Returns the lane that an effect belongs to.
fn lane_of(what: &QueuedEffect) -> Option<LaneId> {
    let QueuedEffect::Conversation {
        conversation,
        effect,
    } = what
    else {
        return None;
    };
    let person = match effect {
        Effect::EnsurePortal { person } => *person,
        Effect::ForwardEvent { target, .. }
        | Effect::RedactCopy { target, .. }
        | Effect::RedactCopiesOf { target, .. } => match target {
            RoomRole::Portal(person) => *person,
            RoomRole::Origin => return None,
        },
        _ => return None,
    };
    Some((conversation.clone(), person))
}

/// Returns whether an effect must come after all that were queued before.
fn is_last(what: &QueuedEffect) -> bool {
    let QueuedEffect::Conversation { effect, .. } = what else {
        return false;
    };
    matches!(
        effect,
        Effect::LeaveRoom | Effect::DeleteGhosts { .. } | Effect::FollowUpgrade { .. }
    )
}

impl Lanes {
    /// Returns whether no lane pauses.
    pub(super) fn is_empty(&self) -> bool {
        self.paused.is_empty()
    }

    /// Returns what is to be carried out now of all that is queued, in order.
    pub(super) fn due(&mut self, queued: Vec<Queued>, now: Timestamp, most: usize) -> Vec<Queued> {
        self.is_closing = queued.iter().any(|(_, due)| is_last(&due.what));
        let lanes: Vec<LaneId> = queued
            .iter()
            .filter_map(|(_, due)| lane_of(&due.what))
            .collect();
        self.paused.retain(|lane, _| lanes.contains(lane));
        self.end_flooded_lanes(&lanes, now);
        let mut due = queued;
        due.retain(|(_, due)| !self.holds(&due.what, now));
        due.truncate(most);
        due
    }

    /// Ends the waiting for the lanes that hold most, until no more than [`HELD_MAX`] effects wait.
    fn end_flooded_lanes(&mut self, lanes: &[LaneId], now: Timestamp) {
        if self.is_closing {
            return;
        }
        let mut held: HashMap<&LaneId, usize> = HashMap::new();
        for lane in lanes {
            if self.paused.get(lane).is_some_and(|lane| now < lane.until) {
                *held.entry(lane).or_default() += 1;
            }
        }
        let mut all: usize = held.values().sum();
        let mut fullest_last: Vec<_> = held.into_iter().collect();
        fullest_last.sort_by_key(|(_, count)| *count);
        while all > HELD_MAX
            && let Some((lane, count)) = fullest_last.pop()
            && count >= FLOOD_MIN
        {
            all -= count;
            if let Some(lane) = self.paused.get_mut(lane) {
                lane.since = Timestamp(now.0.saturating_sub(WAIT.as_millis() as u64));
                lane.until = now;
            }
        }
    }

    /// Returns whether this effect waits for its lane.
    pub(super) fn holds(&self, what: &QueuedEffect, now: Timestamp) -> bool {
        if self.is_closing || self.paused.is_empty() {
            return false;
        }
        let lane = lane_of(what).and_then(|lane| self.paused.get(&lane));
        lane.is_some_and(|lane| now < lane.until)
    }

    /// Lets the lane of an effect pause, whose person cannot be reached. Returns `false` if they have
    /// been waited for long enough, and `None` if the effect has no lane that may pause.
    pub(super) fn pause(&mut self, what: &QueuedEffect, now: Timestamp) -> Option<bool> {
        let id = lane_of(what).filter(|_| !self.is_closing)?;
        let lane = self.paused.entry(id).or_insert(PausedLane {
            since: now,
            pause: FIRST_PAUSE / 2,
            until: now,
        });
        if now.since(lane.since) >= WAIT {
            return Some(false);
        }
        lane.pause = (lane.pause * 2).min(LONGEST_PAUSE);
        lane.until = (now + lane.pause).min(lane.since + WAIT);
        Some(true)
    }

    /// Lets the lane of an effect go on, whose person was reached.
    pub(super) fn resume(&mut self, what: &QueuedEffect) {
        if !self.paused.is_empty()
            && let Some(lane) = lane_of(what)
        {
            self.paused.remove(&lane);
        }
    }

    /// Notes that a server did not answer.
    pub(super) fn note_silent(&mut self, server: &ServerName, now: Timestamp) {
        self.silent.retain(|_, at| now.since(*at) < SILENT_FOR);
        self.silent.insert(server.to_owned(), now);
    }

    /// Returns whether a server did not answer a short while ago: its people would hold up the room
    /// one after the other.
    pub(super) fn is_silent(&self, server: &ServerName, now: Timestamp) -> bool {
        let last = self.silent.get(server);
        last.is_some_and(|at| *at <= now && now.since(*at) < SILENT_FOR)
    }

    /// Returns when the next lane goes on.
    pub(super) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.paused.values().map(|lane| lane.until);
        ends.filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_795_376_395_450);

    fn what(effect: Effect) -> QueuedEffect {
        QueuedEffect::Conversation {
            conversation: ConversationId::new("talk"),
            effect,
        }
    }

    fn forward(person: usize) -> QueuedEffect {
        what(Effect::ForwardEvent {
            event: "$event".try_into().unwrap(),
            sender: 0,
            target: RoomRole::Portal(person),
            is_last: true,
        })
    }

    fn queued(effects: &[QueuedEffect]) -> Vec<Queued> {
        let room = OwnedRoomId::try_from("!room:hs.test").unwrap();
        let numbered = (1..).zip(effects);
        let item = |what: &QueuedEffect| OutboxItem {
            what: what.clone(),
            since: START,
        };
        numbered
            .map(|(number, what)| ((room.clone(), number), item(what)))
            .collect()
    }

    #[test]
    fn a_flood_for_somebody_who_cannot_be_reached_keeps_nobody_else_from_being_seen() {
        let mut lanes = Lanes::default();
        let (flooded, quiet) = (forward(1), forward(3));
        assert_eq!(lanes.pause(&flooded, START), Some(true));
        assert_eq!(lanes.pause(&quiet, START), Some(true));
        let with = |count: usize| {
            let flood = std::iter::repeat_n(flooded.clone(), count);
            queued(&flood.chain([quiet.clone(), forward(2)]).collect::<Vec<_>>())
        };
        let at_the_limit = lanes.due(with(HELD_MAX - 1), START, 2000);
        assert_eq!(numbers(&at_the_limit), [HELD_MAX as u64 + 1]);
        let beyond = lanes.due(with(HELD_MAX), START, 2000);
        assert_eq!(beyond.len(), HELD_MAX + 1, "all but the quiet lane's");
        assert!(lanes.holds(&quiet, START) && !lanes.holds(&flooded, START));
        // It is given up, and not waited for once more.
        assert_eq!(lanes.pause(&flooded, START), Some(false));
    }

    fn numbers(due: &[Queued]) -> Vec<u64> {
        due.iter().map(|((_, number), _)| *number).collect()
    }

    #[test]
    fn only_the_lane_of_one_person_pauses_and_goes_on_in_its_order() {
        let mut lanes = Lanes::default();
        let ensure = what(Effect::EnsurePortal { person: 1 });
        let all = [ensure.clone(), forward(1), forward(2), forward(1)];
        let due = |lanes: &mut Lanes, now| numbers(&lanes.due(queued(&all), now, 32));
        assert_eq!(due(&mut lanes, START), [1, 2, 3, 4]);
        assert_eq!(lanes.pause(&ensure, START), Some(true));
        assert_eq!(due(&mut lanes, START), [3]);
        let next = lanes.next(START).unwrap();
        assert_eq!(next, START + FIRST_PAUSE);
        assert_eq!(due(&mut lanes, next), [1, 2, 3, 4]);
        assert_eq!(lanes.pause(&ensure, next), Some(true));
        assert_eq!(lanes.next(next), Some(next + 2 * FIRST_PAUSE), "longer");
        lanes.resume(&ensure);
        assert_eq!(due(&mut lanes, next), [1, 2, 3, 4]);
    }

    #[test]
    fn nobody_is_waited_for_longer_than_ten_minutes() {
        let mut lanes = Lanes::default();
        let (mut now, mut tries) = (START, 0);
        lanes.due(queued(&[forward(1)]), now, 32);
        while lanes.pause(&forward(1), now) == Some(true) {
            now = lanes.next(now).unwrap();
            tries += 1;
        }
        assert_eq!(now, START + WAIT);
        assert!((5..10).contains(&tries), "{tries}");
        // All that waited with it is given up too.
        assert_eq!(lanes.pause(&forward(1), now), Some(false));
        // What is written later is waited for anew.
        lanes.due(queued(&[forward(2)]), now, 32);
        assert_eq!(lanes.pause(&forward(1), now), Some(true));
    }

    #[test]
    fn nothing_overtakes_before_a_room_is_left() {
        let mut lanes = Lanes::default();
        let all = [forward(1), what(Effect::LeaveRoom)];
        lanes.due(queued(&all[..1]), START, 32);
        assert_eq!(lanes.pause(&forward(1), START), Some(true));
        assert_eq!(numbers(&lanes.due(queued(&all), START, 32)), [1, 2]);
        assert_eq!(lanes.pause(&forward(1), START), None);
    }

    #[test]
    fn other_people_of_a_silent_server_are_not_tried_before_the_first_one() {
        let mut lanes = Lanes::default();
        let far: &ServerName = "far.example".try_into().unwrap();
        assert!(!lanes.is_silent(far, START));
        lanes.note_silent(far, START);
        assert!(lanes.is_silent(far, START));
        assert!(!lanes.is_silent("other.example".try_into().unwrap(), START));
        assert!(!lanes.is_silent(far, START + SILENT_FOR));
        const { assert!(SILENT_FOR.as_secs() < FIRST_PAUSE.as_secs()) }
    }

    #[test]
    fn what_has_no_lane_never_pauses() {
        let mut lanes = Lanes::default();
        let to_origin = what(Effect::ForwardEvent {
            event: "$event".try_into().unwrap(),
            sender: 1,
            target: RoomRole::Origin,
            is_last: true,
        });
        assert_eq!(lanes.pause(&to_origin, START), None);
        assert!(lanes.is_empty());
    }
}
