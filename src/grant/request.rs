//! The token request (RFC 6749 §4.4.2), built without I/O.

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use zeroize::Zeroizing;

use super::TokenRequest;
use crate::client_auth::Credentials;

/// Nothing is copied from the API request: not a header, not an extension.
pub(super) fn build(
    endpoint: &Uri,
    request: &TokenRequest,
    credentials: &Credentials<'_>,
) -> Request<Full<Bytes>> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, FORM);
    headers.insert(ACCEPT, JSON);

    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    request.write_form(&mut form);
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
