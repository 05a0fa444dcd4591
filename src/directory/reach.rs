//! Whether somebody may reach the owner of a handle: the records that decide it, and the counting.

use super::{
    Counted, DAY, Directory, DirectoryError, DirectoryTransaction, Limit, ReachQuery, Verdict,
    bans::{ban_of, permission_of},
    block::is_blocked,
    record::{HandleRecord, Others, Reach},
    request::{may_open, requests_of},
    tables::{Contacts, Handles, Owned},
    transaction::Read,
    verdict::{ReachFacts, decide},
};
use crate::{
    ids::Person,
    permissions::Permission,
    store::{self, StoreError},
};

impl Directory {
    /// Returns the verdict that [`DirectoryTransaction::decide_reach`] would give, and counts
    /// nothing.
    pub fn verdict(&self, query: &ReachQuery<'_>) -> Result<Verdict, DirectoryError> {
        let facts = facts(self, self.store(), query, self.within_limits(query)?)?;
        Ok(decide(query.asker, &facts))
    }
}

impl DirectoryTransaction<'_> {
    /// Decides whether the asker, who has invited the ghost of a handle, may reach its owner now.
    /// Counts one new conversation whatever the verdict is, so that trying doors is not free,
    /// unless [`Directory::introduce`] has just counted it.
    pub fn decide_reach(&mut self, query: &ReachQuery<'_>) -> Result<Verdict, DirectoryError> {
        let (verdict, within_limits) = match self.directory.inner.prepaid.take(query) {
            Some(within_limits) => {
                let facts = facts(self.directory, self, query, within_limits)?;
                (decide(query.asker, &facts), within_limits)
            }
            None => self.count_and_decide(query)?,
        };
        if let Verdict::Unclaimed { .. } = verdict {
            let limit = Limit {
                most: self.settings().unclaimed_per_day,
                window: DAY,
            };
            let decline = within_limits && self.count(Counted::Unclaimed, "", limit, query.now)?;
            return Ok(Verdict::Unclaimed { decline });
        }
        Ok(verdict)
    }

    /// Decides whether the asker may have a link that leads to the owner: the bot's `dm`. It costs
    /// them as much as [`DirectoryTransaction::decide_reach`], but there is no invite to decline.
    pub fn decide_reach_by_link(
        &mut self,
        query: &ReachQuery<'_>,
    ) -> Result<Verdict, DirectoryError> {
        self.count_and_decide(query).map(|(verdict, _)| verdict)
    }

    pub(super) fn count_and_decide(
        &mut self,
        query: &ReachQuery<'_>,
    ) -> Result<(Verdict, bool), DirectoryError> {
        let mut facts = facts(self.directory, self, query, true)?;
        let verdict = decide(query.asker, &facts);
        if matches!(verdict, Verdict::OwnHandle { .. }) {
            return Ok((verdict, true));
        }
        facts.within_limits = self.count_all(self.directory.limits_of(query.asker), query.now)?;
        Ok((decide(query.asker, &facts), facts.within_limits))
    }
}

fn facts(
    directory: &Directory,
    from: &impl Read,
    query: &ReachQuery<'_>,
    within_limits: bool,
) -> Result<ReachFacts, StoreError> {
    let may = permission_of(from, directory.settings(), query.asker)?;
    let mut facts = ReachFacts {
        is_barred: may < Permission::Reach,
        within_limits,
        ..ReachFacts::default()
    };
    let Some(record) = from.get::<Handles>(&query.handle.key().to_owned())? else {
        return Ok(facts);
    };
    if let Some(owner) = record.holder() {
        let most = directory.settings().blocks_per_person;
        facts.blocked = is_blocked(from, owner, query.asker, query.handle, most)?;
        facts.is_owner_banned = ban_of(from, owner)?.is_some();
    }
    match record.policy.direct {
        Reach::Everyone | Reach::Nobody => {}
        Reach::Handles | Reach::Verified => {
            for record in handles_of(from, query.asker, directory.most_handles())? {
                facts.has_handle |= record.is_active();
                facts.has_verified_handle |= record.is_active() && record.verified_at.is_some();
            }
        }
        Reach::Contacts => {
            let key = (
                query.handle.key().to_owned(),
                record.generation,
                query.asker.to_owned(),
            );
            facts.is_contact = from.get::<Contacts>(&key)?.is_some();
        }
    }
    if record.policy.others == Others::Request
        && let Some(owner) = record.holder()
    {
        let open = requests_of(from, owner)?;
        let open = open.iter().map(|(_, request)| request);
        facts.may_request = may_open(open, query.asker, &record.handle, record.generation);
    }
    facts.record = Some(record);
    Ok(facts)
}

/// Returns the handles that this person holds.
pub(super) fn handles_of(
    from: &impl Read,
    owner: &Person,
    most: usize,
) -> Result<Vec<HandleRecord>, StoreError> {
    let mut records = Vec::new();
    for ((_, key), _) in from.scan::<Owned>(&store::prefix(&owner.to_owned()), most)? {
        records.extend(
            from.get::<Handles>(&key)?
                .filter(|record| record.is_held_by(owner)),
        );
    }
    Ok(records)
}
