//! A network between two parties that can be slow or away: an HTTP proxy on loopback.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tokio::{sync::watch, task::JoinHandle};
use url::Url;

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on at once.
    Pass,
    /// It is passed on after a while.
    Delay(Duration),
    /// It waits until [`Proxy::release`].
    Hold,
    /// It is answered with this status, and the other side never hears of it.
    Refuse(StatusCode),
    /// It is passed on, and the answer is lost: the caller gets this status instead.
    LoseAnswer(StatusCode),
    /// It is passed on, and the answer waits until [`Proxy::release`].
    HoldAnswer,
}

type Judge = Box<dyn FnMut(&str, &str) -> Fate + Send>;
type Route = Box<dyn Fn(&str, &str) -> Url + Send + Sync>;

/// A running proxy.
pub struct Proxy {
    url: Url,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// One request that was, or is to be, caught on its way: see [`Proxy::catches`].
pub struct Catch {
    what: String,
    held: watch::Receiver<u64>,
}

impl Catch {
    /// Waits until it is in our hands: the request itself, or the answer to it.
    pub async fn held(&mut self) -> Result<()> {
        match tokio::time::timeout(crate::PATIENCE, self.held.changed()).await {
            Ok(changed) => Ok(changed?),
            Err(_) => bail!("the proxy never saw {}", self.what),
        }
    }
}

struct Shared {
    to: Route,
    judge: Mutex<Judge>,
    held: watch::Sender<u64>,
    released: watch::Sender<u64>,
    passed: watch::Sender<Vec<(String, String)>>,
    http: reqwest::Client,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Proxy {
    /// Starts a proxy to `to` that passes everything on.
    pub async fn start(to: &Url) -> Result<Self> {
        let to = to.clone();
        Self::routing(move |_, _| to.clone()).await
    }

    /// Starts a proxy that passes everything on to where `to` says, by method and path.
    pub async fn routing(to: impl Fn(&str, &str) -> Url + Send + Sync + 'static) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = Url::parse(&format!("http://{}/", listener.local_addr()?))?;
        let shared = Arc::new(Shared {
            to: Box::new(to),
            judge: Mutex::new(Box::new(|_, _| Fate::Pass)),
            held: watch::Sender::new(0),
            released: watch::Sender::new(0),
            passed: watch::Sender::new(Vec::new()),
            http: reqwest::Client::builder().no_proxy().build()?,
        });
        let router = Router::new().fallback(forward).with_state(shared.clone());
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            url,
            shared,
            server,
        })
    }

    /// Where to send requests.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Decides from now on what happens to a request, by method and path.
    pub fn judge(&self, judge: impl FnMut(&str, &str) -> Fate + Send + 'static) {
        *self
            .shared
            .judge
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Box::new(judge);
    }

    /// Delays the sending of messages, not of their keys: Element decides for whom to encrypt
    /// about half a second before it sends.
    pub fn like_element(&self, gap: Duration) {
        self.judge(move |method, path| {
            let message = method == "PUT" && path.contains("/rooms/") && path.contains("/send/");
            if message {
                Fate::Delay(gap)
            } else {
                Fate::Pass
            }
        });
    }

    /// Catches the first request from now on whose method and path `wanted` says yes to: holds it
    /// ([`Fate::Hold`]) or its answer ([`Fate::HoldAnswer`]) until [`Proxy::release`], and passes
    /// everything else on. `what` is for the error message.
    pub fn catches(
        &self,
        fate: Fate,
        what: &str,
        mut wanted: impl FnMut(&str, &str) -> bool + Send + 'static,
    ) -> Catch {
        let held = self.shared.held.subscribe();
        let mut fate = Some(fate);
        self.judge(move |method, path| {
            if fate.is_some() && wanted(method, path) {
                fate.take().unwrap_or(Fate::Pass)
            } else {
                Fate::Pass
            }
        });
        let what = what.to_owned();
        Catch { what, held }
    }

    /// Passes everything on again.
    pub fn calm(&self) {
        self.judge(|_, _| Fate::Pass);
    }

    /// Lets go of everything that is held.
    pub fn release(&self) {
        self.shared.released.send_modify(|n| *n += 1);
    }

    /// Waits until a request has arrived here whose method and path `wanted` says yes to.
    pub async fn hears(&self, mut wanted: impl FnMut(&str, &str) -> bool) -> Result<()> {
        let mut passed = self.shared.passed.subscribe();
        let heard = passed.wait_for(|all| all.iter().any(|(method, path)| wanted(method, path)));
        match tokio::time::timeout(crate::PATIENCE, heard).await {
            Ok(heard) => {
                heard?;
                Ok(())
            }
            Err(_) => bail!("the proxy heard only {:#?}", self.shared.passed.borrow()),
        }
    }
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let method = request.method().clone();
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |p| p.as_str())
        .to_owned();
    let mut released = shared.released.subscribe();
    let fate =
        (shared.judge.lock().unwrap_or_else(PoisonError::into_inner))(method.as_str(), &path);
    shared
        .passed
        .send_modify(|all| all.push((method.to_string(), path.clone())));
    match fate {
        Fate::Pass | Fate::LoseAnswer(_) | Fate::HoldAnswer => {}
        Fate::Delay(time) => tokio::time::sleep(time).await,
        Fate::Hold => {
            shared.held.send_modify(|n| *n += 1);
            let _ = released.changed().await;
        }
        Fate::Refuse(status) => return status.into_response(),
    }
    let answer = match pass_on(&shared, request, &path).await {
        Ok(answer) => answer,
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    match fate {
        Fate::LoseAnswer(status) => status.into_response(),
        Fate::HoldAnswer => {
            shared.held.send_modify(|n| *n += 1);
            let _ = released.changed().await;
            answer
        }
        _ => answer,
    }
}

async fn pass_on(shared: &Shared, request: Request, path: &str) -> Result<Response> {
    let to = (shared.to)(request.method().as_str(), path);
    // By hand: joining would read a path with a colon in it as a whole URL.
    let url = format!("{}{path}", to.as_str().trim_end_matches('/'));
    let (parts, body) = request.into_parts();
    let mut headers = parts.headers;
    headers.remove("host");
    let answer = shared
        .http
        .request(parts.method, url)
        .headers(headers)
        .body(to_bytes(body, usize::MAX).await?)
        .send()
        .await?;
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        // The body comes decoded and in one piece.
        if !["content-encoding", "content-length", "transfer-encoding"].contains(&name.as_str()) {
            response = response.header(name, value);
        }
    }
    Ok(response.body(Body::from(answer.bytes().await?))?)
}
