//! Registrations that fit the configuration and those that do not.

use secrecy::ExposeSecret;

use super::*;

#[test]
fn what_is_written_for_a_server_is_accepted() {
    let home = Home::new();
    let setup = home.load().unwrap();
    assert_eq!(setup.bot().unwrap(), "@_dm_.bot:example.org");
    assert_eq!(setup.data, home.path("data"));
    assert_eq!(setup.registration_path, home.path("registration.yaml"));
    assert_eq!(setup.key_file, home.path("config/store.key"));
    assert_eq!(home.mode("registration.yaml"), 0o600);
}

#[test]
fn a_registration_that_disagrees_with_the_configuration_is_refused() {
    for (from, to, key) in [
        ("id: stonechat", "id: other", "id"),
        ("29331", "29332", "url"),
        ("http://127.0.0.1:29331/", "null", "url"),
        (r"example\.org$", r"example\.com$", "namespaces.users"),
        ("@_dm_.*:", "@_.*:", "namespaces.users"),
        ("@_dm_.*:", "@.*:", "namespaces.users"),
        (
            "aliases: []",
            "aliases: [{regex: '#.*', exclusive: false}]",
            "namespaces.aliases",
        ),
        (
            "rooms: []",
            "rooms: [{regex: '!.*', exclusive: false}]",
            "namespaces.rooms",
        ),
        ("rate_limited: false", "rate_limited: true", "rate_limited"),
        ("rate_limited: false\n", "", "rate_limited"),
        (
            "receive_ephemeral: true",
            "receive_ephemeral: false",
            "receive_ephemeral",
        ),
        ("org.matrix.msc3202: true\n", "", "org.matrix.msc3202"),
        (
            "io.element.msc4190: true",
            "io.element.msc4190: false",
            "io.element.msc4190",
        ),
        ("_dm_.svc", "_dm_.bot", "sender_localpart"),
        ("- stonechat", "- irc", "protocols"),
    ] {
        let home = Home::new();
        home.edit(from, to);
        let error = home.load().unwrap_err().to_string();
        assert!(
            error.contains(&format!("registration.yaml: {key}: ")),
            "{from} → {to}: {error}"
        );
        assert!(error.contains("stonechat registration"), "{error}");
    }
    let home = Home::new();
    home.edit(
        "  users:\n",
        "  users:\n  - {regex: '@.*', exclusive: true}\n",
    );
    assert!(home.load().unwrap_err().to_string().contains("holds more"));
}

#[test]
fn an_exclusive_namespace_and_keys_of_the_homeserver_are_the_admins_choice() {
    let home = Home::new();
    home.edit("exclusive: false", "exclusive: true");
    home.edit(
        "id: stonechat",
        "id: stonechat\nio.element.msc4502.scopes: []",
    );
    home.load().unwrap();
}

#[test]
fn weak_tokens_are_refused_without_repeating_them() {
    for (key, token) in [
        ("as_token", "feeble"),
        ("hs_token", ""),
        ("as_token", "with a space in it, but long enough"),
    ] {
        let home = Home::new();
        let tokens = home.load().unwrap().registration.tokens();
        let old = if key == "as_token" {
            tokens.appservice
        } else {
            tokens.homeserver
        };
        home.edit(old.expose_secret(), &format!("{token:?}"));
        let error = home.load().unwrap_err().to_string();
        assert!(error.contains(&format!(": {key}: ")), "{error}");
        assert!(token.is_empty() || !error.contains(token), "{error}");
    }
    let home = Home::new();
    let tokens = home.load().unwrap().registration.tokens();
    home.edit(
        tokens.homeserver.expose_secret(),
        tokens.appservice.expose_secret(),
    );
    assert!(
        home.load()
            .unwrap_err()
            .to_string()
            .contains("hs_token: is the same")
    );
}
