//! Where the files are if nobody names another place.

use std::path::{Path, PathBuf};

/// The folder of the configuration that the Debian package makes. Where it exists, Stonechat is
/// installed on the machine, and commands work from any folder.
const SYSTEM_FOLDER: &str = "/etc/stonechat";

/// The folder of the database beside [`SYSTEM_FOLDER`].
const SYSTEM_DATA: &str = "/var/lib/stonechat/data";

/// The folder in which the Debian package has the module for Synapse.
const PACKAGED_MODULE: &str = "/usr/share/stonechat/synapse";

/// The name of the configuration file in its folder.
const CONFIG_NAME: &str = "stonechat.yaml";

/// Returns the configuration to use if none is named: the system's where Stonechat is installed,
/// otherwise that of the current folder.
pub(super) fn config() -> PathBuf {
    config_with(Path::new(SYSTEM_FOLDER))
}

fn config_with(system: &Path) -> PathBuf {
    if system.is_dir() {
        system.join(CONFIG_NAME)
    } else {
        Path::new("config").join(CONFIG_NAME)
    }
}

/// Returns whether a configuration is the one of the whole system, which systemd runs.
pub(super) fn is_system(config: &Path) -> bool {
    config == Path::new(SYSTEM_FOLDER).join(CONFIG_NAME)
}

/// Returns where `init` writes the registration for a configuration.
pub(super) fn registration(config: &Path) -> PathBuf {
    let name = "registration.yaml";
    if is_system(config) {
        Path::new(SYSTEM_FOLDER).join(name)
    } else {
        name.into()
    }
}

/// Returns the folder of the database that `init` writes into a configuration.
pub(super) fn data(config: &Path) -> PathBuf {
    if is_system(config) {
        SYSTEM_DATA
    } else {
        "data"
    }
    .into()
}

/// Returns the folder of the module, if the Debian package has put it there.
pub(super) fn packaged_module() -> Option<&'static Path> {
    Some(Path::new(PACKAGED_MODULE)).filter(|folder| folder.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_has_one_configuration_and_every_other_folder_its_own() {
        let system = tempfile::tempdir().unwrap();
        let there = system.path().join("stonechat.yaml");
        assert_eq!(config_with(system.path()), there);
        let absent = system.path().join("absent");
        assert_eq!(config_with(&absent), Path::new("config/stonechat.yaml"));
        // A file is no folder to write a configuration into.
        std::fs::write(&absent, "").unwrap();
        assert_eq!(config_with(&absent), Path::new("config/stonechat.yaml"));
    }

    #[test]
    fn the_files_of_the_system_are_apart_from_its_database() {
        let system = Path::new("/etc/stonechat/stonechat.yaml");
        assert!(is_system(system));
        assert_eq!(
            registration(system),
            Path::new("/etc/stonechat/registration.yaml")
        );
        assert_eq!(data(system), Path::new("/var/lib/stonechat/data"));
        let own = Path::new("config/stonechat.yaml");
        assert!(!is_system(own));
        assert_eq!(registration(own), Path::new("registration.yaml"));
        assert_eq!(data(own), Path::new("data"));
    }
}
