//! `backup` and `restore` without a service.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{open_store, tests::Home};

/// Returns a home with a database to back up.
fn used() -> Home {
    let home = Home::new();
    home.init(&[]).unwrap();
    let store = open_store(&home.load(), &|_| None).unwrap();
    drop(crate::crypto::store::GhostStores::open(&store).unwrap());
    home
}

fn run(home: &Home, words: &[&str], file: &str) -> Result<(), String> {
    let file = home.path(file);
    let words = [words, &[file.to_str().unwrap()]].concat();
    home.run(&words).map_err(|error| error.to_string())
}

#[test]
fn a_backup_is_written_for_its_owner_alone_and_overwrites_nothing() {
    let home = used();
    run(&home, &["backup"], "file").unwrap();
    let mode = fs::metadata(home.path("file"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = run(&home, &["backup"], "file").unwrap_err();
    assert!(error.contains("--force"), "{error}");
    run(&home, &["backup", "--force"], "file").unwrap();
    let names = fs::read_dir(home.path("")).unwrap();
    let drafts = names.filter(|name| {
        let name = name.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(".file")
    });
    assert_eq!(drafts.count(), 0);
}

#[test]
fn without_a_database_there_is_nothing_to_back_up() {
    let home = Home::new();
    home.init(&[]).unwrap();
    let error = run(&home, &["backup"], "file").unwrap_err();
    assert!(error.contains("no database"), "{error}");
    assert!(!home.path("file").exists() && !home.path("data").exists());
}

#[test]
fn a_restore_changes_nothing_unless_everything_is_right() {
    let home = used();
    run(&home, &["backup"], "file").unwrap();
    let error = run(&home, &["restore"], "file").unwrap_err();
    assert!(error.contains("--force moves it"), "{error}");
    let open = open_store(&home.load(), &|_| None).unwrap();
    let error = run(&home, &["restore", "--force"], "file").unwrap_err();
    assert!(error.contains("in use"), "{error}");
    assert!(!open.is_restored().unwrap());
    drop(open);
    let key = fs::read(home.path("config/store.key")).unwrap();
    fs::write(home.path("config/store.key"), "07".repeat(32)).unwrap();
    let error = run(&home, &["restore", "--force"], "file").unwrap_err();
    assert!(error.contains("another store key"), "{error}");
    fs::write(home.path("config/store.key"), key).unwrap();
    let store = open_store(&home.load(), &|_| None).unwrap();
    assert!(!store.is_restored().unwrap());
    drop(store);
    run(&home, &["restore", "--force"], "file").unwrap();
    assert!(
        open_store(&home.load(), &|_| None)
            .unwrap()
            .is_restored()
            .unwrap()
    );
    let kept = fs::read_dir(home.path("data")).unwrap();
    let aside = kept.filter(|name| {
        let name = name.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("replaced-")
    });
    assert_eq!(aside.count(), 1);
}
