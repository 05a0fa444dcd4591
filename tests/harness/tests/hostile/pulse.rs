//! The homeserver's pulse: how long it takes for a message that has nothing to do with the service.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use harness::World;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use url::Url;

/// How long after one message the next is sent.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a message takes on a homeserver that is not held up.
const USUAL: Duration = Duration::from_millis(100);

/// A time in which the homeserver was late.
#[derive(Clone, Copy)]
struct Delay {
    from: Instant,
    to: Instant,
}

/// Somebody who writes into a room of their own all the time. Dropping it ends that.
pub struct Pulse {
    beats: Arc<Mutex<Beats>>,
    writing: JoinHandle<()>,
}

#[derive(Default)]
struct Beats {
    delays: Vec<Delay>,
    /// When the message that is under way was sent.
    sent: Option<Instant>,
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

impl Pulse {
    pub async fn of(world: &World) -> Result<Self> {
        let token = world.synapse.register_admin("pulse").await?;
        let http = Client::builder().no_proxy().build()?;
        let base = world.synapse.url().join("_matrix/client/v3/")?;
        let made: Value = http
            .post(base.join("createRoom")?)
            .bearer_auth(&token)
            .json(&json!({}))
            .send()
            .await?
            .json()
            .await?;
        let room = made["room_id"].as_str().context("no room")?;
        let url = base.join(&format!("rooms/{room}/send/m.room.message/"))?;
        let beats = Arc::new(Mutex::default());
        let writing = tokio::spawn(write(http, url, token, beats.clone()));
        Ok(Self { beats, writing })
    }

    /// How much later than usual the homeserver was with what was sent since then.
    pub fn late_since(&self, began: Instant) -> Duration {
        let now = Instant::now();
        let beats = lock(&self.beats);
        let under_way = beats.sent.map(|sent| Delay {
            from: sent + USUAL,
            to: now,
        });
        let delays = beats.delays.iter().copied().chain(under_way);
        delays
            .map(|delay| delay.to.saturating_duration_since(delay.from.max(began)))
            .sum()
    }
}

async fn write(http: Client, url: Url, token: String, beats: Arc<Mutex<Beats>>) {
    let content = json!({ "msgtype": "m.text", "body": "still there" });
    for number in 0.. {
        let Ok(url) = url.join(&number.to_string()) else {
            return;
        };
        let sent = Instant::now();
        lock(&beats).sent = Some(sent);
        // A homeserver that refuses is not late.
        let _ = http
            .put(url)
            .bearer_auth(&token)
            .json(&content)
            .send()
            .await;
        let to = Instant::now();
        {
            let mut beats = lock(&beats);
            beats.sent = None;
            let from = sent + USUAL;
            if from < to {
                beats.delays.push(Delay { from, to });
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn lock(beats: &Mutex<Beats>) -> MutexGuard<'_, Beats> {
    beats.lock().unwrap_or_else(PoisonError::into_inner)
}
