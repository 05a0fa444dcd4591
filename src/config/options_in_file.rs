//! The options that a file of another version has: renamed ones, unknown ones, and those that it
//! leaves to their defaults.

use std::path::Path;

use serde::Serialize;

use super::{
    Config, ConfigError,
    sample::{OPTIONS, at, is_section, scalar, tree},
    yaml,
};

/// An option that has had another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RenamedOption {
    /// The former name, with a dot between the section and what is below it.
    pub from: &'static str,
    /// The name now.
    pub to: &'static str,
    /// The version that brought it.
    pub since: &'static str,
}

/// All options that were ever renamed, the newest first. A test looks for each of them in the
/// changelog.
const RENAMED: &[RenamedOption] = &[];

/// An option that there is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnknownOption {
    /// Its name in the file.
    pub option: String,
    /// The option that was probably meant.
    pub meant: Option<&'static str>,
}

/// An option that the file does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DefaultOption {
    /// Its name.
    pub option: &'static str,
    /// The default, as it is written in a file.
    pub default: String,
}

/// What a file has of the options of this version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OptionsInFile {
    /// The options that have another name now.
    pub renamed: Vec<RenamedOption>,
    /// The options that there are not.
    pub unknown: Vec<UnknownOption>,
    /// The options that are not in the file and have their defaults, in the order of the sample file.
    pub defaults: Vec<DefaultOption>,
}

impl OptionsInFile {
    /// Looks through the text of a configuration file. `path` is for the errors. Fails if the text is
    /// not YAML; values are not looked at.
    pub fn find(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::find_with(RENAMED, path, text)
    }

    fn find_with(renamed: &[RenamedOption], path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut found = Self::default();
        let keys = yaml::keys_of(path, text)?;
        for key in &keys {
            if let Some(renamed) = renamed.iter().find(|renamed| renamed.from == key) {
                found.renamed.push(*renamed);
            } else if !is_known(key) {
                let known = OPTIONS.iter().map(|(option, _)| *option);
                found.unknown.push(UnknownOption {
                    meant: yaml::nearest(key, known.filter(|it| depth(it) == depth(key))),
                    option: key.clone(),
                });
            }
        }
        let defaults = tree(path, &Config::default())?;
        let options = OPTIONS.iter().map(|(option, _)| *option);
        for option in options.filter(|option| !is_section(option)) {
            if !keys.iter().any(|key| key == option) {
                found.defaults.push(DefaultOption {
                    option,
                    default: scalar(path, at(&defaults, option))?,
                });
            }
        }
        Ok(found)
    }
}

/// Returns the error that tells the new name of an option, if the file has a renamed one.
pub(super) fn renamed_in(path: &Path, text: &str) -> Option<ConfigError> {
    let found = OptionsInFile::find(path, text).ok()?;
    found.renamed.first().map(|renamed| refusal(path, renamed))
}

fn refusal(path: &Path, renamed: &RenamedOption) -> ConfigError {
    let RenamedOption { from, to, since } = renamed;
    ConfigError::value(
        path,
        from,
        format!("is called {to} since version {since}"),
        "rename it in the file",
    )
}

/// Returns whether there is an option, a section or a key below an option that holds a mapping.
fn is_known(key: &str) -> bool {
    let is_option = |name: &str| OPTIONS.iter().any(|(option, _)| *option == name);
    is_option(key)
        || key
            .split_once('.')
            .is_some_and(|(above, _)| is_option(above) && !is_section(above))
}

fn depth(key: &str) -> usize {
    key.matches('.').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sample_file;

    const TEST_RENAMED: &[RenamedOption] = &[
        RenamedOption {
            from: "relay.media_limit",
            to: "relay.media_at_most",
            since: "0.2.0",
        },
        RenamedOption {
            from: "database",
            to: "data",
            since: "0.1.1",
        },
    ];

    fn path() -> &'static Path {
        Path::new("stonechat.yaml")
    }

    #[test]
    fn a_new_file_has_every_option_and_no_other() {
        let text = sample_file(&Config::default()).unwrap();
        let found = OptionsInFile::find(path(), &text).unwrap();
        assert_eq!(found, OptionsInFile::default());
    }

    #[test]
    fn what_an_old_file_has_and_lacks_is_named() {
        let text = "
            homeserver: { url: http://127.0.0.1:8008, server_name: hs.test }
            database: ../data
            permissions: { hs.test: claim, \"@eve:hs.test\": none }
            relay: { media_limit: 5MiB, remembre: 30days }
            colour: red
        ";
        let found = OptionsInFile::find_with(TEST_RENAMED, path(), text).unwrap();
        assert_eq!(found.renamed, [TEST_RENAMED[1], TEST_RENAMED[0]]);
        let unknown = |option: &str, meant| UnknownOption {
            option: option.to_owned(),
            meant,
        };
        let wanted = [
            unknown("relay.remembre", Some("relay.remember")),
            unknown("colour", None),
        ];
        assert_eq!(found.unknown, wanted);
        let defaults: Vec<_> = found.defaults.iter().map(|it| it.option).collect();
        assert!(!defaults.contains(&"homeserver.url") && !defaults.contains(&"permissions"));
        let media = DefaultOption {
            option: "relay.media_at_most",
            default: "100MiB".to_owned(),
        };
        assert!(found.defaults.contains(&media), "{defaults:?}");
        assert!(defaults.contains(&"handles.reserved") && !defaults.contains(&"handles"));
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_the_line() {
        let error = OptionsInFile::find(path(), "homeserver:\n\turl: x").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        for text in ["", "[]", "7", "{[a]: b}", "a: {1: 2}"] {
            OptionsInFile::find(path(), text).unwrap();
        }
    }

    #[test]
    fn a_start_with_a_renamed_option_says_its_new_name() {
        assert_eq!(
            refusal(path(), &TEST_RENAMED[0]).to_string(),
            "stonechat.yaml: relay.media_limit: is called relay.media_at_most since version 0.2.0; \
             rename it in the file"
        );
    }

    #[test]
    fn each_renamed_option_leads_to_one_that_there_is_and_is_in_the_changelog() {
        let changelog = include_str!("../../CHANGELOG.md");
        for RenamedOption { from, to, .. } in RENAMED {
            assert!(!is_known(from) && is_known(to), "{from} to {to}");
            let named = |option: &str| changelog.contains(&format!("`{option}`"));
            assert!(named(from) && named(to), "{from} to {to}");
        }
    }
}
