//! What is logged goes to standard error.

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// What these libraries log names sessions, devices and keys; sled's shows parts of records. What
/// the encryption library warns of comes to us as an error, and is often only a reason to look
/// again: that is told where it is decided.
const DISCREET: [(&str, &str); 5] = [
    ("matrix_sdk_common", "error"),
    ("matrix_sdk_crypto", "error"),
    ("matrix_sdk_store_encryption", "error"),
    ("sled", "warn"),
    ("vodozemac", "error"),
];

/// Starts logging; the second call in a process does nothing. `RUST_LOG` overrides the level.
pub fn start(log: &Log) {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let filter = EnvFilter::try_new(directives(asked.as_deref(), log))
        .unwrap_or_else(|_| EnvFilter::new(directives(None, log)));
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none();
            base.with_target(false).with_ansi(colour).try_init()
        }
        LogFormat::Json => base.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}

/// The libraries below us are held at warnings, and those that know keys at errors. A
/// `RUST_LOG=debug` does not change that for the latter: one has to name them.
fn directives(asked: Option<&str>, log: &Log) -> String {
    let asked = asked.filter(|asked| !asked.trim().is_empty());
    let mut directives = match asked {
        Some(asked) => asked.to_owned(),
        None => format!("warn,stonechat={}", log.level.as_str()),
    };
    for (library, level) in DISCREET {
        if asked.is_none_or(|asked| !asked.contains(library)) {
            directives.push_str(&format!(",{library}={level}"));
        }
    }
    directives
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_know_keys_are_heard_only_when_they_are_named() {
        let log = Log::default();
        for none in [None, Some(" ")] {
            let usual = directives(none, &log);
            assert!(usual.starts_with("warn,stonechat=info,"), "{usual}");
            assert!(usual.contains(",matrix_sdk_crypto=error"), "{usual}");
        }
        let all = directives(Some("debug"), &log);
        assert!(all.starts_with("debug,") && all.contains(",matrix_sdk_crypto=error"));
        let named = directives(Some("info,matrix_sdk_crypto=trace"), &log);
        assert!(!named.contains("matrix_sdk_crypto=error") && named.contains(",vodozemac=error"));
        for text in [all, named] {
            assert!(EnvFilter::try_new(&text).is_ok(), "{text}");
        }
    }
}
