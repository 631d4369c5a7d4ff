//! Secrets and where they come from.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use zeroize::{Zeroize, Zeroizing};

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
/// ends the backoff that the old one caused. One line break at the end of what is read is cut off; a fixed value must have none. What is
/// empty or blank is never sent: as a fixed value it is a [`BuildError`], and when it is read, as from a file that is being written, the
/// attempt fails as a transient error. `Debug` shows no character of a value.
///
/// The bytes are wiped when they are dropped, and so is everything that this crate makes of them. It cannot wipe what is not its own:
/// the buffers of the HTTP client, the environment of the process, and copies that the caller keeps.
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
    /// A fixed value. One that is empty, blank or has control characters is a [`BuildError::ClientSecret`].
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(Source::Value(taken(value.into())))
    }

    /// A regular file of UTF-8 text, of at most 64 KiB, read for each token request, off the async threads. A link to one will do.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(PathBuf::into_boxed_path(path.into()).into()))
    }

    /// A function that brings the secret, called for each token request.
    ///
    /// It runs inside the token request's time limit. During a backoff it is called once a second at most, to see whether the secret has
    /// changed, and has a second to say so. Its error is kept as the source of the [`Error`] that callers see, so it
    /// must not contain the secret. The `String` it brings is taken over and wiped; copies that the provider keeps are its own to wipe.
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
                    Ok(secret) => Ok(taken(secret.into())),
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
        let Source::Value(value) = &self.0 else {
            return Ok(());
        };
        let value = value.expose_secret();
        let reason = if value.trim().is_empty() {
            "it is empty or blank; a client without a secret is ClientAuth::none"
        } else if value.starts_with(BYTE_ORDER_MARK) {
            "it begins with a byte order mark; leave it out"
        } else if is_printable(value) {
            return Ok(());
        } else if is_printable(value.trim_matches(['\r', '\n'])) {
            "it begins or ends with a line break; leave it out"
        } else {
            "it has control characters"
        };
        Err(BuildError::ClientSecret { reason })
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
                        self.unusable("could not be read")
                            .with_advice(
                                "check that the file exists, that this process may read it, and that it is the secret alone",
                            )
                            .with_source(source)
                    })?
            }
            Source::Provider(provider) => provider().await.map_err(|source| {
                Error::transient("the secret provider failed")
                    .with_advice("look at the cause, which is the provider's own; requests resume by themselves")
                    .with_source(source)
            })?,
        };
        let secret = without_line_break(secret);
        let what = match secret.expose_secret() {
            text if text.trim().is_empty() => "is empty or blank",
            text if text.starts_with(BYTE_ORDER_MARK) => "begins with a byte order mark",
            text if !is_printable(text) => "has control characters or more than one line",
            _ => return Ok(secret),
        };
        Err(self
            .unusable(what)
            .with_advice("it has to be the secret alone, as UTF-8; nothing was sent, and requests resume by themselves"))
    }

    /// Names the place, never the value.
    fn unusable(&self, what: &str) -> Error {
        match &self.0 {
            Source::File(path) => {
                Error::transient(format!("the secret file {} {what}", path.display()))
            }
            _ => Error::transient(format!("the secret of the provider {what}")),
        }
    }
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Taken over without a copy where the string has no spare room. Otherwise it has to be copied to fit, and what is left behind is wiped.
fn taken(mut value: String) -> SecretString {
    if value.capacity() == value.len() {
        return SecretString::from(value);
    }
    let fitting = SecretString::from(value.as_str());
    value.zeroize();
    fitting
}

/// A FIFO would block until somebody writes to it, and a device may never end. So the file is looked at before it is opened,
/// and again once it is open, when nobody can put another in its place.
fn read_file(path: &Path) -> io::Result<SecretString> {
    check_file(&fs::metadata(path)?)?;
    let mut file = File::open(path)?;
    check_file(&file.metadata()?)?;
    // Made in its full size, since growing would leave copies behind that nobody wipes; one byte more tells a file that is too long.
    let mut bytes = Zeroizing::new(vec![0; LARGEST_FILE + 1]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if length > LARGEST_FILE {
        return Err(invalid("it is larger than 64 KiB"));
    }
    let text = std::str::from_utf8(&bytes[..length]);
    text.map(SecretString::from)
        .map_err(|_| invalid("it is not UTF-8"))
}

fn check_file(file: &Metadata) -> io::Result<()> {
    if !file.is_file() {
        return Err(invalid("it is not a regular file"));
    }
    if file.len() > LARGEST_FILE as u64 {
        return Err(invalid("it is larger than 64 KiB"));
    }
    Ok(())
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const LARGEST_FILE: usize = 64 * 1024;

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
        let provider = || async { Err::<String, _>(io::Error::other("sealed")) };
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
    // FS9
    #[test]
    fn an_empty_or_blank_fixed_secret_is_an_error_that_names_none() {
        for value in ["", " ", "\n"] {
            let error = Secret::new(value).check().unwrap_err().to_string();
            assert!(error.contains("ClientAuth::none"), "{error}");
        }
    }

    // FS9
    #[tokio::test]
    async fn an_empty_file_or_provider_is_transient_and_names_the_place() {
        let path = std::env::temp_dir().join(format!("tower-oauth-fs9-{}", std::process::id()));
        for content in ["", "\n", "\r\n", "  ", "\u{feff}canary", "can\nary"] {
            fs::write(&path, content).unwrap();
            let error = Secret::file(&path).read().await.unwrap_err();
            assert!(error.is_transient(), "{error}");
            assert!(error.to_string().contains("tower-oauth-fs9"), "{error}");
            assert!(!error.to_string().contains("canary"), "{error}");
            let provider = Secret::provider(move || async move { Ok::<_, BoxError>(content) });
            let error = provider.read().await.unwrap_err();
            assert!(
                error.is_transient() && error.to_string().contains("provider"),
                "{error}"
            );
        }
        fs::remove_file(&path).unwrap();
    }

    // FS10
    #[tokio::test]
    async fn a_secret_file_is_a_regular_file_of_at_most_64_kib() {
        let path = std::env::temp_dir().join(format!("tower-oauth-fs10-{}", std::process::id()));
        fs::write(&path, vec![b'x'; LARGEST_FILE]).unwrap();
        let largest = Secret::file(&path).read().await.unwrap();
        assert_eq!(largest.expose_secret().len(), LARGEST_FILE);
        fs::write(&path, vec![b'x'; LARGEST_FILE + 1]).unwrap();
        let error = Secret::file(&path).read().await.unwrap_err().to_string();
        assert!(error.contains("larger than 64 KiB"), "{error}");
        fs::remove_file(&path).unwrap();
        let folder = Secret::file(std::env::temp_dir()).read().await.unwrap_err();
        assert!(
            folder.to_string().contains("not a regular file"),
            "{folder}"
        );
    }

    // FS10
    #[cfg(unix)]
    #[tokio::test]
    async fn a_fifo_or_a_device_as_secret_file_blocks_nobody() {
        let path = std::env::temp_dir().join(format!("tower-oauth-fifo-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap();
        assert!(made.success());
        for file in [path.as_path(), Path::new("/dev/zero")] {
            let read = Secret::file(file);
            let read = tokio::time::timeout(std::time::Duration::from_secs(5), read.read()).await;
            let error = read.expect("nobody waits").unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{error}");
        }
        fs::remove_file(&path).unwrap();
    }

    // FS7
    #[test]
    fn a_string_without_spare_room_is_taken_over_as_it_is() {
        let value = String::from("canary");
        let place = value.as_ptr();
        assert_eq!(taken(value).expose_secret().as_ptr(), place);
        let mut roomy = String::with_capacity(99);
        roomy.push_str("canary");
        assert_eq!(taken(roomy).expose_secret(), "canary");
    }
}
