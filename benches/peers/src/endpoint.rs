//! The token endpoint: it counts what it is asked, and answers after a delay.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::request::{Error, TOKEN};

pub const LIFE: Duration = Duration::from_secs(3600);

/// The loopback servers have a thread to themselves, so that a crowd of callers cannot starve them.
static SERVERS: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a thread")
});

#[derive(Debug)]
pub struct Endpoint {
    delay: Duration,
    healthy: bool,
    requests: AtomicU64,
}

impl Endpoint {
    pub fn healthy(delay: Duration) -> Arc<Self> {
        Self::new(delay, true)
    }

    /// Answers 503, with nothing that says when to come again.
    pub fn failing(delay: Duration) -> Arc<Self> {
        Self::new(delay, false)
    }

    fn new(delay: Duration, healthy: bool) -> Arc<Self> {
        Arc::new(Self {
            delay,
            healthy,
            requests: AtomicU64::new(0),
        })
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    async fn asked(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
    }

    /// For contestants that take a source of tokens.
    pub async fn token(&self) -> Result<String, io::Error> {
        self.asked().await;
        if self.healthy {
            Ok(TOKEN.to_owned())
        } else {
            Err(io::Error::other("503"))
        }
    }

    /// For contestants that take an HTTP client.
    pub async fn answer(&self) -> Response<Full<Bytes>> {
        self.asked().await;
        let (status, body) = if self.healthy {
            let life = LIFE.as_secs();
            (
                StatusCode::OK,
                format!(
                    r#"{{"access_token":"{TOKEN}","token_type":"Bearer","expires_in":{life}}}"#
                ),
            )
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, String::from("{}"))
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    /// For contestants that bring their own HTTP client: a server on loopback, up to the end of the
    /// program.
    pub async fn serve(self: &Arc<Self>) -> Result<String, Error> {
        let endpoint = Arc::clone(self);
        let (listener, address) = SERVERS
            .spawn(async {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                let address = listener.local_addr()?;
                Ok::<_, io::Error>((listener, address))
            })
            .await??;
        SERVERS.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let endpoint = Arc::clone(&endpoint);
                let service = service_fn(move |_| {
                    let endpoint = Arc::clone(&endpoint);
                    async move { Ok::<_, Infallible>(endpoint.answer().await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(format!("http://{address}/token"))
    }
}
