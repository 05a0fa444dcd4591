use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::config::{Config, Registration};

pub(super) fn no_environment(_: &str) -> Option<String> {
    None
}

/// A folder to run subcommands in.
pub(super) struct Home(TempDir);

impl Home {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `init` or `registration` with these words and the paths of this folder.
    pub(super) fn run(&self, words: &[&str]) -> Result<(), CliError> {
        let [config, registration, data] =
            ["config/stonechat.yaml", "registration.yaml", "data"].map(|name| self.path(name));
        let mut line = vec!["stonechat", "--config", config.to_str().unwrap()];
        line.extend(words);
        if words[0] == "init" {
            line.extend(["--registration", registration.to_str().unwrap()]);
            line.extend(["--data", data.to_str().unwrap()]);
        }
        let cli = Cli::try_parse_from(line).map_err(|error| CliError::Usage(error.to_string()))?;
        match cli.command {
            Command::Init(init) => init.run(&cli.config),
            Command::Registration(write) => write.run(&cli.config),
            Command::Backup(backup) => block_on(backup.run(&cli.config, &no_environment)),
            Command::Restore(restore) => block_on(restore.run(&cli.config, &no_environment)),
            Command::Config(_)
            | Command::Doctor
            | Command::Run
            | Command::Status(_)
            | Command::Handle(_)
            | Command::Audit(_)
            | Command::Person(_)
            | Command::Server(_)
            | Command::Bans(_)
            | Command::Limits(_)
            | Command::Reload(_)
            | Command::Completions(_)
            | Command::Man(_) => {
                unreachable!("not in these tests")
            }
        }
    }

    pub(super) fn init(&self, words: &[&str]) -> Result<(), CliError> {
        let given = [
            "init",
            "--homeserver",
            "http://127.0.0.1:1",
            "--server-name",
            "example.org",
        ];
        self.run(&[&given, words].concat())
    }

    pub(super) fn load(&self) -> Setup {
        Setup::load(&self.path("config/stonechat.yaml"), &no_environment).unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

#[test]
fn keys_are_kept_from_core_dumps_unless_somebody_debugs() {
    use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
    guard_memory(&|name| (name == DEBUGGABLE).then(|| "1".to_owned())).unwrap();
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
    guard_memory(&no_environment).unwrap();
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
}

#[tokio::test]
async fn doctor_shows_nothing_to_a_stranger_on_the_port() {
    let stranger = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let home = Home::new();
    let address = stranger.local_addr().unwrap().to_string();
    home.init(&["--listen", &address]).unwrap();
    let config = home.path("config/stonechat.yaml");
    let doctor = doctor::run(&config, &no_environment);
    tokio::select! {
        biased;
        _ = stranger.accept() => panic!("it connects to what listens there"),
        done = doctor => assert_eq!(done.unwrap(), ExitCode::FAILURE),
    }
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn what_init_writes_can_be_run() {
    let home = Home::new();
    home.init(&[]).unwrap();
    for file in [
        "config/stonechat.yaml",
        "config/store.key",
        "registration.yaml",
    ] {
        let mode = fs::metadata(home.path(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
    let setup = home.load();
    assert_eq!(setup.config.homeserver.url.as_str(), "http://127.0.0.1:1/");
    assert_eq!(
        setup.config.registration,
        PathBuf::from("../registration.yaml")
    );
    assert_eq!(setup.data, home.path("data"));
    drop(open_store(&setup, &no_environment).unwrap());
    assert!(home.path("data").is_dir());
}

#[test]
fn init_refuses_to_overwrite_and_then_changes_nothing() {
    for there in ["config/stonechat.yaml", "registration.yaml"] {
        let home = Home::new();
        fs::create_dir_all(home.path("config")).unwrap();
        fs::write(home.path(there), "mine").unwrap();
        let error = home.init(&[]).unwrap_err().to_string();
        assert!(
            error.contains(there) && error.contains("--force"),
            "{error}"
        );
        assert_eq!(home.read(there), "mine");
        for other in [
            "config/stonechat.yaml",
            "registration.yaml",
            "config/store.key",
        ] {
            assert_eq!(home.path(other).exists(), other == there, "{other}");
        }
    }
}

#[test]
fn init_with_force_makes_new_tokens_but_never_a_new_key() {
    let home = Home::new();
    home.init(&[]).unwrap();
    let (key, tokens) = (
        home.read("config/store.key"),
        home.load().registration.tokens(),
    );
    home.init(&["--force", "--listen", "[::]:4000"]).unwrap();
    assert_eq!(home.read("config/store.key"), key);
    let setup = home.load();
    assert_ne!(
        setup.registration.as_token.expose_secret(),
        tokens.appservice.expose_secret()
    );
    assert_eq!(setup.config.appservice.url.as_str(), "http://[::1]:4000/");
}

#[test]
fn init_refuses_what_could_not_run() {
    for words in [
        ["--homeserver", "nowhere", "--server-name", "a"],
        ["--homeserver", "ftp://a", "--server-name", "a"],
        ["--homeserver", "http://a", "--server-name", "no spaces"],
        ["--homeserver", "http://a", "--listen", "127.0.0.1"],
    ] {
        let home = Home::new();
        home.run(&[&["init"], &words[..]].concat()).unwrap_err();
        assert_eq!(fs::read_dir(home.0.path()).unwrap().count(), 0, "{words:?}");
    }
}

#[test]
fn the_homeserver_is_told_in_its_own_language() {
    let home = Home::new();
    let registration = home.path("a \"strange\" name.yaml");
    let text = init::homeserver_yaml(&registration);
    let yaml = text
        .split_once("\n\n")
        .unwrap()
        .1
        .split_once("\n\n")
        .unwrap()
        .0;
    let yaml: serde_yaml::Value = serde_yaml::from_str(yaml).unwrap();
    assert_eq!(
        yaml["app_service_config_files"][0],
        registration.to_str().unwrap()
    );
    for flag in [
        "msc2409_to_device_messages_enabled",
        "msc3202_transaction_extensions",
    ] {
        assert_eq!(yaml["experimental_features"][flag], true);
    }
    assert_eq!(
        yaml["encryption_enabled_by_default_for_room_type"],
        "invite"
    );
}

#[test]
fn the_registration_follows_the_configuration_and_keeps_its_tokens() {
    let home = Home::new();
    home.init(&[]).unwrap();
    let tokens = home.load().registration.tokens();
    let registration = home.read("registration.yaml");
    let edited = registration.replace("exclusive: false", "exclusive: true");
    fs::write(home.path("registration.yaml"), edited).unwrap();
    let config = home.read("config/stonechat.yaml").replace("29331", "4000");
    fs::write(home.path("config/stonechat.yaml"), config).unwrap();

    home.run(&["registration"]).unwrap();
    let setup = home.load();
    let kept = setup.registration.tokens();
    assert_eq!(
        kept.appservice.expose_secret(),
        tokens.appservice.expose_secret()
    );
    assert_eq!(
        kept.homeserver.expose_secret(),
        tokens.homeserver.expose_secret()
    );
    assert!(
        setup.registration.namespaces.users[0].exclusive,
        "the admin's choice stays"
    );

    home.run(&["registration", "--new-tokens"]).unwrap();
    let fresh = home.load().registration.tokens();
    assert_ne!(
        fresh.appservice.expose_secret(),
        tokens.appservice.expose_secret()
    );
    assert_ne!(
        fresh.homeserver.expose_secret(),
        tokens.homeserver.expose_secret()
    );

    fs::remove_file(home.path("registration.yaml")).unwrap();
    home.run(&["registration"]).unwrap();
    home.load();
}

#[test]
fn the_registration_of_a_broken_configuration_is_not_touched() {
    let home = Home::new();
    home.init(&[]).unwrap();
    let before = home.read("registration.yaml");
    fs::write(home.path("config/stonechat.yaml"), "homeserver: 7").unwrap();
    home.run(&["registration"]).unwrap_err();
    assert_eq!(home.read("registration.yaml"), before);
    Registration::read(&home.path("registration.yaml")).unwrap();
    assert!(Config::load(&home.path("config/stonechat.yaml")).is_err());
}

#[test]
fn the_key_of_the_database_can_come_from_the_environment() {
    let home = Home::new();
    home.init(&[]).unwrap();
    fs::remove_file(home.path("config/store.key")).unwrap();
    let setup = home.load();
    let error = open_store(&setup, &no_environment).unwrap_err().to_string();
    assert!(error.contains("stonechat init"), "{error}");
    let key = |hex: &str| {
        let hex = hex.repeat(32);
        move |name: &str| (name == secrets::STORE_KEY).then(|| hex.clone())
    };
    drop(open_store(&setup, &key("07")).unwrap());
    let error = open_store(&setup, &key("08")).unwrap_err().to_string();
    assert!(!error.contains("0808"), "{error}");
}

#[test]
fn init_with_module_makes_a_token_and_what_turns_the_module_on() {
    let home = Home::new();
    home.init(&["--with-module", "--listen", "0.0.0.0:4000"])
        .unwrap();
    let token = home.path("config/module.token");
    let mode = fs::metadata(&token).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let setup = home.load();
    let read = setup.module_token.unwrap();
    assert_eq!(
        read.expose_secret(),
        home.read("config/module.token").trim()
    );
    let registration = home.read("registration.yaml");
    assert!(!registration.contains(read.expose_secret()));

    let snippet = home.read("config/homeserver-module.yaml");
    assert_eq!(snippet.lines().count(), 3, "{snippet}");
    let yaml: serde_yaml::Value = serde_yaml::from_str(&snippet).unwrap();
    let module = &yaml["modules"][0];
    assert_eq!(module["module"], "synapse_stonechat.StonechatModule");
    assert_eq!(module["config"]["url"], "http://127.0.0.1:4000");
    assert_eq!(module["config"]["token_file"], token.to_str().unwrap());
    let config = home.load().config;
    let printed = init::module_yaml(
        &config,
        &crate::config::ModuleToken::of(&home.path("config/stonechat.yaml"), &config),
    );
    assert!(printed.contains(&snippet), "{printed}");
}

#[test]
fn without_asking_for_it_there_is_no_module_and_it_can_be_had_later() {
    let home = Home::new();
    home.init(&[]).unwrap();
    assert!(home.load().module_token.is_none());
    home.run(&["registration"]).unwrap();
    assert!(!home.path("config/module.token").exists());

    home.run(&["registration", "--with-module"]).unwrap();
    let token = home.read("config/module.token");
    assert!(home.load().module_token.is_some());
    home.run(&["registration", "--with-module"]).unwrap();
    assert_eq!(home.read("config/module.token"), token, "it stays");
    home.run(&["registration", "--new-tokens"]).unwrap();
    assert_ne!(home.read("config/module.token"), token);
}

#[test]
fn a_token_of_the_module_that_is_none_or_not_secret_is_refused() {
    let home = Home::new();
    home.init(&["--with-module"]).unwrap();
    let (file, config) = (
        home.path("config/module.token"),
        home.path("config/stonechat.yaml"),
    );
    let refused = || {
        let error = Setup::load(&config, &no_environment)
            .unwrap_err()
            .to_string();
        assert!(error.contains("module.token"), "{error}");
        error
    };
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refused().contains("chmod 640"));
    // The homeserver has to read it, as it does the registration.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    home.load();
    fs::write(&file, "short").unwrap();
    assert!(refused().contains("shorter than 32"));
    let hs_token = Registration::read(&home.path("registration.yaml")).unwrap();
    fs::write(&file, hs_token.hs_token.expose_secret()).unwrap();
    assert!(refused().contains("token of the registration"));
    fs::remove_file(&file).unwrap();
    let given = |name: &str| (name == secrets::MODULE_TOKEN).then(|| "t".repeat(40));
    let setup = Setup::load(&config, &given).unwrap();
    assert!(setup.module_token.is_some());
}
