//! The token URL, checked.

use http::Uri;

use crate::error::{Asked, BuildError};
use crate::origin::{self, Parts, misspelt};
use crate::params::TokenParams;

pub(super) struct TokenUrl {
    uri: Uri,
    https: bool,
    loopback: bool,
}

impl TokenUrl {
    pub(super) fn parse(url: &str, allow_http: bool) -> Result<Self, BuildError> {
        let url = Self::read(url).map_err(|reason| BuildError::TokenUrl { reason })?;
        if !url.https && !url.loopback && !allow_http {
            let host = url.host().to_owned();
            return Err(BuildError::InsecureTokenUrl { host });
        }
        Ok(url)
    }

    fn read(url: &str) -> Result<Self, &'static str> {
        if let Some(reason) = misspelt(url) {
            return Err(reason);
        }
        // `http::Uri` drops a fragment silently.
        if url.contains('#') {
            return Err("it has a fragment (RFC 6749 §3.2 forbids one)");
        }
        let uri = origin::parse(url)?;
        let (scheme, authority) = origin::absolute(&uri)?;
        if authority.as_str().contains('@') {
            return Err("it has user-info; give the credentials by ClientAuth");
        }
        let parts = Parts::read(scheme, authority)?;
        parts.check_setting()?;
        let (https, loopback) = (parts.is_https(), parts.is_loopback());
        Ok(Self {
            uri,
            https,
            loopback,
        })
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn host(&self) -> &str {
        self.uri.host().expect("a checked token URL has a host")
    }

    pub(super) fn is_https(&self) -> bool {
        self.https
    }

    /// What was asked, for the advice of an error.
    pub(super) fn asked(
        &self,
        params: &TokenParams,
        client: &'static str,
        own_client: bool,
        page: bool,
    ) -> Asked {
        let authority = self.uri.authority();
        Asked {
            https: self.https,
            loopback: self.loopback,
            authority: authority.map_or_else(String::new, ToString::to_string),
            path: self.uri.path().to_owned(),
            own_client,
            scope: params.scopes().collect::<Vec<_>>().join(" "),
            client,
            page,
        }
    }
}
