//! `stonechat registration`

use std::path::Path;

use clap::Args;

use super::{
    CliError,
    init::{homeserver_yaml, module_yaml},
};
use crate::config::{Config, ModuleToken, Registration, Tokens, absolute_beside};

/// The arguments of `registration`.
#[derive(Debug, Args)]
pub struct WriteRegistration {
    /// Make new tokens. The homeserver cannot talk to Stonechat until it is restarted.
    #[arg(long)]
    new_tokens: bool,
    /// Also make a token for Stonechat's module in Synapse, if there is none, and print how to
    /// enable the module.
    #[arg(long)]
    with_module: bool,
}

impl WriteRegistration {
    /// Writes the registration that belongs to the configuration.
    pub fn run(self, config_path: &Path) -> Result<(), CliError> {
        let config = Config::load(config_path)?;
        let path = absolute_beside(config_path, &config.registration);
        let before = match path.try_exists() {
            Ok(true) if !self.new_tokens => Some(Registration::read(&path)?),
            _ => None,
        };
        let kept = before.is_some();
        let exclusive = before
            .as_ref()
            .is_some_and(|before| before.namespaces.users.iter().any(|users| users.exclusive));
        let tokens = match before {
            Some(before) => before.tokens(),
            None => Tokens::generate(&mut super::rng()),
        };
        let mut registration = Registration::of(&config, tokens);
        for users in &mut registration.namespaces.users {
            users.exclusive = exclusive;
        }
        let module = ModuleToken::of(config_path, &config);
        let there = module.is_there();
        // Every file is checked before the first one changes.
        let file = registration.prepare(&path, true)?;
        let mut others = Vec::new();
        if (there && self.new_tokens) || (!there && self.with_module) {
            others.push(module.prepare(&mut super::rng(), there)?);
        }
        if self.with_module {
            others.push(module.prepare_snippet(&config)?);
        }
        let changed = file.commit()?;
        for other in others {
            other.commit()?;
        }
        if changed {
            println!(
                "{} written, with {} tokens. Restart the homeserver{} to apply it.",
                path.display(),
                if kept { "the same" } else { "new" },
                if kept { "" } else { " and then Stonechat" },
            );
        } else {
            println!("{} is up to date and was not written.", path.display());
        }
        println!();
        println!("{}", homeserver_yaml(&path).trim_end());
        if self.with_module {
            println!();
            println!("{}", module_yaml(&config, &module).trim_end());
        }
        Ok(())
    }
}
