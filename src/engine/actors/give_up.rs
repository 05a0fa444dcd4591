//! Gives up inbox items that cannot be handled.

use crate::{
    conversation,
    engine::{
        EngineError,
        conversations::failures::not_delivered,
        event::RoomEvent,
        records::{Conversations, Inbox, InboxItem, Rooms},
        room::Room,
    },
    ids::{ConversationId, Ghost},
    introduction::{Input, MessageKind},
    store::Batch,
};

impl Room {
    /// Gives up an inbox item, so that it does not hold up the room forever. An encrypted message
    /// counts as unreadable, and its sender is told.
    pub(in crate::engine) async fn give_up(
        &mut self,
        number: u64,
        arrived: InboxItem,
    ) -> Result<(), EngineError> {
        let store = self.engine.store();
        self.record = store.get::<Rooms>(&self.id)?.unwrap_or_default();
        self.written = None;
        let mut batch = Batch::new();
        batch.delete::<Inbox>(&(self.id.clone(), number));
        let mut effects = Vec::new();
        if let InboxItem::Event(json) | InboxItem::AfterGap(json) = arrived
            && let Some(event) = RoomEvent::parse(&json, Some(&self.id))
            && event.kind == "m.room.encrypted"
        {
            self.engine.mark_seen(&event.id, true, &mut batch)?;
            if let Some(here) = self.record.conversation.clone() {
                let id = &here.conversation;
                return self.give_up_forwarding(id, &event, batch).await;
            }
            let open = self
                .record
                .introductions
                .iter()
                .filter(|introduction| introduction.is_open());
            let ghosts: Vec<Ghost> = open
                .map(|introduction| introduction.ghost.clone())
                .collect();
            for ghost in ghosts {
                let input = Input::Message {
                    event: event.id.clone(),
                    sender: event.sender.clone(),
                    kind: MessageKind::Unreadable,
                };
                effects.extend(self.apply_to_introduction(&ghost, &input));
            }
        }
        self.commit(batch, effects)
    }

    /// Gives up a message of a conversation, and tells its sender.
    pub(in crate::engine) async fn give_up_forwarding(
        &mut self,
        id: &ConversationId,
        event: &RoomEvent,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let known = engine.store().get_cached::<Conversations>(id)?;
        let input = known.and_then(|known| {
            let role = known.role_of(&self.id)?;
            known.person_at(role, &event.sender)?;
            Some(conversation::Input::NotForwarded {
                role,
                event: event.id.clone(),
                text: not_delivered(&known).to_owned(),
            })
        });
        self.apply(id, input.as_slice(), batch).await
    }
}
