//! The sample files, made from the code: every option with its comment and its default.

use std::{fmt::Write, path::Path};

use secrecy::SecretString;
use serde_yaml::Value;
use zeroize::Zeroizing;

use super::{Config, ConfigError, Registration, Tokens, yaml};

/// The mark of the tokens in the repository's sample, which everybody knows.
pub(super) const SAMPLE_TOKEN_MARK: &str = "sample_do_not_use";

/// The reason why the registration in the repository does not work as it is.
pub const SAMPLE_TOKENS_NOTE: &str = "sample tokens are refused when Stonechat starts";

const TITLE: &str = "\
# Stonechat's configuration. Every option is here with its default, which also holds for options
# that are left out. An unknown option is refused.
#
# Relative paths are relative to the folder of this file. Durations are written like 500ms, 10s,
# 5m, 1h, 90days, 1year; sizes like 500KiB, 100MiB, 1GiB.
#
# This file holds no secrets. The tokens are in the registration, and the key of the database is in
# a file of its own. The environment variables STONECHAT_AS_TOKEN, STONECHAT_HS_TOKEN,
# STONECHAT_STORE_KEY and STONECHAT_MODULE_TOKEN replace them if they are set.
";

/// All keys in the order of the file, with their comments. A key without a dot that has others
/// below it is a section.
#[rustfmt::skip]
pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("homeserver", "The homeserver that Stonechat serves."),
    ("homeserver.url", "Where Stonechat reaches the homeserver's client-server API. Must be given."),
    ("homeserver.server_name", "The homeserver's name: the part of its users' ids after the colon. Must be given."),
    ("homeserver.timeout", "How long a request to the homeserver may take."),
    ("homeserver.proxy", "The proxy through which Stonechat reaches the homeserver, like http://127.0.0.1:3128. HTTP_PROXY and the like do not apply."),

    ("appservice", "How the homeserver reaches Stonechat. After a change run `stonechat registration` and restart the homeserver."),
    ("appservice.id", "Stonechat's name in the homeserver's list of application services."),
    ("appservice.listen", "The address to listen on. Nobody but the homeserver needs to reach it."),
    ("appservice.url", "The same address as the homeserver sees it."),

    ("registration", "The registration file, which the homeserver reads as well."),
    ("data", "The folder of the database."),

    ("store", "The database."),
    ("store.cache_mib", "Memory for its cache, in MiB."),
    ("store.key_file", "The file with the key that encrypts secrets in the database. Keep a copy apart from the backups: without the key they are useless, and with it they are readable."),

    ("permissions", "What people may do, by Matrix ID, by server, or for everybody (\"*\"): none, reach (reach the owners of handles), claim (also have handles), or admin (also act on the handles of others, by writing to the bot). The entry for the person holds before that for their server, and that before \"*\". What has no entry: people of this server claim, everybody else reaches. An example: {\"friends.org\": claim, \"@eve:example.org\": reach, \"*\": none}. A change takes effect with `stonechat reload`."),

    ("handles", "What a handle may look like and how many a person may hold."),
    ("handles.min_length", "The shortest handle, in characters."),
    ("handles.max_length", "The longest handle, in characters."),
    ("handles.max_per_person", "How many handles one person may hold at a time."),
    ("handles.quarantine", "How long a released handle is kept for its last owner alone."),
    ("handles.reserved", "Names that nobody may claim, in addition to the shipped list."),

    ("limits", "How much one person or one server may ask of Stonechat."),
    ("limits.new_conversations_per_sender", "New conversations that one person may start in a day, over all handles."),
    ("limits.new_conversations_per_server", "New conversations that the people of one other homeserver may start in a day, together."),
    ("limits.handles_per_room", "How many handles may be invited into a room while it is being created, 10 at most."),
    ("limits.claims_per_day", "How many handles one person may claim in a day."),
    ("limits.claims_per_server", "How many handles the people of one other homeserver may claim in a day, together."),
    ("limits.lookups_per_second", "Third-party lookups answered in a second, for everybody together. Further ones get an empty answer."),
    ("limits.unclaimed_per_day", "Invites to names that nobody holds that are declined in a day, for everybody together. Each needs a user on the homeserver. Further ones are left unanswered."),
    ("limits.decline_after", "How long a ghost takes to decline. It is the same for every reason, so that the delay tells nothing."),

    ("introductions", "How a ghost brings two people together."),
    ("introductions.strict", "Whether nothing that people write passes through Stonechat, not even the opening line, for every handle of this server. Each owner can choose this for their own handle too."),
    ("introductions.wait_for_message", "How long a ghost waits for the opening line before it introduces without one."),
    ("introductions.linger", "How long a ghost stays after it has invited the owner and after the last message, to pass on messages that are still coming."),
    ("introductions.at_most", "The longest time that it stays after the invite."),
    ("introductions.wait_for_owner", "How long it stays if the owner has to join before anything can be passed on to them."),
    ("introductions.wait_for_answer", "How long it stays if the owner has to be asked first (`policy sam ask`). After that the request ends as if it had been declined."),
    ("introductions.joins_at_once", "How many introductions by people of this server run at the same time. The same number may run for all others together, and at most two for any one server. The rest wait."),
    ("introductions.room_members", "A ghost leaves rooms with more members than this."),

    ("relay", "How conversations with masked handles are passed on between their rooms."),
    ("relay.offered", "Whether people can mask their handles (`mode sam masked`). What they write then passes through Stonechat, which can read it on the way."),
    ("relay.delivery_receipts", "Whether a read receipt of the ghost shows that a message has reached the other side."),
    ("relay.remember", "How long Stonechat remembers the ids of an event in both rooms, so that replies, edits, reactions and deletions find their target; at most the newest 5,000 of each room. If the target is older, they are passed on without it, or their sender is told."),
    ("relay.wait_for_key", "How long a message whose key is missing holds up those behind it. After that its sender is asked to send it again."),
    ("relay.media_at_most", "The largest file from another homeserver that is passed on, like 500KiB, 100MiB, 1GiB, and never more than the homeserver's own limit. Its sender is told the limit. Files pass through in small pieces, so this costs no memory."),

    ("reconcile", "The homeserver can lose events that it pushes, so each ghost asks it now and then for those that it missed."),
    ("reconcile.interval", "How often every ghost asks. Ghosts with open work also ask at every start, before the others."),
    ("reconcile.ghosts_per_second", "How many ghosts ask in a second."),

    ("crypto", "The encryption of ghosts and bot."),
    ("crypto.machines_in_memory", "How many ghosts' keys are kept in memory. The others are loaded when they are needed."),

    ("module", "The module in the homeserver. With it, no ghost enters rooms that are created for open handles."),
    ("module.token_file", "The file with the token that the module shows to Stonechat. The homeserver reads it as well. `stonechat registration --with-module` writes it and prints what to add to homeserver.yaml. Without this file there is no module."),

    ("metrics", "Metrics for Prometheus. They name no person, room, handle or server."),
    ("metrics.listen", "The address at which Prometheus reads them, like 127.0.0.1:29339; without it there are none. Anybody who reaches it can read them."),

    ("log", "The log, on standard error. It never holds what people write, tokens or keys."),
    ("log.format", "text, or json for machines."),
    ("log.level", "error, warn, info, debug or trace. The environment variable RUST_LOG overrides it."),
];

/// Returns the configuration file for `config`, with all comments and defaults.
pub fn sample_file(config: &Config) -> Result<String, ConfigError> {
    let path = Path::new("stonechat.yaml");
    let values = tree(path, config)?;
    let defaults = tree(path, &Config::default())?;
    let mut out = TITLE.to_owned();
    for (key, comment) in OPTIONS {
        let (indent, name) = match key.split_once('.') {
            Some((_, name)) => ("  ", name),
            None => ("", *key),
        };
        let value = at(&values, key);
        let default = at(&defaults, key);
        out.push_str(if indent.is_empty() { "\n" } else { "" });
        for line in wrap(comment, 97 - indent.len()) {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{indent}# {line}");
        }
        match value {
            Value::Mapping(_) if is_section(key) => {
                let _ = writeln!(out, "{indent}{name}:");
            }
            value => {
                if *value != *default && !comment.contains("Must be given") {
                    let _ = writeln!(out, "{indent}# Default: {}", scalar(path, default)?);
                }
                let _ = writeln!(out, "{indent}{name}: {}", scalar(path, value)?);
            }
        }
    }
    Ok(out)
}

/// Returns the options, in the order of the file, whose values differ. `path` is for the errors.
pub fn changed_options(path: &Path, a: &Config, b: &Config) -> Result<Vec<String>, ConfigError> {
    let (a, b) = (tree(path, a)?, tree(path, b)?);
    let options = OPTIONS.iter().map(|(key, _)| *key);
    let values = options.filter(|key| !is_section(key));
    let changed = values.filter(|key| at(&a, key) != at(&b, key));
    Ok(changed.map(str::to_owned).collect())
}

/// Returns the registration of the repository: like the one that `init` writes, but with tokens
/// that are refused.
pub fn sample_registration(config: &Config) -> Result<Zeroizing<String>, ConfigError> {
    let tokens = Tokens {
        appservice: SecretString::from(format!("as_{SAMPLE_TOKEN_MARK}_{}", "0".repeat(46))),
        homeserver: SecretString::from(format!("hs_{SAMPLE_TOKEN_MARK}_{}", "1".repeat(46))),
    };
    Registration::of(config, tokens).to_text(Path::new("registration.yaml"))
}

pub(super) fn tree(path: &Path, config: &Config) -> Result<Value, ConfigError> {
    serde_yaml::to_value(config).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: None,
        problem: error.to_string(),
    })
}

/// Returns whether a key has options below it.
pub(super) fn is_section(key: &str) -> bool {
    OPTIONS.iter().any(|(option, _)| {
        let below = option.strip_prefix(key);
        below.is_some_and(|rest| rest.starts_with('.'))
    })
}

pub(super) fn at<'a>(tree: &'a Value, key: &str) -> &'a Value {
    key.split('.')
        .try_fold(tree, |tree, name| tree.get(name))
        .unwrap_or(&Value::Null)
}

/// Returns a value on one line. Lists, and texts that YAML would write on several lines, are
/// written as JSON, which is valid YAML.
pub(super) fn scalar(path: &Path, value: &Value) -> Result<String, ConfigError> {
    if !matches!(value, Value::Sequence(_)) {
        let text = yaml::to_yaml(path, value)?;
        let text = text.trim_end_matches('\n');
        if !text.contains('\n') {
            return Ok(text.to_owned());
        }
    }
    let json = serde_json::to_string(value).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: None,
        problem: error.to_string(),
    })?;
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        // JSON leaves these unescaped, but YAML refuses them or reads them as line breaks.
        if matches!(
            c,
            '\u{7F}'..='\u{9F}' | '\u{2028}' | '\u{2029}' | '\u{FEFF}' | '\u{FFFE}' | '\u{FFFF}'
        ) {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Ok(out)
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
