//! Any commands and reactions of two people in any order, with clocks that jump and stops between
//! an answer and its writing.

use proptest::prelude::*;
use ruma::{event_id, room_id};

use super::*;
use crate::{bot::input::COMMAND_AGE_MAX, directory::Request};

const MINUTE: i64 = 60 * 1000;

/// What they write; CODE is the last code that the bot has told anybody.
const COMMANDS: [&str; 30] = [
    "claim sam",
    "claim kim",
    "claim sarn",
    "handles",
    "policy sam everyone",
    "policy sam ask",
    "policy nobody",
    "mode sam open",
    "mode sam strict",
    "mode sam masked",
    "calls sam direct",
    "appear Kim",
    "appear Kim @sam",
    "release sam",
    "release kim",
    "release sam",
    "confirm CODE",
    "confirm CODE",
    "confirm 0000",
    "cancel",
    "requests",
    "accept 1",
    "decline 1",
    "block 1",
    "block @kim",
    "unblock @kim",
    "dm @sam",
    "dm @nobody",
    "whoami",
    "help",
];

#[derive(Clone, Debug)]
enum Act {
    Writes(&'static str),
    Reacts(&'static str),
    /// Alice asks to be introduced to the owner of `@sam`.
    AliceAsks,
}

#[derive(Clone, Debug)]
struct Step {
    by_sam: bool,
    act: Act,
    /// How long after the step before; negative if a clock was set back.
    pause: i64,
    /// How old the message is, by the clocks of two servers.
    age: i64,
    /// Whether the service stops before the answer is written, and gets the message again.
    stops: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let reaction = prop_oneof![Just("✅"), Just("❌"), Just("🚫"), Just("🎉")];
    let act = prop_oneof![
        12 => proptest::sample::select(&COMMANDS[..]).prop_map(Act::Writes),
        1 => reaction.prop_map(Act::Reacts),
        1 => Just(Act::AliceAsks),
    ];
    let pause = prop_oneof![
        12 => 0..MINUTE,
        1 => 0..400 * 24 * 60 * MINUTE,
        1 => -60 * MINUTE..0,
    ];
    let age = prop_oneof![12 => Just(0), 1 => -20 * MINUTE..20 * MINUTE];
    let step = (any::<bool>(), act, pause, age, prop::bool::weighted(0.1));
    let step = step.prop_map(|(by_sam, act, pause, age, stops)| Step {
        by_sam,
        act,
        pause,
        age,
        stops,
    });
    proptest::collection::vec(step, 1..40)
}

/// The control rooms, and the codes that the bot has told, each with its person.
struct Watched {
    talk: Talk,
    codes: Vec<(Person, String)>,
}

impl Watched {
    fn records(&self) -> Vec<Option<HandleRecord>> {
        ["sam", "kim", "sarn"]
            .map(|name| self.talk.record(name))
            .into()
    }

    fn content(&self, act: &Act) -> Option<(&'static str, Value, String)> {
        match act {
            Act::Writes(text) => {
                let code = self.codes.last().map_or("1234", |(_, code)| code);
                let text = text.replace("CODE", code);
                let content = json!({ "msgtype": "m.text", "body": text });
                Some(("m.room.message", content, text))
            }
            Act::Reacts(key) => {
                let relation =
                    json!({ "rel_type": "m.annotation", "event_id": "$shown", "key": key });
                let content = json!({ "m.relates_to": relation });
                Some(("m.reaction", content, String::new()))
            }
            Act::AliceAsks => None,
        }
    }

    async fn alice_asks(&mut self) {
        let record = self.talk.record("sam");
        let Some(record) = record.filter(|record| record.holder().is_some()) else {
            return;
        };
        let request = Request {
            handle: record.handle,
            generation: record.generation,
            asker: alice().to_owned(),
            room: room_id!("!waits:example.org").to_owned(),
            ghost: ghost("sam"),
            since: self.talk.now,
            mode: record.mode,
            shown: None,
            line_shown: None,
            asker_alias: None,
        };
        let mut tx = self.talk.directory.begin().await;
        if let Some(number) = tx.open_request(&record.owner, &request).unwrap() {
            let shown = event_id!("$shown").to_owned();
            tx.set_request_shown(&record.owner, number, shown).unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// Lets the bot answer, without writing anything of it.
    async fn stops(&mut self, person: &Person, kind: &str, content: &Value, sent_at: Timestamp) {
        let message = Message {
            person,
            event_type: kind,
            content,
            sent_at,
            now: self.talk.now,
            greeted_at: None,
        };
        let mut tx = self.talk.directory.begin().await;
        answer(&message, &self.talk.options, &mut tx, &mut self.talk.rng).unwrap();
    }

    async fn plays(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.talk.now = Timestamp(self.talk.now.0.saturating_add_signed(step.pause));
        let person = if step.by_sam { sam() } else { kim() };
        let Some((kind, content, text)) = self.content(&step.act) else {
            self.alice_asks().await;
            return Ok(());
        };
        let sent_at = Timestamp(self.talk.now.0.saturating_add_signed(-step.age));
        let before = self.records();
        if step.stops {
            self.stops(person, kind, &content, sent_at).await;
            prop_assert_eq!(&self.records(), &before, "nothing was written");
        }
        let said = self
            .talk
            .answer_event(person, kind, &content, sent_at)
            .await;
        if step.age.unsigned_abs() > u64::try_from(COMMAND_AGE_MAX.as_millis()).unwrap() {
            prop_assert_eq!(&self.records(), &before, "{} is too old", &text);
        }
        for (before, after) in before.iter().zip(self.records()) {
            let holder = before.as_ref().and_then(HandleRecord::holder);
            let Some((before, holder)) = before.as_ref().zip(holder) else {
                continue;
            };
            if after.as_ref() == Some(before) {
                continue;
            }
            prop_assert_eq!(holder, person, "{} changed another's handle", &text);
            if !after.is_some_and(|after| after.is_held_by(holder)) {
                let told = |(whom, code): &(Person, String)| {
                    whom == person && text == format!("confirm {code}")
                };
                prop_assert!(self.codes.iter().any(told), "{text} released a handle");
            }
        }
        let code = said
            .as_ref()
            .and_then(|said| said.plain.split_once("`confirm "));
        if let Some((code, _)) = code.and_then(|(_, rest)| rest.split_once('`')) {
            self.codes.push((person.clone(), code.to_owned()));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever two people write: only its holder changes a handle, only a code gives it up, and
    /// what is old or was not written changes nothing.
    #[test]
    fn only_its_holder_changes_a_handle_and_only_a_code_releases_it(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let talk = Talk::with(|settings| settings.capabilities.masked = true);
            let mut watched = Watched { talk, codes: Vec::new() };
            for step in &steps {
                watched.plays(step).await?;
            }
            Ok::<(), TestCaseError>(())
        })?;
    }
}
