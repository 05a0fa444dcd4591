//! Tests of the configuration, by subject, and what they share.

mod disclosure;
mod private_files;
mod registrations;
mod samples;
mod values;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rand::{SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;

use super::*;

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
