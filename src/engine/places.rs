//! Bounds on how much of the service one other server can keep busy.
//!
//! * A **place** is held while a ghost introduces, or while the bot joins a room. Rooms to which a
//!   person of this server invites have places of their own; any other server holds at most
//!   [`PLACES_OF_A_SERVER`] of the rest, and those only until the ghost has joined: then its room
//!   alone waits for what that server does not answer.
//! * A **request abroad** is one for which the homeserver itself has to ask another server: to join
//!   or decline where that server invites, or to invite somebody there. Synapse changes ten
//!   memberships at a time for one application service (its `member_as_limiter`), and goes on with
//!   a change after we have stopped waiting for it. Without [`ABROAD_AT_ONCE`] a few servers that
//!   accept a connection and never answer would hold up everything that ghosts do.
//! * A **transfer** is one file on its way from another server to the homeserver.
//!
//! The inviter decides which server has to be asked: room ids can be made up, and name no server
//! from room version 12 on.

use std::{future::Future, sync::Arc, time::Duration};

use ruma::{MxcUri, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    engine::{Engine, EngineError, keyed::Keyed},
    ids::{Person, host_of},
    matrix::MatrixError,
};

/// Maximum number of places that rooms of one other server hold.
const PLACES_OF_A_SERVER: usize = 2;
/// Maximum number of requests abroad at a time, over all servers. Synapse allows ten; the rest is
/// left for changes that need no other server.
const ABROAD_AT_ONCE: usize = 6;
/// Maximum number of requests abroad at a time to one server.
const ABROAD_TO_A_SERVER: usize = 2;

/// Maximum number of files that are transferred at a time.
const MEDIA_AT_ONCE: usize = 12;
/// Maximum number of files of one server that are transferred at a time.
const MEDIA_OF_A_SERVER: usize = 4;

/// The places, and the requests abroad.
#[derive(Debug)]
pub(super) struct Places {
    own: OwnedServerName,
    at_home: Arc<Semaphore>,
    elsewhere: Bounded,
    abroad: Bounded,
    media: Bounded,
}

/// A place. Dropping it frees it.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _of_server: Option<OwnedSemaphorePermit>,
}

/// A semaphore of which each server gets only a part.
#[derive(Debug)]
struct Bounded {
    all: Arc<Semaphore>,
    of_server: usize,
    servers: Keyed<String, Semaphore>,
}

impl Bounded {
    fn new(all: usize, of_server: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            of_server,
            servers: Keyed::default(),
        }
    }

    /// Waits for a place. While its own server's limit is reached, it holds no place.
    async fn acquire(&self, server: &ServerName) -> Option<Place> {
        let of_server = self
            .servers
            .get(host_of(server), || Semaphore::new(self.of_server));
        let of_server = of_server.acquire_owned().await.ok()?;
        Some(Place {
            _permit: self.all.clone().acquire_owned().await.ok()?,
            _of_server: Some(of_server),
        })
    }
}

impl Places {
    /// Returns `places` places for rooms of this server's people, and as many for all others.
    pub(super) fn new(own: OwnedServerName, places: usize) -> Self {
        let places = places.max(1);
        Self {
            own,
            at_home: Arc::new(Semaphore::new(places)),
            elsewhere: Bounded::new(places, PLACES_OF_A_SERVER),
            abroad: Bounded::new(ABROAD_AT_ONCE, ABROAD_TO_A_SERVER),
            media: Bounded::new(MEDIA_AT_ONCE, MEDIA_OF_A_SERVER),
        }
    }

    async fn acquire(&self, server: &ServerName) -> Option<Place> {
        if *server != self.own {
            return self.elsewhere.acquire(server).await;
        }
        Some(Place {
            _permit: self.at_home.clone().acquire_owned().await.ok()?,
            _of_server: None,
        })
    }
}

impl Engine {
    /// Waits for a place for a room to which this person invites.
    pub(super) async fn place_for(&self, inviter: &UserId) -> Result<Place, EngineError> {
        let place = self.0.places.acquire(inviter.server_name());
        self.unless_stopping(place).await
    }

    /// Waits for a place for the transfer of a file.
    pub(super) async fn place_for_media(
        &self,
        uri: &MxcUri,
        within: Duration,
    ) -> Result<Place, EngineError> {
        let server = uri.server_name();
        let server = server.map_err(|error| MatrixError::Request(error.to_string()))?;
        let place = self.unless_stopping(self.0.places.media.acquire(server));
        let place = tokio::time::timeout(within, place).await;
        place.unwrap_or(Err(
            MatrixError::MediaUnavailable { retry_after: None }.into()
        ))
    }

    /// Joins a room to which this person invites.
    pub(super) async fn enter(
        &self,
        user: &OwnedUserId,
        room: &RoomId,
        inviter: &UserId,
    ) -> Result<(), EngineError> {
        let (homeserver, acting) = (self.homeserver().clone(), self.as_user(user)?);
        let room = room.to_owned();
        let joining = async move { homeserver.join(acting.actor(), &room).await };
        self.ask(inviter.server_name(), joining).await
    }

    /// Invites somebody; `direct` tells their client to list the room under direct chats.
    pub(super) async fn invite(
        &self,
        host: &OwnedUserId,
        room: &RoomId,
        person: &Person,
        direct: bool,
    ) -> Result<(), EngineError> {
        let (homeserver, acting) = (self.homeserver().clone(), self.as_user(host)?);
        let (room, guest) = (room.to_owned(), person.clone());
        let inviting = async move {
            let actor = acting.actor();
            let invited = if direct {
                homeserver.invite_direct(actor, &room, &guest, None).await
            } else {
                let (kind, content) = ("m.room.member", json!({ "membership": "invite" }));
                let key = guest.as_str();
                homeserver
                    .send_state(actor, &room, kind, key, &content)
                    .await
            };
            invited.map(drop)
        };
        self.ask(person.server_name(), inviting).await
    }

    /// Makes a request for which the homeserver may have to ask `server`. If that is another
    /// server, waits for a free slot and the answer until [`Rules::ask_abroad_for`]; the request
    /// counts as long as the homeserver is busy with it.
    ///
    /// [`Rules::ask_abroad_for`]: crate::introduction::Rules::ask_abroad_for
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        server: &ServerName,
        request: impl Future<Output = Result<T, MatrixError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        if *server == self.0.settings.server_name {
            return Ok(request.await?);
        }
        let limit = self.settings().rules.ask_abroad_for;
        let deadline = tokio::time::Instant::now() + limit;
        let turn = self.0.places.abroad.acquire(server);
        let turn = tokio::time::timeout_at(deadline, self.unless_stopping(turn)).await;
        let turn = turn.map_err(|_| MatrixError::TimedOut)??;
        let (answered, answer) = tokio::sync::oneshot::channel();
        let engine = self.clone();
        self.spawn(async move {
            let request = async { Some(request.await) };
            if let Ok(outcome) = engine.unless_stopping(request).await {
                // The caller may have stopped waiting.
                let _ = answered.send(outcome);
            }
            drop(turn);
        });
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(outcome)) => Ok(outcome.map_err(MatrixError::of_other_server)?),
            Ok(Err(_)) => Err(EngineError::Stopping),
            Err(_) => Err(MatrixError::TimedOut.into()),
        }
    }

    /// Waits for a future, unless the service stops first.
    pub(super) async fn unless_stopping<T>(
        &self,
        wait: impl Future<Output = Option<T>>,
    ) -> Result<T, EngineError> {
        let mut stop = self.0.stop.subscribe();
        tokio::select! {
            done = wait => done.ok_or(EngineError::Stopping),
            _ = stop.wait_for(|stop| *stop) => Err(EngineError::Stopping),
        }
    }
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
