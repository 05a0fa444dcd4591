//! Checks that the homeserver calls our module.

use std::time::Duration;

use ruma::api::client::room::create_room;

use super::{CheckResult, Checker, Observer, Problem};
use crate::matrix::Actor;

/// How long the module may take to report itself after it was called.
const REPORT_TIMEOUT: Duration = Duration::from_secs(6);

impl Checker<'_> {
    /// Checks that the module is loaded and reaches us. The module reports itself when it is called
    /// for a room that our user creates.
    pub async fn check_module(&self, observer: &Observer) -> CheckResult {
        let before = observer.wait_for_report(0, Duration::ZERO).await?.reports;
        let who = Actor::user(&self.user);
        let mut request = create_room::v3::Request::new();
        request.name = Some("Stonechat's self-test".to_owned());
        let made = self.homeserver.send(who, request).await;
        let made = made.map_err(|error| Problem::from_error(&error, "see the homeserver's log"))?;
        self.leave_and_forget(&self.user, &made.room_id).await;
        let seen = observer
            .wait_for_report(before, REPORT_TIMEOUT / self.speedup)
            .await?;
        let ours = env!("CARGO_PKG_VERSION");
        match seen.last {
            Some(report) if seen.reports > before && report.version == ours => Ok(format!(
                "loaded in Synapse {}: no ghost enters the rooms that are made for open handles",
                report.synapse
            )),
            Some(report) if seen.reports > before => Err(Problem::new(
                format!(
                    "the module has version {}, Stonechat has version {ours}",
                    report.version
                ),
                "install the module that belongs to this Stonechat, and restart the homeserver",
            )),
            _ => Err(Problem::new(
                "the homeserver does not call the module, or the module does not reach us",
                "install the module into a folder in Synapse's PYTHONPATH (docs/install.md has the \
                 commands), add what `stonechat registration --with-module` prints to \
                 homeserver.yaml, restart Stonechat and then the homeserver; if that is done, its \
                 log says why",
            )),
        }
    }
}
