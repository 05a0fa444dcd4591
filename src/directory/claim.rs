//! Claims and releases of handles.

use super::{
    Counted, DAY, DirectoryError, DirectoryTransaction, Limit, OwnerNotice,
    record::{Discoverable, HandleRecord, HandleState},
    tables::{Generations, Handles, Lookalikes, Owned},
    transaction::Read,
};
use crate::{
    clock::Timestamp,
    handle::Handle,
    ids::{Person, host_of},
    permissions::Permission,
};

/// Limit on the notices to an owner that somebody tried to claim a handle that looks like theirs.
const LOOKALIKE_NOTICES: Limit = Limit {
    most: 3,
    window: DAY,
};

/// The limit on the claims of all other servers together, as a multiple of the limit on one of
/// them: a domain can have any number of servers below it.
const SERVERS_TOGETHER: u32 = 10;
/// All other servers, as one that counts.
const ALL_SERVERS: &str = "*";

/// The kind of claimer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimedBy {
    /// The person who will own it.
    Person,
    /// The admin, for somebody else: reserved names and limits do not hold.
    Admin,
}

/// The facts on which a claim is decided.
#[derive(Clone, Debug)]
struct ClaimFacts<'a> {
    handle: &'a Handle,
    claimer: &'a Person,
    by: ClaimedBy,
    now: Timestamp,
    reserved: bool,
    /// Whether the admin lets the claimer have handles.
    is_permitted: bool,
    /// The record of the claimed handle.
    record: Option<HandleRecord>,
    /// The record of another handle that looks like it.
    lookalike: Option<HandleRecord>,
    /// The generation of the last owner of this name.
    last_generation: Option<u32>,
    /// The number of handles that the claimer holds, and the number that they may hold.
    held: usize,
    may_hold: usize,
    /// Whether the claimer is within their limit on claims.
    within_limit: bool,
    /// Whether the people of the claimer's server are within theirs.
    server_within_limit: bool,
    /// Whether the people of all other servers are within theirs.
    servers_within_limit: bool,
}

/// A claim that succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    generation: u32,
    /// A handle in quarantine that looks like the claimed one, and which this claim deletes.
    ends: Option<Handle>,
}

fn decide(facts: ClaimFacts<'_>) -> Result<Claim, DirectoryError> {
    let handle = facts.handle.clone();
    if let Some(record) = &facts.record
        && record.is_held_by(facts.claimer)
    {
        return Err(DirectoryError::AlreadyYours(record.handle.clone()));
    }
    let free_choice = facts.by == ClaimedBy::Person;
    if free_choice && !facts.is_permitted {
        return Err(DirectoryError::NotPermitted);
    }
    if free_choice && !facts.within_limit {
        return Err(DirectoryError::TooManyClaims);
    }
    if free_choice && !facts.server_within_limit {
        let server = facts.claimer.server_name().to_owned();
        return Err(DirectoryError::TooManyClaimsOfServer(server));
    }
    if free_choice && !facts.servers_within_limit {
        return Err(DirectoryError::TooManyClaimsFromElsewhere);
    }
    if free_choice && facts.reserved {
        return Err(DirectoryError::Reserved(handle));
    }
    let returns = facts
        .record
        .as_ref()
        .is_some_and(|record| record.owner == *facts.claimer);
    if let Some(record) = &facts.record {
        match record.state {
            HandleState::Active | HandleState::Frozen { .. } => {
                return Err(DirectoryError::Taken(handle));
            }
            HandleState::Quarantined { until } if !returns && !record.is_free(facts.now) => {
                return Err(DirectoryError::Quarantined { handle, until });
            }
            HandleState::Quarantined { .. } => {}
        }
    }
    let mut ends = None;
    if let Some(other) = facts.lookalike {
        if other.is_held_by(facts.claimer) {
            return Err(DirectoryError::LooksLikeYours {
                handle,
                other: other.handle,
            });
        }
        let given_up = other.holder().is_none();
        if !(given_up && (other.is_free(facts.now) || other.owner == *facts.claimer)) {
            // A handle that can be found only by a link must not be revealed by its look-alikes.
            let shown = other.discoverable != Discoverable::Link;
            return Err(DirectoryError::LooksLike {
                handle,
                other: shown.then_some(other.handle),
            });
        }
        ends = Some(other.handle);
    }
    if free_choice && facts.held >= facts.may_hold {
        return Err(DirectoryError::TooManyHandles {
            limit: facts.may_hold,
        });
    }
    let generation = match (facts.last_generation, returns) {
        (None, _) => 1,
        (Some(last), true) => last,
        (Some(last), false) => last.saturating_add(1),
    };
    Ok(Claim { generation, ends })
}

impl DirectoryTransaction<'_> {
    /// Makes `claimer` the owner of this handle, if they may be. Commit the transaction also after
    /// a refusal: notices about look-alikes are counted.
    pub fn claim(
        &mut self,
        claimer: &Person,
        handle: &Handle,
        by: ClaimedBy,
        now: Timestamp,
    ) -> Result<HandleRecord, DirectoryError> {
        let settings = self.settings();
        let record = self.get::<Handles>(&handle.key().to_owned())?;
        let look = handle.lookalike_key();
        let lookalike = match self.get::<Lookalikes>(&look)? {
            Some(key) if key != handle.key() => self.get::<Handles>(&key)?,
            _ => None,
        };
        let claims = Limit {
            most: settings.claims_per_day,
            window: DAY,
        };
        let limit_of_server = Limit {
            most: settings.claims_per_server,
            window: DAY,
        };
        // Our own homeserver has no limit as a whole, only its people do.
        let elsewhere = claimer.server_name() != settings.server_name;
        let server = elsewhere.then(|| host_of(claimer.server_name()));
        let limit_of_servers = Limit {
            most: settings.claims_per_server.saturating_mul(SERVERS_TOGETHER),
            ..limit_of_server
        };
        let counted = Counted::ClaimsOfServer;
        let (server_within_limit, servers_within_limit) = match &server {
            Some(server) => (
                self.is_within_limit(counted, server, limit_of_server, now)?,
                self.is_within_limit(counted, ALL_SERVERS, limit_of_servers, now)?,
            ),
            None => (true, true),
        };
        let facts = ClaimFacts {
            handle,
            claimer,
            by,
            now,
            reserved: settings.reserved.contains(handle),
            is_permitted: settings.permissions.of(claimer) >= Permission::Claim,
            last_generation: self.get::<Generations>(&handle.key().to_owned())?,
            held: self.handles_of(claimer)?.len(),
            may_hold: settings.handles_per_person,
            within_limit: self.is_within_limit(Counted::Claims, claimer.as_str(), claims, now)?,
            server_within_limit,
            servers_within_limit,
            record,
            lookalike: lookalike.clone(),
        };
        match decide(facts) {
            Ok(claim) => {
                self.count(Counted::Claims, claimer.as_str(), claims, now)?;
                if let Some(server) = server {
                    self.count(counted, &server, limit_of_server, now)?;
                    self.count(counted, ALL_SERVERS, limit_of_servers, now)?;
                }
                self.write_claim(claimer, handle, &look, claim, now)
            }
            Err(refusal) => {
                if let (DirectoryError::LooksLike { .. }, Some(other)) = (&refusal, lookalike) {
                    self.tell_of_lookalike(other, handle, now)?;
                }
                Err(refusal)
            }
        }
    }

    fn write_claim(
        &mut self,
        claimer: &Person,
        handle: &Handle,
        look: &str,
        claim: Claim,
        now: Timestamp,
    ) -> Result<HandleRecord, DirectoryError> {
        let key = handle.key().to_owned();
        if let Some(ended) = claim.ends {
            self.delete::<Handles>(&ended.key().to_owned());
        }
        if claim.generation > 1 && self.get::<Generations>(&key)? != Some(claim.generation) {
            self.forget_contacts(&key)?;
        }
        let mut record =
            HandleRecord::new(handle.clone(), claimer.to_owned(), claim.generation, now);
        record.strict = self.settings().strict_by_default;
        self.put::<Handles>(&key, &record)?;
        self.put::<Lookalikes>(&look.to_owned(), &key)?;
        self.put::<Owned>(&(claimer.to_owned(), key.clone()), &now)?;
        self.put::<Generations>(&key, &claim.generation)?;
        Ok(record)
    }

    fn tell_of_lookalike(
        &mut self,
        other: HandleRecord,
        attempt: &Handle,
        now: Timestamp,
    ) -> Result<(), DirectoryError> {
        let Some(owner) = other.holder().map(ToOwned::to_owned) else {
            return Ok(());
        };
        let key = other.handle.key().to_owned();
        if self.count(Counted::LookalikeNotices, &key, LOOKALIKE_NOTICES, now)? {
            let attempt = attempt.clone();
            self.add_notice(OwnerNotice::LookalikeAttempt {
                owner,
                handle: other.handle,
                attempt,
            });
        }
        Ok(())
    }

    /// Releases a handle: it goes into quarantine. The caller retires its ghost.
    pub fn release(
        &mut self,
        owner: &Person,
        handle: &Handle,
        now: Timestamp,
    ) -> Result<HandleRecord, DirectoryError> {
        let record = self.held_and_active(owner, handle)?;
        self.give_up(record, now)
    }

    /// Takes a handle from its owner, frozen or not, for the admin. The handle goes into
    /// quarantine, where its last owner could claim it again: freeze it instead to prevent that.
    pub fn revoke(
        &mut self,
        handle: &Handle,
        now: Timestamp,
    ) -> Result<Option<HandleRecord>, DirectoryError> {
        match self.get::<Handles>(&handle.key().to_owned())? {
            Some(record) if record.holder().is_some() => self.give_up(record, now).map(Some),
            _ => Ok(None),
        }
    }

    fn give_up(
        &mut self,
        mut record: HandleRecord,
        now: Timestamp,
    ) -> Result<HandleRecord, DirectoryError> {
        let key = record.handle.key().to_owned();
        record.state = HandleState::Quarantined {
            until: now + self.settings().quarantine,
        };
        record.verified_at = None;
        self.delete::<Owned>(&(record.owner.clone(), key.clone()));
        // The ghost leaves the rooms in which the askers wait.
        for (number, request) in self.requests_of(&record.owner)? {
            if request.handle == record.handle {
                self.close_request(&record.owner, number)?;
            }
        }
        self.put::<Handles>(&key, &record)?;
        Ok(record)
    }

    /// Returns the record of a handle that this person holds and may change.
    pub(super) fn held_and_active(
        &self,
        owner: &Person,
        handle: &Handle,
    ) -> Result<HandleRecord, DirectoryError> {
        match self.get::<Handles>(&handle.key().to_owned())? {
            Some(record) if record.is_held_by(owner) => {
                if record.is_active() {
                    Ok(record)
                } else {
                    Err(DirectoryError::Frozen(record.handle))
                }
            }
            _ => Err(DirectoryError::NotYours(handle.clone())),
        }
    }
}

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
