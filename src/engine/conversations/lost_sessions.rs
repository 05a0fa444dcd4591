//! Messages of a conversation whose key got lost on its way.
//!
//! A client sends the key of a group session once, so with it all further messages of the session
//! are lost. The first of them waits for the key. When it is given up, its sender is told, and the
//! ghosts here begin new Olm sessions with the sender, so that their client sends the key again with
//! the next message. Messages of the session that were sent before its sender was told do not wait
//! and have no notice of their own.

use std::time::Duration;

use ruma::{OwnedEventId, OwnedUserId, UserId};

use crate::{
    conversation::{Conversation, RoomRole},
    crypto::DecryptError,
    engine::{
        Engine, EngineError,
        event::RoomEvent,
        records::{LostSession, LostSessions, RetainedEvents, Seen},
        room::Room,
    },
    store::{Batch, StoreError, prefix},
};

/// The notice to the sender of a message whose key did not come.
const NO_KEY: &str = "I couldn't decrypt your message, so I didn't pass it on. Please send it \
                      again, and what you've written since.";
/// The notice when that happens to the same person once more.
const NO_KEY_AGAIN: &str = "I couldn't decrypt your message, so I didn't pass it on. Please send it \
                            again, and what you've written since. If that doesn't help, log out \
                            and in again or, in Element, write /discardsession and try once more.";
/// Maximum number of lost sessions that are remembered of a room. The oldest goes.
const SESSIONS_MAX: usize = 20;
/// Maximum length of a session id; clients make 43 characters.
const SESSION_ID_MAX: usize = 100;
/// Maximum number of sessions of one person that may get lost in a room within [`RECENTLY`] before
/// their messages wait for keys only a moment: each holds up everybody's messages while it waits.
const LOST_RECENTLY_MAX: usize = 2;
/// How long a loss counts as recent.
const RECENTLY: Duration = Duration::from_secs(10 * 60);
/// How long a lost session is remembered.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

fn session_of(event: &RoomEvent) -> Option<String> {
    let id = event.content["session_id"].as_str()?;
    (id.len() <= SESSION_ID_MAX).then(|| id.to_owned())
}

impl Room {
    /// Returns the error of an event whose key has not come. It is final if its sender has been told
    /// since that the key is lost, and says that the key will hardly come if they lose keys all the
    /// time.
    pub(in crate::engine) fn missing_key(&self, event: &RoomEvent) -> EngineError {
        let session_id = session_of(event);
        let lost = session_id.filter(|id| self.was_told(id, &event.id).unwrap_or(false));
        if let Some(session_id) = lost {
            return EngineError::Decrypt(DecryptError::NoKey { session_id });
        }
        if self.loses_many(&event.sender).unwrap_or(false) {
            EngineError::KeyHardlyExpected
        } else {
            EngineError::KeyOnItsWay
        }
    }

    /// Returns whether so many sessions of this sender got lost lately that a further one is waited
    /// for only a moment.
    fn loses_many(&self, sender: &UserId) -> Result<bool, StoreError> {
        let horizon = self.engine.now() - RECENTLY;
        let store = self.engine.store();
        let known = store.scan::<LostSessions>(&prefix(&self.id), None, SESSIONS_MAX)?;
        let recent = known
            .iter()
            .filter(|(_, lost)| lost.sender == sender && lost.told_at > horizon);
        Ok(recent.count() >= LOST_RECENTLY_MAX)
    }

    /// Returns whether the sender of an event was told that the key of its session is lost, after
    /// they had sent it.
    fn was_told(&self, session: &str, event: &OwnedEventId) -> Result<bool, StoreError> {
        let key = (self.id.clone(), session.to_owned());
        let store = self.engine.store();
        let Some(lost) = store.get::<LostSessions>(&key)? else {
            return Ok(false);
        };
        let seen = store.get::<Seen>(event)?;
        let arrived = seen.map_or(self.due_since, |seen| seen.at);
        Ok(arrived <= lost.told_at)
    }

    /// Notes that the key of an event got lost, and lets the ghosts here ask for it. Returns what
    /// its sender is told, unless they have been told since they sent it.
    pub(in crate::engine) fn note_lost_session(
        &self,
        conversation: &Conversation,
        role: RoomRole,
        event: &OwnedEventId,
        batch: &mut Batch,
    ) -> Result<Option<&'static str>, EngineError> {
        let store = self.engine.store();
        let kept = store.get::<RetainedEvents>(&(self.id.clone(), event.clone()))?;
        let event = kept.and_then(|json| RoomEvent::parse(&json, Some(&self.id)));
        let Some((event, session)) = event.and_then(|event| {
            let session = session_of(&event)?;
            Some((event, session))
        }) else {
            return Ok(Some(NO_KEY));
        };
        if self.was_told(&session, &event.id)? {
            return Ok(None);
        }
        let known = store.scan::<LostSessions>(&prefix(&self.id), None, SESSIONS_MAX)?;
        let is_known = known.iter().any(|((_, lost), _)| *lost == session);
        if !is_known
            && known.len() >= SESSIONS_MAX
            && let Some((oldest, _)) = known.iter().min_by_key(|(_, lost)| lost.told_at)
        {
            batch.delete::<LostSessions>(oldest);
        }
        let lost = LostSession {
            sender: event.sender.clone(),
            told_at: self.engine.now(),
        };
        batch.put::<LostSessions>(&(self.id.clone(), session), &lost)?;
        for ghost in conversation.ghosts_at(role) {
            self.engine.renew_sessions(&ghost.ghost, &event.sender);
        }
        let again = known.iter().any(|(_, lost)| lost.sender == event.sender);
        Ok(Some(if again { NO_KEY_AGAIN } else { NO_KEY }))
    }
}

impl Engine {
    /// Lets one of our users begin new Olm sessions with a person whose keys got lost. Nobody waits
    /// for it.
    pub(in crate::engine) fn renew_sessions(&self, user: &UserId, person: &UserId) {
        let engine = self.clone();
        let (user, person): (OwnedUserId, OwnedUserId) = (user.to_owned(), person.to_owned());
        self.spawn(async move {
            let renewed = engine.machines().renew_olm_sessions(&user, &person).await;
            if let Err(error) = renewed {
                tracing::info!(%user, %error, "no new session could be begun with a person whose key got lost");
            }
        });
    }

    /// Forgets sessions that got lost long ago.
    pub(in crate::engine) fn forget_lost_sessions(&self) -> Result<(), EngineError> {
        let horizon = self.now() - REMEMBERED;
        for page in self.store().pages::<LostSessions>(&[]) {
            let mut batch = Batch::new();
            for (key, lost) in page? {
                if lost.told_at < horizon {
                    batch.delete::<LostSessions>(&key);
                }
            }
            self.store().apply(batch)?;
        }
        Ok(())
    }
}
