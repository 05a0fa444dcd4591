//! Requests to the homeserver, counted by endpoint and status.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, timeout};

use super::MatrixError;
use crate::metrics::catalogue::{HOMESERVER_REQUESTS, HOMESERVER_TIME};

/// The endpoint of paths that are not in [`ENDPOINTS`].
const OTHER: &str = "other";

/// The endpoints that are told apart, by their path without the version of the API. `*` stands for
/// an id; what follows the pattern is not looked at.
const ENDPOINTS: &[(&[&str], &str)] = &[
    (&["account", "whoami"], "whoami"),
    (&["appservice", "*", "ping"], "appservice/ping"),
    (&["createRoom"], "createRoom"),
    (&["devices"], "devices"),
    (&["join"], "join"),
    (&["joined_rooms"], "joined_rooms"),
    (&["keys", "claim"], "keys/claim"),
    (&["keys", "device_signing", "upload"], "keys/device_signing"),
    (&["keys", "query"], "keys/query"),
    (&["keys", "signatures", "upload"], "keys/signatures"),
    (&["keys", "upload"], "keys/upload"),
    (&["profile"], "profile"),
    (&["register"], "register"),
    (&["rooms", "*", "context"], "context"),
    (&["rooms", "*", "event"], "event"),
    (&["rooms", "*", "forget"], "forget"),
    (&["rooms", "*", "invite"], "invite"),
    (&["rooms", "*", "join"], "join"),
    (&["rooms", "*", "joined_members"], "joined_members"),
    (&["rooms", "*", "kick"], "kick"),
    (&["rooms", "*", "leave"], "leave"),
    (&["rooms", "*", "members"], "members"),
    (&["rooms", "*", "messages"], "messages"),
    (&["rooms", "*", "receipt"], "receipt"),
    (&["rooms", "*", "redact"], "redact"),
    (&["rooms", "*", "send"], "send"),
    (&["rooms", "*", "state"], "state"),
    (&["rooms", "*", "typing"], "typing"),
    (&["sendToDevice"], "sendToDevice"),
    (&["sync"], "sync"),
    (&["user", "*", "account_data"], "account_data"),
];

/// Returns the name of the endpoint with this path, without anything that names somebody.
fn endpoint_of(path: &str) -> &'static str {
    let Some((_, path)) = path.split_once("/_matrix/") else {
        return OTHER;
    };
    let parts: Vec<&str> = path.split('/').collect();
    let parts = match parts[..] {
        ["media", ..] | ["client", "v1", "media", ..] => return "media",
        ["client", version, ref rest @ ..]
            if version.starts_with(['r', 'v']) && version.len() <= 3 =>
        {
            rest
        }
        ["client", "versions"] => return "versions",
        ["client", "unstable", _, ref rest @ ..] => rest,
        _ => return OTHER,
    };
    let matches = |pattern: &[&str]| {
        parts.len() >= pattern.len()
            && pattern
                .iter()
                .zip(parts)
                .all(|(expected, part)| *expected == "*" || expected == part)
    };
    let found = ENDPOINTS.iter().find(|(pattern, _)| matches(pattern));
    found.map_or(OTHER, |(_, name)| name)
}

/// Returns the label that says how a request ended.
fn status_of(outcome: Result<StatusCode, &MatrixError>) -> &'static str {
    let status = match outcome {
        Ok(status) => status,
        Err(MatrixError::TimedOut) => return "timeout",
        Err(MatrixError::Unreachable(_)) => return "unreachable",
        Err(_) => return "not_sent",
    };
    match status.as_u16() {
        401 => "401",
        403 => "403",
        404 => "404",
        429 => "429",
        502 => "502",
        503 => "503",
        504 => "504",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}

/// Makes a request, counts it, and returns its answer without its body, which has to begin within
/// this time.
pub(super) async fn first_answer(
    http: &reqwest::Client,
    request: reqwest::Request,
    within: Duration,
) -> Result<reqwest::Response, MatrixError> {
    let endpoint = endpoint_of(request.url().path());
    let began = Instant::now();
    let answer = match timeout(within, http.execute(request)).await {
        Ok(answer) => answer.map_err(MatrixError::from_transport),
        Err(_) => Err(MatrixError::TimedOut),
    };
    let status = status_of(answer.as_ref().map(reqwest::Response::status));
    HOMESERVER_REQUESTS.count([endpoint, status]);
    HOMESERVER_TIME.observe([endpoint], began.elapsed());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_no_part_of_an_id() {
        for (path, expected) in [
            (
                "/_matrix/client/v3/rooms/%21a%3Ahs/send/m.room.message/txn",
                "send",
            ),
            ("/_matrix/client/v3/rooms/!a:hs/state/m.room.name/", "state"),
            ("/_matrix/client/r0/sync", "sync"),
            ("/hs/_matrix/client/v3/keys/query", "keys/query"),
            ("/_matrix/client/versions", "versions"),
            ("/_matrix/client/v1/media/download/hs/sync", "media"),
            ("/_matrix/media/v3/upload", "media"),
            (
                "/_matrix/client/unstable/org.matrix.x/keys/upload",
                "keys/upload",
            ),
            (
                "/_matrix/client/v1/appservice/stonechat/ping",
                "appservice/ping",
            ),
            ("/_matrix/client/v3/profile/@sam:hs/displayname", "profile"),
            ("/_matrix/client/v3/rooms/!sam:hs", OTHER),
            ("/_matrix/client/v3/@sam:hs", OTHER),
            ("/_matrix/client/@sam/sync", OTHER),
            ("/@sam:hs", OTHER),
            ("", OTHER),
        ] {
            assert_eq!(endpoint_of(path), expected, "{path}");
        }
    }

    #[test]
    fn a_status_says_what_an_admin_can_act_on() {
        for (status, expected) in [
            (200, "2xx"),
            (307, "3xx"),
            (400, "4xx"),
            (429, "429"),
            (500, "5xx"),
            (502, "502"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(status_of(Ok(status)), expected);
        }
        assert_eq!(status_of(Err(&MatrixError::TimedOut)), "timeout");
    }
}
