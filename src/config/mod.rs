//! The configuration, which is one YAML file of the admin's, and the registration, which the
//! homeserver reads as well.
//!
//! [`Config`] is the file as written. [`Setup::load`] reads it together with the registration and
//! refuses values that cannot work, with the file, the line or key, and what to do. [`sample_file`]
//! makes `config/stonechat.yaml` in the repository from the same code, and a test compares the two.
//!
//! The file holds no secrets: the tokens are in the registration, the key of the store is in a file
//! of its own, and environment variables can replace each of them (see [`secrets`]).

mod config_check;
mod error;
mod files;
mod free_name;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod module;
mod options_in_file;
mod registration;
mod registration_check;
mod sample;
pub mod secrets;
mod sections;
mod setup;
mod size;
mod span;
mod yaml;

pub use error::ConfigError;
pub use files::{PrivateFile, absolute_beside, relative_to, write_private};
pub use free_name::give_free_name;
pub use module::{ModuleToken, snippet};
pub use options_in_file::{DefaultOption, OptionsInFile, RenamedOption, UnknownOption};
pub use registration::{
    BOT_LOCALPART, CHECK_LOCALPART, Namespace, Namespaces, PROTOCOL, Registration,
    SENDER_LOCALPART, Tokens,
};
pub use sample::{SAMPLE_TOKENS_NOTE, changed_options, sample_file, sample_registration};
pub use sections::{
    AppserviceSection, Config, CryptoSection, HandlesSection, HomeserverSection,
    IntroductionsSection, LimitsSection, LogFormat, LogLevel, LogSection, ModuleSection,
    ReconcileSection, StoreSection,
};
pub use setup::{Setup, read_config_text};
pub(crate) use yaml::with_remedy;

#[cfg(test)]
mod tests;
