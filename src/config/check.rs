//! Values that have the right type and still cannot work.

use std::path::Path;

use secrecy::ExposeSecret;
use url::Url;

use super::{
    Config, ConfigError, PROTOCOL, Registration, SENDER_LOCALPART, registration::user_pattern,
    sample::SAMPLE_TOKEN_MARK, secrets::check_token,
};

struct In<'a>(&'a Path);

impl In<'_> {
    fn refuse(
        &self,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Result<(), ConfigError> {
        Err(ConfigError::Value {
            path: self.0.to_owned(),
            key: key.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
        })
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
                format!("{:?} is not a URL of http or https", url.as_str()),
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

pub(super) fn config(path: &Path, config: &Config) -> Result<(), ConfigError> {
    let at = In(path);
    at.url("homeserver.url", &config.homeserver.url)?;
    at.url("appservice.url", &config.appservice.url)?;
    if let Some(proxy) = &config.homeserver.proxy {
        at.url("homeserver.proxy", proxy)?;
    }
    at.at_least("homeserver.timeout", config.homeserver.timeout.as_secs(), 5)?;

    let id = &config.appservice.id;
    if id.is_empty()
        || !id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    {
        at.refuse(
            "appservice.id",
            format!("{id:?} cannot be used"),
            "use letters, digits, dots, dashes and underscores",
        )?;
    }
    if config.appservice.listen.port() == 0 {
        at.refuse(
            "appservice.listen",
            "port 0 is no port",
            "choose one, 29331 for example",
        )?;
    }

    at.at_least("store.cache_mib", config.store.cache_mib, 1)?;
    if config.store.cache_mib > 1 << 20 {
        at.refuse("store.cache_mib", "is more than a TiB", "write it in MiB")?;
    }

    let handles = &config.handles;
    at.at_least("handles.min_length", handles.min_length as u64, 1)?;
    if handles.max_length < handles.min_length {
        at.refuse(
            "handles.max_length",
            format!("{} is less than handles.min_length", handles.max_length),
            format!("use {} or more", handles.min_length),
        )?;
    }
    if handles.max_length > 64 {
        at.refuse(
            "handles.max_length",
            format!(
                "{} is too much: a Matrix user id has 255 bytes",
                handles.max_length
            ),
            "use 64 or less",
        )?;
    }
    at.at_least("handles.max_per_person", handles.max_per_person.into(), 1)?;

    let limits = &config.limits;
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
        (
            "introductions.room_members",
            config.introductions.room_members.saturating_sub(2),
        ),
        (
            "reconcile.ghosts_per_second",
            config.reconcile.ghosts_per_second,
        ),
    ] {
        at.at_least(key, value.into(), 1)?;
    }

    let introductions = &config.introductions;
    if introductions.at_most < introductions.linger {
        at.refuse(
            "introductions.at_most",
            "is shorter than introductions.linger",
            "make it as long or longer",
        )?;
    }
    at.at_least(
        "introductions.joins_at_once",
        introductions.joins_at_once as u64,
        1,
    )?;
    at.at_least("reconcile.interval", config.reconcile.interval.as_secs(), 1)?;
    at.at_least(
        "crypto.machines_in_memory",
        config.crypto.machines_in_memory as u64,
        1,
    )
}

pub(super) fn registration(
    path: &Path,
    registration: &Registration,
    config_path: &Path,
    config: &Config,
) -> Result<(), ConfigError> {
    let at = In(path);
    let again = || {
        format!(
            "run `stonechat registration` and restart the homeserver, or correct {}",
            { config_path.display() }
        )
    };

    if registration.id != config.appservice.id {
        at.refuse(
            "id",
            format!(
                "is {:?} but appservice.id is {:?}",
                registration.id, config.appservice.id
            ),
            again(),
        )?;
    }
    if registration.url.as_ref() != Some(&config.appservice.url) {
        let here = registration.url.as_ref().map_or("null", Url::as_str);
        at.refuse(
            "url",
            format!("is {here} but appservice.url is {}", config.appservice.url),
            again(),
        )?;
    }
    if registration.sender_localpart != SENDER_LOCALPART {
        at.refuse(
            "sender_localpart",
            format!("must be {SENDER_LOCALPART}"),
            again(),
        )?;
    }
    for (key, is, want) in [
        ("rate_limited", registration.rate_limited, false),
        ("receive_ephemeral", registration.receive_ephemeral, true),
        ("org.matrix.msc3202", registration.msc3202, true),
        ("io.element.msc4190", registration.msc4190, true),
    ] {
        if is != want {
            at.refuse(key, format!("must be {want}"), again())?;
        }
    }
    if !registration
        .protocols
        .iter()
        .any(|protocol| protocol == PROTOCOL)
    {
        at.refuse("protocols", format!("must contain {PROTOCOL}"), again())?;
    }
    namespaces(&at, registration, config, again)?;

    for (key, token) in [
        ("as_token", &registration.as_token),
        ("hs_token", &registration.hs_token),
    ] {
        if token.expose_secret().contains(SAMPLE_TOKEN_MARK) {
            at.refuse(
                key,
                "is the sample that everybody knows",
                "run `stonechat registration --new-tokens`",
            )?;
        }
        if let Err(problem) = check_token(token) {
            at.refuse(key, problem, "run `stonechat registration --new-tokens`")?;
        }
    }
    if registration.as_token.expose_secret() == registration.hs_token.expose_secret() {
        at.refuse(
            "hs_token",
            "is the same as as_token",
            "run `stonechat registration --new-tokens`",
        )?;
    }
    Ok(())
}

/// Exactly our own pattern. Whether it is exclusive is the admin's choice: servers where people
/// have to consent to terms need it to be, and pay with ghosts that no directory lists.
fn namespaces(
    at: &In<'_>,
    registration: &Registration,
    config: &Config,
    again: impl Fn() -> String,
) -> Result<(), ConfigError> {
    let want = user_pattern(&config.homeserver.server_name);
    let spaces = &registration.namespaces;
    for (key, list) in [("aliases", &spaces.aliases), ("rooms", &spaces.rooms)] {
        if !list.is_empty() {
            let key = format!("namespaces.{key}");
            at.refuse(
                &key,
                "must be empty: Stonechat has none of its own",
                again(),
            )?;
        }
    }
    match spaces.users.as_slice() {
        [] => at.refuse("namespaces.users", "is empty", again()),
        [only] if only.regex == want => Ok(()),
        [only] if !only.regex.starts_with("@_dm_") => at.refuse(
            "namespaces.users",
            format!(
                "{:?} is wider than the names that are Stonechat's ({want})",
                only.regex
            ),
            again(),
        ),
        [only] => at.refuse(
            "namespaces.users",
            format!(
                "{:?} is not {want}, as homeserver.server_name {} asks for",
                only.regex, config.homeserver.server_name
            ),
            again(),
        ),
        _ => at.refuse(
            "namespaces.users",
            format!("holds more than the names that are Stonechat's ({want})"),
            again(),
        ),
    }
}
