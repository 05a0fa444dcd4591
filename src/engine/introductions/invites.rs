//! Handles invites of ghosts: who is let in, who is declined, and who is told what.

use ruma::{OwnedRoomId, OwnedUserId};

use crate::{
    bot,
    directory::WriteLock,
    engine::{
        Engine, EngineError,
        introductions::admission::{GhostInvite, admission},
        records::{ControlRooms, InboxItem},
        room::Room,
    },
    handle::Handle,
    ids::{Ghost, Person},
    introduction::{Admission, Input, Introduction, Invite, Phase},
    store::Batch,
};

/// Maximum number of invites that are about to be declined in one room. Further ones are left alone.
const DECLINING_MAX: usize = 50;

impl Room {
    /// Handles an invite of a ghost.
    pub(in crate::engine) async fn ghost_invited(
        &mut self,
        invite: GhostInvite<'_>,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let GhostInvite { ghost, asker, .. } = invite;
        let known = self
            .record
            .introductions
            .iter()
            .find(|introduction| introduction.ghost == *ghost);
        let engine = self.engine.clone();
        if self.has_ghost(ghost) {
            return self.commit(batch, []);
        }
        if known.is_none()
            && let Some(old) = engine.predecessor_of(ghost, asker, &self.id).await?
        {
            let upgraded = InboxItem::UpgradeSeen {
                to: self.id.clone(),
                by: Person::new(asker.clone()),
            };
            return self.commit_and_post(&old, &upgraded, batch);
        }
        if let Some(handle) = Handle::misspelt_ghost(ghost.localpart()) {
            return self.misspelt_ghost_invited(invite, &handle, batch).await;
        }
        // A repeated invite, or one into a room that the ghost has left. Neither asks the
        // directory, which would count it against the asker's limits.
        let (admission, lock) = match known {
            Some(introduction) if introduction.phase != Phase::Declined => {
                (introduction.invite.admission.clone(), None)
            }
            _ => self.admission_here(&engine, invite, &mut batch).await?,
        };
        let left_alone = admission == Admission::LeaveAlone;
        let told = match admission {
            Admission::OwnHandle => self.tell_owner_of_handle(ghost, asker, &mut batch)?,
            _ => None,
        };
        let input = Input::Invited(Invite {
            asker: asker.clone(),
            admission,
        });
        let effects = self.apply_to_introduction(ghost, &input);
        if effects.is_empty() {
            self.drop_declined(ghost);
        }
        self.commit(batch, effects)?;
        drop(lock);
        if let Some(control_room) = told {
            engine.wake(&control_room);
        }
        if left_alone {
            self.engine.machines().turn_away(ghost, &self.id).await?;
        }
        Ok(())
    }

    /// Lets the bot tell an owner why their own handle's ghost declines, if they have a control
    /// room: the words of the decline are for everybody. Returns the room to wake.
    fn tell_owner_of_handle(
        &self,
        ghost: &Ghost,
        owner: &OwnedUserId,
        batch: &mut Batch,
    ) -> Result<Option<OwnedRoomId>, EngineError> {
        let engine = &self.engine;
        let owner = Person::new(owner.clone());
        let room = engine.store().get::<ControlRooms>(&owner)?;
        let record = engine.directory().by_ghost(ghost)?;
        let (Some(room), Some(record)) = (room, record) else {
            return Ok(None);
        };
        let notice = bot::texts::own_handle(&record.handle);
        let item = InboxItem::Notify {
            person: owner.clone(),
            plain: notice.plain,
            html: notice.html,
            source: format!("own handle {} {ghost}", self.id),
        };
        engine.stage(&room, &item, batch)?;
        Ok(Some(room))
    }

    /// Returns the answer to an invite into this room. A person who invites many ghosts into one
    /// room searches for handles, or wants us to make users.
    async fn admission_here<'a>(
        &self,
        engine: &'a Engine,
        invite: GhostInvite<'_>,
        batch: &mut Batch,
    ) -> Result<(Admission, Option<WriteLock<'a>>), EngineError> {
        let open = |introduction: &&Introduction| introduction.is_open();
        let declining =
            |introduction: &&Introduction| matches!(introduction.phase, Phase::Declining { .. });
        let introductions = &self.record.introductions;
        if introductions.iter().filter(declining).count() >= DECLINING_MAX {
            return Ok((Admission::LeaveAlone, None));
        }
        // A handle that nobody holds is left to the directory, which counts how many of these are
        // declined.
        if introductions.iter().filter(open).count() >= engine.settings().handles_per_room
            && engine
                .directory()
                .by_ghost(invite.ghost)?
                .is_some_and(|it| it.holder().is_some())
        {
            return Ok((Admission::NotNow, None));
        }
        admission(engine, invite, batch).await
    }

    /// Tells a person that the ghost they have invited does not exist, because its name has small
    /// letters only. They are told the same whether anybody holds the handle or not, once a day.
    async fn misspelt_ghost_invited(
        &mut self,
        invite: GhostInvite<'_>,
        handle: &Handle,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        engine.machines().turn_away(invite.ghost, &self.id).await?;
        let asker = Person::new(invite.asker.clone());
        let ghost = handle.ghost_id(&engine.settings().server_name);
        let (false, Some(ghost)) = (engine.is_ours(&asker), ghost) else {
            return self.commit(batch, []);
        };
        let (directory, now) = (engine.directory(), engine.now());
        if !directory.begin().await.count_misspelt(&asker, now)? {
            return self.commit(batch, []);
        }
        // May make a room, so without the directory's lock.
        let room = engine.control_room_of(&asker).await?;
        let notice = bot::texts::misspelt_ghost(invite.ghost, &ghost, handle);
        let item = InboxItem::Notify {
            person: asker.clone(),
            plain: notice.plain,
            html: notice.html,
            source: format!("misspelt {}", self.id),
        };
        let mut tx = directory.begin().await;
        tx.count_misspelt(&asker, now)?;
        let _until_applied = tx.stage(&mut batch);
        self.commit_and_post(&room, &item, batch)
    }

    /// Forgets a declined invite without a trace. Returns whether there was one.
    pub(in crate::engine) fn drop_declined(&mut self, ghost: &Ghost) -> bool {
        let introductions = &mut self.record.introductions;
        let before = introductions.len();
        introductions.retain(|introduction| {
            introduction.ghost != *ghost || introduction.phase != Phase::Declined
        });
        introductions.len() < before
    }

    /// Destroys the keys that came for an invite that no longer stands. A newer invite may wait in
    /// the inbox, and its key may be here already.
    pub(in crate::engine) async fn turn_away_unless_invited(
        &self,
        ghost: &Ghost,
    ) -> Result<(), EngineError> {
        if self.is_about_to_be_invited(ghost)? {
            return Ok(());
        }
        Ok(self.engine.machines().turn_away(ghost, &self.id).await?)
    }
}
