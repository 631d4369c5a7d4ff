//! The token request (RFC 6749 §4.4.2), built without I/O.
//!
//! Rules: R23, R26.

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use zeroize::Zeroizing;

use crate::client_auth::Credentials;
use crate::params::{TokenParams, form_size};

/// Nothing of the API request is copied: not a header, not an extension.
pub(super) fn build(
    endpoint: &Uri,
    params: &TokenParams,
    credentials: &Credentials<'_>,
    user_agent: &HeaderValue,
) -> Request<Full<Bytes>> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, FORM);
    headers.insert(ACCEPT, JSON);
    headers.insert(USER_AGENT, user_agent.clone());

    // Full capacity up front: growing would leave copies of the secret behind, unwiped.
    let (name, grant) = ("grant_type", "client_credentials");
    let size = form_size(name, grant) + params.form_size() + credentials.form_size();
    let mut form = Serializer::new(String::with_capacity(size));
    form.append_pair(name, grant);
    params.write_form(&mut form);
    credentials.apply(&mut headers, &mut form);
    // The form may hold the secret, so its bytes are wiped with the request.
    let body = Bytes::from_owner(Zeroizing::new(form.finish().into_bytes()));

    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.clone();
    *request.headers_mut() = headers;
    request
}

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
