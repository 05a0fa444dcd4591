//! The fuzz target of the configuration: an accepted one can be written and read back unchanged,
//! and a refused one is refused with words.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a fuzz target reports a fault"
)]

use std::path::Path;

use super::{Config, Registration, registration_check::check_registration, sample_file, yaml};

/// Maximum length of a refusal apart from the input that it repeats, in bytes.
const WORDS_AT_MOST: usize = 2_000;

/// Reads the input as a configuration and as a registration.
pub(crate) fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let (path, registration_path) = (Path::new("stonechat.yaml"), Path::new("registration.yaml"));
    let config = Config::parse(path, text);
    match &config {
        Ok(config) => {
            let written = sample_file(config).unwrap();
            match Config::parse(path, &written) {
                Ok(read) => assert_eq!(read, *config, "{written}"),
                Err(error) => panic!("{error}\n{written}"),
            }
        }
        Err(error) => check_words(&error.to_string(), path, text),
    }
    let config = config.unwrap_or_default();
    let registration: Result<Registration, _> = yaml::parse_yaml(registration_path, text);
    match registration {
        Ok(registration) => {
            let written = registration.to_text(registration_path).unwrap();
            let read: Registration = yaml::parse_yaml(registration_path, &written).unwrap();
            assert_eq!(*read.to_text(registration_path).unwrap(), *written);
            let checked = check_registration(registration_path, &registration, path, &config);
            if let Err(error) = checked {
                check_words(&error.to_string(), registration_path, text);
            }
        }
        Err(error) => check_words(&error.to_string(), registration_path, text),
    }
}

/// Checks that a refusal names the file and the problem, and that its length is bounded.
fn check_words(words: &str, path: &Path, text: &str) {
    let about = words.strip_prefix(path.to_str().unwrap());
    assert!(about.is_some_and(|about| about.len() > 5), "{words:?}");
    // A quoted control character takes eight bytes.
    assert!(
        words.len() <= 20 * text.len() + WORDS_AT_MOST,
        "{} bytes",
        words.len()
    );
}
