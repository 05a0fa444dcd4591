//! Checks that the homeserver calls our module.

use std::time::Duration;

use ruma::api::client::room::create_room;

use super::{CheckResult, Checker, Observer, Problem};
use crate::{
    matrix::Actor,
    server::{ModuleReport, ModuleStatus},
};

/// How long the module may take to report itself after it was called.
const REPORT_TIMEOUT: Duration = Duration::from_secs(6);

impl Checker<'_> {
    /// Checks that the module is loaded and reaches us. The module reports itself when it is called
    /// for a room that our user creates.
    pub async fn check_module(&self, observer: &Observer) -> CheckResult {
        let before = observer.wait_for_call(0, Duration::ZERO).await?.calls;
        let who = Actor::user(&self.user);
        let mut request = create_room::v3::Request::new();
        request.name = Some("Stonechat's self-test".to_owned());
        let made = self.homeserver.send(who, request).await;
        let made = made.map_err(|error| Problem::from_error(&error, "see the homeserver's log"))?;
        self.leave_and_forget(&self.user, &made.room_id).await;
        let seen = observer
            .wait_for_call(before, REPORT_TIMEOUT / self.speedup)
            .await?;
        assess(&seen, before)
    }
}

/// Returns what the reports show if the module was called `before` times before the room was made.
fn assess(seen: &ModuleStatus, before: u64) -> CheckResult {
    let ours = env!("CARGO_PKG_VERSION");
    let other = seen.workers.iter().find(|report| report.version != ours);
    let last = seen.workers.last();
    match (other, last) {
        (Some(other), _) => Err(Problem::new(
            format!(
                "the module{} has version {}, Stonechat has version {ours}",
                of_worker(other),
                other.version
            ),
            "install the module that belongs to this Stonechat, and restart the homeserver; \
             Stonechat too, if that worker no longer exists",
        )),
        (None, Some(last)) if seen.calls > before => Ok(format!(
            "loaded in Synapse {}, seen on {}: no ghost enters the rooms that are made for \
             open handles",
            last.synapse,
            names(seen)
        )),
        (None, Some(_)) => Err(Problem::new(
            format!(
                "the process of the homeserver that makes rooms does not call the module, \
                 which was seen on {}",
                names(seen)
            ),
            "put `modules` into the homeserver.yaml that all of Synapse's processes read, and the \
             module's folder into the PYTHONPATH of each, and restart them",
        )),
        (None, None) => Err(Problem::new(
            "the homeserver does not call the module, or the module does not reach us",
            "install the module into a folder in Synapse's PYTHONPATH (docs/install.md has the \
             commands), add what `stonechat registration --with-module` prints to \
             homeserver.yaml, restart Stonechat and then the homeserver; if that is done, its \
             log says why",
        )),
    }
}

/// Returns ` of WORKER`, or nothing if the module does not say whose it is.
fn of_worker(report: &ModuleReport) -> String {
    match report.worker.as_str() {
        "" => String::new(),
        worker => format!(" of {worker}"),
    }
}

/// Returns the names of the homeserver's processes that have reported, in order.
fn names(seen: &ModuleStatus) -> String {
    let mut names: Vec<_> = seen.workers.iter().map(|it| it.worker.as_str()).collect();
    names.sort_unstable();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = env!("CARGO_PKG_VERSION");

    fn seen(calls: u64, workers: &[(&str, &str)]) -> ModuleStatus {
        let report = |(worker, version): &(&str, &str)| ModuleReport {
            version: (*version).to_owned(),
            synapse: "1.163.2".to_owned(),
            worker: (*worker).to_owned(),
            called: false,
        };
        ModuleStatus {
            calls,
            workers: workers.iter().map(report).collect(),
        }
    }

    #[test]
    fn the_process_that_makes_rooms_has_to_call_the_module() {
        let found = assess(&seen(2, &[("main", OURS), ("generic1", OURS)]), 1);
        let found = found.unwrap();
        assert!(found.contains("seen on generic1, main:"), "{found}");

        let problem = assess(&seen(1, &[("main", OURS)]), 1).unwrap_err();
        assert!(problem.wrong.ends_with("seen on main"), "{problem}");
        assert!(
            problem.remedy.contains("all of Synapse's processes"),
            "{problem}"
        );

        let problem = assess(&seen(0, &[]), 0).unwrap_err();
        assert!(problem.wrong.contains("does not reach us"), "{problem}");
    }

    #[test]
    fn a_module_of_another_version_is_named_wherever_it_runs() {
        for (worker, wrong) in [
            ("generic1", "the module of generic1 has version 0.0.9"),
            ("", "the module has version 0.0.9"),
        ] {
            let workers = [(worker, "0.0.9"), ("main", OURS)];
            let problem = assess(&seen(1, &workers), 0).unwrap_err();
            assert!(problem.wrong.starts_with(wrong), "{problem}");
        }
    }
}
