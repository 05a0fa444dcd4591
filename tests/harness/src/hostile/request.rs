//! Signed requests to the attacked server.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Certificate, Method, header};
use ruma::UserId;
use ruma_signatures::sign_json;
use serde_json::{Value, json};

use super::{HostileRoom, HostileServer, Pdu, event::canonical, now};
use crate::synapse::federation::Member;

/// Longer than Synapse takes for the largest request of any story.
const PATIENCE: Duration = Duration::from_secs(90);

/// What stands as it is in a part of a path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// What the attacked server answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Value,
}

impl Reply {
    /// The body of an answer that has to be 200.
    pub fn accepted(self) -> Result<Value> {
        ensure!(
            self.status == 200,
            "the homeserver answered {}: {}",
            self.status,
            self.body
        );
        Ok(self.body)
    }
}

/// A signed request. A large one takes a while to sign, which should not slow the attack.
pub struct Prepared {
    method: Method,
    url: String,
    authorization: String,
    body: Option<Vec<u8>>,
}

pub(super) fn client(own: &Member) -> Result<reqwest::Client> {
    let authority = Certificate::from_pem(&std::fs::read(own.authority())?)?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([authority])
        .timeout(PATIENCE);
    Ok(client.build()?)
}

/// A part of a path.
pub(super) fn encoded(part: &str) -> String {
    utf8_percent_encode(part, PATH).to_string()
}

impl HostileServer {
    /// Sends a signed request.
    pub async fn asks(&self, method: Method, path: &str, content: Option<Value>) -> Result<Reply> {
        let request = self.prepares(method, path, content.as_ref())?;
        self.sends_prepared(request).await
    }

    /// Signs a request without sending it.
    fn prepares(&self, method: Method, path: &str, content: Option<&Value>) -> Result<Prepared> {
        let identity = &self.shared.identity;
        let mut request = json!({
            "method": method.as_str(),
            "uri": path,
            "origin": identity.name,
            "destination": self.target.server_name,
        });
        if let (Value::Object(fields), Some(content)) = (&mut request, content) {
            fields.insert("content".into(), content.clone());
        }
        let mut request = canonical(request)?;
        sign_json(&identity.name, &identity.key, &mut request)?;
        let signatures = serde_json::to_value(request.get("signatures"))?;
        let signature = signatures[&identity.name].as_object();
        let (key, signature) = signature
            .and_then(|of| of.iter().next())
            .context("no signature")?;
        Ok(Prepared {
            authorization: format!(
                "X-Matrix origin=\"{}\",destination=\"{}\",key=\"{key}\",sig=\"{}\"",
                identity.name,
                self.target.server_name,
                signature.as_str().unwrap_or_default(),
            ),
            url: format!("https://{}{path}", self.target.server_name),
            method,
            body: content.map(serde_json::to_vec).transpose()?,
        })
    }

    /// Sends a request that was signed before.
    pub async fn sends_prepared(&self, request: Prepared) -> Result<Reply> {
        let mut sending = self
            .http
            .request(request.method, request.url)
            .header(header::AUTHORIZATION, request.authorization);
        if let Some(body) = request.body {
            sending = sending
                .header(header::CONTENT_TYPE, "application/json")
                .body(body);
        }
        let answer = sending.send().await?;
        let status = answer.status().as_u16();
        let body = answer.text().await?;
        let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
        Ok(Reply { status, body })
    }

    /// Invites a user of the attacked server into a room of this one, with this stripped state.
    pub async fn invites(
        &self,
        room: &HostileRoom,
        user: &UserId,
        stripped: Vec<Value>,
    ) -> Result<Reply> {
        self.invites_at(room, user, stripped, now()).await
    }

    /// Invites as [`Self::invites`] does, with an `origin_server_ts` of one's own.
    pub async fn invites_at(
        &self,
        room: &HostileRoom,
        user: &UserId,
        stripped: Vec<Value>,
        sent: i64,
    ) -> Result<Reply> {
        let (id, request) = self.prepares_invite(room, user, stripped, sent)?;
        let reply = self.sends_prepared(request).await?;
        if reply.status == 200 {
            room.is_countersigned(&id, &reply.body["event"])?;
        }
        Ok(reply)
    }

    /// Signs an invite and the request for it. Returns the id of the invite as well.
    pub fn prepares_invite(
        &self,
        room: &HostileRoom,
        user: &UserId,
        stripped: Vec<Value>,
        sent: i64,
    ) -> Result<(String, Prepared)> {
        let invite = room.invite(user, sent)?;
        let path = format!(
            "/_matrix/federation/v2/invite/{}/{}",
            encoded(room.id()),
            encoded(&invite.id)
        );
        let content = json!({
            "room_version": room.version(),
            "event": invite.value,
            "invite_room_state": stripped,
        });
        let request = self.prepares(Method::PUT, &path, Some(&content))?;
        Ok((invite.id, request))
    }

    /// Sends a transaction and returns what the server says to each event.
    pub async fn sends(&self, events: &[&Pdu], edus: Vec<Value>) -> Result<Value> {
        let events: Vec<_> = events.iter().map(|event| &*event.value).collect();
        let path = format!(
            "/_matrix/federation/v1/send/{:032x}",
            rand::random::<u128>()
        );
        let content = json!({
            "origin": self.name(),
            "origin_server_ts": now(),
            "pdus": events,
            "edus": edus,
        });
        let reply = self.asks(Method::PUT, &path, Some(content)).await?;
        Ok(reply.accepted()?["pdus"].clone())
    }

    /// Sends content to one device of a user.
    pub async fn sends_to_device(
        &self,
        from: &UserId,
        kind: &str,
        (user, device): (&UserId, &str),
        content: Value,
    ) -> Result<()> {
        let edu = to_device(from, kind, (user, device), &content);
        self.sends(&[], vec![edu]).await?;
        Ok(())
    }

    /// The devices of a user of the attacked server.
    pub async fn devices_of(&self, user: &UserId) -> Result<Vec<String>> {
        let path = format!(
            "/_matrix/federation/v1/user/devices/{}",
            encoded(user.as_str())
        );
        let said = self.asks(Method::GET, &path, None).await?.accepted()?;
        let devices = said["devices"].as_array().context("no devices")?;
        let ids = devices.iter().filter_map(|it| it["device_id"].as_str());
        let ids: Vec<String> = ids.map(ToOwned::to_owned).collect();
        if ids.is_empty() {
            bail!("{user} has no devices");
        }
        Ok(ids)
    }
}

/// A to-device message as one server sends it to another.
pub fn to_device(
    from: &UserId,
    kind: &str,
    (user, device): (&UserId, &str),
    content: &Value,
) -> Value {
    json!({
        "edu_type": "m.direct_to_device",
        "content": {
            "sender": from,
            "type": kind,
            "message_id": format!("{:032x}", rand::random::<u128>()),
            "messages": { user.as_str(): { device: content } },
        },
    })
}
