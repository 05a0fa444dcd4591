//! Pings while the service runs: whether the homeserver answers, and whether it reaches us.
//!
//! A ping also ends the pause that a homeserver makes when we did not answer.

use std::{convert::Infallible, time::Duration};

use tokio::time::timeout;

use super::checks::{Checker, Witness};
use crate::{
    clock::sleep,
    matrix::MatrixError,
    server::{Health, Part},
};

/// How long to wait between two pings while all is well.
const EVERY: Duration = Duration::from_secs(30);
/// How long to wait after a ping that failed.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a ping may take.
const PATIENCE: Duration = Duration::from_secs(10);

const NO_ANSWER: &str = "it does not answer; look whether it runs";
const ANSWERS_WITH_ERRORS: &str =
    "it answers with errors; look at its log, and run `stonechat doctor`";
const TOKEN_REFUSED: &str = "it refuses as_token; run `stonechat doctor`";
const NOT_REACHED: &str = "the homeserver does not reach this Stonechat; run `stonechat doctor`";
const ANOTHER_REACHED: &str =
    "the homeserver reaches something else at appservice.url; run `stonechat doctor`";

/// What a ping shows of both parts. `None` says nothing about the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Finding {
    homeserver: Option<Result<(), &'static str>>,
    transactions: Option<Result<(), &'static str>>,
}

impl Finding {
    const WELL: Self = Self {
        homeserver: Some(Ok(())),
        transactions: Some(Ok(())),
    };

    fn homeserver(why: &'static str) -> Self {
        Self {
            homeserver: Some(Err(why)),
            transactions: None,
        }
    }

    fn transactions(why: &'static str) -> Self {
        Self {
            homeserver: Some(Ok(())),
            transactions: Some(Err(why)),
        }
    }

    fn is_well(self) -> bool {
        self == Self::WELL
    }
}

/// What a ping that failed says.
fn judge(error: &MatrixError) -> Finding {
    match error.errcode() {
        Some(
            "M_CONNECTION_FAILED"
            | "M_CONNECTION_TIMEOUT"
            | "M_BAD_STATUS"
            | "M_URL_NOT_SET"
            | "M_FORBIDDEN",
        ) => Finding::transactions(NOT_REACHED),
        Some("M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN") => Finding::homeserver(TOKEN_REFUSED),
        // It answers, and says nothing about the way back.
        Some("M_LIMIT_EXCEEDED" | "M_UNRECOGNIZED") => Finding {
            homeserver: Some(Ok(())),
            transactions: None,
        },
        _ if error.status().is_some() => Finding::homeserver(ANSWERS_WITH_ERRORS),
        _ => Finding::homeserver(NO_ANSWER),
    }
}

async fn look(checker: &Checker<'_>, witness: &Witness, patience: Duration) -> Finding {
    match timeout(patience, checker.ping_once(witness)).await {
        Ok(Ok(true)) => Finding::WELL,
        Ok(Ok(false)) => Finding::transactions(ANOTHER_REACHED),
        Ok(Err(error)) => judge(&error),
        // It may be waiting for us: then it answers other requests.
        Err(_) => match timeout(patience, checker.token()).await {
            Ok(Ok(_)) => Finding::transactions(NOT_REACHED),
            _ => Finding::homeserver(NO_ANSWER),
        },
    }
}

/// Pings for as long as it is polled, and reports to `health`. One failure may be a hiccup; the
/// second in a row counts.
pub(super) async fn keep_on(
    checker: &Checker<'_>,
    witness: &Witness,
    health: &Health,
) -> Infallible {
    let mut failed_before = false;
    loop {
        sleep(if failed_before { AGAIN } else { EVERY }).await;
        let finding = look(checker, witness, PATIENCE).await;
        report(health, finding, failed_before);
        failed_before = !finding.is_well();
    }
}

fn report(health: &Health, finding: Finding, failed_before: bool) {
    for (part, state) in [
        (Part::Homeserver, finding.homeserver),
        (Part::Transactions, finding.transactions),
    ] {
        match state {
            Some(Ok(())) => health.note(part, Ok(())),
            Some(Err(why)) if failed_before => health.note(part, Err(why)),
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
            let finding = judge(&refused(502, Some(code)));
            assert_eq!(finding, Finding::transactions(NOT_REACHED), "{code}");
        }
        let finding = judge(&refused(401, Some("M_UNKNOWN_TOKEN")));
        assert_eq!(finding, Finding::homeserver(TOKEN_REFUSED));
        assert_eq!(
            judge(&MatrixError::TimedOut),
            Finding::homeserver(NO_ANSWER)
        );
        let finding = judge(&refused(502, None));
        assert_eq!(finding, Finding::homeserver(ANSWERS_WITH_ERRORS));
        let busy = MatrixError::RateLimited { retry_after: None };
        assert_eq!(judge(&busy).homeserver, Some(Ok(())));
        assert_eq!(judge(&busy).transactions, None);
    }

    #[test]
    fn the_second_failure_in_a_row_counts_and_the_first_success() {
        let health = Health::default();
        health.ready();
        for bad in [
            Finding::homeserver(NO_ANSWER),
            Finding::transactions(NOT_REACHED),
        ] {
            report(&health, bad, false);
            assert!(health.is_ready(), "one hiccup");
            report(&health, bad, true);
            assert!(!health.is_ready(), "{bad:?}");
            report(&health, Finding::WELL, true);
            assert!(health.is_ready());
        }
    }
}
