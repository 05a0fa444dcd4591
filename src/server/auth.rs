//! Whether a request comes from our homeserver, or from the module in it.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{ApiError, peer::Peer};

/// A token that we are shown, as a digest: comparing digests in constant time tells neither how much
/// of a guess was right nor how long the token is.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// What has to be shown.
    pub fn new(token: &SecretString) -> Self {
        Self(Sha256::digest(token.expose_secret()).into())
    }

    fn matches(&self, shown: &[u8]) -> bool {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        self.0.ct_eq(&shown).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Lets a request pass that shows the token, in the header and nowhere else: what stands in a URL
/// stands in logs.
pub(super) async fn require_token(
    State(token): State<Token>,
    request: Request,
    next: Next,
) -> Response {
    match bearer_token(request.headers()) {
        Err(error) => error.into_response(),
        Ok(shown) if token.matches(shown) => {
            // Absent only where a router is called without a connection.
            if let Some(peer) = request.extensions().get::<Peer>() {
                peer.authenticate();
            }
            next.run(request).await
        }
        Ok(_) => ApiError::WrongToken.into_response(),
    }
}

/// The token of the one `Authorization` header. Two of them are refused even if one is right:
/// whatever stands between us and the homeserver might have looked at the other.
fn bearer_token(headers: &HeaderMap) -> Result<&[u8], ApiError> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let value = all.next().ok_or(ApiError::MissingToken)?.as_bytes();
    if all.next().is_some() {
        return Err(ApiError::WrongToken);
    }
    let (scheme, token) = match value.iter().position(|b| *b == b' ') {
        Some(at) => value.split_at(at),
        None => return Err(ApiError::MissingToken),
    };
    let token = token.trim_ascii();
    // RFC 9110 section 11.1: the name of a scheme has no case.
    if !scheme.eq_ignore_ascii_case(b"bearer") || token.is_empty() {
        return Err(ApiError::MissingToken);
    }
    Ok(token)
}
