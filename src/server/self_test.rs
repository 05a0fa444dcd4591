//! Whether what the homeserver should push really comes.
//!
//! Nothing that the homeserver says about itself proves it: with Synapse's experimental flags off,
//! transactions contain an empty list of to-device messages all the same. So the checks send a mark
//! and wait for it here. A `stonechat doctor` beside a running service asks that one on its admin
//! socket.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::module::ModuleMonitor;
use crate::{config::CHECK_LOCALPART, matrix::transaction::Transaction};

/// Marks remembered at a time. More are under way only if somebody plays with it.
const MARKS_MAX: usize = 64;
/// The longest mark that is remembered.
const MARK_BYTES_MAX: usize = 255;
/// How long a `doctor` in another process waits for a mark.
const MARK_TIMEOUT: Duration = Duration::from_secs(5);

/// What has been pushed to us lately. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SelfTest(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    marks: Mutex<VecDeque<String>>,
    /// How many transactions have come, and a bell for whoever waits for a mark.
    news: watch::Sender<u64>,
    module: ModuleMonitor,
}

impl Default for SelfTest {
    fn default() -> Self {
        Self(Arc::new(Inner {
            marks: Mutex::default(),
            news: watch::Sender::new(0),
            module: ModuleMonitor::default(),
        }))
    }
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    sender: OwnedUserId,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    mark: String,
}

impl SelfTest {
    /// The type of the to-device messages that carry a mark.
    pub const EVENT_TYPE: &str = "chat.stonechat.self_test";

    /// Remembers a mark.
    pub(super) fn record_mark(&self, mark: &str) {
        if mark.len() > MARK_BYTES_MAX {
            return;
        }
        let mut marks = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() >= MARKS_MAX {
            marks.pop_front();
        }
        marks.push_back(mark.to_owned());
        drop(marks);
        self.0.news.send_modify(|_| {});
    }

    /// Takes our own messages out of a transaction: they are for nobody else.
    pub(super) fn extract_marks(&self, transaction: &mut Transaction) {
        self.0.news.send_modify(|n| *n = n.wrapping_add(1));
        transaction.to_device.retain(|raw| {
            // Few messages contain the word, and only those are read.
            if !raw.get().contains(Self::EVENT_TYPE) {
                return true;
            }
            match serde_json::from_str::<Message>(raw.get()) {
                Ok(message)
                    if message.kind == Self::EVENT_TYPE
                        && message.sender.localpart() == CHECK_LOCALPART =>
                {
                    self.record_mark(&message.content.mark);
                    false
                }
                _ => true,
            }
        });
    }

    /// Whether the module in the homeserver has reported itself.
    pub fn module(&self) -> &ModuleMonitor {
        &self.0.module
    }

    /// How many transactions have come since the start.
    pub fn transaction_count(&self) -> u64 {
        *self.0.news.borrow()
    }

    /// Waits until a mark has come, for so long.
    pub async fn wait_for_mark(&self, mark: &str, at_most: Duration) -> bool {
        let mut news = self.0.news.subscribe();
        let come = news.wait_for(|_| {
            let marks = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
            marks.iter().any(|known| known == mark)
        });
        matches!(tokio::time::timeout(at_most, come).await, Ok(Ok(_)))
    }
}

/// What has been pushed, for a `doctor` in another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkStatus {
    /// Whether the mark has come.
    pub seen: bool,
    /// How many transactions have come since the start.
    pub transactions: u64,
}

impl SelfTest {
    /// What has been pushed, as soon as the mark has come or after some seconds.
    pub(super) async fn mark_status(&self, mark: &str) -> MarkStatus {
        MarkStatus {
            seen: self.wait_for_mark(mark, MARK_TIMEOUT).await,
            transactions: self.transaction_count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn transaction(sender: &str, kind: &str, mark: &str) -> Transaction {
        let message = json!({
            "type": kind, "sender": sender, "content": {"mark": mark},
            "to_user_id": sender, "to_device_id": "CHECK",
        });
        Transaction::parse(json!({"to_device": [message]}).to_string().as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_mark_is_seen_before_and_while_somebody_waits_and_goes_no_further() {
        let test = SelfTest::default();
        let me = format!("@{CHECK_LOCALPART}:a");
        let mut early = transaction(&me, SelfTest::EVENT_TYPE, "early");
        test.extract_marks(&mut early);
        assert!(early.to_device.is_empty());
        assert!(test.wait_for_mark("early", Duration::ZERO).await);
        assert!(!test.wait_for_mark("late", Duration::ZERO).await);
        let waiting = tokio::spawn({
            let test = test.clone();
            async move { test.wait_for_mark("late", Duration::from_secs(20)).await }
        });
        test.extract_marks(&mut transaction(&me, SelfTest::EVENT_TYPE, "late"));
        assert!(waiting.await.unwrap());
        assert_eq!(test.transaction_count(), 2);
    }

    #[tokio::test]
    async fn a_stranger_cannot_set_a_mark_and_other_messages_stay() {
        let test = SelfTest::default();
        let me = format!("@{CHECK_LOCALPART}:a");
        for (sender, kind) in [
            ("@mallory:a", SelfTest::EVENT_TYPE),
            (&*me, "m.room.encrypted"),
        ] {
            let mut other = transaction(sender, kind, "mark");
            test.extract_marks(&mut other);
            assert_eq!(other.to_device.len(), 1, "{sender} {kind}");
        }
        assert!(!test.wait_for_mark("mark", Duration::ZERO).await);
    }

    #[tokio::test]
    async fn old_marks_make_room_for_new_ones() {
        let test = SelfTest::default();
        for n in 0..=MARKS_MAX {
            test.record_mark(&n.to_string());
        }
        test.record_mark(&"x".repeat(MARK_BYTES_MAX + 1));
        assert!(!test.wait_for_mark("0", Duration::ZERO).await);
        assert!(test.wait_for_mark("1", Duration::ZERO).await);
        assert_eq!(test.0.marks.lock().unwrap().len(), MARKS_MAX);
    }
}
