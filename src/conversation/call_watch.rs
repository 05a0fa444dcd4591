//! Finds calls that cannot connect because only relays are shown and one side has none.
//!
//! Clients signal the end of their candidates in different ways, and many not at all: matrix-js-sdk
//! does so only after candidates that it still has to send. So each side has some time from its
//! offer or answer, unless it signals the end earlier.

use std::{collections::VecDeque, time::Duration};

use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use serde_json::Value;

use super::RoomRole;
use crate::{clock::Timestamp, ids::ConversationId, relay::calls};

/// How long a side may look for a relay. A relay that answers does so within a second, and clients
/// collect candidates for at most two; browsers give up on a relay after some ten seconds.
const RELAY_WAIT: Duration = Duration::from_secs(12);
/// Maximum number of watched calls.
const CALLS_MAX: usize = 1000;
/// Maximum number of watched calls in one conversation.
const CALLS_PER_CONVERSATION_MAX: usize = 8;
/// Maximum number of sides of one call.
const SIDES_PER_CALL_MAX: usize = 8;

/// The signs of relays in a call event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signs {
    call: String,
    /// Whether the sender is the caller; `None` if it is neither an offer nor an answer.
    begins: Option<bool>,
    /// Whether the event shows a relay.
    relay: bool,
    /// Whether no more candidates follow.
    complete: bool,
    /// Whether the call is over.
    over: bool,
}

/// One side of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The conversation.
    pub conversation: ConversationId,
    /// The room of this side.
    pub role: RoomRole,
    /// The id of that room.
    pub room: OwnedRoomId,
    /// The person.
    pub person: usize,
    /// The event of this side: its offer, answer or first event.
    pub event: OwnedEventId,
}

/// A side that has no relay. Reported once in a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The side.
    pub side: Side,
    /// The room of the caller, if the caller is the other side and was not told yet.
    pub caller: Option<RoomRole>,
}

/// The notice to a side without a relay, or to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRelay {
    /// This side has no relay.
    Here,
    /// The other side has no relay.
    There,
}

impl NoRelay {
    /// Returns the text of the notice.
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

/// Returns what a translated event shows of relays; `None` if it belongs to no call of two.
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
    /// Candidates arrived before an offer or an answer.
    NotStarted,
    /// No relay was shown yet. The wait ends at this time.
    Waiting(Timestamp),
    /// A relay was shown.
    RelayShown,
    /// The person was told.
    Told,
}

#[derive(Debug)]
struct Call {
    conversation: ConversationId,
    id: String,
    sides: Vec<Watched>,
}

/// The calls that are being set up. In memory only: after a restart nobody is told about them.
#[derive(Debug, Default)]
pub struct CallWatch {
    calls: VecDeque<Call>,
}

impl CallWatch {
    /// Notes an event that was forwarded. Returns its side if that has sent all its candidates and
    /// none is of a relay.
    pub fn note(&mut self, signs: &Signs, by: &Side, now: Timestamp) -> Option<Missing> {
        if signs.over {
            self.calls.retain(|call| !call.matches(signs, by));
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

    /// Returns when the wait of the next side in a room ends.
    pub fn next(&self, room: &RoomId) -> Option<Timestamp> {
        self.calls
            .iter()
            .flat_map(|call| &call.sides)
            .filter(|side| side.side.room == room)
            .filter_map(|side| match side.status {
                SideStatus::Waiting(until) => Some(until),
                _ => None,
            })
            .min()
    }

    /// Returns the sides in a room whose wait is over without a relay.
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

    /// Returns the call, which replaces the oldest one if it is new and there is no room for it.
    fn call(&mut self, signs: &Signs, by: &Side) -> Option<&mut Call> {
        let known = self.calls.iter().position(|call| call.matches(signs, by));
        if let Some(index) = known {
            return self.calls.get_mut(index);
        }
        let same = |call: &Call| call.conversation == by.conversation;
        let of_one = self.calls.iter().filter(|call| same(call)).count();
        let oldest = if of_one >= CALLS_PER_CONVERSATION_MAX {
            self.calls.iter().position(same)
        } else {
            (self.calls.len() >= CALLS_MAX).then_some(0)
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
    fn matches(&self, signs: &Signs, by: &Side) -> bool {
        self.id == signs.call && self.conversation == by.conversation
    }

    fn tell(&mut self, index: usize) -> Option<Missing> {
        let side = self.sides.get_mut(index)?;
        side.status = SideStatus::Told;
        let (side, is_caller) = (side.side.clone(), side.is_caller);
        let mut callers = self.sides.iter_mut().filter(|it| it.is_caller);
        let caller = callers.find(|it| it.status != SideStatus::Told && !is_caller);
        let caller = caller.map(|it| {
            // The caller learns once that the call will not connect, whatever the reasons.
            it.status = SideStatus::Told;
            it.side.role
        });
        Some(Missing { side, caller })
    }
}

#[cfg(test)]
#[path = "call_watch_tests.rs"]
mod tests;
