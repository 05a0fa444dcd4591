//! Who can read secrets, and where they may stand.

use std::{fs, os::unix::fs::PermissionsExt};

use assert_matches::assert_matches;
use secrecy::ExposeSecret;

use super::*;

#[test]
fn a_registration_that_others_can_read_is_refused_and_one_shared_with_a_group_is_not() {
    let home = Home::new();
    let path = home.path("registration.yaml");
    for (mode, ok) in [
        (0o604, false),
        (0o644, false),
        (0o602, false),
        (0o640, true),
        (0o400, true),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        match home.load() {
            Ok(_) => assert!(ok, "{mode:o}"),
            Err(error) => {
                assert!(!ok, "{mode:o}: {error}");
                assert_matches!(error, ConfigError::Exposed { .. });
                assert!(error.to_string().contains("chmod 6"), "{error}");
            }
        }
    }
}

#[test]
fn the_environment_stands_in_for_files_with_secrets() {
    let home = Home::new();
    let token = format!("as_{}", "a".repeat(64));
    let environment = |name: &str| match name {
        secrets::AS_TOKEN => Some(token.clone()),
        _ => None,
    };
    let setup = Setup::load(&home.path("config/stonechat.yaml"), &environment).unwrap();
    assert_eq!(setup.registration.as_token.expose_secret(), token);

    let environment = |name: &str| (name == secrets::HS_TOKEN).then(|| "secret word".to_owned());
    let error = Setup::load(&home.path("config/stonechat.yaml"), &environment)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("STONECHAT_HS_TOKEN") && !error.contains("secret word"),
        "{error}"
    );
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let home = Home::new();
    let setup = home.load().unwrap();
    let shown = format!("{setup:?}");
    for secret in [&setup.registration.as_token, &setup.registration.hs_token] {
        assert!(!shown.contains(secret.expose_secret()));
    }
}
