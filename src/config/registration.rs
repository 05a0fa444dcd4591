//! The registration: what the homeserver has to know about us, and the two tokens.
//!
//! A type of our own, since those of the libraries lack the keys that Synapse reads besides the
//! ones of the spec.

use std::path::Path;

use rand::{CryptoRng, RngCore};
use ruma::ServerName;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Url;
use zeroize::Zeroizing;

use super::{Config, ConfigError, files, yaml};
use crate::handle::GHOST_PREFIX;

/// The bot that people talk to. No handle can contain a dot.
pub const BOT_LOCALPART: &str = "_dm_.bot";
/// The user that the checks of `run` and `doctor` act as, so that they touch nothing of the bot's.
pub const CHECK_LOCALPART: &str = "_dm_.check";
/// The user that a registration must name and that does nothing: Synapse cannot sync for it.
pub const SENDER_LOCALPART: &str = "_dm_.svc";
/// Our name as a third-party protocol.
pub const PROTOCOL: &str = "stonechat";

const HEADER: &str = "\
# The registration of Stonechat with its homeserver. It holds two secrets: keep it from everybody
# but Stonechat and the homeserver. Made by `stonechat init` and `stonechat registration`.
";

/// The registration file.
///
/// Keys that we do not know are left alone: they are the homeserver's business.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registration {
    /// Our name in the homeserver's list of application services.
    pub id: String,
    /// Where the homeserver reaches us.
    pub url: Option<Url>,
    /// The token with which we speak to the homeserver.
    #[serde(serialize_with = "exposed")]
    pub as_token: SecretString,
    /// The token with which the homeserver speaks to us.
    #[serde(serialize_with = "exposed")]
    pub hs_token: SecretString,
    /// See [`SENDER_LOCALPART`].
    pub sender_localpart: String,
    /// Must be off: otherwise the homeserver slows us down together with all our users.
    #[serde(default = "yes")]
    pub rate_limited: bool,
    /// Must be on: without it no to-device message is pushed.
    #[serde(default)]
    pub receive_ephemeral: bool,
    /// What older Synapses call the same. Newer ones take both.
    #[serde(default, rename = "de.sorunome.msc2409.push_ephemeral")]
    pub push_ephemeral: bool,
    /// One-time key counts and device lists in transactions (MSC3202).
    #[serde(default, rename = "org.matrix.msc3202")]
    pub msc3202: bool,
    /// Devices without a login (MSC4190).
    #[serde(default, rename = "io.element.msc4190")]
    pub msc4190: bool,
    /// The third-party protocols we answer for.
    #[serde(default)]
    pub protocols: Vec<String>,
    /// The names that are ours.
    #[serde(default)]
    pub namespaces: Namespaces,
}

/// The names that are ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// User ids.
    pub users: Vec<Namespace>,
    /// Room aliases: none.
    pub aliases: Vec<Namespace>,
    /// Room ids: none.
    pub rooms: Vec<Namespace>,
}

/// A pattern of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Matched from the start of the name.
    pub regex: String,
    /// Whether nobody else may use such names.
    pub exclusive: bool,
}

/// The two tokens of a registration.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The token with which we speak to the homeserver.
    pub appservice: SecretString,
    /// The token with which the homeserver speaks to us.
    pub homeserver: SecretString,
}

impl Tokens {
    /// Fresh random tokens of 256 bits each.
    pub fn generate<R: RngCore + CryptoRng>(rng: &mut R) -> Self {
        Self {
            appservice: random_hex(rng, "as_"),
            homeserver: random_hex(rng, "hs_"),
        }
    }
}

impl Registration {
    /// The registration that belongs to a configuration.
    pub fn of(config: &Config, tokens: Tokens) -> Self {
        Self {
            id: config.appservice.id.clone(),
            url: Some(config.appservice.url.clone()),
            as_token: tokens.appservice,
            hs_token: tokens.homeserver,
            sender_localpart: SENDER_LOCALPART.to_owned(),
            rate_limited: false,
            receive_ephemeral: true,
            push_ephemeral: true,
            msc3202: true,
            msc4190: true,
            protocols: vec![PROTOCOL.to_owned()],
            namespaces: Namespaces {
                users: vec![Namespace {
                    regex: user_pattern(&config.homeserver.server_name),
                    exclusive: false,
                }],
                ..Namespaces::default()
            },
        }
    }

    /// Reads a registration, which nobody but its owner and its group may read.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = Zeroizing::new(files::read_private(
            path,
            files::OTHERS,
            "make it with `stonechat registration`",
        )?);
        yaml::parse_yaml(path, &text)
    }

    /// Prepares the file of the registration; see [`files::PrivateFile::prepare`] for `replace`.
    pub fn prepare(&self, path: &Path, replace: bool) -> Result<files::PrivateFile, ConfigError> {
        files::PrivateFile::prepare(path, &self.to_text(path)?, replace)
    }

    /// The tokens.
    pub fn tokens(&self) -> Tokens {
        Tokens {
            appservice: self.as_token.clone(),
            homeserver: self.hs_token.clone(),
        }
    }

    pub(super) fn to_text(&self, path: &Path) -> Result<Zeroizing<String>, ConfigError> {
        let body = Zeroizing::new(yaml::to_yaml(path, self)?);
        Ok(Zeroizing::new(format!("{HEADER}{}", *body)))
    }
}

/// The pattern of our users. Synapse anchors a pattern at its start only: without the `$` it would
/// also name users of `example.org.somewhere.else`, whose events would then be sent to us.
pub fn user_pattern(server: &ServerName) -> String {
    let mut pattern = format!("@{GHOST_PREFIX}.*:");
    for c in server.as_str().chars() {
        if !c.is_ascii_alphanumeric() && !matches!(c, '-' | ':') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('$');
    pattern
}

pub(super) fn random_hex<R: RngCore + CryptoRng>(rng: &mut R, prefix: &str) -> SecretString {
    let mut bytes = Zeroizing::new([0u8; 32]);
    rng.fill_bytes(bytes.as_mut());
    let digits = Zeroizing::new(hex::encode(*bytes));
    SecretString::from(format!("{prefix}{}", *digits))
}

fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

fn yes() -> bool {
    true
}
