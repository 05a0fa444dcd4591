//! Passes messages on to the owner, and takes back what was deleted.

use ruma::OwnedEventId;
use serde_json::Value;

use crate::{
    engine::{
        EngineError,
        messaging::send::{Outgoing, Recipients},
        records::{QuotedEvents, RetainedEvents},
        room::Room,
        waiting_redactions::By,
    },
    ids::Person,
    introduction::{Introduction, Phase, Quote, QuoteError, Refusal, quote, quote_edit},
    store::Batch,
};

impl Room {
    /// Quotes a message to the owner.
    pub(super) async fn pass_on(
        &self,
        introduction: &Introduction,
        event: &OwnedEventId,
        edit: Option<&OwnedEventId>,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        if let (Phase::Waiting { .. }, Some(owner)) = (&introduction.phase, introduction.owner()) {
            let owner = std::slice::from_ref(&**owner);
            self.engine
                .machines()
                .mark_device_lists_outdated(&introduction.ghost, owner)
                .await;
        }
        let mut pending = introduction.pending.iter();
        let pending = pending.find(|pending| pending.event == *event);
        if pending.is_some_and(|pending| pending.done) {
            return Ok(());
        }
        let text = edit.unwrap_or(event);
        if self.is_deleted_by_asker(introduction, event)? {
            let quote = ("pass-on", text);
            return self
                .note_quote_of_deleted(introduction, quote, event, batch)
                .await;
        }
        let key = (self.id.clone(), text.clone());
        // An edit that was deleted in the meantime is not shown to the owner, and neither is what
        // the edit before it had taken out.
        let is_kept = self.engine.store().contains::<RetainedEvents>(&key)?
            && !self.is_deleted_by_asker(introduction, text)?;
        let present = pending.and_then(|pending| pending.edit.as_ref());
        let present = present.filter(|present| *present != text);
        let read = if is_kept {
            text
        } else {
            present.unwrap_or(event)
        };
        let (kind, content) = self.read_kept(introduction, read).await?;
        let name = self.asker_name(introduction).await?;
        let quote = match quote(&name, &kind, &content) {
            Ok(quote) => quote,
            Err(why) => return Err(EngineError::Refused(refusal_of(why))),
        };
        let sent = self
            .send_quote(introduction, &quote, "pass-on", text)
            .await?;
        // The event is retained until the ghost leaves: if an edit of it is deleted, it is quoted
        // again.
        batch.put::<QuotedEvents>(&(self.id.clone(), event.clone()), &sent)?;
        Ok(())
    }

    /// Quotes an edit as an edit of the quote.
    pub(super) async fn pass_on_edit(
        &self,
        introduction: &Introduction,
        event: &OwnedEventId,
        of: &OwnedEventId,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let passed = self
            .engine
            .store()
            .get::<QuotedEvents>(&(self.id.clone(), of.clone()))?;
        let passed = passed.ok_or(EngineError::Refused(Refusal::Impossible))?;
        if self.is_deleted_by_asker(introduction, event)?
            || self.is_deleted_by_asker(introduction, of)?
        {
            let quote = ("pass-on-edit", event);
            return self
                .note_quote_of_deleted(introduction, quote, event, batch)
                .await;
        }
        let (kind, content) = self.read_kept(introduction, event).await?;
        let name = self.asker_name(introduction).await?;
        let quote = match quote_edit(&name, &kind, &content, passed.as_str()) {
            Ok(quote) => quote,
            Err(why) => return Err(EngineError::Refused(refusal_of(why))),
        };
        let sent = self
            .send_quote(introduction, &quote, "pass-on-edit", event)
            .await?;
        batch.put::<QuotedEvents>(&(self.id.clone(), event.clone()), &sent)?;
        Ok(())
    }

    /// Returns whether the asker has deleted an event while what comes of it waited here.
    fn is_deleted_by_asker(
        &self,
        introduction: &Introduction,
        event: &OwnedEventId,
    ) -> Result<bool, EngineError> {
        let waiting = &self.waiting_redactions;
        waiting.update(self.engine.store(), &self.id, self.engine.durable_until())?;
        let asker = &introduction.invite.asker;
        Ok(waiting.has(event, |by| matches!(by, By::User(user) if *user == **asker)))
    }

    /// Notes the quote of a deleted event, if an earlier attempt has sent it all the same: it is
    /// taken back when the deletion is handled. `quote` names the transaction.
    async fn note_quote_of_deleted(
        &self,
        introduction: &Introduction,
        (kind, cause): (&str, &OwnedEventId),
        event: &OwnedEventId,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let ghost = &introduction.ghost;
        let transaction = self.transaction_id(ghost, kind, cause.as_str());
        let sent = self.find_sent(ghost, &self.id, &transaction).await?;
        if let Some(sent) = sent {
            batch.put::<QuotedEvents>(&(self.id.clone(), event.clone()), &sent)?;
        }
        Ok(())
    }

    async fn read_kept(
        &self,
        introduction: &Introduction,
        event: &OwnedEventId,
    ) -> Result<(String, Value), EngineError> {
        let kept = self
            .engine
            .store()
            .get::<RetainedEvents>(&(self.id.clone(), event.clone()))?;
        let json = kept.ok_or(EngineError::Refused(Refusal::Unreadable))?;
        self.decrypt(&introduction.ghost, &json).await
    }

    async fn send_quote(
        &self,
        introduction: &Introduction,
        quote: &Quote,
        kind: &str,
        cause: &OwnedEventId,
    ) -> Result<OwnedEventId, EngineError> {
        let transaction = self.transaction_id(&introduction.ghost, kind, cause.as_str());
        // In a group others may be there for whom nothing can be encrypted. It is meant for those
        // who are introduced.
        let owners = self.owners_in_group(introduction);
        let recipients = if introduction.direct {
            Recipients::All
        } else {
            Recipients::Readable(&owners)
        };
        self.send(Outgoing {
            sender: &introduction.ghost,
            event_type: &quote.event_type,
            content: &quote.content,
            recipients,
            transaction,
        })
        .await
    }

    /// Returns the owners in a group who shall all be able to read what this ghost passes on.
    fn owners_in_group(&self, by: &Introduction) -> Vec<&Person> {
        let here = self.record.introductions.iter();
        let invited = here.filter(|other| {
            other.invite.asker == by.invite.asker
                && !other.direct
                && other.passes_on_in_group()
                && other.owner_invited_at.is_some()
        });
        invited.filter_map(Introduction::owner).collect()
    }

    /// Redacts what was passed on of an event.
    pub(super) async fn take_back(
        &self,
        introduction: &Introduction,
        of: &OwnedEventId,
    ) -> Result<(), EngineError> {
        let passed = self
            .engine
            .store()
            .get::<QuotedEvents>(&(self.id.clone(), of.clone()))?;
        let Some(passed) = passed else { return Ok(()) };
        let acting = self.engine.as_user(&introduction.ghost)?;
        // The same message may be quoted again, and taken back again.
        let transaction = self.transaction_id(&introduction.ghost, "take-back", passed.as_str());
        let homeserver = self.engine.homeserver();
        let redacting = homeserver.redact(acting.actor(), &self.id, &passed, None, transaction);
        match redacting.await {
            // It is gone already.
            Err(error) if !error.is_missing() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Returns why a message is not passed on that cannot be quoted.
fn refusal_of(why: QuoteError) -> Refusal {
    match why {
        QuoteError::PlainAttachment => Refusal::PlainFile,
        QuoteError::NotAMessage | QuoteError::Malformed => Refusal::NotThisKind,
    }
}
