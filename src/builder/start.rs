//! Where a user begins: the ways to start a layer.

use std::env::VarError;
use std::mem;

use zeroize::Zeroizing;

use super::OAuthLayerBuilder;
use crate::client_auth::ClientAuth;
use crate::endpoint::ClientCredentials;
use crate::error::{BuildError, wrapping};
use crate::layer::OAuthLayer;
use crate::origin::misspelt;
use crate::secret::Secret;
use crate::source::TokenSource;

impl OAuthLayer {
    /// Starts building a layer that gets its tokens with the client-credentials grant (RFC 6749
    /// §4.4) and authenticates with HTTP Basic, as API gateways do.
    ///
    /// ```no_run
    /// use tower_oauth::OAuthLayer;
    ///
    /// let url = "https://gw.example/oauth2/v1/token";
    /// let oauth = OAuthLayer::client_credentials(url, "consumer-key", "consumer-secret")
    ///     .scope("aisp extended_transaction_history")
    ///     .allow_origin("https://api.example")
    ///     .build()?;
    /// # Ok::<_, tower_oauth::BuildError>(())
    /// ```
    pub fn client_credentials(
        token_url: impl Into<String>,
        client_id: impl Into<String>,
        client_secret: impl Into<Secret>,
    ) -> OAuthLayerBuilder<ClientCredentials> {
        Self::client_credentials_with(token_url, ClientAuth::basic(client_id, client_secret))
    }

    /// Like [`client_credentials`](Self::client_credentials), with an explicit [`ClientAuth`].
    ///
    /// ```no_run
    /// use tower_oauth::{ClientAuth, OAuthLayer};
    ///
    /// let auth = ClientAuth::post("my-client", "my-secret");
    /// let url = "https://login.example/token";
    /// let oauth = OAuthLayer::client_credentials_with(url, auth).build()?;
    /// # Ok::<_, tower_oauth::BuildError>(())
    /// ```
    pub fn client_credentials_with(
        token_url: impl Into<String>,
        auth: ClientAuth,
    ) -> OAuthLayerBuilder<ClientCredentials> {
        OAuthLayerBuilder::client_credentials(token_url.into(), auth)
    }

    /// Like [`client_credentials`](Self::client_credentials), with the values of `OAUTH_TOKEN_URL`,
    /// `OAUTH_CLIENT_ID`, `OAUTH_CLIENT_SECRET` and, if it is set, `OAUTH_SCOPE`.
    ///
    /// The variables are read once, here. Everything else is set on the builder. For another client
    /// authentication, or a secret from a file, use
    /// [`client_credentials_with`](Self::client_credentials_with).
    ///
    /// # Errors
    ///
    /// [`BuildError::Environment`] names a variable that is missing, empty, blank or not Unicode,
    /// or whose value has white space, a line break or quotes around it, as files and shells leave
    /// them. A blank `OAUTH_SCOPE` counts as unset. [`build`](OAuthLayerBuilder::build) reports
    /// whatever else is wrong with a value.
    pub fn from_env() -> Result<OAuthLayerBuilder<ClientCredentials>, BuildError> {
        Self::from_variables(|name| std::env::var(name))
    }

    fn from_variables(
        read: impl Fn(&str) -> Result<String, VarError>,
    ) -> Result<OAuthLayerBuilder<ClientCredentials>, BuildError> {
        let required = |variable| {
            let wrong = |reason| BuildError::Environment { variable, reason };
            // A value with quotes around it is a secret all the same, and wiped.
            let value = read(variable).map(Zeroizing::new);
            let mut value = value.map_err(|error| match error {
                VarError::NotPresent => wrong("it is not set"),
                VarError::NotUnicode(_) => wrong("it is not Unicode; write it as UTF-8"),
            })?;
            match wrapping(&value) {
                Some(reason) => Err(wrong(reason)),
                None => Ok(mem::take(&mut *value)),
            }
        };
        let variable = "OAUTH_TOKEN_URL";
        let token_url = required(variable)?;
        if let Some(reason) = misspelt(&token_url) {
            return Err(BuildError::Environment { variable, reason });
        }
        let builder = Self::client_credentials(
            token_url,
            required("OAUTH_CLIENT_ID")?,
            required("OAUTH_CLIENT_SECRET")?,
        );
        match read("OAUTH_SCOPE") {
            Err(VarError::NotPresent) => Ok(builder),
            Ok(blank) if blank.trim().is_empty() => Ok(builder),
            _ => Ok(builder.scope(required("OAUTH_SCOPE")?)),
        }
    }

    /// Makes a layer with a token source of your own and every other setting at its default.
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source)
            .build()
            .expect("the default settings are valid")
    }

    /// Starts building a layer with a token source of your own.
    pub fn builder<T: TokenSource>(source: T) -> OAuthLayerBuilder<T> {
        OAuthLayerBuilder::new(source)
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;
    use crate::params::TokenParams;

    type Variable = (&'static str, Result<&'static str, VarError>);

    const REQUIRED: [(&str, &str); 3] = [
        ("OAUTH_TOKEN_URL", "https://gw.example/token"),
        ("OAUTH_CLIENT_ID", "id"),
        ("OAUTH_CLIENT_SECRET", "canary"),
    ];

    /// What comes of the required variables, one of them changed or one more.
    fn read_with(other: Variable) -> Result<TokenParams, BuildError> {
        let required = REQUIRED.map(|(name, value)| (name, Ok(value)));
        let builder = OAuthLayer::from_variables(|name| {
            let known = [other.clone()].into_iter().chain(required.clone());
            let mut values = known.filter(|(known, _)| *known == name);
            let value = values
                .next()
                .map_or(Err(VarError::NotPresent), |(_, value)| value);
            value.map(String::from)
        })?;
        assert!(!format!("{builder:?}").contains("canary"));
        let never = tower::service_fn(|_| async {
            Err::<http::Response<String>, _>(std::io::Error::other("never called"))
        });
        Ok(builder.token_client(never).build()?.params().clone())
    }

    fn not_unicode() -> VarError {
        VarError::NotUnicode("canary".into())
    }

    #[test]
    fn the_environment_names_url_id_secret_and_perhaps_a_scope() {
        let none = read_with(("UNRELATED", Ok("x"))).unwrap();
        assert_eq!(none, TokenParams::new());
        let two = read_with(("OAUTH_SCOPE", Ok("a b"))).unwrap();
        assert_eq!(two, TokenParams::new().with_scope("a b").unwrap());
        let empty = read_with(("OAUTH_SCOPE", Ok(""))).unwrap();
        assert_eq!(empty, TokenParams::new());
    }

    #[test]
    fn a_variable_that_is_missing_or_not_unicode_is_named_and_not_printed() {
        let required = REQUIRED.map(|(name, _)| (name, Err(VarError::NotPresent)));
        let unreadable = ["OAUTH_CLIENT_SECRET", "OAUTH_SCOPE"];
        let unreadable = unreadable.map(|name| (name, Err(not_unicode())));
        for other in required.into_iter().chain(unreadable) {
            let error = read_with(other.clone()).unwrap_err();
            assert!(
                matches!(error, BuildError::Environment { variable, .. } if variable == other.0)
            );
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }

    // FA16
    #[test]
    fn a_variable_that_is_empty_or_wrapped_is_named_with_what_to_do_and_not_printed() {
        for (name, _) in REQUIRED {
            for (value, part) in [
                ("", "empty"),
                ("  ", "blank"),
                ("canary\n", "line break"),
                (" canary", "white space"),
                ("\"canary\"", "quotes"),
                ("'canary'", "quotes"),
                ("\u{feff}canary", "byte order mark"),
            ] {
                let error = read_with((name, Ok(value))).unwrap_err();
                let text = format!("{error} {error:?}");
                assert!(text.contains(name) && text.contains(part), "{text}");
                assert!(!text.contains("canary"), "{text}");
            }
        }
        let bare = read_with(("OAUTH_TOKEN_URL", Ok("127.0.0.1:9001/t"))).unwrap_err();
        let text = bare.to_string();
        assert!(
            text.contains("OAUTH_TOKEN_URL") && text.contains("http://"),
            "{text}"
        );
        let quoted = read_with(("OAUTH_SCOPE", Ok("\"a b\""))).unwrap_err();
        assert!(quoted.to_string().contains("OAUTH_SCOPE"), "{quoted}");
        let blank = read_with(("OAUTH_SCOPE", Ok(" "))).unwrap();
        assert_eq!(blank, TokenParams::new());
    }
}
