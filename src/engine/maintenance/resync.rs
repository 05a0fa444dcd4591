//! After a restore: finds out where our users are now, and what they have to do there.

use std::collections::{HashMap, HashSet};

use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde_json::{Value, value::RawValue};

use crate::{
    conversation::{Input, RoomRole},
    engine::{
        Engine, EngineError,
        control_room::{Control, ControlPhase},
        event::RoomEvent,
        history::PAGE_EVENTS,
        inbox::accept::InboxWrites,
        introductions::admission::{GhostInvite, admission},
        records::{
            ActiveRoomsByGhost, ControlRooms, Conversations, Inbox, InboxItem, RoomRecord, Rooms,
            RoomsToNotify, SyncTokens,
        },
    },
    ids::{Ghost, Person},
    introduction::{Introduction, Invite, Reason},
    matrix::{Actor, SyncPage},
    store::{Batch, StoreError, prefix},
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

/// Maximum number of items of an inbox among which an invite is looked for.
const WAITING: usize = 100;

/// What a user saw when it looked where it is.
#[derive(Default)]
struct FirstLook {
    /// The rooms that it is invited to.
    invited: HashSet<OwnedRoomId>,
    /// The rooms in which it was and that it has left.
    left: Vec<OwnedRoomId>,
    /// The messages for its new device.
    to_device: Vec<Box<RawValue>>,
    /// The token from which the next sync goes on.
    token: Option<String>,
}

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
        let look = self.first_look(bot, FIRST_LOOK).await?;
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
            let now = self.now();
            // A control room that the backup does not know, or that the bot was about to leave, is
            // checked again; until then no event there counts as handled.
            self.change_room(room, &mut batch, |record| {
                let left = |control: &Control| control.phase == ControlPhase::Left;
                if record.control.as_ref().is_none_or(left) {
                    record.control = Some(Control::made(person, now));
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
        self.finish_first_look(bot, look, batch).await
    }

    async fn resync_ghost(
        &self,
        ghost: &Ghost,
        open: &[OwnedRoomId],
        in_conversations: &[OwnedRoomId],
    ) -> Result<(), EngineError> {
        let acting = self.as_user(ghost)?;
        let look = match self.first_look(ghost, WITH_LEFT).await {
            Ok(look) => look,
            Err(error) => {
                // Years of introductions may be more rooms than the homeserver can list.
                tracing::warn!(%ghost, %error, "the rooms that a ghost has left cannot be listed");
                self.first_look(ghost, FIRST_LOOK).await?
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
        let gone = open.iter().filter(|room| !joined.contains(room));
        self.note_rooms_left(ghost, gone, &look, &mut batch)?;
        self.finish_first_look(ghost, look, batch).await
    }

    /// Ends the introductions in rooms where a ghost is no longer. An invite that still stands is
    /// looked at as a new one.
    fn note_rooms_left<'a>(
        &self,
        ghost: &Ghost,
        gone: impl Iterator<Item = &'a OwnedRoomId>,
        look: &FirstLook,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        for room in gone {
            let invited = look.invited.contains(room);
            self.change_room(room, batch, |record| {
                if invited {
                    record
                        .introductions
                        .retain(|introduction| introduction.ghost != *ghost);
                } else {
                    end(record, room, ghost);
                }
            })?;
        }
        for room in &look.left {
            let record = self.store().get::<Rooms>(room)?.unwrap_or_default();
            if !self.may_come_back(ghost, &record)? {
                self.change_room(room, batch, |record| end(record, room, ghost))?;
            }
        }
        Ok(())
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
            redacts: false,
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
                    let invite = GhostInvite {
                        ghost,
                        asker: &asker,
                        direct: false,
                        sent_at: event.sent_at,
                        state: &[],
                    };
                    let (admission, lock) = admission(self, invite, batch).await?;
                    drop(lock);
                    let invite = Invite { asker, admission };
                    let introduction = Introduction::found(room, ghost, invite, self.now());
                    return Ok(Some(introduction.resumed()));
                }
            }
        }
        Ok(None)
    }

    /// Reads what the homeserver shows to one of our users, a page at a time: strangers can make it
    /// as large as they like. Accepts the unanswered invites.
    async fn first_look(
        &self,
        user: &OwnedUserId,
        filter: &'static str,
    ) -> Result<FirstLook, EngineError> {
        let acting = self.as_user(user)?;
        let wait = std::time::Duration::ZERO;
        let sync = self
            .homeserver()
            .sync(acting.actor(), None, Some(filter), wait);
        let mut sync = sync.await?;
        let mut look = FirstLook::default();
        while let Some(page) = sync.next_page().await? {
            self.expect_invites(user, &page).await?;
            self.accept_invites(user, &page).await?;
            look.invited.extend(page.invited.into_keys());
            let left = page.left.into_iter();
            let left = left.filter(|(_, left)| left.timeline.iter().any(|json| was_in(user, json)));
            look.left.extend(left.map(|(room, _)| room));
            look.to_device.extend(page.to_device);
            look.token = page.next_batch.or(look.token);
        }
        Ok(look)
    }

    /// Accepts the invites of a page. Those that an interrupted look has accepted are not accepted
    /// again.
    async fn accept_invites(&self, user: &OwnedUserId, page: &SyncPage) -> Result<(), EngineError> {
        let _one_at_a_time = self.0.inbox_lock.lock().await;
        let mut taken = InboxWrites::default();
        for (room, state) in &page.invited {
            let waiting = self.store().scan::<Inbox>(&prefix(room), None, WAITING)?;
            let same =
                |item: &InboxItem| matches!(item, InboxItem::Invite { user: it, .. } if it == user);
            if !waiting.iter().any(|(_, item)| same(item)) {
                self.accept_invite(user, room, state, &mut taken)?;
            }
        }
        Ok(self.store().commit(taken.batch).await?)
    }

    /// Accepts the new device's messages, and notes that this user has checked where it is.
    async fn finish_first_look(
        &self,
        user: &OwnedUserId,
        look: FirstLook,
        batch: Batch,
    ) -> Result<(), EngineError> {
        let _one_at_a_time = self.0.inbox_lock.lock().await;
        let mut taken = InboxWrites::default();
        taken.batch.merge(batch);
        for json in &look.to_device {
            self.accept_to_device(json, Some(user), &mut taken)?;
        }
        if let Some(token) = &look.token {
            taken.batch.put::<SyncTokens>(user, token)?;
        }
        self.stage_dead_letters(&taken.dead_letters, &mut taken.batch)?;
        Ok(self.store().commit(taken.batch).await?)
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
fn was_in(ghost: &UserId, json: &RawValue) -> bool {
    let Ok(event) = serde_json::from_str::<Value>(json.get()) else {
        return false;
    };
    event["type"] == "m.room.member"
        && event["state_key"] == ghost.as_str()
        && event["content"]["membership"] == "leave"
        && event["unsigned"]["prev_content"]["membership"] == "join"
}
