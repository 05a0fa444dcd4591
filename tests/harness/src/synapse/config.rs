//! `homeserver.yaml` (as JSON, which is YAML), the log settings and the launcher.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Synapse, register::REGISTRATION_SECRET};

/// The name of the file that all processes read.
pub const MAIN_FILE: &str = "homeserver.yaml";
/// The name of the file with the log settings.
pub const LOG_SETTINGS: &str = "log.yaml";

/// Writes everything that a start needs.
pub fn write(synapse: &Synapse) -> Result<()> {
    let folder = synapse.folder();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        anyhow::Ok(path)
    };
    write("launch.py", include_str!("launch.py"))?;
    let key = folder.join("signing.key");
    if !key.exists() {
        // Any 32 bytes are an ed25519 seed, written in unpadded base64.
        let seed: [u8; 32] = rand::random();
        let seed = ruma::serde::Base64::<ruma::serde::base64::Standard, _>::new(seed).encode();
        fs::write(&key, format!("ed25519 a_test {seed}\n"))?;
    }
    let log = write(LOG_SETTINGS, &log_settings().to_string())?;
    write(
        MAIN_FILE,
        &serde_json::to_string_pretty(&homeserver(synapse, &key, &log))?,
    )?;
    Ok(())
}

fn homeserver(synapse: &Synapse, key: &Path, log: &Path) -> Value {
    let options = &synapse.options;
    let folder = synapse.folder();
    let mut config = json!({
        "server_name": synapse.server_name(),
        "public_baseurl": synapse.url(),
        "report_stats": false,
        "pid_file": folder.join("homeserver.pid"),
        "listeners": [{
            "port": synapse.port,
            "bind_addresses": ["127.0.0.1"],
            "type": "http",
            "tls": false,
            "resources": [{ "names": ["client"], "compress": false }],
        }],
        "database": { "name": "sqlite3", "args": { "database": synapse.database() } },
        "log_config": log,
        "media_store_path": folder.join("media"),
        "signing_key_path": key,
        "macaroon_secret_key": "stories only",
        "form_secret": "stories only",
        "registration_shared_secret": REGISTRATION_SECRET,
        "enable_registration": options.open_registration,
        "enable_registration_without_verification": options.open_registration,
        // Cheap passwords: nobody attacks these.
        "bcrypt_rounds": 4,
        "trusted_key_servers": [],
        "suppress_key_server_warning": true,
        "presence": { "enabled": false },
        "enable_metrics": false,
        "url_preview_enabled": false,
        "app_service_config_files": synapse.registrations,
        "experimental_features": {
            "msc2409_to_device_messages_enabled": options.application_service_flags,
            "msc3202_transaction_extensions": options.application_service_flags,
            // For a Synapse before 1.149; later ones heed the setting without it.
            "msc4155_enabled": true,
        },
    });
    let Some(map) = config.as_object_mut() else {
        unreachable!("an object literal")
    };
    if let Some(version) = &options.room_version {
        map.insert("default_room_version".into(), json!(version));
    }
    if options.encrypts_private_rooms {
        map.insert(
            "encryption_enabled_by_default_for_room_type".into(),
            json!("invite"),
        );
    }
    if !options.default_rate_limits {
        raise_limits(map);
    }
    if let Some(member) = &options.federation {
        member.configure(map);
    } else {
        // Without federation nobody is asked for anything.
        map.insert("federation_domain_whitelist".into(), json!([]));
    }
    synapse.parts.configure(map);
    map.extend(options.further.clone());
    config
}

fn raise_limits(config: &mut serde_json::Map<String, Value>) {
    let high = json!({ "per_second": 10_000, "burst_count": 10_000 });
    for name in [
        "rc_message",
        "rc_registration",
        "rc_joins_per_room",
        "rc_key_requests",
        "rc_media_create",
        "rc_room_creation",
        "rc_user_directory",
        "rc_profile",
        "rc_admin_redaction",
        "rc_third_party_invite",
    ] {
        config.insert(name.into(), high.clone());
    }
    config.insert(
        "rc_login".into(),
        json!({ "address": high, "account": high, "failed_attempts": high }),
    );
    config.insert("rc_joins".into(), json!({ "local": high, "remote": high }));
    config.insert(
        "rc_invites".into(),
        json!({ "per_room": high, "per_user": high, "per_issuer": high }),
    );
}

fn log_settings() -> Value {
    json!({
        "version": 1,
        "formatters": {
            "line": { "format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s" },
        },
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "stream": "ext://sys.stdout",
            },
        },
        "root": { "level": "INFO", "handlers": ["console"] },
        "disable_existing_loggers": false,
    })
}
