//! What the service itself says in the rooms of a conversation, by the ghosts that are there.

use ruma::OwnedUserId;
use serde_json::json;

use crate::{
    conversation::{Conversation, Place, Saying},
    engine::{EngineError, conversations::forward::only_reader, room::Room},
};

impl Room {
    pub(in crate::engine) async fn say_in_conversation(
        &self,
        conversation: &Conversation,
        place: Place,
        saying: &Saying,
        cause: &str,
    ) -> Result<(), EngineError> {
        let Some(ghost) = self.speaker(conversation, place) else {
            return Ok(());
        };
        let content = json!({
            "msgtype": "m.notice",
            "body": saying.plain(),
            "m.mentions": {},
        });
        let cause = format!("{} {cause}", conversation.id);
        let transaction = self.transaction_id(&ghost, "relay-say", &cause);
        let must_read = only_reader(conversation, place);
        let said = self.say_to_who_can_read(&ghost, must_read, &content, transaction);
        match (said.await, saying) {
            // Nobody speaks in a room that was replaced.
            (Err(error), Saying::NotFollowed { by }) if !error.is_transient() => {
                self.tell_by_bot(by, saying, &cause).await
            }
            (said, _) => said.map(drop),
        }
    }

    /// The ghost that speaks for the service in a room: one that is there.
    fn speaker(&self, conversation: &Conversation, place: Place) -> Option<OwnedUserId> {
        let seat = self.record.seat.as_ref()?;
        let there = conversation.people.iter().enumerate();
        let mut there = there.filter(|(index, person)| {
            person.place(*index) != place && seat.ghosts.contains(&person.ghost)
        });
        // At the end nobody may be left who takes part.
        let any = there.clone().next();
        let (_, person) = there.find(|(_, person)| person.takes_part()).or(any)?;
        Some(person.ghost.clone())
    }
}
