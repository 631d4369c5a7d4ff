//! Plays a day, and keeps what the caller and the log were told.

use std::io;
use std::sync::{Arc, Mutex};

use http::{Response, StatusCode};
use tokio::runtime::{Builder, Runtime};
use tower_oauth::{BoxError, BuildError, ClientCredentials, Error, OAuthLayer, OAuthLayerBuilder};
use tracing::Level;
use tracing::subscriber::set_default;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer as _, fmt, registry};

use crate::page;

pub(crate) type Login = OAuthLayerBuilder<ClientCredentials>;

pub(crate) fn login(url: impl Into<String>) -> Login {
    OAuthLayer::client_credentials(url, ID, SECRET)
}

/// Plays a day on which a token is asked for.
pub(crate) fn ask(layer: Login, ports: &[u16]) -> Seen {
    play(ports, |runtime| match layer.build() {
        Err(error) => Outcome::not_built(&error),
        Ok(layer) => runtime.block_on(async { Outcome::of(layer.token_cache().token().await) }),
    })
}

/// Plays a day on its own runtime, with its own log: what `tracing_subscriber::fmt` writes at INFO
/// and above.
pub(crate) fn play(ports: &[u16], day: impl FnOnce(&Runtime) -> Outcome) -> Seen {
    let log = Log::default();
    let lines = fmt::layer()
        .with_writer(log.clone())
        .with_ansi(false)
        .without_time()
        .with_filter(Targets::new().with_target("tower_oauth", Level::INFO));
    let _logging = set_default(registry().with(lines));
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let Outcome { class, text } = day(&runtime);
    let log = log.0.lock().unwrap();
    let log = String::from_utf8_lossy(&log);
    Seen {
        class,
        text: page::normalise(&text, ports),
        log: page::normalise(&log, ports),
    }
}

/// How a day ended for the caller.
pub(crate) struct Outcome {
    class: &'static str,
    text: String,
}

impl Outcome {
    pub(crate) fn of<T>(end: Result<T, Error>) -> Self {
        match end {
            Ok(_) => Self {
                class: "none",
                text: "(no error: the caller gets a token)".to_owned(),
            },
            Err(error) => Self::failed(&error),
        }
    }

    pub(crate) fn of_call<B>(end: Result<Response<B>, BoxError>) -> Self {
        match end {
            Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => Self {
                class: "none",
                text: "(no error: the caller gets the API's 401)".to_owned(),
            },
            Ok(answer) => panic!("{}", answer.status()),
            Err(error) => Self::failed(error.downcast_ref::<Error>().expect("an error of ours")),
        }
    }

    fn failed(error: &Error) -> Self {
        let classes = [
            (error.is_transient(), "transient"),
            (error.is_rejected(), "rejected"),
            (error.is_invalid_response(), "invalid response"),
            (error.is_destination(), "destination"),
        ];
        let mut classes = classes.iter().filter(|(is, _)| *is);
        let (Some((_, class)), None) = (classes.next(), classes.next()) else {
            panic!("not of one class: {error}");
        };
        Self {
            class,
            text: error.to_string(),
        }
    }

    fn not_built(error: &BuildError) -> Self {
        Self {
            class: "`BuildError`",
            text: error.to_string(),
        }
    }
}

/// What a day showed, without what differs from run to run.
pub(crate) struct Seen {
    pub(crate) class: &'static str,
    pub(crate) text: String,
    pub(crate) log: String,
}

impl Seen {
    pub(crate) fn replace(self, from: &str, to: &str) -> Self {
        Self {
            text: self.text.replace(from, to),
            log: self.log.replace(from, to),
            ..self
        }
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

pub(crate) const ID: &str = "consumer-key";
pub(crate) const SECRET: &str = "consumer-secret-0123456789";
