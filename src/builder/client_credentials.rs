//! What is set of the client-credentials grant: how a layer gets its tokens.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use super::{OAuthLayerBuilder, Source};
use crate::client_auth::ClientAuth;
use crate::endpoint::{ClientCredentials, Settings};
use crate::error::{BoxError, BuildError};

impl OAuthLayerBuilder<ClientCredentials> {
    pub(crate) fn client_credentials(token_url: String, auth: ClientAuth) -> Self {
        let settings = Box::new(Settings::new(token_url, auth));
        Self::of(Source::ClientCredentials(
            settings,
            Box::new(|source| source),
        ))
    }

    /// Sets the HTTP client for token requests: the place for a proxy, a private CA, tracing or a
    /// time limit of your own. It is any tower service that takes a
    /// `http::Request<http_body_util::Full<Bytes>>` and answers with a `http::Response`, whatever
    /// its body.
    ///
    /// It is cloned for each attempt and polled ready before each call. It must not:
    ///
    /// - follow redirects, since it would carry the client's credentials along. A redirect that it
    ///   leaves alone is an error. One that it has followed cannot be seen from here;
    /// - share a concurrency limit with the API client: requests hold their permit while they wait
    ///   for a token.
    ///
    /// Default (feature `client`): HTTP/1.1 over rustls with the platform's certificate verifier,
    /// without proxy, and a new connection for each token request.
    pub fn token_client<C, B>(self, client: C) -> Self
    where
        C: Service<Request<Full<Bytes>>, Response = Response<B>, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        C::Error: Into<BoxError>,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.set(Ok(client), |settings, client| {
            settings.client = Some(Arc::new(client));
        })
    }

    /// Accepts answers with this `token_type` too, whatever its case. The token is still sent as
    /// `Bearer`. May be called again for more.
    ///
    /// Default: `Bearer`, `BearerToken` and none at all are accepted, since a client must not use a
    /// token of a type that it does not know (RFC 6749 §7.1).
    pub fn accept_token_type(self, token_type: impl Into<String>) -> Self {
        let named = |kind: &String| !kind.trim().is_empty() && !kind.contains(char::is_control);
        let token_type = Some(token_type.into())
            .filter(named)
            .ok_or(BuildError::TOKEN_TYPE);
        self.set(token_type, |settings, kind| {
            settings.accepted_types.push(kind);
        })
    }

    /// Sets the `User-Agent` of token requests, such as `payments/1.0`.
    ///
    /// Default: `tower-oauth/` and the version of this crate. Some firewalls reject requests
    /// without one, or from clients they do not know.
    pub fn user_agent(self, user_agent: impl AsRef<str>) -> Self {
        let named = Some(user_agent.as_ref()).filter(|text| !text.trim().is_empty());
        let user_agent = named.and_then(|text| HeaderValue::from_str(text).ok());
        let user_agent = user_agent.ok_or(BuildError::USER_AGENT);
        self.set(user_agent, |settings, user_agent| {
            settings.user_agent = user_agent;
        })
    }

    /// Allows an `http` token URL to a host that is not loopback. The client's credentials cross
    /// the network in the clear.
    ///
    /// Default: such a URL is a [`BuildError::TokenUrl`].
    pub fn dangerous_http_token_endpoint(self) -> Self {
        self.set(Ok(true), |settings, allow_http| {
            settings.allow_http = allow_http;
        })
    }

    fn set<V>(self, value: Result<V, BuildError>, set: impl FnOnce(&mut Settings, V)) -> Self {
        self.checked(value, |builder, value| {
            if let Source::ClientCredentials(settings, _) = &mut builder.source {
                set(settings, value);
            }
        })
    }
}
