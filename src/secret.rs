//! Secrets and where they come from.
//!
//! Rules: R17, R24.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{BoxError, BuildError, Error};

/// A client secret: a value, or a place from which it is read for each token request.
///
/// ```
/// use tower_oauth::Secret;
///
/// let fixed = Secret::new("consumer-secret");
/// let mounted = Secret::file("/var/run/secrets/oauth/client_secret");
/// let vault = Secret::provider(|| async { Ok::<_, std::io::Error>("from a vault") });
/// # let _ = (fixed, mounted, vault);
/// ```
///
/// A secret that is read may change under a running service: the next token request uses the new
/// one, and a change ends the backoff that the old one caused. One line break at the end is cut
/// off; a fixed value must have none. An empty or blank secret is never sent: as a fixed value it
/// is a [`BuildError`], and when it is read, such as from a file that is being written, the attempt
/// fails with a transient error. `Debug` shows no character of a value.
///
/// The secret, and everything that this crate makes of it, is wiped when it is dropped. The buffers
/// of the HTTP client, the environment of the process and the caller's own copies are not ours to
/// wipe.
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
    /// A fixed value. One that is empty, blank or has control characters is a
    /// [`BuildError::ClientSecret`].
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(Source::Value(taken(value.into())))
    }

    /// A file of UTF-8 text, read for each token request, off the async threads. It is a regular
    /// file of at most 64 KiB, or a link to one.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into().into()))
    }

    /// A function that returns the secret, called for each token request.
    ///
    /// It runs within the attempt's time limit. During a backoff it is called at most once a
    /// second, to see whether the secret has changed, and must answer within a second. Its error
    /// becomes the source of the [`Error`] that callers see, or that error itself if it is an
    /// [`Error`]; so it must not contain the secret. The returned `String` is wiped; the provider's
    /// own copies are not ours to wipe.
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
                let secret = secret.await.map_err(Into::into)?;
                Ok(taken(secret.into()))
            })
        })))
    }

    /// Whether a later read may bring another value.
    pub(crate) fn can_change(&self) -> bool {
        !matches!(self.0, Source::Value(_))
    }

    /// Validates a fixed value before any request is made.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let Source::Value(value) = &self.0 else {
            return Ok(());
        };
        match fault(value.expose_secret()) {
            Some((reason, _)) => Err(BuildError::ClientSecret { reason }),
            None => Ok(()),
        }
    }

    pub(crate) async fn read(&self) -> Result<SecretString, Error> {
        let (read, place) = match &self.0 {
            Source::Value(value) => return Ok(value.clone()),
            Source::File(path) => {
                let place = format!("the secret file {}", path.display());
                let file = Arc::clone(path);
                let read = tokio::task::spawn_blocking(move || read_file(&file)).await;
                let read = read.unwrap_or_else(|error| Err(error.into()));
                let read = read.map_err(|source| {
                    Error::transient(format!("{place} could not be read"))
                        .with_advice(
                            "check that the file exists, that this process may read it, and that \
                             it is the secret alone",
                        )
                        .with_source(source)
                });
                (read, place)
            }
            Source::Provider(provider) => {
                let failed = |source| {
                    Error::transient("the secret provider failed")
                        .with_advice(
                            "look at the cause, which is the provider's own; requests recover on \
                             their own once this is fixed",
                        )
                        .with_source(source)
                };
                let read = provider().await;
                let read = read.map_err(|error| Error::of_users(error, failed));
                (read, String::from("the secret of the provider"))
            }
        };
        let secret = without_line_break(read?);
        let Some((_, what)) = fault(secret.expose_secret()) else {
            return Ok(secret);
        };
        Err(Error::transient(format!("{place} {what}")).with_advice(
            "it has to be the secret alone, as UTF-8; nothing was sent, and requests recover on \
             their own once this is fixed",
        ))
    }
}

/// Why a text is never sent as a secret: of a fixed value, and of one that was read.
fn fault(secret: &str) -> Option<(&'static str, &'static str)> {
    let control = "has control characters or more than one line";
    Some(if secret.trim().is_empty() {
        (
            "it is empty or blank; a client without a secret is ClientAuth::none",
            "is empty or blank",
        )
    } else if secret.starts_with('\u{feff}') {
        (
            "it begins with a byte order mark; leave it out",
            "begins with a byte order mark",
        )
    } else if is_printable(secret) {
        return None;
    } else if is_printable(secret.trim_matches(['\r', '\n'])) {
        ("it begins or ends with a line break; leave it out", control)
    } else {
        ("it has control characters", control)
    })
}

/// Neither Basic (RFC 7617 §2) nor RFC 6749 appendix A.2 allows control characters.
pub(crate) fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Takes the string over without a copy if it has no spare room. Otherwise it has to be copied to
/// fit, and the original is wiped.
fn taken(mut value: String) -> SecretString {
    if value.capacity() == value.len() {
        return SecretString::from(value);
    }
    let fitting = SecretString::from(value.as_str());
    value.zeroize();
    fitting
}

/// Checks the file before it is opened, since a FIFO would block until somebody writes to it and a
/// device may never end; and again once it is open, when nobody can put another in its place.
fn read_file(path: &Path) -> io::Result<SecretString> {
    check_file(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    check_file(&file.metadata()?)?;
    // In full size: growing would leave copies behind that nobody wipes. With room to spare, since
    // a full buffer makes `read_to_end` read on into one of its own.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST_FILE + 2));
    file.take(LARGEST_FILE as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LARGEST_FILE {
        return Err(invalid("it is larger than 64 KiB"));
    }
    let text = std::str::from_utf8(&bytes);
    text.map(SecretString::from)
        .map_err(|_| invalid("it is not UTF-8"))
}

fn check_file(file: &Metadata) -> io::Result<()> {
    let regular = file.is_file().then_some(());
    regular.ok_or_else(|| invalid("it is not a regular file"))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const LARGEST_FILE: usize = 64 * 1024;

/// Editors and `echo` end a file with a line break that is not part of the secret. Only one goes,
/// so that a secret which really ends in one can still be written.
fn without_line_break(secret: SecretString) -> SecretString {
    match secret.expose_secret().strip_suffix('\n') {
        Some(rest) => SecretString::from(rest.strip_suffix('\r').unwrap_or(rest)),
        None => secret,
    }
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
