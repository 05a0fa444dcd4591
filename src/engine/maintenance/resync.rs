//! After a restore: finds out where our users are now, and what they have to do there.

use std::collections::{HashMap, HashSet};

use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, value::RawValue};

use crate::{
    conversation::{Input, RoomRole},
    engine::{
        Engine, EngineError,
        control_room::{Control, ControlPhase},
        event::RoomEvent,
        history::PAGE_EVENTS,
        inbox::accept::InboxWrites,
        introductions::admission::admission,
        records::{
            ActiveRoomsByGhost, ControlRooms, Conversations, RoomRecord, Rooms, RoomsToNotify,
            SyncTokens,
        },
    },
    ids::{Ghost, Person},
    introduction::{Introduction, Invite, Reason},
    matrix::{Actor, SyncPage},
    store::{Batch, StoreError},
};

/// The filter of a first sync: invites, rooms left, to-device messages, and only the last event of
/// each room.
const FIRST_LOOK: &str = r#"{"presence":{"types":[]},"account_data":{"types":[]},"room":{"ephemeral":{"types":[]},"account_data":{"types":[]},"include_leave":false,"state":{"types":[]},"timeline":{"limit":1}}}"#;
/// [`FIRST_LOOK`], with the rooms that a ghost has left.
const WITH_LEFT: &str = r#"{"presence":{"types":[]},"account_data":{"types":[]},"room":{"ephemeral":{"types":[]},"account_data":{"types":[]},"include_leave":true,"state":{"types":[]},"timeline":{"limit":1}}}"#;
/// Maximum number of events of a control room that count as handled without being looked at again.
const HANDLED: u32 = 50;
/// Maximum number of pages in which a ghost looks for its invite.
const INVITE_PAGES_MAX: usize = 4;

impl Engine {
    /// Lets every ghost and the bot find out where they are. Users with a sync token have done so.
    pub(in crate::engine) async fn resync_all(&self) -> Result<(), EngineError> {
        let mut open: HashMap<Ghost, Vec<OwnedRoomId>> = HashMap::new();
        let mut in_conversations: HashMap<Ghost, Vec<OwnedRoomId>> = HashMap::new();
        let mut control = Vec::new();
        for page in self.store().pages::<Rooms>(&[]) {
            for (room, record) in page? {
                for introduction in record
                    .introductions
                    .iter()
                    .filter(|introduction| introduction.is_open())
                {
                    open.entry(introduction.ghost.clone())
                        .or_default()
                        .push(room.clone());
                }
                for ghost in record.conversation.iter().flat_map(|here| &here.ghosts) {
                    in_conversations
                        .entry(ghost.clone())
                        .or_default()
                        .push(room.clone());
                }
                if record.control.is_some() {
                    control.push(room);
                }
            }
        }
        let bot = self.settings().bot.clone();
        for user in self.machines().ghosts()? {
            if self.stopping() {
                return Err(EngineError::Stopping);
            }
            let looked = self.store().contains::<SyncTokens>(&user)?;
            let looks = !looked && self.machines().device_of(&user)?.is_some();
            if user == bot {
                if looks {
                    self.resync_bot(&bot, &control).await?;
                }
                continue;
            }
            let ghost = Ghost::new(user);
            let rooms = open.remove(&ghost).unwrap_or_default();
            if looks {
                let in_conversations = in_conversations.remove(&ghost).unwrap_or_default();
                self.resync_ghost(&ghost, &rooms, &in_conversations).await?;
            }
        }
        // Ghosts that are no longer ours are in no room.
        for (ghost, rooms) in open {
            if self.machines().device_of(&ghost)?.is_none() {
                let mut batch = Batch::new();
                for room in rooms {
                    self.change_room(&room, &mut batch, |record| end(record, &room, &ghost))?;
                }
                self.store().commit(batch).await?;
            }
        }
        Ok(())
    }

    async fn resync_bot(
        &self,
        bot: &OwnedUserId,
        control: &[OwnedRoomId],
    ) -> Result<(), EngineError> {
        let acting = self.as_user(bot)?;
        let page = self.first_look(acting.actor(), FIRST_LOOK).await?;
        let joined = self.homeserver().joined_rooms(acting.actor()).await?;
        for room in &joined {
            self.machines().expect_room(bot, room).await?;
            let mut batch = Batch::new();
            self.count_as_handled(acting.actor(), room, &mut batch)
                .await?;
            let record = self.store().get::<Rooms>(room)?.unwrap_or_default();
            let mut person = record.control.and_then(|control| control.person);
            if person.is_none() {
                let members = self
                    .homeserver()
                    .joined_members(acting.actor(), room)
                    .await?;
                let mut people = members.into_keys().filter(|member| !self.is_ours(member));
                person = people.next().map(Person::new);
            }
            let Some(person) = person else {
                self.leave_unknown_room(bot, room).await?;
                self.change_room(room, &mut batch, |record| record.control = None)?;
                continue;
            };
            batch.put::<RoomsToNotify>(room, &person)?;
            // A control room that the backup does not know, or that the bot was about to leave, is
            // checked again; until then no event there counts as handled.
            self.change_room(room, &mut batch, |record| {
                let left = |control: &Control| control.phase == ControlPhase::Left;
                if record.control.as_ref().is_none_or(left) {
                    record.control = Some(Control::made(person));
                }
            })?;
            self.store().apply(batch)?;
        }
        let mut batch = Batch::new();
        let joined: HashSet<OwnedRoomId> = joined.into_iter().collect();
        for room in control.iter().filter(|room| !joined.contains(*room)) {
            let record = self.store().get::<Rooms>(room)?.unwrap_or_default();
            if let Some(person) = record.control.and_then(|control| control.person)
                && self.store().get::<ControlRooms>(&person)?.as_ref() == Some(room)
            {
                batch.delete::<ControlRooms>(&person);
            }
            self.change_room(room, &mut batch, |record| record.control = None)?;
        }
        self.finish_first_look(bot, page, batch).await
    }

    async fn resync_ghost(
        &self,
        ghost: &Ghost,
        open: &[OwnedRoomId],
        in_conversations: &[OwnedRoomId],
    ) -> Result<(), EngineError> {
        let acting = self.as_user(ghost)?;
        let page = match self.first_look(acting.actor(), WITH_LEFT).await {
            Ok(page) => page,
            Err(error) => {
                // Years of introductions may be more rooms than the homeserver can list.
                tracing::warn!(%ghost, %error, "the rooms that a ghost has left cannot be listed");
                self.first_look(acting.actor(), FIRST_LOOK).await?
            }
        };
        let joined = self.homeserver().joined_rooms(acting.actor()).await?;
        let mut batch = Batch::new();
        for room in &joined {
            self.machines().expect_room(ghost, room).await?;
            let record = self.store().get::<Rooms>(room)?.unwrap_or_default();
            if self.is_in_conversation(ghost, &record)? {
                batch.put::<ActiveRoomsByGhost>(&(ghost.clone().into(), room.clone()), &())?;
                self.count_as_handled(acting.actor(), room, &mut batch)
                    .await?;
                continue;
            }
            let mut known = record.introductions.into_iter();
            let resumed = match known
                .find(|introduction| introduction.ghost == *ghost && introduction.is_open())
            {
                Some(known) => Some(known.resumed()),
                None => {
                    self.begun_since(ghost, acting.actor(), room, &mut batch)
                        .await?
                }
            };
            match resumed {
                Some(resumed) => {
                    batch.put::<ActiveRoomsByGhost>(&(ghost.clone().into(), room.clone()), &())?;
                    self.change_room(room, &mut batch, |record| {
                        record
                            .introductions
                            .retain(|introduction| introduction.ghost != *ghost);
                        record.introductions.push(resumed);
                    })?;
                }
                None => self.leave_unknown_room(ghost, room).await?,
            }
        }
        for room in in_conversations
            .iter()
            .filter(|room| !joined.contains(room))
        {
            self.was_sent_away(ghost, room).await?;
        }
        for room in open.iter().filter(|room| !joined.contains(room)) {
            let invited = page.invited.contains_key(room);
            self.change_room(room, &mut batch, |record| {
                if invited {
                    record
                        .introductions
                        .retain(|introduction| introduction.ghost != *ghost);
                } else {
                    end(record, room, ghost);
                }
            })?;
        }
        for (room, left) in &page.left {
            let record = self.store().get::<Rooms>(room)?.unwrap_or_default();
            let was_in = left.timeline.iter().any(|json| was_in(ghost, json));
            if was_in && !self.may_come_back(ghost, &record)? {
                self.change_room(room, &mut batch, |record| end(record, room, ghost))?;
            }
        }
        self.finish_first_look(ghost, page, batch).await
    }

    /// Handles that a ghost is no longer in the origin of its conversation: the person it stands
    /// for has left it, as if the ghost had been removed.
    async fn was_sent_away(&self, ghost: &Ghost, room: &OwnedRoomId) -> Result<(), EngineError> {
        let mut record = self.store().get::<Rooms>(room)?.unwrap_or_default();
        let Some(here) = record
            .conversation
            .as_mut()
            .filter(|it| it.ghosts.contains(ghost))
        else {
            return Ok(());
        };
        let id = here.conversation.clone();
        let known = self.store().get_cached::<Conversations>(&id)?;
        let role = known.and_then(|known| known.role_of(room));
        // The loss of a portal is noticed when the portal is needed.
        if role != Some(RoomRole::Origin) {
            return Ok(());
        }
        let left = Input::Member {
            role: RoomRole::Origin,
            user: ghost.clone().into(),
            membership: "leave".to_owned(),
            by_others: true,
            ghost: None,
        };
        let mut batch = Batch::new();
        // No actor runs yet, so there is nobody to wake.
        let left = [left];
        let decided = self.lock_and_decide(&id, &left, self.now(), &mut batch);
        let (lock, _) = decided.await?;
        here.ghosts.retain(|it| it != ghost);
        batch.delete::<ActiveRoomsByGhost>(&(ghost.clone().into(), room.clone()));
        record.stage(room, &mut batch)?;
        self.store().apply(batch)?;
        drop(lock);
        Ok(())
    }

    /// Returns whether a ghost has left a group that goes on, and can be invited back.
    fn may_come_back(&self, ghost: &Ghost, record: &RoomRecord) -> Result<bool, EngineError> {
        let Some(here) = &record.conversation else {
            return Ok(false);
        };
        let conversation = self.store().get::<Conversations>(&here.conversation)?;
        Ok(conversation.is_some_and(|conversation| {
            let mut people = conversation.people.iter();
            !conversation.ended && people.any(|it| it.ghost == *ghost)
        }))
    }

    /// Returns whether a ghost is in this room for a conversation that goes on: new messages are
    /// forwarded.
    fn is_in_conversation(&self, ghost: &Ghost, record: &RoomRecord) -> Result<bool, EngineError> {
        let Some(here) = record
            .conversation
            .as_ref()
            .filter(|here| here.ghosts.contains(ghost))
        else {
            return Ok(false);
        };
        let conversation = self.store().get::<Conversations>(&here.conversation)?;
        Ok(conversation.is_some_and(|conversation| !conversation.ended))
    }

    /// Notes the events from before the restore as handled, as far as can be known.
    async fn count_as_handled(
        &self,
        actor: Actor<'_>,
        room: &OwnedRoomId,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let mut history = self.history(actor, room).limit(1, HANDLED);
        let newest_first = history.next_page().await?;
        for json in newest_first.unwrap_or_default() {
            if let Some(event) = RoomEvent::parse(json.get(), Some(room)) {
                self.mark_seen(&event.id, true, batch)?;
            }
        }
        Ok(())
    }

    /// Returns an introduction that began after the backup, of which only the room knows, or `None`
    /// if the asker cannot be found out.
    async fn begun_since(
        &self,
        ghost: &Ghost,
        actor: Actor<'_>,
        room: &OwnedRoomId,
        batch: &mut Batch,
    ) -> Result<Option<Introduction>, EngineError> {
        let mut history = self
            .history(actor, room)
            .limit(INVITE_PAGES_MAX, PAGE_EVENTS);
        while let Some(page) = history.next_page().await? {
            for json in &page {
                let Some(event) = RoomEvent::parse(json.get(), Some(room)) else {
                    continue;
                };
                let own = event.membership();
                if own.is_some_and(|(user, kind)| user == *ghost && kind == "invite") {
                    let asker = event.sender;
                    let (admission, lock) = admission(self, ghost, &asker, false, batch).await?;
                    drop(lock);
                    let invite = Invite { asker, admission };
                    let introduction = Introduction::found(room, ghost, invite, self.now());
                    return Ok(Some(introduction.resumed()));
                }
            }
        }
        Ok(None)
    }

    async fn first_look(
        &self,
        actor: Actor<'_>,
        filter: &'static str,
    ) -> Result<SyncPage, EngineError> {
        let wait = std::time::Duration::ZERO;
        let sync = self.homeserver().sync(actor, None, Some(filter), wait);
        Ok(sync.await?.read_whole().await?)
    }

    /// Accepts the new device's messages and the unanswered invites, and notes that this user has
    /// checked where it is.
    async fn finish_first_look(
        &self,
        user: &OwnedUserId,
        page: SyncPage,
        batch: Batch,
    ) -> Result<(), EngineError> {
        self.expect_invites(user, &page).await?;
        let _one_at_a_time = self.0.inbox_lock.lock().await;
        let mut taken = InboxWrites::default();
        taken.batch.merge(batch);
        for json in &page.to_device {
            self.accept_to_device(json, Some(user), &mut taken)?;
        }
        for (room, state) in &page.invited {
            self.accept_invite(user, room, state, &mut taken)?;
        }
        if let Some(token) = &page.next_batch {
            taken.batch.put::<SyncTokens>(user, token)?;
        }
        self.stage_dead_letters(&taken.dead_letters, &mut taken.batch)?;
        Ok(self.store().commit(taken.finish_batch()?).await?)
    }

    /// Leaves a room that the backup does not know. A refusal for good counts as done: the
    /// reconciler tries again.
    async fn leave_unknown_room(
        &self,
        user: &OwnedUserId,
        room: &OwnedRoomId,
    ) -> Result<(), EngineError> {
        let reason = Some(Reason::NotNow.words());
        match self.leave(user, room, reason, None).await {
            Err(error) if error.is_transient() => Err(error),
            _ => Ok(()),
        }
    }

    /// Changes a room's record; no actor runs yet.
    fn change_room(
        &self,
        room: &OwnedRoomId,
        batch: &mut Batch,
        change: impl FnOnce(&mut RoomRecord),
    ) -> Result<(), StoreError> {
        let mut record = self.store().get::<Rooms>(room)?.unwrap_or_default();
        change(&mut record);
        record.stage(room, batch)?;
        // Two changes of one room in a batch would not see each other.
        self.store().apply(std::mem::take(batch))
    }
}

/// Notes that the ghost was in this room and never comes back.
fn end(record: &mut RoomRecord, room: &OwnedRoomId, ghost: &Ghost) {
    let known = record.introductions.iter_mut();
    match known
        .into_iter()
        .find(|introduction| introduction.ghost == *ghost)
    {
        Some(introduction) => introduction.end(),
        None => record.introductions.push(Introduction::ended(room, ghost)),
    }
}

/// Returns whether this event says that the ghost left a room in which it had been.
fn was_in(ghost: &Ghost, json: &RawValue) -> bool {
    let Ok(event) = serde_json::from_str::<Value>(json.get()) else {
        return false;
    };
    event["type"] == "m.room.member"
        && event["state_key"] == ghost.as_str()
        && event["content"]["membership"] == "leave"
        && event["unsigned"]["prev_content"]["membership"] == "join"
}
