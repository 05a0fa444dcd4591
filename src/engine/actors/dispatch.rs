//! Dispatches what has arrived in a room.

use futures_util::FutureExt as _;
use ruma::OwnedUserId;
use serde_json::value::RawValue;

use crate::{
    bot::NoticeText,
    clock::Timestamp,
    engine::{
        EngineError,
        control_room::{Control, ControlEffect},
        event::RoomEvent,
        inbox::dedup::InHand,
        introductions::admission::GhostInvite,
        records::{Inbox, InboxItem, QueuedEffect},
        retry::Retry,
        room::Room,
    },
    ids::Ghost,
    introduction::{Input, Introduction},
    matrix::bounds::{DeadLetter, DeadLetterReason},
    store::Batch,
};

impl Room {
    pub(in crate::engine) async fn dispatch(
        &mut self,
        number: u64,
        arrived: InboxItem,
    ) -> Result<(), EngineError> {
        let mut batch = Batch::new();
        batch.delete::<Inbox>(&(self.id.clone(), number));
        match arrived {
            InboxItem::Event(json) => match RoomEvent::parse(&json, Some(&self.id)) {
                Some(event) => self.handle_event(event, &json, batch).await,
                None => Ok(self.engine.store().apply(batch)?),
            },
            InboxItem::AfterGap(json) => match RoomEvent::parse(&json, Some(&self.id)) {
                Some(event) => self.handle_after_gap(number, event, &json, batch).await,
                None => Ok(self.engine.store().apply(batch)?),
            },
            InboxItem::Invite { user, state } => {
                self.invite_without_event(&user, state, batch).await
            }
            InboxItem::ControlRoomCreated { person } => {
                let now = self.engine.now();
                self.record
                    .control
                    .get_or_insert_with(|| Control::made(person, now));
                // The person may have joined already.
                let effects = [ControlEffect::Invite, ControlEffect::Look];
                self.commit(batch, effects.map(QueuedEffect::Control))
            }
            InboxItem::ControlRoomExpired => self.expire_control_room(batch).await,
            InboxItem::PersonErased { person } => self.part_with(&person, batch),
            InboxItem::RoomKeyArrived { user } if user == self.engine.0.settings.bot => {
                self.retry_commands_with_key(batch).await
            }
            InboxItem::RoomKeyArrived { user } => {
                self.retry_messages_with_key(&Ghost::new(user), batch).await
            }
            InboxItem::KeyForStrict { ghost, sender } => {
                self.key_for_strict(&ghost, &sender, batch)
            }
            InboxItem::Answered {
                ghost,
                accepted,
                masked,
            } => self.answer_introduction(&ghost, Input::Answered { accepted, masked }, batch),
            InboxItem::ConversationJoined {
                conversation,
                ghosts,
            } => self.join_conversation(conversation, ghosts, batch),
            InboxItem::UpgradePending {
                conversation,
                ghosts,
            } => self.expect_upgrade(conversation, ghosts, batch),
            InboxItem::UpgradeSeen { to, by } => self.on_upgrade(to, by, batch).await,
            InboxItem::ShowRequest { owner, number } => {
                self.show_requests(&owner, number, batch).await
            }
            InboxItem::ShowLine { owner, number } => {
                self.show_late_line(owner, number, batch).await
            }
            InboxItem::Notify {
                person,
                plain,
                html,
                source,
            } => {
                let notice = NoticeText { plain, html };
                self.notify(person, notice, source, batch).await
            }
        }
    }

    fn answer_introduction(
        &mut self,
        ghost: &Ghost,
        answer: Input,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let effects = self.apply_to_introduction(ghost, &answer);
        self.commit(batch, effects)
    }

    /// Handles an event after those that may have been lost before it.
    async fn handle_after_gap(
        &mut self,
        number: u64,
        event: RoomEvent,
        json: &str,
        batch: Batch,
    ) -> Result<(), EngineError> {
        if self.was_read(number, &event)? {
            return Ok(self.engine.store().apply(batch)?);
        }
        if number >= self.left_until {
            self.left_until = 0;
        }
        if self.engine.gap_failed_lately(&self.id, &event.sender) {
            self.engine.check_gap_again(&self.id);
            return self.handle_event(event, json, batch).await;
        }
        match self.read_gap_before(&event).await {
            Ok(Some(gap)) => {
                let is_partial = gap.is_partial;
                self.handle_gap(gap, event.clone(), json).await?;
                if is_partial {
                    self.engine.note_failed_gap(&self.id, &event.sender).await?;
                }
            }
            Ok(None) => {}
            Err(error) => {
                let error = self.engine.unless_outage(error).await;
                if self.retries(number, Retry::of_gap(&error), &error) {
                    return Err(error);
                }
                // A gap that cannot be read must not cost the event that we have, nor hold up the
                // next ones.
                let room = &self.id;
                self.engine.note_failed_gap(room, &event.sender).await?;
                tracing::error!(%room, %error, "the events before an event could not be read back");
            }
        }
        // If not, it was left to the inbox again.
        if !self
            .engine
            .store()
            .contains::<Inbox>(&(self.id.clone(), number))?
        {
            return Ok(());
        }
        self.handle_event(event, json, batch).await
    }

    /// Handles an event once, whichever way it came. `batch` is written together with the decision.
    pub(in crate::engine) async fn handle_event(
        &mut self,
        event: RoomEvent,
        json: &str,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let seen = self.engine.seen(&event.id)?;
        if seen.as_ref().is_some_and(|seen| seen.handled) {
            return Ok(self.engine.store().apply(batch)?);
        }
        let until_written = match seen {
            Some(_) => None,
            None => Some(self.engine.take_in_hand(&event.id).await),
        };
        let handled = self.handle_new_event(event, json, batch).boxed().await;
        if handled.is_err() && until_written.is_some_and(InHand::release) {
            let json = RawValue::from_string(json.to_owned())?;
            self.engine.accept_read_back(&self.id, &[json]).await?;
        }
        handled
    }

    /// Handles an event that is not handled yet.
    async fn handle_new_event(
        &mut self,
        event: RoomEvent,
        json: &str,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        // The bot reads nothing until it knows whose room this is; then it reads back.
        let bot_is_here = self.bot_is_here();
        let unread = bot_is_here && !self.is_ready() && event.membership().is_none();
        if !unread {
            self.engine.mark_seen(&event.id, true, &mut batch)?;
        }
        let invited = event
            .membership()
            .filter(|(_, membership)| *membership == "invite");
        if let Some((user, _)) = invited.filter(|(user, _)| self.engine.is_ours(user)) {
            let state = event.invite_state.clone();
            let bot = user == self.engine.0.settings.bot;
            if bot {
                return self.bot_invited(&event.sender, &state, batch).await;
            }
            let invite = GhostInvite {
                ghost: &Ghost::new(user),
                asker: &event.sender,
                direct: event.content["is_direct"] == true,
                sent_at: event.sent_at,
                state: &state,
            };
            return self.ghost_invited(invite, batch).await;
        }
        let introducing = self.record.introductions.iter().any(Introduction::is_open);
        if (bot_is_here || self.record.conversation.is_some()) && introducing {
            self.handle_in_introduction(event.clone(), json, Batch::new())
                .await?;
        }
        if self.record.conversation.is_some() && !bot_is_here {
            return self.handle_in_conversation(event, json, batch).await;
        }
        if bot_is_here {
            if unread {
                return Ok(self.engine.store().apply(batch)?);
            }
            return self.handle_in_control_room(event, json, batch).await;
        }
        self.handle_in_introduction(event, json, batch).await
    }

    async fn invite_without_event(
        &mut self,
        user: &OwnedUserId,
        state: Vec<String>,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let state: Vec<_> = state
            .into_iter()
            .filter_map(|json| RawValue::from_string(json).ok())
            .collect();
        let Some((asker, sent_at)) = asker_of(user, &state) else {
            let letter = DeadLetter {
                reason: DeadLetterReason::InviteWithoutAsker,
                room: Some(self.id.clone()),
                user: Some(user.clone()),
                event_type: Some("m.room.member".to_owned()),
                size: state.iter().map(|event| event.get().len() as u64).sum(),
            };
            self.engine.note_dead_letters(&[letter], batch).await?;
            // Nobody accepts an invite into this room, so no key is expected.
            return Ok(self.engine.machines().turn_away(user, &self.id).await?);
        };
        if *user == self.engine.0.settings.bot {
            return self.bot_invited(&asker, &state, batch).await;
        }
        let invite = GhostInvite {
            ghost: &Ghost::new(user.clone()),
            asker: &asker,
            direct: true,
            sent_at,
            state: &state,
        };
        self.ghost_invited(invite, batch).await
    }
}

/// Returns the sender of the invite in the stripped state that a user was shown, and when it was
/// sent: Synapse appends the event as it is, with its time. The entries of the
/// inviting server itself come before the invite, and it can add invites that others never sent: if
/// two of them disagree, the asker is unknown.
pub(in crate::engine) fn asker_of(
    user: &OwnedUserId,
    state: &[Box<RawValue>],
) -> Option<(OwnedUserId, Option<Timestamp>)> {
    let invites = state.iter().filter_map(|event| {
        let event: serde_json::Value = serde_json::from_str(event.get()).ok()?;
        let invite = event["type"] == "m.room.member"
            && event["state_key"] == user.as_str()
            && event["content"]["membership"] == "invite";
        let sent_at = event["origin_server_ts"].as_u64().map(Timestamp);
        invite.then(|| {
            Some((
                OwnedUserId::try_from(event["sender"].as_str()?).ok()?,
                sent_at,
            ))
        })
    });
    let invites: Vec<Option<(OwnedUserId, Option<Timestamp>)>> = invites.collect();
    let (asker, sent_at) = invites.last()?.clone()?;
    let mut senders = invites
        .iter()
        .map(|it| it.as_ref().map(|(sender, _)| sender));
    senders
        .all(|sender| sender == Some(&asker))
        .then_some((asker, sent_at))
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn asker(senders: &[&str]) -> Option<String> {
        let user: OwnedUserId = "@_dm_sam:hs.test".try_into().unwrap();
        let members = senders.iter().map(|sender| {
            to_raw_value(&json!({
                "type": "m.room.member", "state_key": user, "sender": sender,
                "content": {"membership": "invite"},
            }))
            .unwrap()
        });
        let others = [
            json!({"type": "m.room.member", "state_key": "@x:evil.org", "sender": "@alice:hs.test",
                "content": {"membership": "invite"}}),
            json!({"type": "m.room.member", "state_key": user, "sender": "@alice:hs.test",
                "content": {"membership": "leave"}}),
            json!("nonsense"),
        ];
        let others = others.iter().map(|other| to_raw_value(other).unwrap());
        let state: Vec<_> = others.chain(members).collect();
        asker_of(&user, &state).map(|(asker, _)| asker.to_string())
    }

    #[test]
    fn an_invite_that_names_two_askers_has_none() {
        assert_eq!(asker(&["@eve:evil.org"]).as_deref(), Some("@eve:evil.org"));
        assert_eq!(
            asker(&["@eve:evil.org", "@eve:evil.org"]).as_deref(),
            Some("@eve:evil.org")
        );
        assert_eq!(asker(&["@alice:hs.test", "@eve:evil.org"]), None);
        assert_eq!(asker(&["nobody", "@eve:evil.org"]), None);
        assert_eq!(asker(&[]), None);
    }
}
