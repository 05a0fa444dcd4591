//! Faults that a test orders: requests that fail, that wait, that are refused or never answered.

use std::sync::Arc;

use axum::http::Uri;
use tokio::sync::Semaphore;

use super::{FakeHomeserver, Server};

/// When a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Nothing was done.
    Before,
    /// Everything was done, and the answer got lost.
    After,
}

/// What requests wait at.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) path: &'static str,
    /// A part of the body.
    pub(super) body: String,
    /// A permit for each request that has come.
    pub(super) come: Arc<Semaphore>,
    /// Closed when they may go on.
    pub(super) open: Arc<Semaphore>,
}

/// Requests that are held back as long as this lives.
pub(crate) struct Held {
    come: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Held {
    /// Waits until one more of them has come.
    pub(crate) async fn comes(&self) {
        self.come.acquire().await.unwrap().forget();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.close();
    }
}

/// Something that happens at a request of a user of ours.
pub(super) struct Alarm {
    /// A part of its path.
    path: &'static str,
    /// How many come before it.
    after: usize,
    act: Box<dyn FnOnce() + Send>,
}

impl FakeHomeserver {
    /// The `n`th request from now on fails (0 is the next).
    pub(crate) fn fail(&self, n: usize, when: When) {
        self.with(|server| server.fault = Some((server.log.len() + n, when)));
    }

    /// Returns whether the failure that was ordered has not happened yet.
    pub(crate) fn failure_pending(&self) -> bool {
        self.with(|server| server.fault.is_some())
    }

    /// Takes back a failure that was ordered.
    pub(crate) fn no_failure(&self) {
        self.with(|server| server.fault = None);
    }

    /// At the `n`th request from now on that a user of ours makes to a path of this kind, when all
    /// of it is done and nobody has been answered.
    pub(crate) fn at_request(
        &self,
        path: &'static str,
        n: usize,
        act: impl FnOnce() + Send + 'static,
    ) {
        let act = Box::new(act);
        self.with(|server| {
            server.alarm = Some(Alarm {
                path,
                after: n,
                act,
            });
        });
    }

    /// Requests for something of this server are never answered: it accepts connections and then
    /// says nothing, and the homeserver waits.
    pub(crate) fn silence(&self, server_name: &str) {
        self.with(|server| server.silent.push(server_name.to_owned()));
    }

    /// The requests that were never answered, and whose maker may have gone.
    pub(crate) fn unanswered(&self) -> Vec<String> {
        self.with(|server| server.unanswered.clone())
    }

    /// From now on requests in which this occurs are refused.
    pub(crate) fn forbid(&self, part: &str) {
        self.with(|server| server.forbidden.push(part.to_owned()));
    }

    /// Holds back the answers to requests whose path and body contain these, as a slow server does.
    pub(crate) fn hold(&self, path: &'static str, body: &str) -> Held {
        let (come, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let gate = Gate {
            path,
            body: body.to_owned(),
            come: come.clone(),
            open: open.clone(),
        };
        self.with(|server| server.held.push(gate));
        Held { come, open }
    }

    pub(crate) fn set_unreachable(&self, server_name: &str, unreachable: bool) {
        self.with(|server| {
            if unreachable {
                server.unreachable.insert(server_name.to_owned());
            } else {
                server.unreachable.remove(server_name);
            }
        });
    }
}

impl Server {
    pub(super) fn ring(&mut self, uri: &Uri) {
        let ours = |query: &str| query.contains("user_id=%40_dm_");
        let rings = |alarm: &mut Alarm| {
            if !uri.path().contains(alarm.path) || !uri.query().is_some_and(ours) {
                return false;
            }
            let now = alarm.after == 0;
            alarm.after = alarm.after.saturating_sub(1);
            now
        };
        if let Some(alarm) = self.alarm.take_if(rings) {
            (alarm.act)();
        }
    }
}
