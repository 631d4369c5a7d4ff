//! Secrets and where they come from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::error::{BoxError, BuildError, Error};

/// A client secret: a value, or a place it is read from again for each token request.
///
/// ```
/// use tower_oauth::Secret;
///
/// let fixed = Secret::new("consumer-secret");
/// let mounted = Secret::file("/var/run/secrets/oauth/client_secret");
/// let vault = Secret::provider(|| async { Ok::<_, std::io::Error>(String::from("from a vault")) });
/// # let _ = (fixed, mounted, vault);
/// ```
///
/// A secret that is read again may change under a running service: the next token request uses the new one, and a change
/// ends the backoff that the old one caused. One line break at the end of what is read is cut off; a fixed value must have none. `Debug` shows
/// no character of a value, and the bytes are wiped when they are dropped.
#[derive(Clone)]
pub struct Secret(Source);

#[derive(Clone)]
enum Source {
    Value(SecretString),
    File(Arc<Path>),
    Provider(Provider),
}

type Provider = Arc<dyn Fn() -> BoxFuture<'static, Result<SecretString, BoxError>> + Send + Sync>;

impl Secret {
    /// A fixed value. One with control characters is a [`BuildError::ClientSecret`].
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(Source::Value(SecretString::from(value.into())))
    }

    /// A file of UTF-8 text, read for each token request, off the async threads.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(PathBuf::into_boxed_path(path.into()).into()))
    }

    /// A function that brings the secret, called for each token request.
    ///
    /// It runs inside the token request's time limit. During a backoff it is called once a second at most, to see whether the secret has
    /// changed, and has a second to say so. Its error is kept as the source of the [`Error`] that callers see, so it
    /// must not contain the secret.
    #[must_use]
    pub fn provider<F, Fut, T, E>(provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Into<String>,
        E: Into<BoxError>,
    {
        Self(Source::Provider(Arc::new(move || {
            let secret = provider();
            Box::pin(async move {
                match secret.await {
                    Ok(secret) => Ok(SecretString::from(secret.into())),
                    Err(error) => Err(error.into()),
                }
            })
        })))
    }

    /// Whether a later read may bring another value.
    pub(crate) fn can_change(&self) -> bool {
        !matches!(self.0, Source::Value(_))
    }

    /// What can be said against a fixed value before any request is made.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        match &self.0 {
            Source::Value(value) if !is_printable(value.expose_secret()) => {
                Err(BuildError::ClientSecret)
            }
            _ => Ok(()),
        }
    }

    pub(crate) async fn read(&self) -> Result<SecretString, Error> {
        let secret = match &self.0 {
            Source::Value(value) => return Ok(value.clone()),
            Source::File(path) => {
                let file = Arc::clone(path);
                let read = tokio::task::spawn_blocking(move || read_file(&file)).await;
                read.map_err(BoxError::from)
                    .and_then(|read| read.map_err(BoxError::from))
                    .map_err(|source| {
                        Error::transient(format!(
                            "the secret file {} could not be read",
                            path.display()
                        ))
                        .with_advice("check that the file exists and that this process may read it")
                        .with_source(source)
                    })?
            }
            Source::Provider(provider) => provider().await.map_err(|source| {
                Error::transient("the secret provider failed")
                    .with_advice("see the source of this error, which is the provider's own; requests resume by themselves")
                    .with_source(source)
            })?,
        };
        let secret = without_line_break(secret);
        if is_printable(secret.expose_secret()) {
            Ok(secret)
        } else {
            Err(Error::transient("the client secret has control characters")
                .with_advice("check the file or provider it is read from"))
        }
    }
}

fn read_file(path: &Path) -> std::io::Result<SecretString> {
    let bytes = Zeroizing::new(std::fs::read(path)?);
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(SecretString::from(text)),
        Err(_) => Err(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "not UTF-8",
        )),
    }
}

/// Editors and `echo` end a file with a line break that is not part of the secret. Only one goes, so that a secret which really
/// ends in one can still be written.
fn without_line_break(secret: SecretString) -> SecretString {
    let text = secret.expose_secret();
    match text.strip_suffix('\n') {
        Some(rest) => SecretString::from(rest.strip_suffix('\r').unwrap_or(rest)),
        None => secret,
    }
}

/// Neither Basic (RFC 7617 §2) nor RFC 6749 appendix A.2 allows control characters.
pub(crate) fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<SecretString> for Secret {
    fn from(value: SecretString) -> Self {
        Self(Source::Value(value))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Value(_) => f.write_str("Secret([redacted])"),
            Source::File(path) => write!(f, "Secret(file {})", path.display()),
            Source::Provider(_) => f.write_str("Secret(provider)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trailing_line_break_is_cut_off() {
        let cut = |text: &str| {
            without_line_break(SecretString::from(text))
                .expose_secret()
                .to_owned()
        };
        assert_eq!(cut("abc\n"), "abc");
        assert_eq!(cut("abc\r\n"), "abc");
        assert_eq!(cut("abc\n\n"), "abc\n");
        assert_eq!(cut("abc "), "abc ");
    }

    #[test]
    fn debug_shows_no_character_of_a_value() {
        assert_eq!(
            format!("{:?}", Secret::new("hunter2")),
            "Secret([redacted])"
        );
    }

    #[tokio::test]
    async fn a_provider_that_fails_sends_nobody_to_the_token_endpoint() {
        let provider = || async { Err::<String, _>(std::io::Error::other("sealed")) };
        let error = Secret::provider(provider).read().await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.to_string(), "sealed");
        assert!(!error.to_string().contains("token endpoint"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_file_is_named_in_the_error() {
        let error = Secret::file("/no/such/file").read().await.unwrap_err();
        assert!(error.is_transient());
        assert!(error.to_string().contains("/no/such/file"));
    }
}
