//! What the admin lets people do, by their Matrix ID, by their server, or for everybody.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Arc, PoisonError, RwLock},
};

use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Serialize};

use crate::ids::{Person, host_of};

/// What a person may do here. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Reach nobody. They are answered as if every handle refused them.
    None,
    /// Reach the owners of handles who let them.
    Reach,
    /// Claim handles.
    Claim,
    /// Act on the handles of others, through the bot.
    Admin,
}

impl Permission {
    /// Returns what somebody with it may do, behind "may".
    pub fn words(self) -> &'static str {
        match self {
            Self::None => "reach nobody",
            Self::Reach => "reach people by their handles",
            Self::Claim => "reach people by their handles and claim some",
            Self::Admin => "reach people by their handles, claim some, and act as an admin",
        }
    }
}

/// Who has a permission: a key of `permissions` in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grantee {
    /// Everybody: `*`.
    Everybody,
    /// The people of a host, whatever its port: `example.org`, in lower case.
    Host(String),
    /// The people of a server with a port: `example.org:8448`.
    Server(OwnedServerName),
    /// A person: `@alice:example.org`.
    Person(OwnedUserId),
}

/// Returns a server's name in one spelling, with its port.
pub fn in_lower_case(server: &ServerName) -> OwnedServerName {
    let host = host_of(server);
    let name = match server.port() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    };
    ServerName::parse(name).unwrap_or_else(|_| server.to_owned())
}

/// Why a key names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is neither a Matrix ID nor a server")]
pub struct GranteeError(String);

impl FromStr for Grantee {
    type Err = GranteeError;

    fn from_str(key: &str) -> Result<Self, GranteeError> {
        let wrong = || GranteeError(key.to_owned());
        if key == "*" {
            return Ok(Self::Everybody);
        }
        if key.starts_with('@') {
            let user = UserId::parse(key).map_err(|_| wrong())?;
            return Ok(Self::Person(user));
        }
        let server = ServerName::parse(key).map_err(|_| wrong())?;
        Ok(Self::of_server(&server))
    }
}

impl Grantee {
    /// Returns the people of a server, whatever its port if it is named without one.
    pub fn of_server(server: &ServerName) -> Self {
        match server.port() {
            Some(_) => Self::Server(in_lower_case(server)),
            None => Self::Host(host_of(server)),
        }
    }
}

impl Serialize for Grantee {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Grantee {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = String::deserialize(deserializer)?;
        key.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Grantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Everybody => "*",
            Self::Host(host) => host,
            Self::Server(server) => server.as_str(),
            Self::Person(user) => user.as_str(),
        })
    }
}

/// The permissions of everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions(BTreeMap<Grantee, Permission>);

impl Permissions {
    /// Returns the permissions of a server whose admin has written these. Where they say nothing,
    /// people of the server may claim, and everybody else may reach.
    pub fn new(
        server: &ServerName,
        written: impl IntoIterator<Item = (Grantee, Permission)>,
    ) -> Self {
        let mut all = BTreeMap::from([
            (Grantee::Everybody, Permission::Reach),
            (Grantee::Server(in_lower_case(server)), Permission::Claim),
        ]);
        for (grantee, permission) in written {
            // Our own people are those of this very server: another one may share its host.
            let is_own = |host: &str| server.port().is_none() && host == host_of(server);
            let own = matches!(&grantee, Grantee::Host(host) if is_own(host));
            all.insert(grantee, permission);
            if own {
                all.insert(Grantee::Server(in_lower_case(server)), permission);
            }
        }
        Self(all)
    }

    /// Returns what a person may do: by the entry for them, or else for their server, or else for
    /// everybody.
    pub fn of(&self, person: &Person) -> Permission {
        let server = person.server_name();
        let keys = [
            Grantee::Person((**person).clone()),
            Grantee::Server(in_lower_case(server)),
            Grantee::Host(host_of(server)),
            Grantee::Everybody,
        ];
        let known = keys.iter().find_map(|key| self.0.get(key));
        known.copied().unwrap_or(Permission::None)
    }

    /// Returns the people who are named as admins.
    pub fn admins(&self) -> impl Iterator<Item = &UserId> {
        self.0.iter().filter_map(|(grantee, permission)| {
            let Grantee::Person(user) = grantee else {
                return None;
            };
            (*permission == Permission::Admin).then_some(&**user)
        })
    }
}

/// The permissions that hold now. Clones share them, so that they can be replaced while the service
/// runs.
#[derive(Clone, Debug)]
pub struct CurrentPermissions(Arc<RwLock<Arc<Permissions>>>);

impl CurrentPermissions {
    /// Begins with these.
    pub fn new(permissions: Permissions) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(permissions))))
    }

    /// Returns what a person may do.
    pub fn of(&self, person: &Person) -> Permission {
        self.get().of(person)
    }

    /// Returns all of them.
    pub fn get(&self) -> Arc<Permissions> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces all of them. Returns whether that changes anything.
    pub fn replace(&self, permissions: Permissions) -> bool {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let changes = **current != permissions;
        *current = Arc::new(permissions);
        changes
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;
    use crate::testing::person;

    fn permissions(written: &[(&str, Permission)]) -> Permissions {
        let written = written.iter();
        let parsed = written.map(|(key, permission)| (key.parse().unwrap(), *permission));
        Permissions::new(server_name!("hs.test:8448"), parsed)
    }

    #[test]
    fn by_default_people_of_the_server_claim_and_others_reach() {
        let default = permissions(&[]);
        for (user, may) in [
            ("@sam:hs.test:8448", Permission::Claim),
            // Another server on the same machine is another server.
            ("@sam:hs.test:9000", Permission::Reach),
            ("@sam:hs.test", Permission::Reach),
            ("@sam:elsewhere.org", Permission::Reach),
        ] {
            assert_eq!(default.of(person(user)), may, "{user}");
        }
    }

    #[test]
    fn the_most_specific_entry_holds_whatever_the_order() {
        let mut written = vec![
            ("*", Permission::None),
            ("friends.org", Permission::Claim),
            ("friends.org:8448", Permission::Reach),
            ("@kim:friends.org", Permission::None),
            ("@root:elsewhere.org", Permission::Admin),
        ];
        for _ in 0..2 {
            let it = permissions(&written);
            for (user, may) in [
                ("@kim:friends.org", Permission::None),
                ("@bob:friends.org", Permission::Claim),
                ("@bob:FRIENDS.org:443", Permission::Claim),
                ("@bob:friends.org:8448", Permission::Reach),
                ("@bob:not.friends.org", Permission::None),
                ("@root:elsewhere.org", Permission::Admin),
                ("@bob:elsewhere.org", Permission::None),
                ("@sam:hs.test:8448", Permission::Claim),
            ] {
                assert_eq!(it.of(person(user)), may, "{user}");
            }
            let admins: Vec<_> = it.admins().map(UserId::as_str).collect();
            assert_eq!(admins, ["@root:elsewhere.org"]);
            written.reverse();
        }
    }

    #[test]
    fn an_entry_for_the_own_server_replaces_the_default() {
        let own = permissions(&[("hs.test:8448", Permission::Reach)]);
        assert_eq!(own.of(person("@sam:hs.test:8448")), Permission::Reach);
        let server = server_name!("hs.test");
        let written = ("hs.test".parse().unwrap(), Permission::Admin);
        let own = Permissions::new(server, [written]);
        assert_eq!(own.of(person("@sam:hs.test")), Permission::Admin);
    }

    #[test]
    fn a_key_that_names_nobody_is_refused() {
        for key in [
            "",
            "@",
            "@alice",
            "alice@example.org",
            "https://a.org",
            "a b",
        ] {
            assert!(key.parse::<Grantee>().is_err(), "{key}");
        }
        for key in ["*", "example.org", "example.org:8448", "@a:example.org"] {
            assert_eq!(key.parse::<Grantee>().unwrap().to_string(), key);
        }
    }

    #[test]
    fn clones_share_what_is_replaced() {
        let current = CurrentPermissions::new(permissions(&[]));
        let clone = current.clone();
        let bob = person("@bob:elsewhere.org");
        assert!(clone.replace(permissions(&[("*", Permission::None)])));
        assert_eq!(current.of(bob), Permission::None);
        assert!(!clone.replace(permissions(&[("*", Permission::None)])));
    }
}
