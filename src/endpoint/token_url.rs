//! Checks the token URL.
//!
//! Rules: R23.

use http::Uri;

use crate::error::{Asked, BuildError};
use crate::origin::{self, Parts};

/// The URL, and what there is to say about it in the advice of errors.
pub(super) fn parse(url: &str, allow_http: bool) -> Result<(Uri, Asked), BuildError> {
    let (uri, asked) = read(url).map_err(|reason| BuildError::TokenUrl {
        reason: reason.into(),
    })?;
    if !asked.https && !asked.loopback && !allow_http {
        return Err(BuildError::insecure_token_url(host(&uri)));
    }
    Ok((uri, asked))
}

fn read(url: &str) -> Result<(Uri, Asked), &'static str> {
    let uri = origin::parse(url)?;
    // `http::Uri` drops a fragment silently.
    if url.contains('#') {
        return Err("it has a fragment (RFC 6749 §3.2 forbids one)");
    }
    let (scheme, authority) = origin::absolute(&uri)?;
    if authority.as_str().contains('@') {
        return Err("it has user-info; give the credentials by ClientAuth");
    }
    let parts = Parts::read(scheme, authority)?;
    parts.check_setting()?;
    let asked = Asked {
        https: parts.is_https(),
        loopback: parts.is_loopback(),
        authority: authority.to_string(),
        path: uri.path().to_owned(),
        own_client: false,
        scope: String::new(),
        client: "",
        page: false,
    };
    Ok((uri, asked))
}

pub(super) fn host(uri: &Uri) -> &str {
    uri.host().expect("a checked token URL has a host")
}
