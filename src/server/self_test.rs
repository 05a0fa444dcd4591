//! Shows whether the homeserver really pushes what it should.
//!
//! Nothing that the homeserver says about itself proves it: with Synapse's experimental flags off,
//! transactions still contain a list of to-device messages, which is empty. So the checks send a
//! mark and wait for it here. A `stonechat doctor` beside a running service asks the service on its
//! admin socket.

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

/// Maximum number of marks that are remembered. The checks send one at a time.
const MARKS_MAX: usize = 64;
/// Maximum length of a mark, in bytes.
const MARK_BYTES_MAX: usize = 255;
/// How long `doctor` waits for a mark in one request.
const MARK_TIMEOUT: Duration = Duration::from_secs(5);

/// The marks that were pushed to us lately. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SelfTest(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    marks: Mutex<VecDeque<String>>,
    /// How many transactions have come. Also notified when a mark comes.
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
struct CheckMessage {
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

    /// Removes the messages of the checks from a transaction and remembers their marks.
    pub(super) fn extract_marks(&self, transaction: &mut Transaction) {
        self.0.news.send_modify(|n| *n = n.wrapping_add(1));
        transaction.to_device.retain(|raw| {
            // Few messages contain the word, and only those are read.
            if !raw.get().contains(Self::EVENT_TYPE) {
                return true;
            }
            match serde_json::from_str::<CheckMessage>(raw.get()) {
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

    /// Returns the monitor of the module in the homeserver.
    pub fn module(&self) -> &ModuleMonitor {
        &self.0.module
    }

    /// Returns how many transactions have come since the start.
    pub fn transaction_count(&self) -> u64 {
        *self.0.news.borrow()
    }

    /// Waits for a mark, at most `timeout`. Returns whether it came.
    pub async fn wait_for_mark(&self, mark: &str, timeout: Duration) -> bool {
        let mut news = self.0.news.subscribe();
        let come = news.wait_for(|_| {
            let marks = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
            marks.iter().any(|known| known == mark)
        });
        matches!(tokio::time::timeout(timeout, come).await, Ok(Ok(_)))
    }
}

/// Whether a mark was pushed, for a `doctor` in another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkStatus {
    /// Whether the mark has come.
    pub seen: bool,
    /// How many transactions have come since the start.
    pub transactions: u64,
}

impl SelfTest {
    /// Waits for a mark, as long as a request of `doctor` may take.
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
