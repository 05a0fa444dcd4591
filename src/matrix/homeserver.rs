//! The HTTP client, with the token and the actor of each request.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Method, StatusCode, header::AUTHORIZATION};
use ruma::{
    DeviceId, UserId,
    api::{
        AppserviceUserIdentity, IncomingResponse, OutgoingRequest, OutgoingRequestAppserviceExt,
        SupportedVersions,
        auth_scheme::{AuthScheme, SendAccessToken},
        path_builder::VersionHistory,
    },
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::Instant;
use url::Url;

use super::{
    MatrixError,
    answer::AnswerStream,
    bounds::DeadLetter,
    endpoint::first_answer,
    json_stream::{JsonStream, Match, Selector},
    lately_missing::LatelyMissing,
    upload_limit::UploadLimit,
};

const MIB: usize = 1024 * 1024;

/// Chooses ring as the process's TLS implementation. Calling it again does nothing.
pub fn install_crypto_provider() {
    // An error only says that one was chosen before, which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The user of our namespace that makes a request, and its device where that matters.
///
/// Synapse keeps the transaction ids of requests that name a device in its database for a day, so
/// every request that must not be repeated names one. A device without its user cannot be
/// expressed: Synapse answers such a request with an internal error.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// The user in our namespace.
    pub user: &'a UserId,
    /// Its device.
    pub device: Option<&'a DeviceId>,
}

impl<'a> Actor<'a> {
    /// Returns a user, on no device in particular.
    pub fn user(user: &'a UserId) -> Self {
        Self { user, device: None }
    }

    /// Returns a user on its device.
    pub fn device(user: &'a UserId, device: &'a DeviceId) -> Self {
        Self {
            user,
            device: Some(device),
        }
    }

    fn identity(self) -> AppserviceUserIdentity<'a> {
        let mut identity = AppserviceUserIdentity::new(self.user);
        identity.device_id = self.device;
        identity
    }
}

/// How the homeserver is reached, how long to wait and how much to read.
#[derive(Clone, Debug)]
pub struct HomeserverOptions {
    /// The proxy that requests go through, if any.
    pub proxy: Option<Url>,
    /// How long a connection may take to be established.
    pub connect_timeout: Duration,
    /// How long a complete answer may take. A long poll adds its own timeout.
    pub request_timeout: Duration,
    /// Maximum size of an answer that is read as a whole, in bytes.
    pub answer_bytes_max: usize,
    /// How long an answer of any size may take that is read as it arrives.
    pub stream_timeout: Duration,
}

impl Default for HomeserverOptions {
    fn default() -> Self {
        Self {
            proxy: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            answer_bytes_max: 8 * MIB,
            stream_timeout: Duration::from_secs(10 * 60),
        }
    }
}

/// The homeserver, reached with the application service's token. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Homeserver(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    base: Url,
    token: SecretString,
    versions: SupportedVersions,
    options: HomeserverOptions,
    dead_letters: Mutex<Vec<DeadLetter>>,
    upload_limit: Mutex<Option<UploadLimit>>,
    lately_missing: LatelyMissing,
}

/// How long the homeserver has to show that it answers.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of dead letters that wait to be noted.
const DEAD_LETTERS_MAX: usize = 1000;

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Homeserver")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct VersionsResponse {
    versions: Vec<String>,
    #[serde(default)]
    unstable_features: std::collections::BTreeMap<String, bool>,
}

impl Homeserver {
    /// Asks the homeserver at `url` for its versions, and keeps the token for all later requests.
    ///
    /// # Errors
    ///
    /// A transient error if the homeserver is not up yet; [`MatrixError::Unexpected`] if something
    /// else answers there.
    pub async fn connect(
        url: &Url,
        as_token: SecretString,
        options: HomeserverOptions,
    ) -> Result<Self, MatrixError> {
        install_crypto_provider();
        if url.cannot_be_a_base() || !matches!(url.scheme(), "http" | "https") {
            return Err(MatrixError::Request(format!(
                "`{url}` is not an http or https address"
            )));
        }
        // The environment's proxies are meant for other programs, and would see the token.
        let mut http = reqwest::Client::builder().no_proxy();
        let proxy_url = options.proxy.as_ref();
        if url.scheme() == "http" && proxy_url.is_none_or(|proxy| proxy.scheme() == "http") {
            // Without TLS no certificate authority is needed, and a machine that has none will do.
            http = http.tls_certs_only([]);
        }
        if let Some(proxy) = &options.proxy {
            let proxy = reqwest::Proxy::all(proxy.clone()).map_err(MatrixError::from_transport)?;
            http = http.proxy(proxy);
        }
        let http = http
            .connect_timeout(options.connect_timeout)
            // A redirect would carry the token to wherever it points.
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .user_agent(concat!("Stonechat/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(MatrixError::from_builder)?;
        let mut inner = Inner {
            http,
            base: url.clone(),
            token: as_token,
            versions: SupportedVersions {
                versions: [].into(),
                features: [].into(),
            },
            options,
            dead_letters: Mutex::default(),
            upload_limit: Mutex::default(),
            lately_missing: LatelyMissing::default(),
        };
        let request = inner.versions_request()?;
        let timeout = inner.options.request_timeout;
        let answer = inner.execute(request, timeout, MIB).await?;
        let answer: VersionsResponse = parse_json(answer.body())?;
        inner.versions = SupportedVersions::from_parts(&answer.versions, &answer.unstable_features);
        if inner.versions.versions.is_empty() {
            return Err(MatrixError::Unexpected(
                "it speaks no version of the Matrix client-server API that we know".to_owned(),
            ));
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Returns the homeserver's URL.
    pub fn url(&self) -> &Url {
        &self.0.base
    }

    /// Returns the versions and features that the homeserver announced when we connected.
    pub fn versions(&self) -> &SupportedVersions {
        &self.0.versions
    }

    pub(super) fn lately_missing(&self) -> &LatelyMissing {
        &self.0.lately_missing
    }

    /// Makes any request of the client-server API as `who`.
    pub async fn send<R>(
        &self,
        who: Actor<'_>,
        request: R,
    ) -> Result<R::IncomingResponse, MatrixError>
    where
        R: OutgoingRequest<PathBuilder = VersionHistory>,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
    {
        let began = Instant::now();
        match self.send_once(who, request).await {
            Err(error) => Err(self.explain(who, error, began).await),
            answer => answer,
        }
    }

    /// Makes a request as `who`; a refusal is returned as it came.
    pub(super) async fn send_once<R>(
        &self,
        who: Actor<'_>,
        request: R,
    ) -> Result<R::IncomingResponse, MatrixError>
    where
        R: OutgoingRequest<PathBuilder = VersionHistory>,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
    {
        let token = SendAccessToken::Always(self.0.token.expose_secret());
        self.send_with(who.identity(), token, request).await
    }

    /// Makes a request as the application service itself, that is, as its `sender_localpart`.
    pub async fn send_as_service<R>(&self, request: R) -> Result<R::IncomingResponse, MatrixError>
    where
        R: OutgoingRequest<PathBuilder = VersionHistory>,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
    {
        let token = SendAccessToken::Always(self.0.token.expose_secret());
        self.send_with(AppserviceUserIdentity::default(), token, request)
            .await
    }

    /// Makes a request without a token, as anybody could.
    pub async fn send_unauthenticated<R>(
        &self,
        request: R,
    ) -> Result<R::IncomingResponse, MatrixError>
    where
        R: OutgoingRequest<PathBuilder = VersionHistory>,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
    {
        self.send_with(
            AppserviceUserIdentity::default(),
            SendAccessToken::None,
            request,
        )
        .await
    }

    async fn send_with<R>(
        &self,
        identity: AppserviceUserIdentity<'_>,
        token: SendAccessToken<'_>,
        request: R,
    ) -> Result<R::IncomingResponse, MatrixError>
    where
        R: OutgoingRequest<PathBuilder = VersionHistory>,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
    {
        let inner = &*self.0;
        let mut request: http::Request<Vec<u8>> = request
            .try_into_http_request_with_identity(
                inner.base.as_str(),
                token,
                identity,
                Cow::Borrowed(&inner.versions),
            )
            .map_err(|error| MatrixError::Request(error.to_string()))?;
        if let Some(value) = request.headers_mut().get_mut(AUTHORIZATION) {
            value.set_sensitive(true);
        }
        let request = reqwest::Request::try_from(request).map_err(MatrixError::from_transport)?;
        let options = &inner.options;
        let answer = inner
            .execute(request, options.request_timeout, options.answer_bytes_max)
            .await?;
        R::IncomingResponse::try_from_http_response(answer)
            // The parser's message may quote what people wrote, so it is not kept.
            .map_err(|_| {
                MatrixError::Unexpected(format!(
                    "not a {}",
                    std::any::type_name::<R::IncomingResponse>()
                ))
            })
    }

    /// Makes a `GET` whose answer is read as it arrives. `waiting` is how long the homeserver was
    /// asked to wait for news, in addition to the ordinary timeout.
    pub(super) async fn stream(
        &self,
        who: Actor<'_>,
        path: &[&str],
        query: &[(&str, &str)],
        waiting: Duration,
    ) -> Result<AnswerStream, MatrixError> {
        let request = self.request(Method::GET, who, path, query)?;
        let begins_within = self.0.options.request_timeout.saturating_add(waiting);
        let began = Instant::now();
        match self.open(request, begins_within).await {
            Err(error) => Err(self.explain(who, error, began).await),
            answer => answer,
        }
    }

    /// Begins a request as `who`.
    pub(super) fn request(
        &self,
        method: Method,
        who: Actor<'_>,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<reqwest::RequestBuilder, MatrixError> {
        let inner = &*self.0;
        let mut address = inner.address(path, query)?;
        {
            let mut pairs = address.query_pairs_mut();
            pairs.append_pair("user_id", who.user.as_str());
            if let Some(device) = who.device {
                pairs.append_pair("device_id", device.as_str());
            }
        }
        let request = inner.http.request(method, address);
        Ok(request.bearer_auth(inner.token.expose_secret()))
    }

    /// Makes a request whose answer is read as it arrives, and has to begin within this time.
    pub(super) async fn open(
        &self,
        request: reqwest::RequestBuilder,
        begins_within: Duration,
    ) -> Result<AnswerStream, MatrixError> {
        let inner = &*self.0;
        let request = request.build().map_err(MatrixError::from_transport)?;
        let options = &inner.options;
        let response = first_answer(&inner.http, request, begins_within).await?;
        let mut answer = AnswerStream {
            response,
            pause: options.request_timeout,
            deadline: Instant::now() + options.stream_timeout,
        };
        let status = answer.response.status();
        if status != StatusCode::OK {
            let headers = answer.response.headers().clone();
            let body = answer.read_rest(options.answer_bytes_max).await?;
            return Err(error_of(status, &headers, &body));
        }
        Ok(answer)
    }

    /// Makes a request and returns its answer, which has to be complete within
    /// [`HomeserverOptions::stream_timeout`].
    pub(super) async fn execute(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<Vec<u8>, MatrixError> {
        let request = request.build().map_err(MatrixError::from_transport)?;
        let options = &self.0.options;
        let (timeout, limit) = (options.stream_timeout, options.answer_bytes_max);
        Ok(self.0.execute(request, timeout, limit).await?.into_body())
    }

    /// Returns whether the homeserver answers at all.
    pub(super) async fn is_answering(&self) -> bool {
        let request = self.0.versions_request();
        let answer = async { self.0.execute(request?, PROBE_TIMEOUT, MIB).await };
        answer.await.is_ok()
    }

    /// Returns how long the homeserver may take to answer, or to go on with what it has begun.
    pub fn request_timeout(&self) -> Duration {
        self.0.options.request_timeout
    }

    /// Returns what is known about the largest file that the homeserver takes.
    pub(super) fn upload_limit(&self) -> &Mutex<Option<UploadLimit>> {
        &self.0.upload_limit
    }

    /// Makes a `GET` and hands the values that `selectors` name to `on_match`, as they arrive.
    pub(super) async fn select(
        &self,
        who: Actor<'_>,
        path: &[&str],
        query: &[(&str, &str)],
        selectors: &'static [Selector],
        mut on_match: impl FnMut(Match<'_>),
    ) -> Result<(), MatrixError> {
        let mut answer = self.stream(who, path, query, Duration::ZERO).await?;
        let mut json = JsonStream::new(selectors);
        while let Some(chunk) = answer.chunk().await? {
            json.feed(&chunk, &mut on_match);
        }
        json.finish(&mut on_match)
            .map_err(|error| MatrixError::Unexpected(error.to_string()))
    }

    /// Adds an item that was set aside while an answer was read.
    pub(super) fn set_aside(&self, letter: DeadLetter) {
        let letters = self.0.dead_letters.lock();
        let mut letters = letters.unwrap_or_else(PoisonError::into_inner);
        if letters.len() < DEAD_LETTERS_MAX {
            letters.push(letter);
        }
    }

    /// Returns the items that were set aside since the last call, at most a thousand.
    pub fn take_dead_letters(&self) -> Vec<DeadLetter> {
        let letters = self.0.dead_letters.lock();
        std::mem::take(&mut *letters.unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn address(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, MatrixError> {
        let mut address = self.base.clone();
        address
            .path_segments_mut()
            .map_err(|()| MatrixError::Request("the homeserver's address has no path".to_owned()))?
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            address.query_pairs_mut().extend_pairs(query);
        }
        Ok(address)
    }

    fn versions_request(&self) -> Result<reqwest::Request, MatrixError> {
        let address = self.address(&["_matrix", "client", "versions"], &[])?;
        let request = self.http.get(address).build();
        request.map_err(MatrixError::from_transport)
    }

    async fn execute(
        &self,
        mut request: reqwest::Request,
        timeout: Duration,
        limit: usize,
    ) -> Result<http::Response<Vec<u8>>, MatrixError> {
        let deadline = Instant::now() + timeout;
        *request.timeout_mut() = Some(timeout);
        let response = first_answer(&self.http, request, timeout).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut answer = AnswerStream {
            response,
            pause: timeout,
            deadline,
        };
        let body = answer.read_rest(limit).await?;
        if !status.is_success() || status == StatusCode::NO_CONTENT {
            return Err(error_of(status, &headers, &body));
        }
        let mut answer = http::Response::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}

/// Returns the error of an answer whose status is not a success.
fn error_of(status: StatusCode, headers: &http::HeaderMap, body: &[u8]) -> MatrixError {
    if status.is_redirection() {
        return MatrixError::Unexpected(format!(
            "it redirects (HTTP {status}); give the address it redirects to"
        ));
    }
    MatrixError::from_answer(status, headers, body)
}

pub(super) fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, MatrixError> {
    serde_json::from_slice(body).map_err(|error| {
        // The error's message may quote the body, so only its place is kept.
        MatrixError::Unexpected(format!("line {}, column {}", error.line(), error.column()))
    })
}
