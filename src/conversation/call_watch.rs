//! Which calls cannot connect, since only relays are shown and a side has none.
//!
//! Clients say in different ways, and many not at all, that they have found all addresses there
//! are: matrix-js-sdk puts the end only behind candidates that it still has to send. So each side is
//! given some time from its offer or answer, unless it says earlier that there is nothing more.

use std::{collections::VecDeque, time::Duration};

use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use serde_json::Value;

use super::RoomRole;
use crate::{clock::Timestamp, relay::calls};

/// For how long a side may look for a relay. A browser gives a relay up that has not answered for
/// some ten seconds; one that answers takes less than a second, and clients collect what they found
/// for two seconds at the most.
const RELAY_WAIT: Duration = Duration::from_secs(12);
/// As many calls are watched.
const CALLS_MAX: usize = 1000;
/// As many of one conversation.
const CALLS_PER_CONVERSATION_MAX: usize = 8;
/// As many people of one call.
const SIDES_PER_CALL_MAX: usize = 8;

/// What an event says of its sender's relays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signs {
    call: String,
    /// An offer or an answer; whether it is the caller's.
    begins: Option<bool>,
    /// A relay is shown.
    relay: bool,
    /// There is nothing more to come.
    complete: bool,
    /// The call is over.
    over: bool,
}

/// Whose event it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The conversation.
    pub conversation: String,
    /// Where it was sent.
    pub role: RoomRole,
    /// The room of that place.
    pub room: OwnedRoomId,
    /// By whom.
    pub person: usize,
    /// The event.
    pub event: OwnedEventId,
}

/// A side that has no relay, told once in a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which, by its offer or answer.
    pub side: Side,
    /// Where the caller is, if that is the other side and was not told of a relay of its own.
    pub caller: Option<RoomRole>,
}

/// Words for a side that has no relay, and for the caller of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRelay {
    /// Theirs.
    Here,
    /// The other's.
    There,
}

impl NoRelay {
    /// What is said.
    pub fn notice_text(self) -> &'static str {
        match self {
            Self::Here => {
                "This call will probably not connect: addresses that show where you are are not \
                 passed on, and your client has found no relay (TURN server) for calls. Ask the \
                 admin of your homeserver for one, or send a message instead."
            }
            Self::There => {
                "This call will probably not connect: addresses that show where people are are \
                 not passed on, and the other side has no relay (TURN server) for calls. Please \
                 send a message instead."
            }
        }
    }
}

/// What an event shows, as it was carried; `None` for one that is of no call between two.
pub fn signs(event_type: &str, content: &Value) -> Option<Signs> {
    let kind = calls::kind(event_type)?;
    let call = content["call_id"].as_str()?.to_owned();
    let candidates = content["candidates"].as_array().into_iter().flatten();
    let mut candidates = candidates.filter_map(|one| one["candidate"].as_str());
    let described = ["offer", "answer", "description"].into_iter();
    let mut described = described.filter_map(|name| content[name]["sdp"].as_str());
    Some(Signs {
        begins: match kind {
            "invite" => Some(true),
            "answer" => Some(false),
            _ => None,
        },
        relay: calls::has_relay(content),
        complete: candidates.any(str::is_empty) || described.any(calls::is_complete),
        over: matches!(kind, "hangup" | "reject"),
        call,
    })
}

#[derive(Debug)]
struct Watched {
    side: Side,
    is_caller: bool,
    status: SideStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SideStatus {
    /// Something was shown before an offer or an answer.
    NotStarted,
    /// No relay was shown, until now.
    Waiting(Timestamp),
    /// A relay was shown.
    RelayShown,
    /// They were told.
    Told,
}

#[derive(Debug)]
struct Call {
    conversation: String,
    id: String,
    sides: Vec<Watched>,
}

/// The calls that are being made. In memory alone: after a restart it is silent about them.
#[derive(Debug, Default)]
pub struct CallWatch {
    calls: VecDeque<Call>,
}

impl CallWatch {
    /// Takes note of an event that was carried. Returns its side if that has told all, and no relay.
    pub fn note(&mut self, signs: &Signs, by: &Side, now: Timestamp) -> Option<Missing> {
        if signs.over {
            self.calls.retain(|call| !call.is(signs, by));
            return None;
        }
        if signs.begins.is_none() && !signs.relay && !signs.complete {
            return None;
        }
        let call = self.call(signs, by)?;
        let known = call.sides.iter().position(|it| it.side.person == by.person);
        let index = match known {
            Some(index) => index,
            None if call.sides.len() >= SIDES_PER_CALL_MAX => return None,
            None => {
                call.sides.push(Watched {
                    side: by.clone(),
                    is_caller: false,
                    status: SideStatus::NotStarted,
                });
                call.sides.len() - 1
            }
        };
        let side = call.sides.get_mut(index)?;
        if let Some(is_caller) = signs.begins
            && side.status == SideStatus::NotStarted
        {
            side.side = by.clone();
            side.is_caller = is_caller;
            side.status = SideStatus::Waiting(now + RELAY_WAIT);
        }
        if signs.relay {
            side.status = SideStatus::RelayShown;
        }
        let waits = matches!(side.status, SideStatus::Waiting(_));
        (waits && signs.complete).then(|| call.tell(index))?
    }

    /// When the next side of a room has had its time.
    pub fn next(&self, room: &RoomId) -> Option<Timestamp> {
        let sides = self.calls.iter().flat_map(|call| &call.sides);
        let of_room = sides.filter(|side| side.side.room == room);
        let until = of_room.filter_map(|side| match side.status {
            SideStatus::Waiting(until) => Some(until),
            _ => None,
        });
        until.min()
    }

    /// The sides of a room that have had their time, and have shown no relay.
    pub fn overdue(&mut self, room: &RoomId, now: Timestamp) -> Vec<Missing> {
        let mut overdue = Vec::new();
        for call in &mut self.calls {
            for index in 0..call.sides.len() {
                let side = &call.sides[index];
                let is_due = matches!(side.status, SideStatus::Waiting(until) if until <= now);
                if is_due && side.side.room == room {
                    overdue.extend(call.tell(index));
                }
            }
        }
        overdue
    }

    /// The call, made room for if it is new.
    fn call(&mut self, signs: &Signs, by: &Side) -> Option<&mut Call> {
        let known = self.calls.iter().position(|call| call.is(signs, by));
        if let Some(index) = known {
            return self.calls.get_mut(index);
        }
        let same = |call: &Call| call.conversation == by.conversation;
        let of_one = self.calls.iter().filter(|call| same(call)).count();
        let oldest = match of_one >= CALLS_PER_CONVERSATION_MAX {
            true => self.calls.iter().position(same),
            false => (self.calls.len() >= CALLS_MAX).then_some(0),
        };
        oldest.and_then(|index| self.calls.remove(index));
        self.calls.push_back(Call {
            conversation: by.conversation.clone(),
            id: signs.call.clone(),
            sides: Vec::new(),
        });
        self.calls.back_mut()
    }
}

impl Call {
    fn is(&self, signs: &Signs, by: &Side) -> bool {
        self.id == signs.call && self.conversation == by.conversation
    }

    fn tell(&mut self, index: usize) -> Option<Missing> {
        let side = self.sides.get_mut(index)?;
        side.status = SideStatus::Told;
        let (side, is_caller) = (side.side.clone(), side.is_caller);
        let mut callers = self.sides.iter_mut().filter(|it| it.is_caller);
        let caller = callers.find(|it| it.status != SideStatus::Told && !is_caller);
        let caller = caller.map(|it| {
            // Whatever else there is to say: that it will not connect is said once.
            it.status = SideStatus::Told;
            it.side.role
        });
        Some(Missing { side, caller })
    }
}

#[cfg(test)]
#[path = "call_watch_tests.rs"]
mod tests;
