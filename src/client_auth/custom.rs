//! What a hook of [`ClientAuth::custom`](super::ClientAuth::custom) gets and adds.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use form_urlencoded::Serializer;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use zeroize::Zeroizing;

use super::mask::SHORTEST_VALUE;
use crate::error::{BoxError, Error};
use crate::params::{TokenParams, form_size};

/// A hook with its types erased.
pub(super) type Hook =
    Arc<dyn Fn(AuthRequest) -> BoxFuture<'static, Result<AuthRequest, BoxError>> + Send + Sync>;

/// A token request as a hook of [`ClientAuth::custom`](crate::ClientAuth::custom) sees it: what is
/// asked for, and what the hook adds.
///
/// Every value that is added counts as a secret: header values are marked sensitive, `Debug` shows
/// names only, parameters are wiped when they are dropped, and what has eight characters or more is
/// masked in what the server says, the words of a header value one by one. Secrets that a value was
/// made of are not known here; keep them out of the hook's errors.
pub struct AuthRequest {
    client_id: String,
    token_url: Uri,
    params: TokenParams,
    /// The parameters that a hook must not set.
    reserved: &'static [&'static str],
    headers: HeaderMap,
    parameters: Vec<(String, Zeroizing<String>)>,
    /// What was added and cannot be sent, without its value.
    fault: Option<String>,
}

impl AuthRequest {
    pub(super) fn new(
        client_id: &str,
        token_url: &Uri,
        params: &TokenParams,
        reserved: &'static [&'static str],
    ) -> Self {
        Self {
            client_id: client_id.to_owned(),
            token_url: token_url.clone(),
            params: params.clone(),
            reserved,
            headers: HeaderMap::new(),
            parameters: Vec::new(),
            fault: None,
        }
    }

    /// The client id, such as for the `iss` and `sub` of an assertion (RFC 7523 §3).
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The URL that the request goes to, such as for the `aud` of an assertion.
    #[must_use]
    pub fn token_url(&self) -> &Uri {
        &self.token_url
    }

    /// The scope, audience, resources and extra parameters that are asked for.
    #[must_use]
    pub fn params(&self) -> &TokenParams {
        &self.params
    }

    /// Sets a header of the token request, in place of one with the same name.
    ///
    /// The attempt fails, and nothing is sent, if the name or the value cannot be a header's, or if
    /// the name is `Content-Type`, `Content-Length`, `Transfer-Encoding` or `Host`, which belong to
    /// the form and the URL.
    #[must_use]
    pub fn with_header(mut self, name: impl AsRef<str>, value: impl Into<String>) -> Self {
        let (name, value) = (name.as_ref(), Zeroizing::new(value.into()));
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
        let parsed = parsed
            .filter(|name| ![CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING].contains(name));
        match (parsed, sensitive(value)) {
            (None, _) => self.fault = Some(format!("sets the header {name:?}, which it must not")),
            (_, None) => self.fault = Some(format!("sets {name:?} to what is no header value")),
            (Some(name), Some(value)) => {
                self.headers.insert(name, value);
            }
        }
        self
    }

    /// Adds a parameter to the form of the token request.
    ///
    /// The attempt fails, and nothing is sent, if the form has a parameter with this name already
    /// or the name is one of `grant_type`, `scope`, `audience` and `resource`: these are the
    /// [`TokenParams`]', by which tokens are kept.
    #[must_use]
    pub fn with_parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), Zeroizing::new(value.into()));
        if name.is_empty() || self.has(&name) {
            self.fault = Some(format!("sets the parameter {name:?}, which it must not"));
        } else {
            self.parameters.push((name, value));
        }
        self
    }

    fn has(&self, name: &str) -> bool {
        let asked = self.params.parameters().map(|(name, _)| name);
        let added = self.parameters.iter().map(|(name, _)| name.as_str());
        let mut known = self.reserved.iter().copied().chain(asked).chain(added);
        known.any(|known| known == name)
    }

    /// Asks one hook.
    pub(super) async fn asked_of(self, hook: &Hook) -> Result<Self, Error> {
        let failed = |source| {
            Error::transient("the hook of ClientAuth::custom failed")
                .with_advice(
                    "look at the cause, which is the hook's own; requests recover on their own \
                     once this is fixed",
                )
                .with_source(source)
        };
        let request = hook(self).await;
        let request = request.map_err(|error| Error::of_users(error, failed))?;
        match &request.fault {
            None => Ok(request),
            Some(fault) => {
                let what = format!("the hook of ClientAuth::custom {fault}");
                Err(Error::transient(what).with_advice("correct the hook; nothing was sent"))
            }
        }
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap, form: &mut Serializer<'_, String>) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.parameters {
            form.append_pair(name, value);
        }
    }

    /// At most how many bytes [`apply`](Self::apply) adds to the form.
    pub(super) fn form_size(&self) -> usize {
        let parameters = self.parameters.iter();
        parameters.map(|(name, value)| form_size(name, value)).sum()
    }

    /// The added values that are masked in what the server says.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let headers = self.headers.values().map(|value| value.as_bytes());
        let headers = headers.filter_map(|value| std::str::from_utf8(value).ok());
        let parameters = self.parameters.iter().map(|(_, value)| value.as_str());
        let values = headers.flat_map(str::split_whitespace).chain(parameters);
        // The type of an assertion is a registered name, whose pieces servers use in their words.
        values.filter(|value| {
            value.chars().count() >= SHORTEST_VALUE && !value.starts_with("urn:ietf:params:")
        })
    }
}

impl fmt::Debug for AuthRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters: Vec<_> = self.parameters.iter().map(|(name, _)| name).collect();
        f.debug_struct("AuthRequest")
            .field("client_id", &self.client_id)
            .field("host", &self.token_url.host())
            .field("params", &self.params)
            .field("headers", &self.headers)
            .field("parameters", &parameters)
            .finish_non_exhaustive()
    }
}

/// A header value whose bytes are wiped with the last header that shares them.
pub(super) fn sensitive(value: Zeroizing<String>) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value)).ok()?;
    value.set_sensitive(true);
    Some(value)
}
