//! The registration: what the homeserver has to know about us, and the two tokens.
//!
//! The types of the libraries lack keys that Synapse reads besides those of the spec, so it is a
//! type of our own.

use std::path::Path;

use rand::{CryptoRng, RngCore};
use ruma::ServerName;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Url;
use zeroize::Zeroizing;

use super::{Config, ConfigError, files, yaml};
use crate::handle::GHOST_PREFIX;

/// The localpart of the bot. No handle contains a dot.
pub const BOT_LOCALPART: &str = "_dm_.bot";
/// The localpart of the user as which `run` and `doctor` make their checks, so that they leave the
/// bot alone.
pub const CHECK_LOCALPART: &str = "_dm_.check";
/// The localpart of the user that every registration has to name. It is not used, because Synapse
/// cannot sync for it.
pub const SENDER_LOCALPART: &str = "_dm_.svc";
/// The name of our third-party protocol.
pub const PROTOCOL: &str = "stonechat";

const HEADER: &str = "\
# The registration of Stonechat with its homeserver. It holds two secrets: keep it from everybody
# but Stonechat and the homeserver. Made by `stonechat init` and `stonechat registration`.
";

/// The registration file.
///
/// Unknown keys are left alone: they are for the homeserver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registration {
    /// Our name in the homeserver's list of application services.
    pub id: String,
    /// The URL at which the homeserver reaches us.
    pub url: Option<Url>,
    /// The token with which we authenticate to the homeserver.
    #[serde(serialize_with = "exposed")]
    pub as_token: SecretString,
    /// The token with which the homeserver authenticates to us.
    #[serde(serialize_with = "exposed")]
    pub hs_token: SecretString,
    /// Always [`SENDER_LOCALPART`].
    pub sender_localpart: String,
    /// Must be off: otherwise the homeserver's rate limit holds for all our users together.
    #[serde(default = "yes")]
    pub rate_limited: bool,
    /// Must be on: without it the homeserver pushes no to-device messages.
    #[serde(default)]
    pub receive_ephemeral: bool,
    /// The name that older Synapses use for `receive_ephemeral`. Newer ones accept both.
    #[serde(default, rename = "de.sorunome.msc2409.push_ephemeral")]
    pub push_ephemeral: bool,
    /// Turns on one-time key counts and device lists in transactions (MSC3202).
    #[serde(default, rename = "org.matrix.msc3202")]
    pub msc3202: bool,
    /// Turns on devices without a login (MSC4190).
    #[serde(default, rename = "io.element.msc4190")]
    pub msc4190: bool,
    /// The third-party protocols that we serve.
    #[serde(default)]
    pub protocols: Vec<String>,
    /// The namespaces that are ours.
    #[serde(default)]
    pub namespaces: Namespaces,
}

/// The namespaces that are ours.
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
    /// The expression, which is anchored at the start of the name.
    pub regex: String,
    /// Whether nobody else may use such names.
    pub exclusive: bool,
}

/// The two tokens of a registration.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The token with which we authenticate to the homeserver.
    pub appservice: SecretString,
    /// The token with which the homeserver authenticates to us.
    pub homeserver: SecretString,
}

impl Tokens {
    /// Returns new random tokens of 256 bits each.
    pub fn generate<R: RngCore + CryptoRng>(rng: &mut R) -> Self {
        Self {
            appservice: random_hex(rng, "as_"),
            homeserver: random_hex(rng, "hs_"),
        }
    }
}

impl Registration {
    /// Returns the registration that fits a configuration.
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

    /// Reads a registration. Only its owner and its group may have access to the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = Zeroizing::new(files::read_private(
            path,
            files::OTHERS,
            "make it with `stonechat registration`",
        )?);
        yaml::parse_yaml(path, &text)
    }

    /// Prepares the file of the registration. See [`files::PrivateFile::prepare`] for `replace`.
    pub fn prepare(&self, path: &Path, replace: bool) -> Result<files::PrivateFile, ConfigError> {
        files::PrivateFile::prepare(path, &self.to_text(path)?, replace)
    }

    /// Returns the tokens.
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

/// Returns the pattern of our users. Synapse anchors a pattern only at its start. Without the `$`
/// it would match users of `example.org.somewhere.else` as well, whose events would be sent to us.
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
