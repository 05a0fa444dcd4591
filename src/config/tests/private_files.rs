//! Writing files with secrets, and their paths.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use assert_matches::assert_matches;

use super::*;

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
