//! What an admin does about a person or a server.

use serde::{Deserialize, Serialize};

use super::{
    ActError, Counted, DirectoryTransaction, REASON_CHARS_MAX,
    person::limits_on,
    record::{ActingAdmin, AuditRecord, HandleRecord},
    tables::{Ban, Bans, Pauses, Usages},
    transaction::Read as _,
};
use crate::{
    clock::Timestamp,
    ids::{Person, host_of},
    permissions::{Grantee, in_lower_case},
};

/// An act about a person or the people of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GranteeAct {
    /// Let them reach nobody and claim nothing, and let nobody new reach them.
    Ban,
    /// Take a ban back.
    Unban,
    /// Forget what they have used of the limits.
    ResetLimits,
}

impl GranteeAct {
    /// Returns the word for it, as it stands in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Unban => "unban",
            Self::ResetLimits => "reset-limits",
        }
    }
}

/// An act about a person or a server, by whom and why.
#[derive(Clone, Debug)]
pub struct GranteeOrder<'a> {
    /// The person or the server.
    pub grantee: &'a Grantee,
    /// What is to be done.
    pub act: GranteeAct,
    /// Why; may be empty.
    pub reason: &'a str,
    /// The admin.
    pub by: &'a ActingAdmin,
}

impl DirectoryTransaction<'_> {
    /// Does what an admin orders, and notes it in the audit log. Returns the handles of the person
    /// that it is about. After an error the transaction holds no writes of it.
    pub fn act_on_grantee(
        &mut self,
        order: &GranteeOrder<'_>,
        now: Timestamp,
    ) -> Result<Vec<HandleRecord>, ActError> {
        if order.reason.chars().count() > REASON_CHARS_MAX {
            return Err(ActError::LongReason);
        }
        let subject = order.grantee.to_string();
        let own = &self.settings().server_name;
        let handles = match order.grantee {
            Grantee::Person(user) => self.handles_of(&self.person_of(user)?)?,
            _ if order.act != GranteeAct::Ban => Vec::new(),
            Grantee::Everybody => return Err(ActError::WholeServer),
            Grantee::Host(host) if *host == host_of(own) => return Err(ActError::WholeServer),
            Grantee::Server(server) if *server == in_lower_case(own) => {
                return Err(ActError::WholeServer);
            }
            Grantee::Host(_) | Grantee::Server(_) => Vec::new(),
        };
        let (is_banned, state) = (self.get::<Bans>(&subject)?.is_some(), "banned");
        match order.act {
            GranteeAct::Ban if is_banned => return Err(ActError::Already { subject, state }),
            GranteeAct::Unban if !is_banned => return Err(ActError::Not { subject, state }),
            GranteeAct::Ban => {
                let ban = Ban {
                    since: now,
                    reason: order.reason.to_owned(),
                };
                self.put::<Bans>(&subject, &ban)?;
            }
            GranteeAct::Unban => self.delete::<Bans>(&subject),
            GranteeAct::ResetLimits => self.reset_limits(order.grantee),
        }
        let record = AuditRecord {
            by: order.by.clone(),
            act: order.act.as_str().to_owned(),
            subject,
            to: None,
            reason: order.reason.to_owned(),
        };
        self.note_act(&record, now)?;
        Ok(handles)
    }

    /// Forgets what was counted, for the notices about it too.
    fn reset_limits(&mut self, grantee: &Grantee) {
        let mut counted: Vec<_> = limits_on(self.settings(), grantee)
            .into_iter()
            .map(|(counted, subject, _)| (counted, subject))
            .collect();
        if let Grantee::Person(user) = grantee {
            let of_person = [
                Counted::Commands,
                Counted::BotRefusals,
                Counted::Misspelt,
                Counted::DataExports,
            ];
            counted.extend(of_person.map(|counted| (counted, user.to_string())));
            self.delete::<Pauses>(&Person::new(user.clone()));
        }
        for (counted, subject) in counted {
            self.delete::<Usages>(&(counted.name().to_owned(), subject));
        }
    }
}
