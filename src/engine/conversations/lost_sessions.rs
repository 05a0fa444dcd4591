//! Messages of a conversation whose key got lost on its way.
//!
//! A client sends the key of a group session once, so with it all further messages of the session
//! are lost. The first of them waits for the key. When it is given up, its sender is told, and the
//! ghosts here begin new Olm sessions with the sender, so that their client sends the key again with
//! the next message. Messages of the session that were sent before its sender was told do not wait
//! and have no notice of their own. Each message waits at the cost of everybody's, so the keys of
//! somebody whose sessions get lost all the time are waited for a moment only, and then not at all.

use std::{
    collections::HashSet,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use ruma::{OwnedEventId, OwnedUserId, UserId};

use crate::{
    clock,
    conversation::{Conversation, RoomRole},
    crypto::DecryptError,
    engine::{
        Engine, EngineError,
        event::RoomEvent,
        records::{LostSession, LostSessions, RetainedEvents},
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
const SESSIONS_MAX: usize = 100;
/// Maximum length of a session id; clients make 43 characters.
const SESSION_ID_MAX: usize = 100;
/// The number of sessions of one person that get lost in a room within [`RECENTLY`] from which on
/// their messages wait for keys only a moment.
const LOST_SOME: usize = 2;
/// The number from which on they do not wait: sessions can be invented.
const LOST_MANY: usize = 5;
/// The number of people who lost sessions in a room within [`RECENTLY`] from which on those of each of
/// them wait for keys only a moment: several accounts can take turns.
const LOSERS: usize = 3;
/// How long a loss counts as recent.
const RECENTLY: Duration = Duration::from_secs(10 * 60);
/// How long a lost session is remembered.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long it is tried to begin new Olm sessions with somebody.
const RENEWAL: Duration = Duration::from_secs(2 * 60);
/// How long to wait before that is tried again; it doubles with each try.
const RENEWAL_PAUSE: Duration = Duration::from_millis(500);

fn session_of(event: &RoomEvent) -> Option<String> {
    let id = event.content["session_id"].as_str()?;
    (id.len() <= SESSION_ID_MAX).then(|| id.to_owned())
}

impl Room {
    /// Returns the error of an event whose key has not come. Final if its sender has since been told
    /// that the key is lost, or loses keys all the time; `KeyUnlikely` if some of their keys got lost
    /// lately. Final too if no client makes such a session id, since it cannot be remembered.
    pub(in crate::engine) fn missing_key(&self, event: &RoomEvent) -> EngineError {
        let session_id = session_of(event);
        let (lost, losers) = self.lost_recently(&event.sender).unwrap_or_default();
        let is_final = lost >= LOST_MANY
            || session_id
                .as_ref()
                .is_none_or(|id| self.was_told(id, event).unwrap_or(false));
        if is_final {
            EngineError::Decrypt(DecryptError::NoKey {
                session_id: session_id.unwrap_or_else(|| "with too long an id".to_owned()),
            })
        } else if lost >= LOST_SOME || (lost > 0 && losers >= LOSERS) {
            EngineError::KeyUnlikely
        } else {
            EngineError::KeyOnItsWay
        }
    }

    /// Returns how many sessions of this sender got lost here lately, and of how many people any.
    fn lost_recently(&self, sender: &UserId) -> Result<(usize, usize), StoreError> {
        let horizon = self.engine.now() - RECENTLY;
        let store = self.engine.store();
        let known = store.scan::<LostSessions>(&prefix(&self.id), None, SESSIONS_MAX)?;
        let recent = known.iter().filter(|(_, lost)| lost.told_at > horizon);
        let senders: Vec<&OwnedUserId> = recent.map(|(_, lost)| &lost.sender).collect();
        let theirs = senders.iter().filter(|lost| **lost == sender).count();
        let people: HashSet<_> = senders.into_iter().collect();
        Ok((theirs, people.len()))
    }

    /// Returns whether the sender of an event was told that the key of its session is lost, after
    /// they had sent it.
    fn was_told(&self, session: &str, event: &RoomEvent) -> Result<bool, StoreError> {
        let key = (self.id.clone(), session.to_owned());
        let store = self.engine.store();
        let Some(lost) = store.get::<LostSessions>(&key)? else {
            return Ok(false);
        };
        // Anybody can name somebody else's session.
        if lost.sender != event.sender {
            return Ok(false);
        }
        let seen = self.engine.seen(&event.id)?;
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
        if self.was_told(&session, &event)? {
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
    /// for it; while the homeserver fails, it is tried again for [`RENEWAL`].
    pub(in crate::engine) fn renew_sessions(&self, user: &UserId, person: &UserId) {
        let engine = self.clone();
        let pair: (OwnedUserId, OwnedUserId) = (user.to_owned(), person.to_owned());
        if !self.renewals().insert(pair.clone()) {
            return;
        }
        self.spawn(async move {
            engine.renew_until_done(&pair.0, &pair.1).await;
            engine.renewals().remove(&pair);
        });
    }

    fn renewals(&self) -> MutexGuard<'_, HashSet<(OwnedUserId, OwnedUserId)>> {
        let renewals = self.0.renewals.lock();
        renewals.unwrap_or_else(PoisonError::into_inner)
    }

    async fn renew_until_done(&self, user: &UserId, person: &UserId) {
        let until = self.now() + RENEWAL;
        let mut pause = RENEWAL_PAUSE;
        let mut stop = self.0.stop.subscribe();
        loop {
            let renewed = self.machines().renew_olm_sessions(user, person).await;
            let Err(error) = renewed.map_err(EngineError::from) else {
                return;
            };
            if !error.is_transient() || self.now() >= until {
                tracing::info!(%user, %error, "no new session could be begun with a person whose key got lost");
                return;
            }
            tokio::select! {
                () = clock::sleep(pause) => pause *= 2,
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
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
