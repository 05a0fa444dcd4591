//! What a test orders for requests of the service: that they fail, wait, are refused or never
//! answered, and what is answered in place of what the homeserver knows ([`odd`]). Requests of a
//! [`Client`](crate::Client) are not concerned.

mod odd;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};

use self::odd::Odd;
use crate::{
    Fake, Shared, lock,
    model::{Answer, Ask},
};

/// When a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing was done.
    Before,
    /// Everything was done, and the answer got lost.
    After,
}

/// All that was ordered, and the requests that came.
#[derive(Default)]
pub(crate) struct Script {
    /// Requests made, but for `/versions`.
    log: Vec<String>,
    /// Which request from the beginning fails, and when.
    fault: Option<(usize, When)>,
    alarm: Option<Alarm>,
    /// Requests in which one of these occurs are never answered.
    silent: Vec<String>,
    /// Those that were never answered.
    unanswered: Vec<String>,
    /// Requests in which one of these occurs are refused, with this status.
    refused: Vec<(String, u16)>,
    gates: Vec<Gate>,
    odd: Odd,
}

/// What requests wait at.
#[derive(Clone)]
struct Gate {
    path: &'static str,
    /// A part of the body.
    body: String,
    /// A permit for each request that has come.
    come: Arc<Semaphore>,
    /// Closed when they may go on.
    open: Arc<Semaphore>,
}

/// Requests that are held back as long as this lives.
#[derive(Debug)]
pub struct Held {
    come: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Held {
    /// Waits until one more of them has come.
    pub async fn comes(&self) {
        // It is never closed.
        if let Ok(permit) = self.come.acquire().await {
            permit.forget();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.close();
    }
}

/// Something that happens at a request.
struct Alarm {
    /// A part of its path.
    path: &'static str,
    /// How many come before it.
    after: usize,
    act: Box<dyn FnOnce() + Send>,
}

impl Fake {
    /// Lets the `n`th request from now on fail (0 is the next).
    pub fn fail(&self, n: usize, when: When) {
        self.script(|script| script.fault = Some((script.log.len() + n, when)));
    }

    /// Returns whether the failure that was ordered has not happened yet.
    pub fn failure_pending(&self) -> bool {
        self.script(|script| script.fault.is_some())
    }

    /// Takes back a failure that was ordered.
    pub fn no_failure(&self) {
        self.script(|script| script.fault = None);
    }

    /// Acts at the `n`th request from now on to a path of this kind, when all of it is done and
    /// nobody has been answered.
    pub fn at_request(&self, path: &'static str, n: usize, act: impl FnOnce() + Send + 'static) {
        let act = Box::new(act);
        self.script(|script| {
            script.alarm = Some(Alarm {
                path,
                after: n,
                act,
            });
        });
    }

    /// Never answers requests in which this occurs, as when they are for a server that accepts
    /// connections and then says nothing, and the homeserver waits.
    pub fn silence(&self, part: &str) {
        self.script(|script| script.silent.push(part.to_owned()));
    }

    /// Returns the requests that were never answered, and whose maker may have gone.
    pub fn unanswered(&self) -> Vec<String> {
        self.script(|script| script.unanswered.clone())
    }

    /// Refuses requests in which this occurs.
    pub fn forbid(&self, part: &str) {
        self.refuse(part, 403);
    }

    /// Answers requests in which this occurs with this status.
    pub fn refuse(&self, part: &str, status: u16) {
        self.script(|script| script.refused.push((part.to_owned(), status)));
    }

    /// Refuses nothing that was to be refused until now.
    pub fn refuse_nothing(&self) {
        self.script(|script| script.refused.clear());
    }

    /// Holds back the answers to requests whose path and body contain these, as a slow server does.
    pub fn hold(&self, path: &'static str, body: &str) -> Held {
        let (come, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let gate = Gate {
            path,
            body: body.to_owned(),
            come: come.clone(),
            open: open.clone(),
        };
        self.script(|script| script.gates.push(gate));
        Held { come, open }
    }

    /// Returns the requests made so far, as `METHOD path`.
    pub fn log(&self) -> Vec<String> {
        self.script(|script| script.log.clone())
    }

    /// Waits until `done` is true, and looks after every request of the service.
    pub async fn until(&self, limit: Duration, done: impl Fn() -> bool) -> Result<()> {
        let waiting = async {
            loop {
                let mut came = std::pin::pin!(self.shared.came.notified());
                came.as_mut().enable();
                if done() {
                    return;
                }
                came.await;
            }
        };
        if tokio::time::timeout(limit, waiting).await.is_err() {
            bail!("waited in vain; requests: {:#?}", self.log());
        }
        Ok(())
    }

    fn script<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        act(&mut lock(&self.shared.script))
    }
}

/// What becomes of a request, as it was ordered.
pub(crate) enum Order {
    Pass,
    /// It gets this answer, and nothing is done.
    Refuse(Answer),
    /// It is carried out, and gets this answer.
    Lose(Answer),
}

/// Says that a request came, when it is dropped.
pub(crate) struct Told<'a>(&'a Notify);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

fn lost() -> Answer {
    Answer {
        status: 502,
        body: b"lost".to_vec(),
    }
}

impl Shared {
    /// Returns what has to be kept until a request is about to be answered.
    pub(crate) fn told(&self) -> Told<'_> {
        Told(&self.came)
    }

    /// Returns what was ordered for a request, when it may go on.
    pub(crate) async fn order(&self, method: &str, path: &str, body: &[u8]) -> Order {
        let asked = format!("{method} {path}");
        let body = String::from_utf8_lossy(body);
        let has = |part: &String| path.contains(part) || body.contains(part);
        let silent = {
            let mut script = lock(&self.script);
            let silent = script.silent.iter().any(has);
            if silent {
                script.log.push(asked.clone());
                script.unanswered.push(asked.clone());
            }
            silent
        };
        if silent {
            drop(self.told());
            return std::future::pending().await;
        }
        let gate = {
            let script = lock(&self.script);
            let mut gates = script.gates.iter();
            let gate = gates.find(|gate| path.contains(gate.path) && body.contains(&gate.body));
            gate.cloned()
        };
        if let Some(gate) = gate {
            gate.come.add_permits(1);
            // It is closed, and never has any.
            let _closed = gate.open.acquire().await;
        }
        let mut script = lock(&self.script);
        let number = script.log.len();
        script.log.push(asked);
        let refused = script.refused.iter().find(|(part, _)| has(part));
        if let Some((_, status)) = refused {
            let errcode = match status {
                403 => "M_FORBIDDEN",
                504 => "M_NOT_YET_UPLOADED",
                _ => "M_UNKNOWN",
            };
            return Order::Refuse(Answer::refused(*status, errcode, "refused"));
        }
        match script.fault.take_if(|(at, _)| *at == number) {
            Some((_, When::Before)) => Order::Refuse(lost()),
            Some((_, When::After)) => Order::Lose(lost()),
            None => Order::Pass,
        }
    }

    /// Does what was ordered for the moment at which a request is done.
    pub(crate) fn ring(&self, path: &str) {
        let rings = |alarm: &mut Alarm| {
            if !path.contains(alarm.path) {
                return false;
            }
            let now = alarm.after == 0;
            alarm.after = alarm.after.saturating_sub(1);
            now
        };
        let alarm = lock(&self.script).alarm.take_if(rings);
        if let Some(alarm) = alarm {
            (alarm.act)();
        }
    }

    /// Answers a request of the service: what was put there by a test, or what is known.
    pub(crate) async fn ask_by_script(&self, ask: &Ask) -> Answer {
        let (own, wait) = {
            let odd = &lock(&self.script).odd;
            (odd.answer(ask), odd.wait_for_silent(ask))
        };
        match wait {
            Some(Duration::MAX) => std::future::pending().await,
            Some(wait) => tokio::time::sleep(wait).await,
            None => {}
        }
        if let Some(own) = own {
            return own;
        }
        let answer = self.ask(ask).await;
        let mut script = lock(&self.script);
        if answer.status != 200 || !script.odd.is_about(ask) {
            return answer;
        }
        let mut body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        script.odd.change(ask, &mut body);
        Answer::ok(&body)
    }
}
