//! The bearer token that may be required.

use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::{Kind, Problem};

/// A token that requests must bring. Kept and compared as its digest: what is not kept cannot be shown, and blake3's
/// digests are compared in constant time.
#[derive(Clone)]
pub struct Token(blake3::Hash);

impl Token {
    /// The token with this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(blake3::hash(text.as_bytes()))
    }

    fn is(&self, text: &str) -> bool {
        self.0 == blake3::hash(text.as_bytes())
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// The token that is required now; `None` requires none.
#[derive(Debug, Clone, Default)]
pub(super) struct Required(Arc<RwLock<Option<Token>>>);

impl Required {
    pub(super) fn new(token: Option<Token>) -> Self {
        Self(Arc::new(RwLock::new(token)))
    }

    pub(super) fn set(&self, token: Token) {
        // Nothing can panic while it is locked.
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }

    fn get(&self) -> Option<Token> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Lets a request pass that brings the token, where one is required.
pub(super) async fn check(State(required): State<Required>, request: Request, next: Next) -> Response {
    let Some(token) = required.get() else { return next.run(request).await };
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = given.and_then(|value| {
        let (scheme, text) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then(|| text.trim())
    });
    let why = match bearer {
        Some(text) if token.is(text) => return next.run(request).await,
        Some(_) => "the bearer token is not the one of --http-token-file",
        None => "send the token as Authorization: Bearer TOKEN",
    };
    Problem::new(Kind::Unauthorized, why).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_only_itself_and_its_debug_text_does_not_have_it() {
        let token = Token::new("hunter2");
        assert!(token.is("hunter2") && !token.is("hunter") && !token.is("hunter22") && !token.is(""));
        assert_eq!(format!("{token:?}"), "Token");
    }
}
