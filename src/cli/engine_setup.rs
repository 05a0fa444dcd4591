//! Builds an engine from the configuration.

use std::sync::{Arc, Mutex};

use rand::{SeedableRng as _, rngs::StdRng};

use super::CliError;
use crate::{
    clock::SystemClock,
    config::Setup,
    crypto::{MachineSettings, Machines, store::GhostStores},
    directory::{Capabilities, Directory, DirectorySettings},
    engine::{ConversationSettings, Engine, EngineSettings, Services},
    handle::{HandleRules, ReservedNames},
    introduction::Rules,
    matrix::Homeserver,
    permissions::CurrentPermissions,
    store::Store,
};

/// The bot's display name.
const BOT_NAME: &str = "Stonechat";

/// Builds the engine. It accepts transactions at once; [`Engine::start`] makes it process them.
pub(super) fn build_engine(
    setup: &Setup,
    permissions: CurrentPermissions,
    store: Store,
    stores: GhostStores,
    homeserver: Homeserver,
) -> Result<Engine, CliError> {
    let config = &setup.config;
    let machines = Machines::with_stores(
        store.clone(),
        stores,
        homeserver.clone(),
        MachineSettings {
            max_live: config.crypto.machines_in_memory,
            ..MachineSettings::default()
        },
    );
    let bot = setup.bot()?;
    let parts = Services {
        directory: Directory::new(store.clone(), directory_settings(setup, permissions)),
        clock: Arc::new(SystemClock),
        rng: Mutex::new(StdRng::from_rng(&mut super::rng())),
        store,
        homeserver,
        machines,
    };
    let settings = EngineSettings {
        server_name: config.homeserver.server_name.clone(),
        bot,
        bot_name: BOT_NAME.to_owned(),
        rules: introduction_rules(setup),
        conversations: ConversationSettings {
            delivery_receipts: config.relay.delivery_receipts,
            remember: config.relay.remember,
            wait_for_key: config.relay.wait_for_key,
            media_bytes_max: config.relay.media_at_most,
        },
        joins_at_once: config.introductions.joins_at_once,
        strict: config.introductions.strict,
        handles_per_room: config
            .limits
            .handles_per_room
            .try_into()
            .unwrap_or(usize::MAX),
        reconcile_every: config.reconcile.interval,
        reconcile_per_second: config.reconcile.ghosts_per_second,
    };
    Ok(Engine::new(parts, settings)?)
}

fn introduction_rules(setup: &Setup) -> Rules {
    let introductions = &setup.config.introductions;
    Rules {
        wait_for_message: introductions.wait_for_message,
        linger: introductions.linger,
        linger_at_most: introductions.at_most,
        wait_for_owner: introductions.wait_for_owner,
        wait_for_answer: introductions.wait_for_answer,
        decline_after: setup.config.limits.decline_after,
        members_at_most: introductions.room_members.try_into().unwrap_or(usize::MAX),
        ..Rules::default()
    }
}

fn directory_settings(setup: &Setup, permissions: CurrentPermissions) -> DirectorySettings {
    let (handles, limits) = (&setup.config.handles, &setup.config.limits);
    DirectorySettings {
        rules: HandleRules {
            min: handles.min_length,
            max: handles.max_length,
        },
        permissions,
        reserved: ReservedNames::new(&handles.reserved),
        handles_per_person: handles.max_per_person.try_into().unwrap_or(usize::MAX),
        claims_per_day: limits.claims_per_day,
        claims_per_server: limits.claims_per_server,
        quarantine: handles.quarantine,
        new_conversations_per_sender: limits.new_conversations_per_sender,
        new_conversations_per_server: limits.new_conversations_per_server,
        unclaimed_per_day: limits.unclaimed_per_day,
        strict_by_default: setup.config.introductions.strict,
        capabilities: Capabilities {
            masked: setup.config.relay.offered,
            ..Capabilities::default()
        },
        ..DirectorySettings::new(setup.config.homeserver.server_name.clone())
    }
}
