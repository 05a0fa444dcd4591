//! Notices of the service in the rooms of a conversation, sent by the ghosts that are there.

use crate::{
    conversation::{Conversation, Notice, RoomRole},
    engine::{
        EngineError,
        conversations::forward::only_reader,
        messaging::{
            notice::plain_notice,
            send::{Outgoing, Recipients},
        },
        room::Room,
    },
    ids::Ghost,
};

impl Room {
    pub(in crate::engine) async fn send_notice_in_conversation(
        &self,
        conversation: &Conversation,
        role: RoomRole,
        notice: &Notice,
        cause: &str,
    ) -> Result<(), EngineError> {
        let Some(ghost) = self.speaker(conversation, role, notice) else {
            return Ok(());
        };
        let content = plain_notice(&notice.text());
        let cause = format!("{} {cause}", conversation.id);
        let must_read = only_reader(conversation, role);
        let sent = self.send(Outgoing {
            sender: &ghost,
            event_type: "m.room.message",
            content: &content,
            recipients: Recipients::Readable(must_read.as_slice()),
            transaction: self.transaction_id(&ghost, "relay-say", &cause),
        });
        match (sent.await, notice) {
            // A room that was replaced may refuse all messages.
            (Err(error), Notice::UpgradeFailed { by }) if !error.is_transient() => {
                let words = format!(
                    "The room was upgraded, but {ghost} can't move the conversation yet: the new \
                     room is unencrypted, {ghost} isn't in it, someone is in it who isn't in the \
                     old one, or a server doesn't answer. Fix that and invite {ghost} again, or \
                     start a new chat."
                );
                self.notify_by_bot(by, &words, &cause).await
            }
            (sent, _) => sent.map(drop),
        }
    }

    /// Returns a ghost in this room that can speak for the service: if the notice is about a masked
    /// person, the ghost of that person.
    pub(in crate::engine) fn speaker(
        &self,
        conversation: &Conversation,
        role: RoomRole,
        notice: &Notice,
    ) -> Option<Ghost> {
        let here = self.record.conversation.as_ref()?;
        let there = conversation.people.iter().enumerate();
        let mut there = there.filter(|(index, person)| {
            person.room_role(*index) != role && here.ghosts.contains(&person.ghost)
        });
        let of_notice = match notice {
            Notice::MaskedInGroup { person, .. } => Some(*person),
            _ => None,
        };
        let own = there.clone().find(|(index, _)| Some(*index) == of_notice);
        // At the end of a conversation perhaps nobody takes part.
        let any = there.clone().next();
        let some = there.find(|(_, person)| person.takes_part());
        let (_, person) = own.or(some).or(any)?;
        Some(person.ghost.clone())
    }
}
