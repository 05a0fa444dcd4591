//! Pushing transactions to the application service, and trying again.

mod queue;

use std::{borrow::Cow, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    Shared,
    fault::Delivery,
    lock,
    model::{Answer, Registration, Server, Shape},
};

pub use queue::{Queue, Transaction, Waiting};

/// A transaction as Synapse writes it.
#[derive(Default, Serialize)]
struct Body<'a> {
    events: Vec<&'a RawValue>,
    ephemeral: &'a [Value],
    #[serde(rename = "de.sorunome.msc2409.ephemeral")]
    old_ephemeral: &'a [Value],
    #[serde(rename = "de.sorunome.msc2409.to_device")]
    to_device: &'a [Value],
    #[serde(
        rename = "org.matrix.msc3202.device_lists",
        skip_serializing_if = "Option::is_none"
    )]
    device_lists: Option<Value>,
    #[serde(flatten)]
    counts: serde_json::Map<String, Value>,
}

/// Pushes until the task is ended, unless a test hands everything over by itself.
pub(super) async fn push(shared: Arc<Shared>) {
    if !shared.options.pushes {
        return;
    }
    loop {
        let news = shared.news.notified();
        let (next, waits) = shared.with(|server| {
            let next = server.queue.take_next();
            let body = next.as_ref().map(|next| server.body(next));
            let waits = server.queue.down && server.queue.recovering;
            (next.zip(body), waits)
        });
        if waits {
            recover(&shared).await;
            continue;
        }
        let Some((transaction, body)) = next else {
            news.await;
            continue;
        };
        ask_about_unknown(&shared, &transaction).await;
        let done = deliver(&shared, &transaction, body).await;
        shared.with(|server| match done {
            true => server.queue.done(transaction.id),
            false => server.queue.failed(),
        });
    }
}

/// Tries the oldest transaction again and again, with longer and longer pauses, then all others.
async fn recover(shared: &Arc<Shared>) {
    let [mut pause, longest] = shared.options.backoff;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.pinged.notified() => {}
        }
        pause = (pause * 2).min(longest);
        loop {
            let oldest = shared.with(|server| {
                let oldest = server.queue.oldest()?;
                let body = server.body(&oldest);
                Some((oldest, body))
            });
            let Some((transaction, body)) = oldest else {
                // Nothing had been written down: what failed held nothing but what is gone.
                shared.with(|server| {
                    server.queue.down = false;
                    server.queue.recovering = false;
                });
                return;
            };
            if !deliver(shared, &transaction, body).await {
                break;
            }
            pause = shared.options.backoff[0];
            if shared.with(|server| {
                server.queue.done(transaction.id);
                !server.queue.down
            }) {
                return;
            }
        }
    }
}

/// Whether the service took it.
async fn deliver(shared: &Arc<Shared>, transaction: &Transaction, body: Vec<u8>) -> bool {
    let Some(service) = shared.with(|server| server.service.clone()) else {
        return false;
    };
    let delivery = shared.delivery();
    if delivery == Delivery::Lose {
        return false;
    }
    let path = format!("transactions/{}", transaction.id);
    let http = shared.http(transaction.id);
    let request = request(&http, &service, reqwest::Method::PUT, &path).body(body);
    shared.note_pushed(transaction);
    let sending = tokio::spawn(async move {
        let answer = request.send().await.ok()?;
        let taken = answer.status().is_success();
        let body = answer.bytes().await.ok()?;
        Some(taken && serde_json::from_slice::<Value>(&body).is_ok())
    });
    shared.keep_connection(sending.abort_handle());
    let patience = match delivery {
        Delivery::GiveUp(time) => time,
        _ => shared.options.transaction_timeout,
    };
    // Giving up does not cancel the request: the service may still be working on it when the same
    // transaction comes again.
    match tokio::time::timeout(patience, sending).await {
        Ok(Ok(Some(taken))) => taken,
        _ => false,
    }
}

/// Synapse asks about a user whom it does not know, after the event that names it is there; what
/// is answered changes nothing.
async fn ask_about_unknown(shared: &Arc<Shared>, transaction: &Transaction) {
    let unknown = transaction.events.iter();
    for user in unknown.filter_map(|event| event.unknown.as_ref()) {
        if let Some(service) = shared.with(|server| server.service.clone()) {
            let path = format!("users/{}", user.replace('@', "%40").replace(':', "%3A"));
            let request = request(&shared.http(0), &service, reqwest::Method::GET, &path);
            let _ = request.send().await;
        }
    }
}

fn request(
    http: &reqwest::Client,
    service: &Registration,
    method: reqwest::Method,
    path: &str,
) -> reqwest::RequestBuilder {
    let url = service.url.trim_end_matches('/');
    http.request(method, format!("{url}/_matrix/app/v1/{path}"))
        .bearer_auth(&service.hs_token)
        .header(reqwest::header::CONTENT_TYPE, "application/json")
        .timeout(Duration::from_secs(60))
}

fn http_client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true);
    client.build().unwrap_or_default()
}

impl Shared {
    /// The client that pushes a transaction: each keeps connections of its own.
    fn http(&self, transaction: u64) -> reqwest::Client {
        let turns = u64::from(self.options.connections.max(1));
        let mut clients = lock(&self.http);
        if clients.is_empty() {
            clients.extend((0..turns).map(|_| http_client()));
        }
        let turn = usize::try_from(transaction % turns).unwrap_or_default();
        clients[turn].clone()
    }

    /// `POST /appservice/{id}/ping`
    pub(super) async fn ping(&self, body: &Value) -> Answer {
        let Some(service) = self.with(|server| server.service.clone()) else {
            return Answer::forbidden("no application service");
        };
        let body = json!({"transaction_id": body["transaction_id"]}).to_string();
        let http = self.http(0);
        let request = request(&http, &service, reqwest::Method::POST, "ping").body(body);
        let began = std::time::Instant::now();
        match request.send().await {
            Ok(answer) if answer.status().is_success() => {
                // A recovery that is pausing tries again at once.
                self.pinged.notify_waiters();
                let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                Answer::ok(&json!({"duration_ms": took}))
            }
            Ok(answer) => {
                let words = format!("HTTP {}", answer.status().as_u16());
                Answer::refused(502, "M_BAD_STATUS", &words)
            }
            Err(error) if error.is_timeout() => {
                Answer::refused(504, "M_CONNECTION_TIMEOUT", "no answer")
            }
            Err(_) => Answer::refused(502, "M_CONNECTION_FAILED", "no connection"),
        }
    }
}

impl Server {
    /// An event as it is pushed. What was redacted while it waited is pushed without its content.
    fn pushed<'a>(&self, waiting: &'a Waiting) -> Cow<'a, RawValue> {
        let room = self.rooms.get(&waiting.room);
        let event = room.and_then(|room| room.events.get(*room.index.get(&waiting.id)?));
        match event.filter(|event| event.redacted_by.is_some()) {
            Some(event) => Cow::Owned(event.shown(Shape::Service)),
            None => Cow::Borrowed(&*waiting.json),
        }
    }

    fn body(&self, transaction: &Transaction) -> Vec<u8> {
        let changed = &transaction.changed;
        let events: Vec<_> = transaction
            .events
            .iter()
            .map(|it| self.pushed(it))
            .collect();
        let body = Body {
            events: events.iter().map(|event| &**event).collect(),
            ephemeral: &transaction.ephemeral,
            old_ephemeral: &transaction.ephemeral,
            to_device: &transaction.to_device,
            device_lists: (!changed.is_empty()).then(|| json!({"changed": changed, "left": []})),
            counts: self.key_counts(transaction),
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// The key counts that Synapse sends along: of the sender, of the service's users who are
    /// joined to a room in which something of this transaction happened, and of who gets a
    /// to-device message. A transaction that is sent again has none.
    fn key_counts(&self, transaction: &Transaction) -> serde_json::Map<String, Value> {
        let rooms = transaction.events.iter().map(|event| event.room.as_str());
        let fleeting = transaction.ephemeral.iter();
        let rooms = rooms.chain(fleeting.filter_map(|event| event["room_id"].as_str()));
        let mut users = std::collections::BTreeSet::new();
        for room in rooms.collect::<std::collections::BTreeSet<_>>() {
            if let Some(room) = self.rooms.get(room) {
                let joined = room.with_membership("join");
                users.extend(joined.filter(|user| self.is_ours(user)));
            }
        }
        let to = transaction.to_device.iter();
        users.extend(to.filter_map(|message| message["to_user_id"].as_str()));
        let (mut counts, mut unused) = (json!({}), json!({}));
        for user in users {
            let Some(account) = self.accounts.get(user) else {
                continue;
            };
            for (id, device) in &account.devices {
                // No key left is an empty object and not a zero.
                let count = device.keys.one_time_count();
                counts[user][id] = match count {
                    0 => json!({}),
                    count => json!({"signed_curve25519": count}),
                };
                unused[user][id] = json!(device.keys.unused_fallback());
            }
            // Synapse keeps the keys of an identity among the devices, and does not hide them.
            for key in account.identity.keys.values() {
                for id in key["keys"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter_map(|(_, key)| key.as_str())
                {
                    counts[user][id] = json!({});
                    unused[user][id] = json!([]);
                }
            }
        }
        let mut fields = serde_json::Map::new();
        if counts.as_object().is_some_and(|counts| !counts.is_empty()) {
            for name in ["device_one_time_key_counts", "device_one_time_keys_count"] {
                fields.insert(format!("org.matrix.msc3202.{name}"), counts.clone());
            }
            let name = "org.matrix.msc3202.device_unused_fallback_key_types";
            fields.insert(name.to_owned(), unused);
        }
        fields
    }
}
