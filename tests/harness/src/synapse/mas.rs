//! A stand-in for Matrix Authentication Service: the part of it that Synapse asks, and the accounts
//! and devices that it makes in Synapse.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    routing::{get, post},
};
use matrix_sdk::{SessionMeta, SessionTokens, authentication::matrix::MatrixSession};
use ruma::UserId;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

use super::{Synapse, register::display_name};

/// A running stand-in.
pub struct Mas {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    url: String,
    /// By which it and Synapse know each other.
    secret: String,
    /// Who has a token: the localpart and the device.
    tokens: Mutex<HashMap<String, (String, String)>>,
}

impl Shared {
    fn gives(&self, token: &str, localpart: &str, device: &str) {
        let tokens = self.tokens.lock();
        let mut tokens = tokens.unwrap_or_else(PoisonError::into_inner);
        tokens.insert(token.to_owned(), (localpart.to_owned(), device.to_owned()));
    }
}

impl Drop for Mas {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Mas {
    /// Starts one that knows nobody.
    pub async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let shared = Arc::new(Shared {
            url: format!("http://{}/", listener.local_addr()?),
            secret: hex::encode(rand::random::<[u8; 16]>()),
            tokens: Mutex::default(),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/oauth2/introspect", post(introspect))
            .with_state(shared.clone());
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { shared, server })
    }

    /// What Synapse has to know of it (`homeserver.yaml`).
    pub fn configure(&self, config: &mut Map<String, Value>) {
        config.extend([
            (
                "matrix_authentication_service".into(),
                json!({
                    "enabled": true,
                    "endpoint": self.shared.url,
                    "secret": self.shared.secret,
                }),
            ),
            ("password_config".into(), json!({ "enabled": false })),
        ]);
    }
}

async fn metadata(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let url = &shared.url;
    Json(json!({
        "issuer": url,
        "account_management_uri": format!("{url}account/"),
        "authorization_endpoint": format!("{url}authorize"),
        "token_endpoint": format!("{url}oauth2/token"),
        "introspection_endpoint": format!("{url}oauth2/introspect"),
    }))
}

/// Says whose a token is (RFC 7662), in the words of MAS.
async fn introspect(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    form: String,
) -> (StatusCode, Json<Value>) {
    let given = headers.get(header::AUTHORIZATION);
    if given.is_none_or(|given| *given != format!("Bearer {}", shared.secret)) {
        return (StatusCode::UNAUTHORIZED, Json(json!({})));
    }
    let mut fields = url::form_urlencoded::parse(form.as_bytes());
    let token = fields.find_map(|(name, value)| (name == "token").then_some(value));
    let tokens = shared.tokens.lock();
    let tokens = tokens.unwrap_or_else(PoisonError::into_inner);
    let answer = match token.and_then(|token| tokens.get(&*token)) {
        Some((localpart, device)) => json!({
            "active": true,
            "sub": localpart,
            "username": localpart,
            "scope": format!("urn:matrix:client:api:* urn:matrix:client:device:{device}"),
            "token_type": "access_token",
            "expires_in": 3600,
        }),
        None => json!({ "active": false }),
    };
    (StatusCode::OK, Json(answer))
}

impl Synapse {
    /// Makes an account as MAS does.
    pub(super) async fn provision(&self, mas: &Mas, localpart: &str) -> Result<()> {
        let account = json!({
            "localpart": localpart,
            "set_displayname": display_name(localpart),
        });
        self.asks_as_mas(mas, "provision_user", &account).await
    }

    /// Asks whether people may have this name, as MAS does before it makes an account.
    pub async fn name_is_free(&self, localpart: &str) -> Result<bool> {
        let mas = self.parts.mas.as_ref().context("no MAS")?;
        let mut url = self.url().join("_synapse/mas/is_localpart_available")?;
        url.query_pairs_mut().append_pair("localpart", localpart);
        let asked = self.http.get(url).bearer_auth(&mas.shared.secret);
        let answer = asked.send().await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::BAD_REQUEST => Ok(false),
            status => bail!("Synapse answers {status}: {}", answer.text().await?),
        }
    }

    /// Signs somebody in with a new device, if this homeserver leaves that to MAS.
    pub async fn delegated_session(&self, user_id: &UserId) -> Result<Option<MatrixSession>> {
        let Some(mas) = &self.parts.mas else {
            return Ok(None);
        };
        let localpart = user_id.localpart();
        let device = format!("MAS{:08X}", rand::random::<u32>());
        let token = format!("mat_{}", hex::encode(rand::random::<[u8; 16]>()));
        mas.shared.gives(&token, localpart, &device);
        let made = json!({
            "localpart": localpart,
            "device_id": device,
            "display_name": "Stories",
        });
        self.asks_as_mas(mas, "upsert_device", &made).await?;
        Ok(Some(MatrixSession {
            meta: SessionMeta {
                user_id: user_id.to_owned(),
                device_id: device.into(),
            },
            tokens: SessionTokens {
                access_token: token,
                refresh_token: None,
            },
        }))
    }

    async fn asks_as_mas(&self, mas: &Mas, what: &str, body: &Value) -> Result<()> {
        let url = self.url().join(&format!("_synapse/mas/{what}"))?;
        let asked = self.http.post(url).bearer_auth(&mas.shared.secret);
        let answer = asked.json(body).send().await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("{what}: {status} {}", answer.text().await?);
        }
        Ok(())
    }
}
