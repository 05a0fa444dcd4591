//! Regular pings, which show whether the homeserver answers and whether it reaches us.
//!
//! A ping also ends the homeserver's pause after we did not answer, if the process that answers it is
//! the one that pushes. With a worker for application services it usually is another one, and the
//! pause ends by itself.

use std::{convert::Infallible, time::Duration};

use tokio::time::timeout;

use super::checks::{Checker, Observer};
use crate::{
    clock::sleep,
    matrix::MatrixError,
    server::{Health, HealthPart},
};

/// How long to wait between two pings while all is well.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait after a ping that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

const NO_ANSWER: &str = "it does not answer; check that it is running";
const ANSWERS_WITH_ERRORS: &str =
    "it answers with errors; look at its log, and run `stonechat doctor`";
const TOKEN_REFUSED: &str = "it refuses as_token; run `stonechat doctor`";
const NOT_REACHED: &str = "the homeserver does not reach this Stonechat; run `stonechat doctor`";
const ANOTHER_REACHED: &str =
    "the homeserver reaches something else at appservice.url; run `stonechat doctor`";

/// The state of both parts that a ping shows; `None` for a part of which it shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PingResult {
    homeserver: Option<Result<(), &'static str>>,
    transactions: Option<Result<(), &'static str>>,
}

impl PingResult {
    const WELL: Self = Self {
        homeserver: Some(Ok(())),
        transactions: Some(Ok(())),
    };

    fn homeserver_failed(why: &'static str) -> Self {
        Self {
            homeserver: Some(Err(why)),
            transactions: None,
        }
    }

    fn transactions_failed(why: &'static str) -> Self {
        Self {
            homeserver: Some(Ok(())),
            transactions: Some(Err(why)),
        }
    }

    fn is_well(self) -> bool {
        self == Self::WELL
    }
}

/// Returns the state of both parts after a failed ping.
fn classify_error(error: &MatrixError) -> PingResult {
    match error.errcode() {
        Some(
            "M_CONNECTION_FAILED"
            | "M_CONNECTION_TIMEOUT"
            | "M_BAD_STATUS"
            | "M_URL_NOT_SET"
            | "M_FORBIDDEN",
        ) => PingResult::transactions_failed(NOT_REACHED),
        Some("M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN") => PingResult::homeserver_failed(TOKEN_REFUSED),
        // The homeserver answers, but its answer does not show whether it reaches us.
        Some("M_LIMIT_EXCEEDED" | "M_UNRECOGNIZED") => PingResult {
            homeserver: Some(Ok(())),
            transactions: None,
        },
        _ if error.status().is_some() => PingResult::homeserver_failed(ANSWERS_WITH_ERRORS),
        _ => PingResult::homeserver_failed(NO_ANSWER),
    }
}

async fn ping_once(checker: &Checker<'_>, observer: &Observer, time_limit: Duration) -> PingResult {
    match timeout(time_limit, checker.ping_once(observer)).await {
        Ok(Ok(true)) => PingResult::WELL,
        Ok(Ok(false)) => PingResult::transactions_failed(ANOTHER_REACHED),
        Ok(Err(error)) => classify_error(&error),
        // The homeserver may be waiting for us. In that case it answers other requests.
        Err(_) => match timeout(time_limit, checker.check_token()).await {
            Ok(Ok(_)) => PingResult::transactions_failed(NOT_REACHED),
            _ => PingResult::homeserver_failed(NO_ANSWER),
        },
    }
}

/// Pings until it is dropped, and reports to `health`. A single failure may be chance; the second
/// in a row counts.
pub(super) async fn ping_forever(
    checker: &Checker<'_>,
    observer: &Observer,
    health: &Health,
) -> Infallible {
    let mut failed_before = false;
    loop {
        sleep(if failed_before {
            RETRY_INTERVAL
        } else {
            PING_INTERVAL
        })
        .await;
        let result = ping_once(checker, observer, PING_TIMEOUT).await;
        update_health(health, result, failed_before);
        failed_before = !result.is_well();
    }
}

fn update_health(health: &Health, result: PingResult, failed_before: bool) {
    for (part, state) in [
        (HealthPart::Homeserver, result.homeserver),
        (HealthPart::Transactions, result.transactions),
    ] {
        match state {
            Some(Ok(())) => health.set_part(part, Ok(())),
            Some(Err(why)) if failed_before => health.set_part(part, Err(why)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn refused(status: u16, errcode: Option<&str>) -> MatrixError {
        MatrixError::Refused {
            status: StatusCode::from_u16(status).unwrap(),
            errcode: errcode.map(str::to_owned),
            message: "words of the homeserver".to_owned(),
        }
    }

    #[test]
    fn a_ping_that_failed_names_the_side_that_is_to_blame() {
        for code in ["M_CONNECTION_FAILED", "M_BAD_STATUS", "M_URL_NOT_SET"] {
            let result = classify_error(&refused(502, Some(code)));
            assert_eq!(
                result,
                PingResult::transactions_failed(NOT_REACHED),
                "{code}"
            );
        }
        let result = classify_error(&refused(401, Some("M_UNKNOWN_TOKEN")));
        assert_eq!(result, PingResult::homeserver_failed(TOKEN_REFUSED));
        assert_eq!(
            classify_error(&MatrixError::TimedOut),
            PingResult::homeserver_failed(NO_ANSWER)
        );
        let result = classify_error(&refused(502, None));
        assert_eq!(result, PingResult::homeserver_failed(ANSWERS_WITH_ERRORS));
        let busy = MatrixError::RateLimited { retry_after: None };
        assert_eq!(classify_error(&busy).homeserver, Some(Ok(())));
        assert_eq!(classify_error(&busy).transactions, None);
    }

    #[test]
    fn the_second_failure_in_a_row_counts_and_the_first_success() {
        let health = Health::default();
        health.mark_started();
        for bad in [
            PingResult::homeserver_failed(NO_ANSWER),
            PingResult::transactions_failed(NOT_REACHED),
        ] {
            update_health(&health, bad, false);
            assert!(health.is_ready(), "one hiccup");
            update_health(&health, bad, true);
            assert!(!health.is_ready(), "{bad:?}");
            update_health(&health, PingResult::WELL, true);
            assert!(health.is_ready());
        }
    }
}
