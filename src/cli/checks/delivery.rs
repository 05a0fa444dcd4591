//! Checks that the homeserver's pushes arrive.

use std::time::Duration;

use ruma::{OwnedTransactionId, TransactionId, api::client::room::create_room, serde::Raw};
use serde_json::json;
use tokio::time::Instant;

use super::{CheckResult, Checker, Observer, Problem};
use crate::{
    matrix::{Actor, MatrixError},
    server::SelfTest,
};

/// How long a ping may take from the homeserver's answer to us.
const PING_TIMEOUT: Duration = Duration::from_secs(6);
/// How long each try of the to-device check may take. Synapse takes some 20 ms, unless it has
/// marked us as down: then the first message is lost.
const TRY_TIMEOUTS: [Duration; 4] = [
    Duration::from_millis(1500),
    Duration::from_secs(3),
    Duration::from_secs(6),
    Duration::from_secs(6),
];
/// Maximum number of transactions during one try. More mean that the homeserver is pushing a
/// backlog, and the try does not count.
const BACKLOG_TRANSACTIONS: u64 = 5;
/// How long the homeserver may push a backlog.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(120);
/// How long each further try may take while nothing is pushed at all.
const PAUSED_TRY_TIMEOUT: Duration = Duration::from_secs(6);
/// Maximum number of these tries: about two minutes.
const PAUSED_TRIES_MAX: usize = 17;

impl Checker<'_> {
    /// Makes the homeserver call us once. Returns whether the call came, and so whether the
    /// homeserver reaches this Stonechat.
    pub async fn ping_once(&self, observer: &Observer) -> Result<bool, MatrixError> {
        let mark = TransactionId::new();
        let id = &self.setup.config.appservice.id;
        self.homeserver.ping(id, mark.clone()).await?;
        // An observer in this process cannot fail.
        let seen = observer
            .wait_for_mark(mark.as_str(), PING_TIMEOUT / self.speedup)
            .await;
        Ok(seen.is_ok_and(|(seen, _)| seen))
    }

    /// Checks that the homeserver reaches us, with the right token.
    pub async fn check_ping(&self, observer: &Observer) -> CheckResult {
        let mark = TransactionId::new();
        let id = &self.setup.config.appservice.id;
        let url = &self.setup.config.appservice.url;
        let took = match self.homeserver.ping(id, mark.clone()).await {
            Ok(took) => took,
            Err(error) => return Err(self.explain_ping_error(&error)),
        };
        match observer
            .wait_for_mark(mark.as_str(), PING_TIMEOUT / self.speedup)
            .await?
        {
            (true, _) => Ok(format!("{url} is reached in {} ms", took.as_millis())),
            (false, _) => Err(Problem::new(
                format!("the homeserver reached something at {url}, but not this Stonechat"),
                "correct appservice.url or appservice.listen, run `stonechat registration` and \
                 restart the homeserver",
            )),
        }
    }

    fn explain_ping_error(&self, error: &MatrixError) -> Problem {
        let url = &self.setup.config.appservice.url;
        let again = "run `stonechat registration` and restart the homeserver";
        // The code says what kind of failure the homeserver met; its message names the HTTP status.
        let Some(met) = error.message() else {
            return Problem::from_error(error, "see the homeserver's log");
        };
        let problem = match error.errcode() {
            Some("M_CONNECTION_FAILED") => Problem::new(
                format!("the homeserver cannot reach {url}"),
                format!("correct appservice.url, {again}"),
            ),
            Some("M_CONNECTION_TIMEOUT") => Problem::new(
                format!("the homeserver gets no answer from {url}"),
                "check firewalls and proxies between the two",
            ),
            Some("M_BAD_STATUS") if met.contains("401") || met.contains("403") => Problem::new(
                format!("the homeserver reaches {url} with another hs_token"),
                "restart the homeserver: it still has an older registration",
            ),
            Some("M_BAD_STATUS") => Problem::new(
                format!("the homeserver reaches {url}, but no Stonechat there"),
                format!("correct appservice.url, {again}"),
            ),
            Some("M_URL_NOT_SET") => Problem::new("the registration names no URL", again),
            Some("M_FORBIDDEN") => Problem::new(
                "the homeserver knows us under another id",
                format!("{again}; it still has an older registration"),
            ),
            Some("M_UNRECOGNIZED") => Problem::new(
                "the homeserver cannot ping",
                format!(
                    "update it: Synapse {} is the oldest tested version",
                    super::OLDEST_SYNAPSE
                ),
            ),
            _ => return Problem::from_error(error, "see the homeserver's log"),
        };
        problem.with_server_message(met)
    }

    /// Checks that to-device messages are pushed: a message to ourselves has to come back. There is
    /// no other proof, because a homeserver that does not push them still sends an empty list.
    ///
    /// A homeserver that has marked us as down pushes its backlog first. So this waits while many
    /// transactions come. Otherwise it creates an event in a room, without which Synapse does not
    /// start to push after a restart.
    ///
    /// A ping ends the pause of a homeserver that has marked us as down, but not if a worker of its
    /// own pushes and another process answers the ping. So this also waits while nothing comes.
    pub async fn check_to_device(&self, observer: &Observer) -> CheckResult {
        let started = Instant::now();
        let mut transactions = None;
        let mut event_was_created = false;
        let mut nothing_came = true;
        let mut quiet = 0;
        loop {
            let timeout = match TRY_TIMEOUTS.get(quiet) {
                Some(timeout) => *timeout,
                None if nothing_came && event_was_created => PAUSED_TRY_TIMEOUT,
                None => break,
            };
            if quiet >= TRY_TIMEOUTS.len() + PAUSED_TRIES_MAX || started.elapsed() > BACKLOG_TIMEOUT
            {
                return Err(explain_missing_pushes(nothing_came));
            }
            let mark = self.send_mark().await?;
            let (seen, now) = observer
                .wait_for_mark(mark.as_str(), timeout / self.speedup)
                .await?;
            if seen {
                return Ok("a message to ourselves came back".to_owned());
            }
            let before = transactions.replace(now);
            let pushed = before.map_or(0, |before| now.saturating_sub(before));
            if pushed > 0 && nothing_came {
                nothing_came = false;
                // What was sent during a pause is lost.
                quiet = 0;
            }
            if pushed > BACKLOG_TRANSACTIONS {
                continue;
            }
            quiet += 1;
            if !event_was_created {
                event_was_created = self.create_event().await;
            }
            // Ends the pause before the homeserver's next try.
            if let Err(problem) = self.check_ping(observer).await {
                tracing::debug!(%problem, "a ping no longer arrives");
            }
        }
        Err(Problem::new(
            "the homeserver pushes no to-device messages",
            "set msc2409_to_device_messages_enabled and msc3202_transaction_extensions to true \
             under experimental_features in homeserver.yaml and restart the homeserver; if they \
             are set, its log says why",
        ))
    }

    /// Sends a to-device message to ourselves, and returns the mark in it.
    async fn send_mark(&self) -> Result<OwnedTransactionId, Problem> {
        let mark = TransactionId::new();
        let content = Raw::new(&json!({"mark": mark}))
            .map_err(|error| Problem::new(error.to_string(), "report this"))?;
        let to = (&*self.user, &*self.device);
        let who = Actor::device(&self.user, &self.device);
        let kind = SelfTest::EVENT_TYPE;
        let id = TransactionId::new();
        let sent = self
            .homeserver
            .send_to_device(who, to, kind, &content, id)
            .await;
        sent.map_err(|error| Problem::from_error(&error, "see the homeserver's log"))?;
        Ok(mark)
    }

    /// Creates a room. Returns whether that worked.
    async fn create_event(&self) -> bool {
        let who = Actor::user(&self.user);
        let mut request = create_room::v3::Request::new();
        request.name = Some("Stonechat's self-test".to_owned());
        match self.homeserver.send(who, request).await {
            Ok(made) => {
                self.leave_and_forget(&self.user, &made.room_id).await;
                true
            }
            Err(error) => {
                tracing::debug!(%error, "a room for the checks could not be created");
                false
            }
        }
    }
}

/// Returns why nothing came in time that shows whether to-device messages are pushed.
fn explain_missing_pushes(nothing_came: bool) -> Problem {
    let (wrong, remedy) = if nothing_came {
        (
            "the homeserver answers pings and pushes nothing: its worker for application services \
             (notify_appservices_from_worker) does not run, or it pauses because Stonechat did not \
             answer for a while",
            "check that the worker runs. It tries again by itself after 9 minutes at most, or at \
             once after its restart; docs/install.md says how pings reach it, which end the pause",
        )
    } else {
        (
            "the homeserver pushes a backlog, and no to-device message yet",
            "wait until it has pushed the backlog",
        )
    };
    Problem {
        is_temporary: true,
        ..Problem::new(wrong, remedy)
    }
}
