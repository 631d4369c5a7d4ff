//! The token endpoint, and the layer's way to it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Response;
use http::header::AUTHORIZATION;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::service_fn;
use tower::util::BoxCloneSyncService;
use tower_oauth::BoxError;

use crate::faults::Reply;
use crate::{Call, World, now};

pub(crate) const CLIENT: &str = "soak";
const ATTEMPT: &str = "x-attempt";

/// The client secret, as a secret manager mounts it.
pub(crate) struct SecretFile(pub(crate) PathBuf);

impl SecretFile {
    pub(crate) fn new() -> Self {
        let name = format!("soak-credentials-{}", std::process::id());
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    pub(crate) fn write(&self, world: &World, secret: u64) {
        let fresh = self.0.with_extension("new");
        std::fs::write(&fresh, format!("secret-{secret}\n")).unwrap();
        std::fs::rename(&fresh, &self.0).unwrap();
        world.book().written = (now(), secret);
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

/// Numbers the token requests and notes when each one left and ended, on the client's side.
pub(crate) fn token_client(
    world: &Arc<World>,
) -> BoxCloneSyncService<Call, Response<Full<Bytes>>, BoxError> {
    let http = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http::<Full<Bytes>>();
    let world = Arc::clone(world);
    BoxCloneSyncService::new(service_fn(move |mut call: Call| {
        let (http, world) = (http.clone(), Arc::clone(&world));
        async move {
            let secret = secret_of(call.headers()[AUTHORIZATION].to_str().unwrap());
            let number = world.book().attempt(secret);
            let mut attempt = Attempting {
                world,
                number,
                arrived: false,
            };
            call.headers_mut().insert(ATTEMPT, number.into());
            let (parts, body) = http.request(call).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            attempt.arrived = true;
            Ok(Response::from_parts(parts, Full::new(body)))
        }
    }))
}

/// A token request under way, which ends when it is answered and when it is dropped.
struct Attempting {
    world: Arc<World>,
    number: u64,
    arrived: bool,
}

impl Drop for Attempting {
    fn drop(&mut self) {
        self.world.book().attempt_over(self.number, self.arrived);
    }
}

fn secret_of(authorization: &str) -> u64 {
    let basic = authorization.strip_prefix("Basic ").unwrap();
    let pair = String::from_utf8(STANDARD.decode(basic).unwrap()).unwrap();
    let secret = pair.strip_prefix("soak:secret-").unwrap();
    secret.parse().unwrap()
}

/// By hand, since no HTTP server can be asked to reset a connection in the middle of an answer.
pub(crate) async fn serve_tokens(
    listener: TcpListener,
    world: Arc<World>,
    mut stopped: watch::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            Ok((stream, _)) = listener.accept() => {
                let world = Arc::clone(&world);
                // The client may be gone before its answer.
                connections.spawn(async move { _ = exchange(stream, &world).await });
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn exchange(mut stream: TcpStream, world: &World) -> io::Result<()> {
    let (number, secret) = read_request(&mut stream).await?;
    let answer = {
        let mut book = world.book();
        let answer = book.faults.answer(number, secret);
        if let Some(life) = answer.life {
            book.issue(number, life);
        }
        if let Some(span) = answer.retry_after {
            book.ask_to_stay_away(number, span);
        }
        answer
    };
    sleep(answer.delay).await;
    match answer.reply {
        Reply::Whole(text) => stream.write_all(text.as_bytes()).await?,
        Reply::Torn(text) => {
            stream.write_all(&text.as_bytes()[..text.len() / 2]).await?;
            stream.set_zero_linger()?;
        }
        Reply::Reset => stream.set_zero_linger()?,
    }
    Ok(())
}

async fn read_request(stream: &mut TcpStream) -> io::Result<(u64, u64)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            let line = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
            line.unwrap().1.to_owned()
        };
        if body.len() == field("content-length").parse::<usize>().unwrap() {
            assert_eq!(body, "grant_type=client_credentials");
            let number = field(ATTEMPT).parse().unwrap();
            return Ok((number, secret_of(&field("authorization"))));
        }
    }
}
