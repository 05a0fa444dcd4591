//! Receipts and typing.

use std::time::Duration;

use ruma::{
    EventId, OwnedEventId, RoomId,
    api::client::{
        receipt::create_receipt::{self, v3::ReceiptType},
        typing::create_typing_event::{self, v3::Typing},
    },
    events::receipt::ReceiptThread,
};

use super::{Actor, Homeserver, MatrixError};

/// The messages that a read receipt covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// All messages of the room.
    Unthreaded,
    /// The messages that are in no thread.
    Main,
    /// The messages in the thread of this event.
    Thread(OwnedEventId),
}

impl Homeserver {
    /// Sends a read receipt of `who` for an event.
    pub async fn send_receipt(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        event: &EventId,
        of: Receipt,
    ) -> Result<(), MatrixError> {
        let mut request =
            create_receipt::v3::Request::new(room.to_owned(), ReceiptType::Read, event.to_owned());
        request.thread = match of {
            Receipt::Unthreaded => ReceiptThread::Unthreaded,
            Receipt::Main => ReceiptThread::Main,
            Receipt::Thread(root) => ReceiptThread::Thread(root),
        };
        self.send(who, request).await.map(drop)
    }

    /// Shows `who` as typing for at most this long; `None` ends it.
    pub async fn send_typing(
        &self,
        who: Actor<'_>,
        room: &RoomId,
        typing: Option<Duration>,
    ) -> Result<(), MatrixError> {
        let state = match typing {
            Some(duration) => Typing::Yes(create_typing_event::v3::TypingInfo::new(duration)),
            None => Typing::No,
        };
        let request =
            create_typing_event::v3::Request::new(who.user.to_owned(), room.to_owned(), state);
        self.send(who, request).await.map(drop)
    }
}
