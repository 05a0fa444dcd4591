//! The bot's answers, as people read them.

mod admin;
mod block;
mod claim;
mod dm;
mod help;
mod limits;
mod orders;
mod release;
mod requests;
mod settings;

use rand::{SeedableRng, rngs::StdRng};
use ruma::{UserId, server_name, user_id};
use serde_json::json;

use super::*;
use crate::{
    directory::{Directory, DirectorySettings, HandleRecord},
    handle::{Handle, HandleRules},
    ids::Ghost,
    store::Store,
    testing::person,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn sam() -> &'static Person {
    person("@samuel:example.org")
}

fn kim() -> &'static Person {
    person("@kimberly:example.org")
}

fn alice() -> &'static Person {
    person("@alice:example.org")
}

fn handle(name: &str) -> Handle {
    Handle::parse(name, &HandleRules::default()).unwrap()
}

fn ghost(name: &str) -> Ghost {
    Ghost::new(UserId::parse(format!("@_dm_{name}:example.org")).unwrap())
}

/// An answer that is not silence.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    plain: String,
    html: String,
    effects: Vec<Effect>,
}

/// The control rooms of everybody, at a time that the test sets.
struct Talk {
    directory: Directory,
    options: Options,
    rng: StdRng,
    now: Timestamp,
    greeted_at: Option<Timestamp>,
}

impl Talk {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut DirectorySettings)) -> Self {
        let mut settings = DirectorySettings::new(server_name!("example.org").to_owned());
        change(&mut settings);
        Talk {
            directory: Directory::new(Store::in_memory(), settings),
            options: Options {
                bot: user_id!("@_dm_.bot:example.org").to_owned(),
                commands_per_minute: 1000,
                module_loaded: false,
                strict: false,
            },
            rng: StdRng::seed_from_u64(7),
            now: NOW,
            greeted_at: None,
        }
    }

    async fn answer(&mut self, person: &Person, text: &str) -> Option<Said> {
        self.answer_sent_at(person, text, self.now).await
    }

    async fn answer_sent_at(
        &mut self,
        person: &Person,
        text: &str,
        sent_at: Timestamp,
    ) -> Option<Said> {
        let content = json!({"msgtype": "m.text", "body": text});
        self.answer_event(person, "m.room.message", &content, sent_at)
            .await
    }

    async fn answer_event(
        &mut self,
        person: &Person,
        event_type: &str,
        content: &Value,
        sent_at: Timestamp,
    ) -> Option<Said> {
        let message = Message {
            person,
            event_type,
            content,
            sent_at,
            now: self.now,
            greeted_at: self.greeted_at,
        };
        let mut tx = self.directory.begin().await;
        let answer = answer(&message, &self.options, &mut tx, &mut self.rng).unwrap();
        tx.commit().await.unwrap();
        match answer.text {
            Some(NoticeText { plain, html }) => Some(Said {
                plain,
                html,
                effects: answer.effects,
            }),
            None => {
                assert_eq!(answer.effects, []);
                None
            }
        }
    }

    /// The plain text of the answer.
    async fn ask(&mut self, person: &Person, text: &str) -> String {
        self.answer(person, text).await.expect("an answer").plain
    }

    async fn effects(&mut self, person: &Person, text: &str) -> Vec<Effect> {
        self.answer(person, text).await.expect("an answer").effects
    }

    /// The code in what the bot says to `release sam`.
    async fn code(&mut self, person: &Person, text: &str) -> String {
        let said = self.ask(person, text).await;
        let (_, rest) = said.split_once("`confirm ").expect("a code");
        rest.split_once('`').expect("a code").0.to_owned()
    }

    fn record(&self, name: &str) -> Option<HandleRecord> {
        self.directory.lookup(&handle(name)).unwrap()
    }
}
