//! Checks that the homeserver's pushes arrive.

use std::time::Duration;

use ruma::{TransactionId, api::client::room::create_room, serde::Raw};
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
    pub async fn check_to_device(&self, observer: &Observer) -> CheckResult {
        let started = Instant::now();
        let mut transactions = None;
        let mut quiet = 0;
        while let Some(timeout) = TRY_TIMEOUTS.get(quiet) {
            if started.elapsed() > BACKLOG_TIMEOUT {
                return Err(Problem {
                    wrong: "the homeserver pushes a backlog, and no to-device message yet"
                        .to_owned(),
                    remedy: "wait until it has pushed the backlog".to_owned(),
                    server_message: None,
                    is_temporary: true,
                });
            }
            let mark = TransactionId::new();
            let content = Raw::new(&json!({"mark": mark}))
                .map_err(|error| Problem::new(error.to_string(), "report this"))?;
            let to = (&*self.user, &*self.device);
            let who = Actor::device(&self.user, &self.device);
            self.homeserver
                .send_to_device(
                    who,
                    to,
                    SelfTest::EVENT_TYPE,
                    &content,
                    TransactionId::new(),
                )
                .await
                .map_err(|error| Problem::from_error(&error, "see the homeserver's log"))?;
            let (seen, now) = observer
                .wait_for_mark(mark.as_str(), *timeout / self.speedup)
                .await?;
            if seen {
                return Ok("a message to ourselves came back".to_owned());
            }
            let before = transactions.replace(now);
            if before.is_some_and(|before| now.saturating_sub(before) > BACKLOG_TRANSACTIONS) {
                continue;
            }
            quiet += 1;
            if quiet == 1 {
                self.create_event().await;
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

    async fn create_event(&self) {
        let who = Actor::user(&self.user);
        let mut request = create_room::v3::Request::new();
        request.name = Some("Stonechat's self-test".to_owned());
        match self.homeserver.send(who, request).await {
            Ok(made) => self.leave_and_forget(&self.user, &made.room_id).await,
            Err(error) => tracing::debug!(%error, "a room for the checks could not be created"),
        }
    }
}
