//! A request, in the room where the asker waits: recorded for the owner, or withdrawn.
//! `control_rooms::requests` shows it.

use crate::{
    bot,
    directory::{HandleRecord, Mode, Request},
    engine::{
        EngineError,
        records::{ControlRooms, InboxItem},
        room::Room,
    },
    introduction::{Introduction, Refusal},
    store::Batch,
};

impl Room {
    /// Records the request for the owner and lets the bot show it. Safe to repeat.
    ///
    /// If the handle was masked or unmasked while the ghost listened, nobody is asked: somebody who
    /// wrote to a masked handle must not be introduced without a mask, and an owner who has put one
    /// on must not be shown who writes.
    pub(in crate::engine) async fn ask_owner(
        &self,
        introduction: &Introduction,
    ) -> Result<(), EngineError> {
        let impossible = || EngineError::Refused(Refusal::Impossible);
        let owner = introduction.owner().ok_or_else(impossible)?;
        let asker = introduction.asker().ok_or_else(impossible)?;
        let engine = &self.engine;
        let is_as_before = |record: &HandleRecord| {
            record.is_held_by(owner) && (record.mode == Mode::Masked) == introduction.masked()
        };
        let changed = || EngineError::Refused(Refusal::HandleChanged);
        let record = engine.directory().by_ghost(&introduction.ghost)?;
        let record = record.filter(is_as_before).ok_or_else(changed)?;
        let control_room = engine.control_room_of(owner).await?;
        // Making the room may take long, so the handle is looked up again under the lock.
        let mut tx = engine.directory().begin().await;
        let record = tx.lookup(&record.handle)?.filter(is_as_before);
        let record = record.ok_or_else(changed)?;
        if !tx.still_leads(&record, &asker)? {
            return Err(changed());
        }
        let request = Request {
            handle: record.handle,
            generation: record.generation,
            asker: asker.clone(),
            room: self.id.clone(),
            ghost: introduction.ghost.clone(),
            since: introduction.invited_at,
            mode: record.mode,
            shown: None,
            line_shown: None,
            asker_alias: if !introduction.masked() {
                None
            } else if introduction.direct {
                Some(engine.alias_in_direct(&asker, &introduction.ghost)?.1)
            } else {
                Some(engine.alias_in_group(&asker)?.1)
            },
        };
        let number = tx.open_request(owner, &request)?;
        let number = number.ok_or_else(impossible)?;
        let mut batch = Batch::new();
        let lock = tx.stage(&mut batch);
        let arrived = InboxItem::ShowRequest {
            owner: owner.clone(),
            number,
        };
        engine.stage(&control_room, &arrived, &mut batch)?;
        engine.store().apply(batch)?;
        drop(lock);
        engine.store().flush().await?;
        engine.wake(&control_room);
        Ok(())
    }

    /// Lets the bot show the opening line, which came after the request. Safe to repeat.
    pub(in crate::engine) async fn show_opening_line(
        &self,
        introduction: &Introduction,
    ) -> Result<(), EngineError> {
        let Some(owner) = introduction.owner() else {
            return Ok(());
        };
        let engine = &self.engine;
        let mut requests = engine.directory().requests_of(owner)?.into_iter();
        let request = requests
            .find(|(_, request)| request.room == self.id && request.ghost == introduction.ghost);
        let Some((number, _)) = request else {
            return Ok(());
        };
        let control_room = engine.control_room_of(owner).await?;
        let arrived = InboxItem::ShowLine {
            owner: owner.clone(),
            number,
        };
        engine.post(&control_room, &arrived, Batch::new()).await?;
        Ok(())
    }

    /// Withdraws the request, which no longer needs an answer. An owner to whom it was shown is told:
    /// a reaction to that message would have no effect.
    pub(in crate::engine) async fn withdraw_request(
        &self,
        introduction: &Introduction,
    ) -> Result<(), EngineError> {
        if let Some(owner) = introduction.owner() {
            let engine = &self.engine;
            let mut requests = engine.directory().requests_of(owner)?.into_iter();
            let shown = requests.find(|(_, request)| {
                request.room == self.id
                    && request.ghost == introduction.ghost
                    && request.shown.is_some()
            });
            if let Some((number, request)) = shown
                && engine.store().get::<ControlRooms>(owner)?.is_some()
            {
                let text = bot::texts::request_ended(number, &request.asker_named(number));
                let source = format!("{owner}request-ended{number}");
                engine.notify(owner, text, source).await?;
            }
            let mut tx = engine.directory().begin().await;
            tx.withdraw_request(owner, &self.id, &introduction.ghost)?;
            tx.commit().await?;
        }
        Ok(())
    }
}
