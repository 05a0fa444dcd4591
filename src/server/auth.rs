//! Checks that a request comes from our homeserver, or from the module in it.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{ApiError, peer::Peer, transaction_order::Connection};

/// An expected token, as a digest. Comparing digests in constant time reveals neither how much of a
/// guess was right nor how long the token is.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Returns the digest of a token.
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

/// Passes on requests that show the token in the `Authorization` header. A token in the URL does
/// not count, since URLs are logged.
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
            if let Some(connection) = request.extensions().get::<Connection>() {
                connection.note_use();
            }
            next.run(request).await
        }
        Ok(_) => ApiError::WrongToken.into_response(),
    }
}

/// Returns the token of the only `Authorization` header. Two headers are refused even if one is
/// right: a proxy between us and the homeserver might have checked the other.
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
    // The name of a scheme is case-insensitive (RFC 9110, section 11.1).
    if !scheme.eq_ignore_ascii_case(b"bearer") || token.is_empty() {
        return Err(ApiError::MissingToken);
    }
    Ok(token)
}
