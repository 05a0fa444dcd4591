//! Claims and releases of handles.

use super::{
    Counted, DAY, DirectoryError, DirectorySettings, DirectoryTransaction, Limit, OwnerNotice,
    record::{Discoverable, HandleRecord, HandleState},
    tables::{Generations, Handles, Lookalikes, Owned, Reservations},
    transaction::Read,
};
use crate::{
    clock::Timestamp,
    handle::Handle,
    ids::{Person, host_of},
    permissions::Permission,
    store::StoreError,
};

/// Limit on the notices to an owner that somebody tried to claim a handle that looks like theirs.
const LOOKALIKE_NOTICES: Limit = Limit {
    most: 3,
    window: DAY,
};

/// The limit on the claims of all other servers together, as a multiple of the limit on one of
/// them: a domain can have any number of servers below it.
pub(super) const SERVERS_TOGETHER: u32 = 10;
/// All other servers, as one that counts.
pub(super) const ALL_SERVERS: &str = "*";

/// The kind of claimer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimedBy {
    /// The person who will own it.
    Person,
    /// The admin, for somebody else: reserved names, limits and quarantine do not hold.
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

/// A limit that a claim counts toward.
struct ClaimLimit {
    counted: Counted,
    subject: String,
    limit: Limit,
}

/// Returns the limits on the claims of a person, of their server, and of all other servers together.
/// Our own homeserver has no limit as a whole, only its people do.
fn limits_of(claimer: &Person, settings: &DirectorySettings) -> Vec<ClaimLimit> {
    let limit = |counted, subject, most| ClaimLimit {
        counted,
        subject,
        limit: Limit { most, window: DAY },
    };
    let own = limit(
        Counted::Claims,
        claimer.as_str().to_owned(),
        settings.claims_per_day,
    );
    if claimer.server_name() == settings.server_name {
        return vec![own];
    }
    let (server, most) = (host_of(claimer.server_name()), settings.claims_per_server);
    let together = most.saturating_mul(SERVERS_TOGETHER);
    vec![
        own,
        limit(Counted::ClaimsOfServer, server, most),
        limit(Counted::ClaimsOfServer, ALL_SERVERS.to_owned(), together),
    ]
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
    let record = facts.record.as_ref();
    let returns = record.is_some_and(|record| record.owner == *facts.claimer);
    if let Some(record) = record {
        match record.state {
            HandleState::Active | HandleState::Frozen { .. } => {
                return Err(DirectoryError::Taken(handle));
            }
            HandleState::Quarantined { until, .. }
                if free_choice
                    && (!returns || record.is_revoked())
                    && !record.is_free(facts.now) =>
            {
                return Err(DirectoryError::Quarantined { handle, until });
            }
            HandleState::Quarantined { .. } => {}
        }
    }
    let ends = ended_lookalike(&facts)?;
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

/// Returns the handle that looks like the claimed one and ends with the claim, if there is one.
fn ended_lookalike(facts: &ClaimFacts<'_>) -> Result<Option<Handle>, DirectoryError> {
    let Some(other) = &facts.lookalike else {
        return Ok(None);
    };
    let handle = facts.handle.clone();
    if other.is_held_by(facts.claimer) {
        return Err(DirectoryError::LooksLikeYours {
            handle,
            other: other.handle.clone(),
        });
    }
    let given_up = other.holder().is_none();
    let kept = other.is_revoked() && facts.by == ClaimedBy::Person;
    let own = other.owner == *facts.claimer && !kept;
    if !(given_up && (other.is_free(facts.now) || own)) {
        // A handle that can be found only by a link must not be revealed by its look-alikes.
        let shown = other.discoverable != Discoverable::Link;
        return Err(DirectoryError::LooksLike {
            handle,
            other: shown.then(|| other.handle.clone()),
        });
    }
    Ok(Some(other.handle.clone()))
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
        let lookalike = self.lookalike_of(handle)?;
        let limits = limits_of(claimer, settings);
        let mut within = [true; 3];
        for (within, limit) in within.iter_mut().zip(&limits) {
            *within = self.is_within_limit(limit.counted, &limit.subject, limit.limit, now)?;
        }
        let [within_limit, server_within_limit, servers_within_limit] = within;
        let facts = ClaimFacts {
            handle,
            claimer,
            by,
            now,
            reserved: settings.reserved.contains(handle)
                || self.get::<Reservations>(&look)?.is_some(),
            is_permitted: self.permission_of(claimer)? >= Permission::Claim,
            last_generation: self.get::<Generations>(&handle.key().to_owned())?,
            held: self.handles_of(claimer)?.len(),
            may_hold: settings.handles_per_person,
            within_limit,
            server_within_limit,
            servers_within_limit,
            record,
            lookalike: lookalike.clone(),
        };
        match decide(facts) {
            Ok(claim) if by == ClaimedBy::Admin => {
                self.write_claim(claimer, handle, &look, claim, now)
            }
            Ok(claim) => {
                for limit in limits {
                    self.count(limit.counted, &limit.subject, limit.limit, now)?;
                }
                self.write_claim(claimer, handle, &look, claim, now)
            }
            Err(refusal) => {
                if let (DirectoryError::LooksLike { .. }, Some(other), ClaimedBy::Person) =
                    (&refusal, lookalike, by)
                {
                    self.tell_of_lookalike(other, handle, now)?;
                }
                Err(refusal)
            }
        }
    }

    /// Returns whether somebody holds a handle or has held it before.
    pub fn had_owner(&self, handle: &Handle) -> Result<bool, DirectoryError> {
        Ok(self.get::<Generations>(&handle.key().to_owned())?.is_some())
    }

    /// Returns the record of another handle that looks like this one.
    pub(super) fn lookalike_of(&self, handle: &Handle) -> Result<Option<HandleRecord>, StoreError> {
        match self.get::<Lookalikes>(&handle.lookalike_key())? {
            Some(key) if key != handle.key() => self.get::<Handles>(&key),
            _ => Ok(None),
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
        self.give_up(record, false, now)
    }

    /// Takes a handle from its owner, frozen or not, for the admin: it goes into quarantine, and its
    /// last owner may not claim it from there either. Returns `None` if nobody holds it.
    pub fn revoke(
        &mut self,
        handle: &Handle,
        now: Timestamp,
    ) -> Result<Option<HandleRecord>, DirectoryError> {
        match self.get::<Handles>(&handle.key().to_owned())? {
            Some(record) if record.holder().is_some() => self.give_up(record, true, now).map(Some),
            _ => Ok(None),
        }
    }

    /// Gives a held handle to somebody else, for the admin, as a new claim.
    pub(super) fn hand_over(
        &mut self,
        record: HandleRecord,
        to: &Person,
        now: Timestamp,
    ) -> Result<HandleRecord, DirectoryError> {
        let handle = record.handle.clone();
        let generation = record.generation.saturating_add(1);
        self.give_up(record, true, now)?;
        let look = handle.lookalike_key();
        let claim = Claim {
            generation,
            ends: None,
        };
        self.write_claim(to, &handle, &look, claim, now)
    }

    fn give_up(
        &mut self,
        mut record: HandleRecord,
        revoked: bool,
        now: Timestamp,
    ) -> Result<HandleRecord, DirectoryError> {
        let key = record.handle.key().to_owned();
        record.state = HandleState::Quarantined {
            until: now + self.settings().quarantine,
            revoked,
        };
        record.verified_at = None;
        self.delete::<Owned>(&(record.owner.clone(), key.clone()));
        // The ghost leaves the rooms in which the askers wait.
        self.close_requests(&record.owner, |_, request| request.handle == record.handle)?;
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
