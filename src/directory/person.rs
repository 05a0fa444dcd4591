//! What the admin is shown of a person or a server: what they may do, and what they have used.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use super::{
    Counted, DAY, Directory, DirectoryError, DirectorySettings, HandleSummary, Limit,
    bans::{ban_of, permission_of},
    claim::{ALL_SERVERS, SERVERS_TOGETHER},
    tables::{Ban, Pauses, Usages},
};
use crate::{
    clock::Timestamp,
    ids::{Person, host_of},
    permissions::{Grantee, Permission},
};

/// What is known of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonSummary {
    /// Their Matrix ID.
    pub person: OwnedUserId,
    /// What they may do.
    pub permission: Permission,
    /// Their ban, or that of their server.
    pub ban: Option<Ban>,
    /// Their handles.
    pub handles: Vec<HandleSummary>,
    /// The number of people who wait for their answer.
    pub open_requests: usize,
    /// The number of blocks that they have made.
    pub blocks: usize,
    /// What they have used of their own limits.
    pub limits: Vec<LimitUse>,
}

/// How much of a limit is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitUse {
    /// What is counted, such as `claims`.
    pub what: String,
    /// The number that counts now.
    pub used: u64,
    /// The maximum number.
    pub most: u32,
    /// The time over which the limit holds, in seconds.
    pub seconds: u64,
}

impl Directory {
    /// Returns what is known of a person.
    pub fn show_person(
        &self,
        person: &Person,
        now: Timestamp,
    ) -> Result<PersonSummary, DirectoryError> {
        let handles = self.handles_of(person)?.into_iter();
        let most = self.settings().blocks_per_person;
        Ok(PersonSummary {
            person: person.clone().into(),
            permission: permission_of(self.store(), self.settings(), person)?,
            ban: ban_of(self.store(), person)?,
            handles: handles.map(HandleSummary::from).collect(),
            open_requests: self.requests_of(person)?.len(),
            blocks: super::block::count_blocks(self.store(), person, most)?,
            limits: self.limits_used(&Grantee::Person((**person).clone()), now)?,
        })
    }

    /// Returns what a person, the people of a server, or everybody together have used of the limits
    /// that hold for them, those that they have used nothing of left out.
    pub fn limits_used(
        &self,
        grantee: &Grantee,
        now: Timestamp,
    ) -> Result<Vec<LimitUse>, DirectoryError> {
        let mut uses = Vec::new();
        for (counted, subject, limit) in limits_on(self.settings(), grantee) {
            let key = (counted.name().to_owned(), subject);
            let stored = self.store().get::<Usages>(&key)?;
            let used = stored.map_or(0, |stored| stored.usage.used_at(limit, now));
            if used > 0 {
                uses.push(LimitUse {
                    what: counted.name().to_owned(),
                    used,
                    most: limit.most,
                    seconds: limit.window.as_secs(),
                });
            }
        }
        Ok(uses)
    }

    /// Returns until when the bot ignores a person, who has typed too much.
    pub fn ignored_until(
        &self,
        person: &Person,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, DirectoryError> {
        let until = self.store().get::<Pauses>(person)?;
        Ok(until.filter(|until| now < *until))
    }
}

/// Returns what is counted for a person, the people of a server or everybody, under which name, and
/// within which limit.
pub(super) fn limits_on(
    settings: &DirectorySettings,
    grantee: &Grantee,
) -> Vec<(Counted, String, Limit)> {
    let a_day = |counted, subject: &str, most| {
        let limit = Limit { most, window: DAY };
        (counted, subject.to_owned(), limit)
    };
    let of_server = |host: &str| {
        let chats = settings.new_conversations_per_server;
        vec![
            a_day(Counted::RequestsOfServer, host, chats),
            a_day(Counted::ClaimsOfServer, host, settings.claims_per_server),
            a_day(Counted::BotInvitesOfServer, host, chats),
        ]
    };
    match grantee {
        Grantee::Person(user) => {
            let user = user.as_str();
            let (chats, invites) = (
                settings.new_conversations_per_sender,
                settings.bot_invites_per_sender,
            );
            vec![
                a_day(Counted::RequestsOfSender, user, chats),
                a_day(Counted::Claims, user, settings.claims_per_day),
                a_day(Counted::BotInvitesOfSender, user, invites),
            ]
        }
        Grantee::Server(server) => of_server(&host_of(server)),
        Grantee::Host(host) => of_server(host),
        Grantee::Everybody => {
            let claims = settings.claims_per_server.saturating_mul(SERVERS_TOGETHER);
            vec![
                a_day(Counted::Unclaimed, "", settings.unclaimed_per_day),
                a_day(Counted::ClaimsOfServer, ALL_SERVERS, claims),
            ]
        }
    }
}
