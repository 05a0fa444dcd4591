//! Asking for a verdict: what is loaded for it, and what is counted.

use ruma::UserId;

use super::{
    Ask, Counted, DAY, Directory, DirectoryError, DirectoryTransaction, HANDLES_PER_ROOM, Limit,
    Verdict,
    block::is_blocked,
    limit::host_of,
    record::{HandleRecord, Others, Reach},
    request::{may_open, requests_of},
    tables::{Contacts, Handles, Owned, StoredUsage, Usages},
    transaction::Read,
    verdict::{Facts, Reason, Why, decide},
};
use crate::{
    clock::Timestamp,
    handle::Handle,
    store::{self, StoreError},
};

impl Directory {
    /// What [`DirectoryTransaction::ask`] would say, without counting it.
    pub fn verdict(&self, ask: &Ask<'_>) -> Result<Verdict, DirectoryError> {
        let facts = facts(self, self.store(), ask, self.within_limits(ask)?)?;
        Ok(decide(ask.asker, &facts))
    }

    fn within_limits(&self, ask: &Ask<'_>) -> Result<bool, StoreError> {
        for (counted, subject, limit) in self.limits_of(ask.asker) {
            let key = (counted.name().to_owned(), subject);
            if let Some(StoredUsage { usage, .. }) = self.store().get::<Usages>(&key)?
                && !usage.allows(limit, ask.now)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The limits that an ask of this person counts against, the one of their server first.
    fn limits_of(&self, asker: &UserId) -> Vec<(Counted, String, Limit)> {
        let settings = self.settings();
        let mut limits = Vec::with_capacity(2);
        // Our own homeserver is as large as it is; its people have their own limits.
        if asker.server_name() != settings.server_name {
            let limit = Limit {
                most: settings.asks_per_server,
                window: DAY,
            };
            limits.push((Counted::AsksOfServer, host_of(asker.server_name()), limit));
        }
        let limit = Limit {
            most: settings.asks_per_sender,
            window: DAY,
        };
        limits.push((Counted::AsksOfSender, asker.to_string(), limit));
        limits
    }
}

impl DirectoryTransaction<'_> {
    /// Whether the asker, who invited the ghost of a handle, may be brought together with its
    /// owner, now. It counts as one new conversation, whatever the answer: trying doors is not
    /// free. What [`Directory::introduce`] has counted a moment ago is not counted again.
    pub fn ask(&mut self, ask: &Ask<'_>) -> Result<Verdict, DirectoryError> {
        let (verdict, within_limits) = match self.directory.inner.asked.take(ask) {
            Some(within_limits) => {
                let facts = facts(self.directory, self, ask, within_limits)?;
                (decide(ask.asker, &facts), within_limits)
            }
            None => self.count_and_decide(ask)?,
        };
        if let Verdict::Unclaimed { .. } = verdict {
            let limit = Limit {
                most: self.settings().unclaimed_per_day,
                window: DAY,
            };
            let decline = within_limits && self.count(Counted::Unclaimed, "", limit, ask.now)?;
            return Ok(Verdict::Unclaimed { decline });
        }
        Ok(verdict)
    }

    /// Counts a chat that this person starts with the bot, and returns whether it is within the
    /// limits of the person and of their server.
    pub fn ask_for_bot(&mut self, person: &UserId, now: Timestamp) -> Result<bool, DirectoryError> {
        let settings = self.settings();
        let per_day = |most| Limit { most, window: DAY };
        let mut limits = Vec::with_capacity(2);
        if person.server_name() != settings.server_name {
            let (server, limit) = (host_of(person.server_name()), settings.asks_per_server);
            limits.push((Counted::BotInvitesOfServer, server, per_day(limit)));
        }
        let limit = per_day(settings.bot_invites_per_sender);
        limits.push((Counted::BotInvitesOfSender, person.to_string(), limit));
        self.count_all(limits, now)
    }

    /// The same for somebody who invited nobody yet, so that there is nothing to decline: the
    /// bot's `dm`. It costs the asker as much.
    pub fn ask_for_link(&mut self, ask: &Ask<'_>) -> Result<Verdict, DirectoryError> {
        self.count_and_decide(ask).map(|(verdict, _)| verdict)
    }

    /// Counts an attempt under each of these limits if it is within all of them, and returns whether
    /// it is. What is over one counts for none: somebody who is over their own limit must not use up
    /// that of everybody on their server, and a server that is over its own can make up any number of
    /// people, who leave no record.
    fn count_all(
        &mut self,
        limits: Vec<(Counted, String, Limit)>,
        now: Timestamp,
    ) -> Result<bool, DirectoryError> {
        for (counted, subject, limit) in &limits {
            if !self.may(*counted, subject, *limit, now)? {
                return Ok(false);
            }
        }
        for (counted, subject, limit) in limits {
            self.count(counted, &subject, limit, now)?;
        }
        Ok(true)
    }

    pub(super) fn count_and_decide(
        &mut self,
        ask: &Ask<'_>,
    ) -> Result<(Verdict, bool), DirectoryError> {
        let mut facts = facts(self.directory, self, ask, true)?;
        let verdict = decide(ask.asker, &facts);
        if matches!(verdict, Verdict::OwnHandle { .. }) {
            return Ok((verdict, true));
        }
        facts.within_limits = self.count_all(self.directory.limits_of(ask.asker), ask.now)?;
        Ok((decide(ask.asker, &facts), facts.within_limits))
    }

    /// The verdicts on all handles that somebody named for one room, each handle once. Those
    /// beyond the tenth are told "not now" and do not count.
    pub fn ask_group(
        &mut self,
        asker: &UserId,
        handles: &[Handle],
        now: Timestamp,
    ) -> Result<Vec<(Handle, Verdict)>, DirectoryError> {
        let mut verdicts: Vec<(Handle, Verdict)> = Vec::new();
        for handle in handles {
            if verdicts.iter().any(|(seen, _)| seen == handle) {
                continue;
            }
            let verdict = if verdicts.len() < HANDLES_PER_ROOM {
                self.ask(&Ask { asker, handle, now })?
            } else {
                Verdict::NotNow(Why::new(Reason::TooManyHandles))
            };
            verdicts.push((handle.clone(), verdict));
        }
        Ok(verdicts)
    }
}

fn facts(
    directory: &Directory,
    from: &impl Read,
    ask: &Ask<'_>,
    within_limits: bool,
) -> Result<Facts, StoreError> {
    let mut facts = Facts {
        within_limits,
        ..Facts::default()
    };
    let Some(record) = from.get::<Handles>(&ask.handle.key().to_owned())? else {
        return Ok(facts);
    };
    if let Some(owner) = record.holder() {
        let most = directory.settings().blocks_per_person;
        facts.blocked = is_blocked(from, owner, ask.asker, ask.handle, most)?;
    }
    match record.policy.direct {
        Reach::Everyone | Reach::Nobody => {}
        Reach::Handles | Reach::Verified => {
            for record in handles_of(from, ask.asker, directory.most_handles())? {
                facts.has_handle |= record.is_active();
                facts.has_verified_handle |= record.is_active() && record.verified_at.is_some();
            }
        }
        Reach::Contacts => {
            let key = (
                ask.handle.key().to_owned(),
                record.generation,
                ask.asker.to_owned(),
            );
            facts.is_contact = from.get::<Contacts>(&key)?.is_some();
        }
    }
    if record.policy.others == Others::Request
        && let Some(owner) = record.holder()
    {
        let open = requests_of(from, owner)?;
        let open = open.iter().map(|(_, request)| request);
        facts.may_request = may_open(open, ask.asker, &record.handle, record.generation);
    }
    facts.record = Some(record);
    Ok(facts)
}

/// The handles that this person holds.
pub(super) fn handles_of(
    from: &impl Read,
    owner: &UserId,
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
