//! What is said in rooms: reading it, adding to it, taking it back.

use ruma::{
    EventId, OwnedEventId, OwnedTransactionId, RoomId, UInt,
    api::{
        Direction,
        client::{
            context::get_context, message::get_message_events, message::send_message_event,
            redact::redact_event, room::get_room_event,
        },
    },
    serde::Raw,
};
use serde_json::value::RawValue;

use super::{Actor, Homeserver, MatrixError};

/// A stretch of a room's history, in the order it was asked for.
#[derive(Debug)]
pub struct Page {
    /// The events, as they came.
    pub events: Vec<Box<RawValue>>,
    /// The token where this stretch begins.
    pub start: String,
    /// The token where the next one begins; `None` at the end of history.
    pub end: Option<String>,
}

/// An event and what surrounds it.
#[derive(Debug)]
pub struct Context {
    /// The event itself, if `who` may see it.
    pub event: Option<Box<RawValue>>,
    /// What came before, the nearest first.
    pub before: Vec<Box<RawValue>>,
    /// What came after, in order.
    pub after: Vec<Box<RawValue>>,
    /// The token from which to read further back.
    pub start: Option<String>,
    /// The token from which to read further on.
    pub end: Option<String>,
}

impl Homeserver {
    /// A stretch of history from a token on; from the end that `direction` starts at without one.
    pub async fn messages(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        from: Option<&str>,
        direction: Direction,
        limit: u32,
    ) -> Result<Page, MatrixError> {
        let mut request = get_message_events::v3::Request::new(room.to_owned(), direction);
        request.from = from.map(str::to_owned);
        request.limit = UInt::from(limit);
        let answer = self.send(who, request).await?;
        Ok(Page {
            events: raw(answer.chunk),
            start: answer.start,
            end: answer.end,
        })
    }

    /// An event with up to `limit` events around it, and tokens to read on from there.
    pub async fn context(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        event: &EventId,
        limit: u32,
    ) -> Result<Context, MatrixError> {
        let mut request = get_context::v3::Request::new(room.to_owned(), event.to_owned());
        request.limit = UInt::from(limit);
        let answer = self.send(who, request).await?;
        Ok(Context {
            event: answer.event.map(Raw::into_json),
            before: raw(answer.events_before),
            after: raw(answer.events_after),
            start: answer.start,
            end: answer.end,
        })
    }

    /// One event; `None` when there is none that `who` may see.
    pub async fn event(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        event: &EventId,
    ) -> Result<Option<Box<RawValue>>, MatrixError> {
        let request = get_room_event::v3::Request::new(room.to_owned(), event.to_owned());
        match self.send(who, request).await {
            Ok(answer) => Ok(Some(answer.event.into_json())),
            Err(error) if error.is("M_NOT_FOUND") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a message event.
    ///
    /// The transaction id has to be unique over all our users: the homeserver answers the second
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

    /// Takes an event back.
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

fn raw<T>(events: Vec<Raw<T>>) -> Vec<Box<RawValue>> {
    events.into_iter().map(Raw::into_json).collect()
}
