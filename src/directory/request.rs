//! Requests: somebody who may not reach an owner directly asks first.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use super::{Change, Directory, DirectoryError, change::Read, tables::Requests};
use crate::{
    clock::Timestamp,
    handle::Handle,
    store::{self, StoreError},
};

/// How many requests an owner can have before them; whoever comes after that is told "not now".
pub const REQUESTS_AT_MOST: usize = 50;

/// Somebody asks an owner whether they may reach them. Nothing of what they said is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The handle that they want to reach.
    pub handle: Handle,
    /// Which owner of it.
    pub generation: u32,
    /// Who asks.
    pub asker: OwnedUserId,
    /// The room in which they wait, with the handle's ghost.
    pub room: OwnedRoomId,
    /// The ghost.
    pub ghost: OwnedUserId,
    /// Since when.
    pub since: Timestamp,
    /// The message of the bot that shows it to the owner.
    pub shown: Option<OwnedEventId>,
}

pub(super) fn requests_of(
    from: &impl Read,
    owner: &UserId,
) -> Result<Vec<(u32, Request)>, StoreError> {
    let requests = from.scan::<Requests>(&store::prefix(&owner.to_owned()), REQUESTS_AT_MOST)?;
    Ok(requests
        .into_iter()
        .map(|((_, number), request)| (number, request))
        .collect())
}

impl Directory {
    /// The open requests of an owner, by their numbers.
    pub fn requests_of(&self, owner: &UserId) -> Result<Vec<(u32, Request)>, DirectoryError> {
        Ok(requests_of(self.store(), owner)?)
    }
}

impl Change<'_> {
    /// The open requests of an owner, by their numbers.
    pub fn requests_of(&self, owner: &UserId) -> Result<Vec<(u32, Request)>, DirectoryError> {
        Ok(requests_of(self, owner)?)
    }

    /// Keeps a request and gives its number. The same request again, by its room and ghost, keeps
    /// its number. `None` when the owner has too many already.
    pub fn open_request(
        &mut self,
        owner: &UserId,
        request: &Request,
    ) -> Result<Option<u32>, DirectoryError> {
        let open = requests_of(self, owner)?;
        let same = |known: &Request| known.room == request.room && known.ghost == request.ghost;
        if let Some((number, _)) = open.iter().find(|(_, known)| same(known)) {
            return Ok(Some(*number));
        }
        if open.len() >= REQUESTS_AT_MOST {
            return Ok(None);
        }
        // Never the number of one that was answered while others are open: it could be meant.
        let number = open.last().map_or(1, |(last, _)| last.saturating_add(1));
        self.put::<Requests>(&(owner.to_owned(), number), request)?;
        Ok(Some(number))
    }

    /// Notes the message by which the bot showed a request.
    pub fn request_shown(
        &mut self,
        owner: &UserId,
        number: u32,
        shown: OwnedEventId,
    ) -> Result<(), DirectoryError> {
        let key = (owner.to_owned(), number);
        if let Some(request) = self.get::<Requests>(&key)? {
            let shown = Some(shown);
            self.put::<Requests>(&key, &Request { shown, ..request })?;
        }
        Ok(())
    }

    /// Closes a request, and gives it back if it was open.
    pub fn close_request(
        &mut self,
        owner: &UserId,
        number: u32,
    ) -> Result<Option<Request>, DirectoryError> {
        let key = (owner.to_owned(), number);
        let request = self.get::<Requests>(&key)?;
        self.delete::<Requests>(&key);
        Ok(request)
    }

    /// Closes the request that was made in this room through this ghost, if there is one.
    pub fn withdraw_request(
        &mut self,
        owner: &UserId,
        room: &ruma::RoomId,
        ghost: &UserId,
    ) -> Result<(), DirectoryError> {
        for (number, request) in requests_of(self, owner)? {
            if request.room == room && request.ghost == ghost {
                self.delete::<Requests>(&(owner.to_owned(), number));
            }
        }
        Ok(())
    }

    /// Blocks who made a request, on the handle that they wanted to reach.
    pub fn block_asker(
        &mut self,
        owner: &UserId,
        request: &Request,
        now: Timestamp,
    ) -> Result<(), DirectoryError> {
        let target = crate::handle::Typed::Person(request.asker.clone());
        let scope = super::BlockScope::Handle(request.handle.clone());
        self.block(owner, &target, &scope, now)
    }

    /// Whether the owner blocked who made a request, after it was made.
    pub fn is_asker_blocked(
        &self,
        owner: &UserId,
        request: &Request,
    ) -> Result<bool, DirectoryError> {
        let most = self.settings().blocks_per_person;
        let (asker, handle) = (&request.asker, &request.handle);
        Ok(super::block::is_blocked(self, owner, asker, handle, most)?)
    }
}
