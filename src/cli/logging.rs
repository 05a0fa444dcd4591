//! The log, which goes to standard error.
//!
//! Room ids, Matrix IDs and error texts come from people and servers that we do not know. All of
//! them pass through here, so that no logged value breaks a line, controls a terminal or is
//! endless.

use std::{
    fmt::{self, Debug},
    io, mem,
};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use super::printable::{Printable, SENTENCE_CHARS_MAX, VALUE_CHARS_MAX};
use crate::config::{LogFormat, LogSection};

/// The highest levels of libraries whose logs show secrets: sessions, devices and keys, or parts of
/// records. We get the warnings of the encryption library as errors too. Those are often only a
/// reason to try again, and are logged where that is decided.
const LIBRARY_LEVELS: [(&str, &str); 5] = [
    ("matrix_sdk_common", "error"),
    ("matrix_sdk_crypto", "error"),
    ("matrix_sdk_store_encryption", "error"),
    ("sled", "warn"),
    ("vodozemac", "error"),
];

/// The field that holds the message.
const MESSAGE: &str = "message";

/// Starts logging; the second call in a process does nothing. `RUST_LOG` overrides the level.
pub fn start(log: &LogSection) {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let filter = EnvFilter::try_new(filter_directives(asked.as_deref(), log))
        .unwrap_or_else(|_| EnvFilter::new(filter_directives(None, log)));
    let colour =
        io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(output_layer(log.format, colour, io::stderr))
        .try_init();
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    std::panic::set_hook(Box::new(log_panic));
}

/// Logs the place of a panic. Its message may quote what people wrote, raw and over several lines.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string);
    tracing::error!(at, "a part of Stonechat has panicked; please report it");
    tracing::debug!(
        message_of_panic = panic.payload_as_str(),
        "the message of the panic"
    );
}

/// Writes every entry to `writer`, as text or as JSON.
fn output_layer<S, W>(format: LogFormat, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let base = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => base
            .with_target(false)
            .with_ansi(colour)
            .fmt_fields(TextFields)
            .boxed(),
        LogFormat::Json => base
            .with_ansi(false)
            .fmt_fields(TextFields)
            .event_format(JsonEvents)
            .boxed(),
    }
}

/// Returns a value in the form in which the log may show it.
fn display_value(field: &Field, value: &dyn Debug) -> Printable<impl fmt::Display> {
    let chars_max = if field.name() == MESSAGE {
        SENTENCE_CHARS_MAX
    } else {
        VALUE_CHARS_MAX
    };
    Printable::cut(fmt::from_fn(move |f| value.fmt(f)), chars_max)
}

/// Fields as `name=value`, the sentence first and without a name.
struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = TextVisitor {
            writer,
            is_first: true,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct TextVisitor<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    result: fmt::Result,
}

impl Visit for TextVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let Some(name) = display_name(field) else {
            return;
        };
        if self.result.is_err() {
            return;
        }
        let space = if mem::take(&mut self.is_first) {
            ""
        } else {
            " "
        };
        let value = display_value(field, value);
        self.result = match name {
            MESSAGE => write!(self.writer, "{space}{value}"),
            name => write!(self.writer, "{space}{name}={value}"),
        };
    }
}

/// Returns the name to show a field by; `None` for the metadata of the `log` crate.
fn display_name(field: &Field) -> Option<&'static str> {
    let name = field.name();
    (!name.starts_with("log.")).then(|| name.trim_start_matches("r#"))
}

/// An event as one JSON object in one line.
struct JsonEvents;

impl<S, N> FormatEvent<S, N> for JsonEvents
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut object = Map::new();
        object.insert("timestamp".to_owned(), time.into());
        object.insert("level".to_owned(), event.metadata().level().as_str().into());
        event.record(&mut JsonFields(&mut object));
        object.insert("target".to_owned(), event.metadata().target().into());
        writeln!(writer, "{}", Value::Object(object))
    }
}

/// Puts fields into a JSON object.
struct JsonFields<'a>(&'a mut Map<String, Value>);

impl JsonFields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        if let Some(name) = display_name(field) {
            self.0.insert(name.to_owned(), value);
        }
    }
}

impl Visit for JsonFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let shown = display_value(field, value).to_string();
        self.put(field, shown.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

/// Returns the filter: warnings of libraries, and only errors of those that know keys.
/// `RUST_LOG=debug` does not change the latter, which have to be named.
fn filter_directives(asked: Option<&str>, log: &LogSection) -> String {
    let asked = asked.filter(|asked| !asked.trim().is_empty());
    let mut directives = match asked {
        Some(asked) => asked.to_owned(),
        None => format!("warn,stonechat={}", log.level.as_str()),
    };
    for (library, level) in LIBRARY_LEVELS {
        if asked.is_none_or(|asked| !asked.contains(library)) {
            directives.push_str(&format!(",{library}={level}"));
        }
    }
    directives
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{error, info};

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `log` runs.
    fn logged(format: LogFormat, log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber =
            tracing_subscriber::registry()
                .with(output_layer(format, false, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    const FORGED: &str = "!x\n2026-11-28T18:00:00Z  INFO restore: the handle is frozen \
                          ghost=@_dm_admin:hs.test \u{1b}[31m\u{9b}2J\u{202e}\u{2028}";

    #[test]
    fn nothing_from_outside_makes_a_line_or_controls_a_terminal() {
        let log = || {
            info!(room = %FORGED, "by display");
            info!(room = ?FORGED, "by debug");
            info!(room = FORGED, "as a string");
            info!(count = 7, "in the message: {FORGED}");
            let error = io::Error::other(FORGED);
            error!(error = &error as &dyn std::error::Error, "as an error");
            tracing::info_span!("span", room = %FORGED).in_scope(|| info!("in a span"));
        };
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, log);
            assert_eq!(text.lines().count(), 6, "{text}");
            let raw = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{2028}".contains(c));
            assert!(!text.contains(raw), "{text:?}");
            assert!(text.contains("restore: the handle is frozen"), "{text}");
            for line in text.lines() {
                assert!(line.contains("INFO") || line.contains("ERROR"), "{line}");
            }
        }
    }

    #[test]
    #[ignore = "run by the next test in a process of its own"]
    fn child_that_panics() {
        start(&LogSection::default());
        let panicking = std::thread::spawn(|| panic!("{FORGED}"));
        panicking.join().unwrap_err();
    }

    #[test]
    fn a_panic_is_logged_by_its_place() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture"])
            .arg("cli::logging::tests::child_that_panics")
            .env_remove("RUST_LOG")
            .output()
            .unwrap();
        let said = String::from_utf8(child.stderr).unwrap();
        assert!(child.status.success(), "{said}");
        assert!(said.contains("has panicked"), "{said}");
        assert!(said.contains("logging.rs:"), "{said}");
        assert!(!said.contains("restore:"), "{said}");
    }

    #[test]
    fn a_value_is_cut_and_a_sentence_of_ours_is_not() {
        let (long, sentence) = ("x".repeat(300), "y".repeat(300));
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, || info!(error = %long, "{sentence}"));
            assert_eq!(text.matches('x').count(), VALUE_CHARS_MAX, "{text}");
            assert_eq!(text.matches('y').count(), 300, "{text}");
            assert!(text.contains('…'));
        }
    }

    #[test]
    fn entries_look_as_they_always_did() {
        let log = || info!(room = %"!a:b", count = 3, took = ?std::time::Duration::ZERO, "ready");
        let text = logged(LogFormat::Text, log);
        assert!(
            text.ends_with("  INFO ready room=!a:b count=3 took=0ns\n"),
            "{text}"
        );
        let json: Value = serde_json::from_str(&logged(LogFormat::Json, log)).unwrap();
        assert_eq!(json["message"], "ready");
        assert_eq!((&json["room"], &json["count"]), (&"!a:b".into(), &3.into()));
        assert_eq!(json["level"], "INFO");
        assert!(json["timestamp"].as_str().unwrap().ends_with('Z'));
        assert!(json["target"].as_str().unwrap().contains("logging"));
    }

    #[test]
    fn libraries_that_know_keys_are_heard_only_when_they_are_named() {
        let log = LogSection::default();
        for none in [None, Some(" ")] {
            let usual = filter_directives(none, &log);
            assert!(usual.starts_with("warn,stonechat=info,"), "{usual}");
            assert!(usual.contains(",matrix_sdk_crypto=error"), "{usual}");
        }
        let all = filter_directives(Some("debug"), &log);
        assert!(all.starts_with("debug,") && all.contains(",matrix_sdk_crypto=error"));
        let named = filter_directives(Some("info,matrix_sdk_crypto=trace"), &log);
        assert!(!named.contains("matrix_sdk_crypto=error") && named.contains(",vodozemac=error"));
        for text in [all, named] {
            assert!(EnvFilter::try_new(&text).is_ok(), "{text}");
        }
    }
}
