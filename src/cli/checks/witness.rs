//! Who sees what the homeserver pushes: this process, or the Stonechat that runs already.

use std::time::Duration;

use secrecy::ExposeSecret;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::Instant;
use url::Url;

use super::Problem;
use crate::{
    config::Setup,
    matrix::install_crypto_provider,
    server::{self, SelfTest},
};

/// Sees what the homeserver pushes.
#[derive(Clone)]
pub enum Witness {
    /// The server of this process.
    Here(SelfTest),
    /// The Stonechat that holds the port.
    Running {
        /// Asks it.
        http: reqwest::Client,
        /// Where it listens.
        url: Url,
        /// The token that the homeserver shows it.
        token: secrecy::SecretString,
    },
}

#[derive(Deserialize)]
struct Seen {
    seen: bool,
    transactions: u64,
}

impl Witness {
    /// The Stonechat that listens where we wanted to.
    pub fn running(setup: &Setup) -> Result<Self, Problem> {
        install_crypto_provider();
        let listen = setup.config.appservice.listen;
        let mut address = listen;
        if address.ip().is_unspecified() {
            address.set_ip(match address.is_ipv4() {
                true => std::net::Ipv4Addr::LOCALHOST.into(),
                false => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let wrong = |error: String| Problem::new(error, "correct appservice.listen");
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(15))
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let url = Url::parse(&format!("http://{address}"))
            .map_err(|error| wrong(format!("{listen} makes no URL: {error}")))?;
        Ok(Self::Running {
            http,
            url,
            token: setup.registration.hs_token.clone(),
        })
    }

    /// Whether a mark comes, and how many transactions have come so far.
    pub async fn saw(&self, mark: &str, at_most: Duration) -> Result<(bool, u64), Problem> {
        match self {
            Self::Here(test) => {
                let seen = test.wait(mark, at_most).await;
                Ok((seen, test.transactions()))
            }
            Self::Running { .. } => {
                let until = Instant::now() + at_most;
                loop {
                    let answer: Seen = self.ask(&format!("seen/{mark}")).await?;
                    if answer.seen || Instant::now() >= until {
                        return Ok((answer.seen, answer.transactions));
                    }
                }
            }
        }
    }

    /// What the module in the homeserver has reported, as soon as there were more than `after`
    /// reports, or else after some seconds.
    pub async fn module(&self, after: u64, at_most: Duration) -> Result<server::Seen, Problem> {
        match self {
            Self::Here(test) => Ok(test.module().wait(after, at_most).await),
            Self::Running { .. } => {
                let until = Instant::now() + at_most;
                loop {
                    let seen: server::Seen = self.ask(&format!("reports/{after}")).await?;
                    if seen.reports > after || Instant::now() >= until {
                        return Ok(seen);
                    }
                }
            }
        }
    }

    async fn ask<T: DeserializeOwned>(&self, what: &str) -> Result<T, Problem> {
        let Self::Running { http, url, token } = self else {
            return Err(Problem::new("nobody to ask", "report this"));
        };
        let other = |what: String| {
            Problem::new(
                format!("what listens on {url} is not this Stonechat: {what}"),
                "stop it, or restart Stonechat if the registration was changed since it started",
            )
        };
        let mut address = url.clone();
        address.set_path(&format!("/_stonechat/v1/{what}"));
        let answer = http
            .get(address)
            .bearer_auth(token.expose_secret())
            .send()
            .await;
        let answer = answer.map_err(|error| other(error.without_url().to_string()))?;
        if !answer.status().is_success() {
            return Err(other(format!("it answers {}", answer.status())));
        }
        answer
            .json()
            .await
            .map_err(|error| other(error.without_url().to_string()))
    }
}
