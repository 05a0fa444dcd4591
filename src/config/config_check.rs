//! Checks of the configuration: values that have the right type and still cannot work.

use std::{collections::BTreeMap, path::Path, time::Duration};

use url::Url;

use super::{Config, ConfigError};
use crate::{
    handle::{HANDLE_LENGTH_MAX, HANDLES_PER_ROOM_MAX},
    permissions::{Grantee, Permission},
};

/// Maximum time that a ghost waits in a room for somebody.
const WAIT_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Checks the values of a configuration, in the order of the file.
pub(super) fn check_config(path: &Path, config: &Config) -> Result<(), ConfigError> {
    let check = ConfigCheck { path, config };
    check.homeserver_and_appservice()?;
    check.store()?;
    check.permissions()?;
    check.handles()?;
    check.limits()?;
    check.introductions_and_rest()
}

struct ConfigCheck<'a> {
    path: &'a Path,
    config: &'a Config,
}

impl ConfigCheck<'_> {
    fn homeserver_and_appservice(&self) -> Result<(), ConfigError> {
        let (homeserver, appservice) = (&self.config.homeserver, &self.config.appservice);
        self.url("homeserver.url", &homeserver.url)?;
        self.url("appservice.url", &appservice.url)?;
        if let Some(proxy) = &homeserver.proxy {
            self.url("homeserver.proxy", proxy)?;
        }
        self.at_least("homeserver.timeout", homeserver.timeout.as_secs(), 5)?;

        let id = &appservice.id;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if id.is_empty() || !id.bytes().all(fits) {
            self.refuse(
                "appservice.id",
                format!("\"{id}\" cannot be used"),
                "use letters, digits, dots, dashes and underscores",
            )?;
        }
        if appservice.listen.port() == 0 {
            self.refuse(
                "appservice.listen",
                "port 0 is no port",
                "choose one, 29331 for example",
            )?;
        }
        Ok(())
    }

    fn store(&self) -> Result<(), ConfigError> {
        let cache_mib = self.config.store.cache_mib;
        self.at_least("store.cache_mib", cache_mib, 1)?;
        if cache_mib > 1 << 20 {
            self.refuse("store.cache_mib", "is more than a TiB", "write it in MiB")?;
        }
        Ok(())
    }

    fn permissions(&self) -> Result<(), ConfigError> {
        let mut named = BTreeMap::new();
        for (key, permission) in &self.config.permissions {
            let grantee: Grantee = match key.parse() {
                Ok(grantee) => grantee,
                Err(error) => {
                    let example = "write it like \"@alice:example.org\", \"example.org\" or \"*\"";
                    return self.refuse("permissions", error.to_string(), example);
                }
            };
            if *permission == Permission::Admin && grantee == Grantee::Everybody {
                self.refuse(
                    "permissions",
                    "everybody would be an admin",
                    "name the admins, each by their Matrix ID",
                )?;
            }
            if let Some(other) = named.insert(grantee, key) {
                self.refuse(
                    "permissions",
                    format!("\"{other}\" and \"{key}\" are the same"),
                    "leave one of them out",
                )?;
            }
        }
        Ok(())
    }

    fn handles(&self) -> Result<(), ConfigError> {
        let handles = &self.config.handles;
        let (min, max) = (handles.min_length, handles.max_length);
        self.at_least("handles.min_length", min as u64, 1)?;
        if max < min {
            self.refuse(
                "handles.max_length",
                format!("{max} is less than handles.min_length"),
                format!("use {min} or more"),
            )?;
        }
        if max > HANDLE_LENGTH_MAX {
            self.refuse(
                "handles.max_length",
                format!("{max} is too much: a Matrix user id has 255 bytes"),
                format!("use {HANDLE_LENGTH_MAX} or less"),
            )?;
        }
        self.at_least("handles.max_per_person", handles.max_per_person.into(), 1)
    }

    fn limits(&self) -> Result<(), ConfigError> {
        let limits = &self.config.limits;
        for (key, value) in [
            (
                "limits.new_conversations_per_sender",
                limits.new_conversations_per_sender,
            ),
            (
                "limits.new_conversations_per_server",
                limits.new_conversations_per_server,
            ),
            ("limits.handles_per_room", limits.handles_per_room),
            ("limits.claims_per_day", limits.claims_per_day),
            ("limits.claims_per_server", limits.claims_per_server),
            ("limits.lookups_per_second", limits.lookups_per_second),
            ("limits.unclaimed_per_day", limits.unclaimed_per_day),
        ] {
            self.at_least(key, value.into(), 1)?;
        }
        if limits.handles_per_room as usize > HANDLES_PER_ROOM_MAX {
            // The module asks about no more than this many handles in one room.
            self.refuse(
                "limits.handles_per_room",
                format!("{} is too many", limits.handles_per_room),
                format!("use {HANDLES_PER_ROOM_MAX} or fewer"),
            )?;
        }
        Ok(())
    }

    fn introductions_and_rest(&self) -> Result<(), ConfigError> {
        let (introductions, reconcile) = (&self.config.introductions, &self.config.reconcile);
        // A ghost, the asker and the owner.
        let members = introductions.room_members;
        self.at_least("introductions.room_members", members.into(), 3)?;
        let per_second = reconcile.ghosts_per_second;
        self.at_least("reconcile.ghosts_per_second", per_second.into(), 1)?;
        if introductions.at_most < introductions.linger {
            self.refuse(
                "introductions.at_most",
                "is shorter than introductions.linger",
                "make it as long or longer",
            )?;
        }
        // What ghosts say, and what the documents promise.
        for (key, value) in [
            ("introductions.wait_for_owner", introductions.wait_for_owner),
            (
                "introductions.wait_for_answer",
                introductions.wait_for_answer,
            ),
        ] {
            if value > WAIT_MAX {
                self.refuse(
                    key,
                    "is longer than the 7 days that ghosts promise at most",
                    "use 7days or less",
                )?;
            }
        }
        let at_once = introductions.joins_at_once as u64;
        self.at_least("introductions.joins_at_once", at_once, 1)?;
        self.at_least("reconcile.interval", reconcile.interval.as_secs(), 1)?;
        let media = self.config.relay.media_at_most;
        self.at_least("relay.media_at_most", media, 1)?;
        let in_memory = self.config.crypto.machines_in_memory as u64;
        self.at_least("crypto.machines_in_memory", in_memory, 1)
    }

    fn refuse(
        &self,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Result<(), ConfigError> {
        Err(ConfigError::value(self.path, key, problem, remedy))
    }

    fn at_least(&self, key: &str, value: u64, least: u64) -> Result<(), ConfigError> {
        if value >= least {
            return Ok(());
        }
        self.refuse(
            key,
            format!("{value} is too little"),
            format!("use {least} or more"),
        )
    }

    fn url(&self, key: &str, url: &Url) -> Result<(), ConfigError> {
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return self.refuse(
                key,
                format!("\"{url}\" is not a URL of http or https"),
                "write it like http://127.0.0.1:8008",
            );
        }
        if !url.username().is_empty() || url.password().is_some() {
            return self.refuse(key, "holds a user name or password", "take it out");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return self.refuse(key, "has a part after ? or #", "take it out");
        }
        Ok(())
    }
}
