//! What hyper does not tell: whether a request came with both `Content-Length` and
//! `Transfer-Encoding`.
//!
//! hyper drops the length then and goes on (RFC 9112 §6.1 allows that). Two lengths are how one
//! request is smuggled inside another, so here such a request is refused, and for that the bytes
//! are looked at as they come in.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use http::Request;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tower::ServiceExt;

/// Serves HTTP/1.1 until `stop` is ready, and then ends what is under way. Each request has the
/// [`Wire`] of its connection as an extension.
///
/// Not with `axum::serve`, which speaks HTTP/2 as soon as any crate of the build turns that on.
pub(crate) async fn serve(
    mut listener: TcpListener,
    routes: Router,
    stop: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.max_header_size(LONGEST_HEAD)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    let open = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let (io, _) = tokio::select! {
            // Unlike the listener's own `accept`, this waits and goes on after an error.
            accepted = Listener::accept(&mut listener) => accepted,
            () = &mut stop => break,
        };
        _ = io.set_nodelay(true);
        let wire = Wire::default();
        let stream = Stream {
            io,
            wire: wire.clone(),
        };
        let routes = routes
            .clone()
            .map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(wire.clone());
                request
            });
        let routes = TowerToHyperService::new(routes);
        tokio::spawn(open.watch(http.serve_connection(TokioIo::new(stream), routes)));
    }
    drop(listener);
    open.shutdown().await;
}

/// What was seen on a connection, for the requests that come on it.
#[derive(Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<Heads>>);

impl Wire {
    /// Whether a head on this connection had two lengths, or may have had. It stays so: the
    /// connection is closed after the answer.
    pub(crate) fn two_lengths(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).two
    }
}

#[derive(Default)]
struct Heads {
    line: Vec<u8>,
    /// Of the head under way: whether it has begun, its `Content-Length`, whether it has a
    /// `Transfer-Encoding`.
    begun: bool,
    length: Option<u64>,
    coded: bool,
    /// Bytes of a body to pass over.
    body: u64,
    /// No longer followed: a body in chunks has begun. The guard closes the connection after it.
    blind: bool,
    /// Whether a head had two lengths, or may have had.
    two: bool,
}

impl Heads {
    fn see(&mut self, mut bytes: &[u8]) {
        while !self.blind && !bytes.is_empty() {
            if self.body > 0 {
                let skip = usize::try_from(self.body).map_or(bytes.len(), |n| n.min(bytes.len()));
                self.body -= skip as u64;
                bytes = &bytes[skip..];
                continue;
            }
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + part.len() > LONGEST_HEAD {
                // hyper refuses such a head. If it ever did not, nobody would know its lengths.
                (self.line, self.blind, self.two) = (Vec::new(), true, true);
                return;
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else {
                return;
            };
            bytes = &bytes[end + 1..];
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if !self.begun {
            // Empty lines before a request are passed over, as hyper does.
            self.begun = !line.is_empty();
        } else if line.is_empty() {
            self.two |= self.coded && self.length.is_some();
            self.blind = self.coded;
            self.body = self.length.take().unwrap_or(0);
            self.begun = false;
        } else if let Some(colon) = line.iter().position(|&byte| byte == b':') {
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                let value = std::str::from_utf8(value).ok();
                // hyper refuses what is no number, and closes the connection.
                self.length = Some(value.and_then(|value| value.parse().ok()).unwrap_or(0));
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                self.coded = true;
            }
        }
    }
}

pub(crate) struct Stream<S> {
    io: S,
    wire: Wire,
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let mut heads = self.wire.0.lock().unwrap_or_else(PoisonError::into_inner);
        heads.see(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// In bytes. The longest target that hyper takes is as long.
const LONGEST_HEAD: usize = 64 * 1024;

/// For a head to be read, and for a connection to be kept between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
