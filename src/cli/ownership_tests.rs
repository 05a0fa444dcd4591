//! Files that the homeserver reads stay readable for it, no matter who runs the command.
//!
//! This needs other users, so these tests are skipped, and say so, unless root runs them.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use clap::Parser;

use super::{Cli, Command as Subcommand, tests::Home};

/// The user that runs Stonechat, and its group. Any ids will do that are not root's.
const STONECHAT: u32 = 65_534;
/// The group of the homeserver, of which that user is no member.
const HOMESERVER: u32 = 60_001;

/// The environment variables that tell the child its folder and its arguments.
const FOLDER: &str = "STONECHAT_TEST_FOLDER_OF_CHILD";
const WORDS: &str = "STONECHAT_TEST_WORDS_OF_CHILD";

/// The content and the permissions of a file.
#[derive(Debug, PartialEq, Eq)]
struct File {
    content: String,
    owner: u32,
    group: u32,
    mode: u32,
}

fn file(path: &Path) -> File {
    let about = fs::metadata(path).unwrap();
    File {
        content: fs::read_to_string(path).unwrap(),
        owner: about.uid(),
        group: about.gid(),
        mode: about.mode() & 0o777,
    }
}

/// Returns a folder after `init` and the `chgrp` and `chmod` of the guide; `None` if we are not
/// root.
fn installed() -> Option<Home> {
    let home = Home::new();
    home.init(&[]).unwrap();
    let all = ["", "config", "config/stonechat.yaml", "config/store.key"];
    for path in all.map(|name| home.path(name)) {
        if let Err(error) = chown(&path, Some(STONECHAT), Some(STONECHAT)) {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            println!("skipped: only root can act as another user");
            return None;
        }
    }
    let registration = home.path("registration.yaml");
    chown(&registration, Some(STONECHAT), Some(HOMESERVER)).unwrap();
    fs::set_permissions(&registration, fs::Permissions::from_mode(0o640)).unwrap();
    Some(home)
}

/// Runs a subcommand in the folder as the user that runs Stonechat, and returns whether it
/// succeeded and what it said.
fn as_stonechat(home: &Home, words: &str) -> (bool, String) {
    // By this name, since the folders above the program may be closed to that user.
    let child = Command::new("/proc/self/exe")
        .args(["--exact", "--ignored", "--nocapture"])
        .arg("cli::ownership_tests::child_of_another_user")
        .env(FOLDER, home.path(""))
        .env(WORDS, words)
        .current_dir("/")
        .uid(STONECHAT)
        .gid(STONECHAT)
        .output()
        .unwrap();
    let said = [child.stdout, child.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("running 1 test"), "{said}");
    (child.status.success(), said)
}

#[test]
#[ignore = "run by the other tests in a process of another user"]
fn child_of_another_user() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let words = std::env::var(WORDS).unwrap();
    let config = folder.join("config/stonechat.yaml");
    let line = ["stonechat", "--config", config.to_str().unwrap()];
    let cli = Cli::try_parse_from(line.into_iter().chain(words.split(' '))).unwrap();
    let Subcommand::Registration(write) = cli.command else {
        panic!("{words}");
    };
    if let Err(error) = write.run(&cli.config) {
        panic!("refused: {error}");
    }
}

#[test]
fn setting_the_module_up_leaves_the_registration_to_the_homeserver() {
    let Some(home) = installed() else { return };
    let registration = home.path("registration.yaml");
    let before = file(&registration);
    let (done, said) = as_stonechat(&home, "registration --with-module");
    assert!(done, "{said}");
    assert_eq!(file(&registration), before);
    assert!(said.contains("was not written"), "{said}");
    let token = file(&home.path("config/module.token"));
    assert_eq!((token.owner, token.mode), (STONECHAT, 0o600));
}

#[test]
fn new_tokens_leave_the_files_to_the_homeserver() {
    let Some(home) = installed() else { return };
    let (done, said) = as_stonechat(&home, "registration --with-module");
    assert!(done, "{said}");
    let files = ["registration.yaml", "config/module.token"].map(|name| home.path(name));
    chown(&files[1], None, Some(HOMESERVER)).unwrap();
    fs::set_permissions(&files[1], fs::Permissions::from_mode(0o640)).unwrap();
    let before = files.each_ref().map(|path| file(path));
    let (done, said) = as_stonechat(&home, "registration --new-tokens");
    assert!(done, "{said}");
    for (path, before) in files.iter().zip(before) {
        let now = file(path);
        assert_ne!(now.content, before.content);
        let content = before.content.clone();
        assert_eq!(File { content, ..now }, before, "{}", path.display());
    }
    let drafts = fs::read_dir(home.path("")).unwrap();
    assert_eq!(drafts.count(), 2, "config and registration.yaml alone");
    home.load();
}

#[test]
fn root_leaves_the_files_to_their_owner() {
    let Some(home) = installed() else { return };
    let registration = home.path("registration.yaml");
    let before = file(&registration);
    home.run(&["registration", "--new-tokens"]).unwrap();
    let now = file(&registration);
    assert_ne!(now.content, before.content);
    let content = before.content.clone();
    assert_eq!(File { content, ..now }, before);
}

#[test]
fn what_cannot_be_kept_is_refused_before_anything_changes() {
    let Some(home) = installed() else { return };
    let (done, said) = as_stonechat(&home, "registration --with-module");
    assert!(done, "{said}");
    let (registration, token) = (
        home.path("registration.yaml"),
        home.path("config/module.token"),
    );
    // The second of the two files is the homeserver's own.
    chown(&token, Some(HOMESERVER), Some(HOMESERVER)).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o640)).unwrap();
    let before = (file(&registration), file(&token));
    let (done, said) = as_stonechat(&home, "registration --new-tokens");
    assert!(!done, "{said}");
    assert!(
        said.contains("module.token") && said.contains("Run this as root"),
        "{said}"
    );
    assert_eq!((file(&registration), file(&token)), before);
    assert_eq!(fs::read_dir(home.path("")).unwrap().count(), 2, "a draft");
}
