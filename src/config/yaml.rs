//! The one place that knows the YAML library.

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use super::ConfigError;

/// Reads `text`, which came from `path`, as a `T`. An error names line and key, and the key that
/// was probably meant.
///
/// It can repeat a value that is wrong, but no secret: those are strings to the formats read here,
/// and a string of any content has the right type.
pub fn parse_yaml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    let document = serde_yaml::Deserializer::from_str(text);
    serde_path_to_error::deserialize(document).map_err(|error| {
        let key = error.path().to_string();
        let error = error.into_inner();
        let mut problem = error.to_string();
        // Of a key that stands there twice the library knows only where the section begins.
        let twice = problem.contains("duplicate field");
        let line = error.location().map(|at| at.line()).filter(|_| !twice);
        if let Some(at) = problem.rfind(" at line ") {
            problem.truncate(at);
        }
        // The library knows the way to the error too, but not always to its end.
        let way: Vec<_> = key.split('.').collect();
        let known = (1..=way.len()).rev().find_map(|n| {
            let prefix = format!("{}: ", way.get(..n)?.join("."));
            problem.strip_prefix(&prefix).map(ToOwned::to_owned)
        });
        if let Some(rest) = known {
            problem = rest;
        }
        if let Some(hint) = meant(&problem) {
            problem.push_str(&hint);
        }
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

/// "unknown field `a`, expected one of `b`, `c`" becomes a hint at the nearest of them.
fn meant(problem: &str) -> Option<String> {
    let unknown = problem.split_once("unknown field ").map(|(_, rest)| rest)?;
    let mut quoted = unknown.split('`').skip(1).step_by(2);
    let wrong = quoted.next()?;
    let nearest = quoted
        .map(|known| (strsim::jaro_winkler(wrong, known), known))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    Some(if nearest.0 > 0.8 {
        format!("; did you mean `{}`?", nearest.1)
    } else {
        "; remove it".to_owned()
    })
}
