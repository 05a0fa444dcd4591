//! Events in rooms: reading, sending and redacting them.

use ruma::{
    EventId, OwnedEventId, OwnedTransactionId, RoomId,
    api::{
        Direction,
        client::{message::send_message_event, redact::redact_event, room::get_room_event},
    },
    serde::Raw,
};
use serde_json::value::RawValue;

use super::{
    Actor, Homeserver, MatrixError,
    bounds::{DeadLetter, DeadLetterReason, ITEM_MAX},
    json_stream::{
        Match, MatchValue,
        PathStep::{Each, Key},
        Selector,
    },
};

/// A page of a room's history, in the requested order.
#[derive(Debug)]
pub struct Page {
    /// The events, as they came.
    pub events: Vec<Box<RawValue>>,
    /// The token where this page begins.
    pub start: String,
    /// The token where the next page begins; `None` at the end of history.
    pub end: Option<String>,
}

/// An event and the events around it.
#[derive(Debug)]
pub struct EventContext {
    /// The event itself, if `who` may see it.
    pub event: Option<Box<RawValue>>,
    /// The events before it, the nearest first.
    pub before: Vec<Box<RawValue>>,
    /// The events after it, in order.
    pub after: Vec<Box<RawValue>>,
    /// The token from which to read further back.
    pub start: Option<String>,
    /// The token from which to read further on.
    pub end: Option<String>,
}

/// Maximum size of a page of history, in bytes: at most 100 events are requested, each of the
/// maximum size.
const HISTORY_BYTES: usize = 100 * ITEM_MAX;
/// Maximum length of a token, in bytes of JSON.
const TOKEN_MAX: usize = 4 << 10;

static MESSAGES: [Selector; 3] = [
    Selector {
        path: &[Key("chunk"), Each],
        limit: ITEM_MAX,
    },
    Selector {
        path: &[Key("start")],
        limit: TOKEN_MAX,
    },
    Selector {
        path: &[Key("end")],
        limit: TOKEN_MAX,
    },
];

static CONTEXT: [Selector; 5] = [
    Selector {
        path: &[Key("event")],
        limit: ITEM_MAX,
    },
    Selector {
        path: &[Key("start")],
        limit: TOKEN_MAX,
    },
    Selector {
        path: &[Key("end")],
        limit: TOKEN_MAX,
    },
    Selector {
        path: &[Key("events_before"), Each],
        limit: ITEM_MAX,
    },
    Selector {
        path: &[Key("events_after"), Each],
        limit: ITEM_MAX,
    },
];

/// The lists of events and the tokens of an answer that is being read, by selector.
#[derive(Debug, Default)]
struct HistoryReader {
    lists: [Vec<Box<RawValue>>; 5],
    tokens: [Option<String>; 5],
    bytes: usize,
}

impl HistoryReader {
    fn add(&mut self, homeserver: &Homeserver, room: &RoomId, found: Match<'_>) {
        match found.value {
            MatchValue::Whole(json) => {
                self.bytes += json.len();
                if self.bytes > HISTORY_BYTES {
                    self.lists = Default::default();
                } else if json.starts_with('{') {
                    let list = self.lists.get_mut(found.selector);
                    let event = RawValue::from_string(json.to_owned());
                    if let (Some(list), Ok(event)) = (list, event) {
                        list.push(event);
                    }
                } else if let Some(token) = self.tokens.get_mut(found.selector) {
                    *token = serde_json::from_str(json).ok();
                }
            }
            MatchValue::TooLarge(head) => {
                let mut letter = DeadLetter::too_large(DeadLetterReason::EventTooLarge, head);
                letter.room = Some(room.to_owned());
                homeserver.set_aside(letter);
            }
        }
    }

    fn check_size(&self) -> Result<(), MatrixError> {
        if self.bytes > HISTORY_BYTES {
            return Err(MatrixError::TooLong {
                limit: HISTORY_BYTES,
            });
        }
        Ok(())
    }
}

impl Homeserver {
    /// Returns a page of history from a token on, or from the end where `direction` starts. An
    /// event that is too large is left out. If a page is too large, a smaller one is requested
    /// instead.
    ///
    /// Implements `GET /_matrix/client/v3/rooms/{roomId}/messages` of the
    /// [client-server API](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages).
    pub async fn messages(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        from: Option<&str>,
        direction: Direction,
        limit: u32,
    ) -> Result<Page, MatrixError> {
        let mut limit = limit;
        loop {
            match self.fetch_messages(who, room, from, direction, limit).await {
                Err(MatrixError::TooLong { .. }) if limit > 1 => limit = (limit / 4).max(1),
                page => return page,
            }
        }
    }

    async fn fetch_messages(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        from: Option<&str>,
        direction: Direction,
        limit: u32,
    ) -> Result<Page, MatrixError> {
        let direction = match direction {
            Direction::Backward => "b",
            Direction::Forward => "f",
        };
        let limit = limit.to_string();
        let mut query = vec![("dir", direction), ("limit", limit.as_str())];
        query.extend(from.map(|from| ("from", from)));
        let path = [
            "_matrix",
            "client",
            "v3",
            "rooms",
            room.as_str(),
            "messages",
        ];
        let mut reader = HistoryReader::default();
        self.select(who, &path, &query, &MESSAGES, |found| {
            reader.add(self, room, found);
        })
        .await?;
        reader.check_size()?;
        let [events, ..] = reader.lists;
        let [_, start, end, ..] = reader.tokens;
        Ok(Page {
            events,
            start: start.unwrap_or_default(),
            end,
        })
    }

    /// Returns an event with up to `limit` events around it, and tokens to read on from there.
    pub async fn context(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        event: &EventId,
        limit: u32,
    ) -> Result<EventContext, MatrixError> {
        let limit = limit.to_string();
        let path = [
            "_matrix",
            "client",
            "v3",
            "rooms",
            room.as_str(),
            "context",
            event.as_str(),
        ];
        let mut reader = HistoryReader::default();
        self.select(who, &path, &[("limit", &limit)], &CONTEXT, |found| {
            reader.add(self, room, found);
        })
        .await?;
        reader.check_size()?;
        let [event, _, _, before, after] = reader.lists;
        let [_, start, end, ..] = reader.tokens;
        Ok(EventContext {
            event: event.into_iter().next(),
            before,
            after,
            start,
            end,
        })
    }

    /// Returns one event; `None` if `who` may not see it or it does not exist.
    pub async fn event(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        event: &EventId,
    ) -> Result<Option<Box<RawValue>>, MatrixError> {
        let request = get_room_event::v3::Request::new(room.to_owned(), event.to_owned());
        match self.send(who, request).await {
            Ok(answer) => Ok(Some(answer.event.into_json())),
            Err(error) if error.has_errcode("M_NOT_FOUND") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a message event.
    ///
    /// The transaction id has to be unique among all our users: the homeserver answers the second
    /// use of one in a room with the first event's id and sends nothing.
    pub async fn send_message(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        event_type: &str,
        content: &RawValue,
        transaction: OwnedTransactionId,
    ) -> Result<OwnedEventId, MatrixError> {
        let request = send_message_event::v3::Request::new_raw(
            room.to_owned(),
            transaction,
            event_type.into(),
            Raw::from_json(content.to_owned()),
        );
        self.send(who, request).await.map(|answer| answer.event_id)
    }

    /// Redacts an event.
    pub async fn redact(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        event: &EventId,
        reason: Option<&str>,
        transaction: OwnedTransactionId,
    ) -> Result<OwnedEventId, MatrixError> {
        let mut request =
            redact_event::v3::Request::new(room.to_owned(), event.to_owned(), transaction);
        request.reason = reason.map(str::to_owned);
        self.send(who, request).await.map(|answer| answer.event_id)
    }
}
