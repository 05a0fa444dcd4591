use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use assert_matches::assert_matches;
use rand::{SeedableRng as _, rngs::StdRng};
use secrecy::ExposeSecret;
use serde_yaml::Value;
use tempfile::TempDir;

use super::{sample::OPTIONS, *};

const MINIMAL: &str = "homeserver: {url: 'http://127.0.0.1:8008', server_name: example.org}\n";

fn nothing(_: &str) -> Option<String> {
    None
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("stonechat.yaml"), text).map_err(|error| error.to_string())
}

fn refused(text: &str) -> String {
    parse(text).expect_err("should be refused")
}

fn repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Compares with the file of the repository; `STONECHAT_WRITE_SAMPLES=1` writes it instead.
fn same_as_committed(file: &str, made: &str) {
    let path = repository(file);
    if std::env::var_os("STONECHAT_WRITE_SAMPLES").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, made).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        committed, made,
        "{file} is not what the code makes; run this test with STONECHAT_WRITE_SAMPLES=1"
    );
}

#[test]
fn the_sample_configuration_is_what_the_code_makes() {
    let made = sample_file(&Config::default()).unwrap();
    same_as_committed("config/stonechat.yaml", &made);
    assert_eq!(parse(&made).unwrap(), Config::default());
}

#[test]
fn the_sample_registration_is_what_the_code_makes_and_is_refused() {
    let made = sample_registration(&Config::default()).unwrap();
    same_as_committed("registration.yaml", &made);

    let home = Home::new();
    home.write("registration.yaml", &made, 0o600);
    let error = home.load().unwrap_err().to_string();
    assert!(
        error.contains("as_token") && error.contains("--new-tokens"),
        "{error}"
    );
}

#[test]
fn every_option_has_a_comment_and_every_comment_an_option() {
    fn keys(prefix: &str, value: &Value, into: &mut Vec<String>) {
        if let Value::Mapping(map) = value {
            for (name, value) in map {
                let name = name.as_str().unwrap();
                let key = if prefix.is_empty() {
                    name.to_owned()
                } else {
                    format!("{prefix}.{name}")
                };
                into.push(key.clone());
                keys(&key, value, into);
            }
        }
    }
    let mut in_code = Vec::new();
    keys(
        "",
        &serde_yaml::to_value(Config::default()).unwrap(),
        &mut in_code,
    );
    let in_table: Vec<_> = OPTIONS.iter().map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(in_table, in_code);
}

#[test]
fn a_file_with_other_values_reads_back_and_shows_the_defaults() {
    let mut config = Config::default();
    config.handles.reserved = vec!["boss".to_owned(), "it's \"me\"".to_owned()];
    config.introductions.linger = std::time::Duration::from_millis(1500);
    config.appservice.listen = "[::1]:4000".parse().unwrap();
    let text = sample_file(&config).unwrap();
    assert_eq!(parse(&text).unwrap(), config);
    assert!(text.contains("# Default: 3s\n  linger: 1500ms\n"), "{text}");
}

#[test]
fn odd_texts_and_durations_read_back_as_they_were_written() {
    for odd in [
        "a\nb",
        "a\n",
        " a ",
        "a\u{7F}\u{85}b\u{2028}c\u{FEFF}",
        "'\"\\",
        "~",
        "1",
        "#",
    ] {
        let mut config = Config {
            data: odd.into(),
            ..Config::default()
        };
        config.store.key_file = odd.into();
        config.handles.reserved = vec![odd.to_owned()];
        let text = sample_file(&config).unwrap();
        assert_eq!(parse(&text).unwrap(), config, "{text}");
    }
    let config = parse(&format!("{MINIMAL}introductions: {{linger: 1ms 7ns}}\n")).unwrap();
    assert_eq!(parse(&sample_file(&config).unwrap()).unwrap(), config);
    let error = refused(&format!("{MINIMAL}introductions: {{linger: 2000years}}\n"));
    assert!(error.ends_with("use 1000years or less"), "{error}");
}

#[test]
fn the_two_required_keys_are_enough() {
    assert_eq!(parse(MINIMAL).unwrap(), Config::default());
    assert!(refused("homeserver: {url: 'http://a'}").contains("server_name"));
    assert!(refused("homeserver: {server_name: a}").contains("url"));
    assert!(refused("").contains("homeserver"));
}

#[test]
fn an_unknown_key_is_refused_with_line_and_a_hint() {
    let error = refused(&format!("{MINIMAL}handles:\n  max_lenght: 3\n"));
    assert!(
        error.starts_with("stonechat.yaml, line 3: handles.max_lenght: unknown field `max_lenght`")
    );
    assert!(error.ends_with("did you mean `max_length`?"), "{error}");
    assert!(refused(&format!("{MINIMAL}zzz: 3\n")).ends_with("; remove it"));
}

#[test]
fn a_wrong_type_or_a_key_given_twice_is_refused_with_line_and_key() {
    for (text, key, line) in [
        (
            "handles: {max_length: many}\n",
            "handles.max_length",
            "line 2",
        ),
        (
            "handles: {max_length: -1}\n",
            "handles.max_length",
            "line 2",
        ),
        (
            "introductions:\n  linger: soon\n",
            "introductions.linger",
            "line 3",
        ),
        (
            "appservice:\n  listen: here\n",
            "appservice.listen",
            "line 3",
        ),
        ("appservice:\n  url: ':'\n", "appservice.url", "line 3"),
        ("log: {level: loud}\n", "log.level", "line 2"),
        ("data: a\ndata: b\n", "data", "duplicate"),
        ("store: [\n", "", "line"),
    ] {
        let error = refused(&format!("{MINIMAL}{text}"));
        assert!(
            error.contains(key) && error.contains(line),
            "{text}: {error}"
        );
    }
    let error = refused("homeserver: {url: 'http://a', server_name: 'no spaces'}");
    assert!(error.contains("homeserver.server_name"), "{error}");
}

#[test]
fn what_a_library_refuses_comes_with_what_to_write_instead() {
    for (text, remedy) in [
        ("introductions: {linger: soon}\n", "as in 3s or 5min"),
        ("appservice: {listen: here}\n", "as in 127.0.0.1:29331"),
        (
            "appservice: {url: 'localhost'}\n",
            "as in http://127.0.0.1:8008",
        ),
        ("handles: {max_length: -1}\n", "a whole number"),
        ("data: a\ndata: b\n", "stand there once"),
        ("store:\n\tcache_mib: 3\n", "not with tabs"),
        ("store: [\n", "keys below it"),
        ("log: {level: info\n", "wrong indentation or bracket"),
    ] {
        let error = refused(&format!("{MINIMAL}{text}"));
        assert!(error.contains(remedy), "{text}: {error}");
    }
    assert!(refused("").contains("`stonechat init` writes"));
    let error = refused("homeserver: {url: 'http://a', server_name: '@sam:example.org'}");
    assert!(error.contains("as in example.org"), "{error}");
}

#[test]
fn a_value_that_cannot_work_is_refused_with_key_and_remedy() {
    for (text, key) in [
        (
            "homeserver: {url: 'ftp://a', server_name: a}",
            "homeserver.url",
        ),
        (
            "homeserver: {url: 'http://a:b@c', server_name: a}",
            "homeserver.url",
        ),
        (
            "homeserver: {url: 'http://a/?b', server_name: a}",
            "homeserver.url",
        ),
        (
            "homeserver: {url: 'http://a', server_name: a, timeout: 1s}",
            "homeserver.timeout",
        ),
    ] {
        let error = refused(text);
        assert!(
            error.starts_with(&format!("stonechat.yaml: {key}: ")),
            "{text}: {error}"
        );
    }
    for (text, key) in [
        ("appservice: {id: 'a b'}", "appservice.id"),
        ("appservice: {listen: '127.0.0.1:0'}", "appservice.listen"),
        ("appservice: {url: 'mailto:a@b'}", "appservice.url"),
        ("store: {cache_mib: 0}", "store.cache_mib"),
        ("handles: {min_length: 0}", "handles.min_length"),
        ("handles: {min_length: 20}", "handles.max_length"),
        ("handles: {max_length: 200}", "handles.max_length"),
        (
            "limits: {lookups_per_second: 0}",
            "limits.lookups_per_second",
        ),
        ("introductions: {at_most: 1s}", "introductions.at_most"),
        (
            "introductions: {room_members: 2}",
            "introductions.room_members",
        ),
        (
            "crypto: {machines_in_memory: 0}",
            "crypto.machines_in_memory",
        ),
    ] {
        let error = refused(&format!("{MINIMAL}{text}"));
        assert!(
            error.starts_with(&format!("stonechat.yaml: {key}: ")),
            "{text}: {error}"
        );
        assert!(error.contains("; "), "no remedy: {error}");
    }
}

/// A folder with a configuration and a registration that fit.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        home.write("config/stonechat.yaml", MINIMAL, 0o644);
        let config = Config::default();
        Registration::of(&config, Tokens::generate(&mut StdRng::seed_from_u64(7)))
            .prepare(&home.path("registration.yaml"), false)
            .unwrap()
            .commit()
            .unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str, mode: u32) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self) -> Result<Setup, ConfigError> {
        Setup::load(&self.path("config/stonechat.yaml"), &nothing)
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o777
    }

    /// The registration with `from` replaced by `to`.
    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.path("registration.yaml")).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        self.write("registration.yaml", &text.replace(from, to), 0o600);
    }
}

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

#[test]
fn a_file_is_replaced_only_when_told_to_and_leaves_no_draft() {
    let home = Home::new();
    let path = home.path("registration.yaml");
    let old = fs::read_to_string(&path).unwrap();
    assert_matches!(
        write_private(&path, "new", false),
        Err(ConfigError::Exists { .. })
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), old);

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    write_private(&path, "new", true).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(
        home.mode("registration.yaml"),
        0o640,
        "the group stays, others go"
    );

    let names: Vec<_> = fs::read_dir(home.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn a_file_that_does_not_change_is_not_written() {
    let home = Home::new();
    let path = home.path("registration.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let about = fs::metadata(&path).unwrap();
    assert!(!write_private(&path, &text, true).unwrap());
    let now = fs::metadata(&path).unwrap();
    assert_eq!(now.modified().unwrap(), about.modified().unwrap());
    assert_eq!(now.ino(), about.ino());
    assert!(write_private(&path, "new", true).unwrap());
}

#[test]
fn a_file_with_two_names_is_replaced_under_both() {
    let home = Home::new();
    let (path, other) = (home.path("registration.yaml"), home.path("other.yaml"));
    fs::hard_link(&path, &other).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    write_private(&path, "new", true).unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), "new");
    assert_eq!(home.mode("other.yaml"), 0o640, "the group stays, others go");
}

#[test]
fn nothing_changes_without_a_commit() {
    let home = Home::new();
    let path = home.path("registration.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let names = || fs::read_dir(home.0.path()).unwrap().count();
    let before = names();
    drop(PrivateFile::prepare(&path, "new", true).unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    drop(PrivateFile::prepare(&home.path("another.yaml"), "new", false).unwrap());
    assert_eq!(names(), before);
}

#[test]
fn a_link_is_followed_when_a_file_is_replaced() {
    let home = Home::new();
    let link = home.path("link.yaml");
    std::os::unix::fs::symlink(home.path("registration.yaml"), &link).unwrap();
    write_private(&link, "new", true).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(
        fs::read_to_string(home.path("registration.yaml")).unwrap(),
        "new"
    );
    assert_matches!(
        write_private(&link, "newer", false),
        Err(ConfigError::Exists { .. })
    );
}

#[test]
fn paths_are_relative_to_the_configuration_when_they_are_near() {
    for (config, path, shown) in [
        (
            "/srv/sc/config/stonechat.yaml",
            "/srv/sc/registration.yaml",
            "../registration.yaml",
        ),
        (
            "/srv/sc/stonechat.yaml",
            "/srv/sc/registration.yaml",
            "registration.yaml",
        ),
        ("/srv/sc/stonechat.yaml", "/srv/sc/a/b.yaml", "a/b.yaml"),
        (
            "/srv/sc/stonechat.yaml",
            "/etc/synapse/r.yaml",
            "/etc/synapse/r.yaml",
        ),
        ("/etc/stonechat.yaml", "/var/lib/data", "/var/lib/data"),
        (
            "/srv/sc/./x/../config/s.yaml",
            "/srv/sc/r.yaml",
            "../r.yaml",
        ),
    ] {
        let relative = relative_to(Path::new(config), Path::new(path));
        assert_eq!(relative, Path::new(shown), "{config} {path}");
        assert_eq!(
            absolute_beside(&PathBuf::from(config), &relative),
            Path::new(path)
        );
    }
    assert_eq!(
        absolute_beside(Path::new("config/stonechat.yaml"), Path::new("../data")),
        Path::new("data")
    );
}
