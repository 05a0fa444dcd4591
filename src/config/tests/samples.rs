//! The sample files of the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_yaml::Value;

use super::*;
use crate::config::sample::OPTIONS;

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
    assert!(error.ends_with("use 500years or less"), "{error}");
}
