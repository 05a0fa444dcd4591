//! Gives up inbox items that cannot be handled.

use ruma::OwnedUserId;
use serde_json::value::RawValue;

use crate::{
    bot, conversation,
    engine::{
        EngineError,
        actors::dispatch::asker_of,
        control_room::{ControlEffect, Occasion, Remark},
        conversations::failures::not_delivered,
        event::RoomEvent,
        records::{Conversations, Inbox, InboxItem, QueuedEffect},
        room::Room,
    },
    ids::{ConversationId, Ghost},
    introduction::{Admission, Input, Invite, MessageKind},
    store::Batch,
};

impl Room {
    /// Gives up an inbox item, so that it does not hold up the room forever. An encrypted message
    /// counts as unreadable, and its sender is told. A ghost's invite is declined, and what the bot
    /// wanted to say waits until it has a room for that.
    pub(in crate::engine) async fn give_up(
        &mut self,
        number: u64,
        arrived: InboxItem,
    ) -> Result<(), EngineError> {
        self.reload()?;
        let mut batch = Batch::new();
        batch.delete::<Inbox>(&(self.id.clone(), number));
        let mut effects = Vec::new();
        if let Some((ghost, asker)) = self.ghost_invite(&arrived) {
            let input = Input::Invited(Invite {
                asker,
                admission: Admission::NotNow,
            });
            effects.extend(self.apply_to_introduction(&ghost, &input));
        }
        if let InboxItem::Notify {
            person,
            plain,
            html,
            ..
        } = &arrived
        {
            self.engine.keep_notice(person, plain, html, &mut batch)?;
        }
        if let InboxItem::Event(json) | InboxItem::AfterGap(json) = arrived
            && let Some(event) = RoomEvent::parse(&json, Some(&self.id))
        {
            return self.give_up_event(&event, batch, effects).await;
        }
        self.commit(batch, effects)
    }

    /// Gives up an event. If it is encrypted, its sender is told.
    pub(in crate::engine) async fn give_up_event(
        &mut self,
        event: &RoomEvent,
        mut batch: Batch,
        mut effects: Vec<QueuedEffect>,
    ) -> Result<(), EngineError> {
        // Before the bot knows whose room this is, it reads nothing; then it reads back.
        let unread = self.bot_is_here() && !self.is_ready() && event.membership().is_none();
        if !unread {
            self.engine.mark_seen(&event.id, true, &mut batch)?;
        }
        if event.kind != "m.room.encrypted" {
            return self.commit(batch, effects);
        }
        effects.extend(self.give_up_in_introductions(event));
        if self.bot_is_here() {
            effects.extend(self.give_up_command(event));
        } else if let Some(here) = self.record.conversation.clone() {
            self.commit(Batch::new(), effects)?;
            return self
                .give_up_forwarding(&here.conversation, event, batch)
                .await;
        }
        self.commit(batch, effects)
    }

    /// Returns the ghost that an arrival invites, if it is not here already, and who invites it.
    fn ghost_invite(&self, arrived: &InboxItem) -> Option<(Ghost, OwnedUserId)> {
        let (user, asker) = match arrived {
            InboxItem::Event(json) | InboxItem::AfterGap(json) => {
                let event = RoomEvent::parse(json, Some(&self.id))?;
                let (user, _) = event.membership().filter(|(_, it)| *it == "invite")?;
                (user, event.sender)
            }
            InboxItem::Invite { user, state } => {
                let state = state.iter().cloned().map(RawValue::from_string);
                let state: Vec<_> = state.filter_map(Result::ok).collect();
                (user.clone(), asker_of(user, &state)?.0)
            }
            _ => return None,
        };
        let is_ghost = self.engine.is_ours(&user) && user != self.engine.settings().bot;
        let ghost = Ghost::new(user);
        (is_ghost && !self.has_ghost(&ghost)).then_some((ghost, asker))
    }

    /// Lets the introductions here count a message as unreadable.
    fn give_up_in_introductions(&mut self, event: &RoomEvent) -> Vec<QueuedEffect> {
        let open = self.record.introductions.iter();
        let open = open.filter(|introduction| introduction.is_open());
        let ghosts: Vec<Ghost> = open
            .map(|introduction| introduction.ghost.clone())
            .collect();
        let input = Input::Message {
            event: event.id.clone(),
            sender: event.sender.clone(),
            kind: MessageKind::Unreadable,
        };
        let effects = ghosts.iter();
        effects
            .flat_map(|ghost| self.apply_to_introduction(ghost, &input))
            .collect()
    }

    /// Tells the person of a control room that nothing was done about their message.
    fn give_up_command(&mut self, event: &RoomEvent) -> Option<QueuedEffect> {
        let now = self.engine.now();
        let ready = self.is_ready();
        let control = self.record.control.as_mut()?;
        let by_person = control
            .person
            .as_ref()
            .is_some_and(|it| **it == event.sender);
        if !ready || !by_person || !control.may_remark(Remark::Unreadable, now) {
            return None;
        }
        Some(QueuedEffect::Control(ControlEffect::SendNotice {
            notice: bot::texts::unreadable(),
            source: event.id.to_string(),
            occasion: Occasion::Answer,
        }))
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
