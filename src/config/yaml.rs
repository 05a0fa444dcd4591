//! YAML. Only this file uses the library.

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use super::ConfigError;

/// Reads `text`, which came from `path`, as a `T`. An error names the line and the key, and the key
/// that was probably meant.
///
/// An error can repeat a wrong value but no secret: in the formats read here secrets are strings,
/// and every string has the right type.
pub fn parse_yaml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    let document = serde_yaml::Deserializer::from_str(text);
    serde_path_to_error::deserialize(document).map_err(|error| {
        let key = error.path().to_string();
        let error = error.into_inner();
        let mut problem = error.to_string();
        // For a duplicate key the library knows only the line at which the section begins.
        let twice = problem.contains("duplicate field");
        let line = error.location().map(|at| at.line()).filter(|_| !twice);
        if let Some(at) = problem.rfind(" at line ") {
            problem.truncate(at);
        }
        // The library's message begins with the path to the error as well, but not always all of
        // it.
        let way: Vec<_> = key.split('.').collect();
        let known = (1..=way.len()).rev().find_map(|n| {
            let prefix = format!("{}: ", way.get(..n)?.join("."));
            problem.strip_prefix(&prefix).map(ToOwned::to_owned)
        });
        if let Some(rest) = known {
            problem = rest;
        }
        problem = with_remedy(&problem);
        if key != "." {
            problem = format!("{key}: {problem}");
        }
        ConfigError::Syntax {
            path: path.to_owned(),
            line,
            problem,
        }
    })
}

/// Writes a value as YAML.
pub fn to_yaml<T: Serialize>(path: &Path, value: &T) -> Result<String, ConfigError> {
    serde_yaml::to_string(value).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: None,
        problem: format!("cannot be written as YAML: {error}"),
    })
}

/// Parts of the libraries' messages about a value, and what to write instead.
const REMEDIES: [(&str, &str); 10] = [
    (
        "relative URL without a base",
        "write it with http:// or https://, as in http://127.0.0.1:8008",
    ),
    (
        "invalid socket address",
        "write an address and a port, as in 127.0.0.1:29331",
    ),
    (
        "server name is not a valid",
        "write what stands after the colon in its users' ids, as in example.org",
    ),
    (
        "expected a duration",
        "write a number and a unit, as in 3s or 5min",
    ),
    (
        "expected struct",
        "write its keys below it, each in a line of its own and indented",
    ),
    ("expected u", "write a whole number, 0 or more"),
    (
        "duplicate field",
        "let it stand there once, with all that is below it",
    ),
    (
        "missing field",
        "add it; `stonechat init` writes a file with every option",
    ),
    (
        "cannot start any token",
        "indent with spaces, not with tabs",
    ),
    (
        "did not find expected",
        "look there, and above it, for a wrong indentation or bracket",
    ),
];

/// Returns a library's message with what to do about it.
pub(crate) fn with_remedy(problem: &str) -> String {
    let fixed = || {
        let known = REMEDIES.iter().find(|(part, _)| problem.contains(part));
        known.map(|(_, remedy)| format!("; {remedy}"))
    };
    let remedy = meant(problem).or_else(fixed).unwrap_or_default();
    format!("{problem}{remedy}")
}

/// Returns a hint at the nearest known name, for "unknown field `a`, expected one of `b`, `c`".
fn meant(problem: &str) -> Option<String> {
    let unknown = problem.split_once("unknown field ").map(|(_, rest)| rest)?;
    let mut quoted = unknown.split('`').skip(1).step_by(2);
    let wrong = quoted.next()?;
    Some(match nearest(wrong, quoted) {
        Some(known) => format!("; did you mean `{known}`?"),
        None => "; remove it".to_owned(),
    })
}

/// Returns the known name that was probably meant.
pub(super) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::jaro_winkler(wrong, known), known))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .filter(|(likeness, _)| *likeness > 0.8)
        .map(|(_, known)| known)
}

/// Returns the keys of a file in its order: those at the top, and those below them with a dot between.
pub(super) fn keys_of(path: &Path, text: &str) -> Result<Vec<String>, ConfigError> {
    let tree: serde_yaml::Value = parse_yaml(path, text)?;
    let mut keys = Vec::new();
    for (key, value) in tree.as_mapping().into_iter().flatten() {
        let Some(section) = key.as_str() else {
            continue;
        };
        keys.push(section.to_owned());
        let below = value.as_mapping().into_iter().flatten();
        keys.extend(below.filter_map(|(key, _)| Some(format!("{section}.{}", key.as_str()?))));
    }
    Ok(keys)
}
