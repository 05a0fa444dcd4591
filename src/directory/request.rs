//! Requests: people who may not reach an owner directly and ask first.

use ruma::OwnedEventId;

use super::{
    BlockScope, Directory, DirectoryError, DirectoryTransaction, block,
    record::{Mode, Request},
    tables::{RequestNumbers, Requests},
    transaction::Read,
};
use crate::{
    clock::Timestamp,
    handle::{Handle, Typed},
    ids::{Ghost, Person},
    store::{self, StoreError},
};

/// Maximum number of open requests for one handle. Further askers get "not now". It is counted by
/// handle, so that it does not show which handles are one person's.
pub const REQUESTS_PER_HANDLE_MAX: usize = 50;

/// Maximum number of requests read at once. No owner has that many open.
const REQUESTS_SCANNED_MAX: usize = 5000;

pub(super) fn requests_of(
    from: &impl Read,
    owner: &Person,
) -> Result<Vec<(u32, Request)>, StoreError> {
    let requests =
        from.scan::<Requests>(&store::prefix(&owner.to_owned()), REQUESTS_SCANNED_MAX)?;
    Ok(requests
        .into_iter()
        .map(|((_, number), request)| (number, request))
        .collect())
}

/// Returns whether one more request may be opened: this asker has none open for this handle, and
/// the handle has fewer than the maximum.
pub(super) fn may_open<'a>(
    open: impl Iterator<Item = &'a Request>,
    asker: &Person,
    handle: &Handle,
    generation: u32,
) -> bool {
    let mut others = 0;
    for request in open {
        if request.handle == *handle && request.generation == generation {
            if request.asker == *asker {
                return false;
            }
            others += 1;
        }
    }
    others < REQUESTS_PER_HANDLE_MAX
}

impl Directory {
    /// Returns the open requests of an owner with their numbers.
    pub fn requests_of(&self, owner: &Person) -> Result<Vec<(u32, Request)>, DirectoryError> {
        Ok(requests_of(self.store(), owner)?)
    }
}

impl DirectoryTransaction<'_> {
    /// Returns the open requests of an owner with their numbers.
    pub fn requests_of(&self, owner: &Person) -> Result<Vec<(u32, Request)>, DirectoryError> {
        Ok(requests_of(self, owner)?)
    }

    /// Stores a request and returns its number. A request with the room and ghost of an open one
    /// keeps that one's number. Returns `None` if the handle has too many, or the asker another
    /// one. Numbers are never used again: the owner may still be looking at an earlier request.
    pub fn open_request(
        &mut self,
        owner: &Person,
        request: &Request,
    ) -> Result<Option<u32>, DirectoryError> {
        let open = requests_of(self, owner)?;
        let same = |known: &Request| known.room == request.room && known.ghost == request.ghost;
        if let Some((number, _)) = open.iter().find(|(_, known)| same(known)) {
            return Ok(Some(*number));
        }
        let (asker, handle) = (&request.asker, &request.handle);
        let known = open.iter().map(|(_, known)| known);
        if !may_open(known, asker, handle, request.generation) {
            return Ok(None);
        }
        let last = self.get::<RequestNumbers>(&owner.to_owned())?;
        let number = last.unwrap_or(0).saturating_add(1);
        self.put::<RequestNumbers>(&owner.to_owned(), &number)?;
        self.put::<Requests>(&(owner.to_owned(), number), request)?;
        Ok(Some(number))
    }

    /// Returns an open request of an owner.
    pub fn request(&self, owner: &Person, number: u32) -> Result<Option<Request>, DirectoryError> {
        Ok(self.get::<Requests>(&(owner.to_owned(), number))?)
    }

    /// Records the mode of the handle of which the owner was told, if the request is still open.
    pub fn set_request_mode(
        &mut self,
        owner: &Person,
        number: u32,
        mode: Mode,
    ) -> Result<(), DirectoryError> {
        let key = (owner.to_owned(), number);
        if let Some(request) = self.get::<Requests>(&key)? {
            self.put::<Requests>(&key, &Request { mode, ..request })?;
        }
        Ok(())
    }

    /// Records the bot's message that shows a request, if the request is still open.
    pub fn set_request_shown(
        &mut self,
        owner: &Person,
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

    /// Records the bot's message that shows a request's opening line, if the request is still open.
    pub fn set_line_shown(
        &mut self,
        owner: &Person,
        number: u32,
        message: OwnedEventId,
    ) -> Result<(), DirectoryError> {
        let key = (owner.to_owned(), number);
        if let Some(mut request) = self.get::<Requests>(&key)? {
            request.line_shown = Some(message);
            self.put::<Requests>(&key, &request)?;
        }
        Ok(())
    }

    /// Forgets the messages that show an owner's requests: their room is lost.
    pub fn set_requests_unseen(&mut self, owner: &Person) -> Result<(), DirectoryError> {
        for (number, request) in requests_of(self, owner)? {
            let key = (owner.to_owned(), number);
            let unseen = Request {
                shown: None,
                line_shown: None,
                ..request
            };
            self.put::<Requests>(&key, &unseen)?;
        }
        Ok(())
    }

    /// Closes a request. Returns it if it was open.
    pub fn close_request(
        &mut self,
        owner: &Person,
        number: u32,
    ) -> Result<Option<Request>, DirectoryError> {
        let key = (owner.to_owned(), number);
        let request = self.get::<Requests>(&key)?;
        self.delete::<Requests>(&key);
        Ok(request)
    }

    /// Closes the requests of an owner that `is_meant` picks by number and content, and returns
    /// them.
    pub fn close_requests(
        &mut self,
        owner: &Person,
        is_meant: impl Fn(u32, &Request) -> bool,
    ) -> Result<Vec<Request>, DirectoryError> {
        let mut closed = Vec::new();
        for (number, request) in requests_of(self, owner)? {
            if is_meant(number, &request) {
                self.delete::<Requests>(&(owner.to_owned(), number));
                closed.push(request);
            }
        }
        Ok(closed)
    }

    /// Closes the request of this room and ghost, if there is one.
    pub fn withdraw_request(
        &mut self,
        owner: &Person,
        room: &ruma::RoomId,
        ghost: &Ghost,
    ) -> Result<(), DirectoryError> {
        for (number, request) in requests_of(self, owner)? {
            if request.room == room && request.ghost == *ghost {
                self.delete::<Requests>(&(owner.to_owned(), number));
            }
        }
        Ok(())
    }

    /// Blocks the asker of a request. Returns the label of the block.
    pub fn block_asker(
        &mut self,
        owner: &Person,
        request: &Request,
        number: u32,
        scope: &BlockScope,
        now: Timestamp,
    ) -> Result<String, DirectoryError> {
        if request.asker_alias.is_none() {
            let target = Typed::Person(request.asker.clone().into());
            return self.block(owner, &target, scope, now);
        }
        if let BlockScope::Handle(on) = scope {
            self.must_hold(owner, on)?;
        }
        let label = request.block_label(number);
        self.block_as(owner, request.asker.clone(), label.clone(), scope, now)?;
        Ok(label)
    }

    /// Returns whether the owner has blocked the asker of a request.
    pub fn is_asker_blocked(
        &self,
        owner: &Person,
        request: &Request,
        number: u32,
    ) -> Result<bool, DirectoryError> {
        let most = self.settings().blocks_per_person;
        let (asker, handle) = (&request.asker, &request.handle);
        if request.asker_alias.is_some() {
            // A block by another name would tell who asks.
            let label = request.block_label(number);
            let blocked = block::is_blocked_by_label(self, owner, asker, handle, &label, most)?;
            return Ok(blocked);
        }
        Ok(block::is_blocked(self, owner, asker, handle, most)?)
    }
}
