//! An emulation (ours, not a real product) of an Apigee-style API gateway, on a loopback port of
//! its own.
//!
//! 1. `POST /oauth2/v1/token` wants `Authorization: Basic` with the credentials as they are (split
//!    at the first `:`, not form-decoded) and a form with `grant_type=client_credentials`,
//!    optionally `scope`. It answers with the documented fields, every number a string. Errors are
//!    `{"ErrorCode": .., "Error": ..}`, not those of RFC 6749.
//! 2. Every other path is the API, of any method. It wants one `Authorization: Bearer` with a live
//!    token.
//!
//! Stricter than such a gateway: a secret in the form is refused, and the API answers Basic
//! credentials with 400, not 401, so that a leak shows. Tokens expire by [`tokio::time::Instant`],
//! which a test can pause.

#![allow(dead_code, reason = "each example and test uses a part of it")]

use std::collections::HashMap;
use std::iter::{RepeatN, repeat_n, repeat_with};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::{Form, State, rejection::FormRejection};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, body::Bytes, routing::any};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// A running gateway. It stops when it is dropped, or by [`stop`](Gateway::stop), which waits for
/// the end.
pub(crate) struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<std::io::Result<()>>,
    running: oneshot::Sender<()>, // the server stops when this is dropped
}

/// Whom the gateway knows and how it behaves.
pub(crate) struct Config {
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    /// How long a token lives; `expires_in` gives its whole seconds.
    pub(crate) token_lifetime: Duration,
    /// How long the token endpoint takes before it answers, be it with an error.
    pub(crate) token_latency: Duration,
    /// What a 401 of the API has as `WWW-Authenticate`. None by default, as the real one has none.
    pub(crate) challenge: Option<&'static str>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            client_id: "consumer-key".into(),
            client_secret: "consumer-secret".into(),
            token_lifetime: Duration::from_secs(1799),
            token_latency: Duration::from_millis(20),
            challenge: None,
        }
    }
}

impl Gateway {
    /// Listens on a free loopback port and serves from a task of the current runtime.
    pub(crate) async fn start(config: Config) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            config,
            ..Shared::default()
        });
        let router = Router::new().route(TOKEN_PATH, any(token)).fallback(api);
        let router = router.with_state(shared.clone());
        let (running, stopped) = oneshot::channel();
        let server = axum::serve(listener, router).with_graceful_shutdown(async {
            _ = stopped.await; // always an error: nothing is sent, the sender is dropped
        });
        Ok(Self {
            address,
            shared,
            server: tokio::spawn(server.into_future()),
            running,
        })
    }

    /// Accepts no more connections, answers the requests it has, and returns when all is closed.
    pub(crate) async fn stop(self) {
        drop(self.running);
        _ = self.server.await;
    }

    pub(crate) fn token_url(&self) -> String {
        self.api_url(TOKEN_PATH)
    }

    pub(crate) fn api_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Requests at the token path, of any method, before their answer.
    pub(crate) fn token_requests(&self) -> u64 {
        self.shared.token_requests.load(Relaxed)
    }

    pub(crate) fn api_requests(&self) -> u64 {
        self.shared.api_requests.load(Relaxed)
    }

    /// Requests that the API answered with 401.
    pub(crate) fn api_refused(&self) -> u64 {
        self.shared.api_refused.load(Relaxed)
    }

    /// How many different tokens the API has accepted.
    pub(crate) fn distinct_tokens_seen(&self) -> usize {
        self.shared.ledger().distinct_seen
    }

    /// Withdraws the tokens issued so far; a token request under way still gets a live one.
    pub(crate) fn revoke_all(&self) {
        self.shared.ledger().tokens.clear();
    }

    /// Answers the next `count` token requests to arrive with this status, and no more those of an
    /// earlier call.
    pub(crate) fn fail_next(&self, count: u32, status: StatusCode, after: Option<&'static str>) {
        self.shared.ledger().failures = Some(repeat_n((status, after), count as usize));
    }
}

/// The counts are relaxed: who reads one for an answer had that through a socket, written after the
/// count.
#[derive(Default)]
struct Shared {
    config: Config,
    token_requests: AtomicU64,
    api_requests: AtomicU64,
    api_refused: AtomicU64,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    /// When each token was issued, and whether the API has seen it.
    tokens: HashMap<String, (Instant, bool)>,
    distinct_seen: usize,
    failures: Option<RepeatN<(StatusCode, Option<&'static str>)>>,
}

impl Shared {
    /// The ledger, without the tokens that have run out.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.ledger.lock().expect("no holder panics");
        let lifetime = self.config.token_lifetime;
        ledger.tokens.retain(|_, t| t.0.elapsed() < lifetime);
        ledger
    }

    fn accepts(&self, token: &str) -> bool {
        let mut ledger = self.ledger();
        let token = ledger.tokens.get_mut(token);
        let seen = token.map(|token| std::mem::replace(&mut token.1, true));
        ledger.distinct_seen += usize::from(seen == Some(false));
        seen.is_some()
    }

    fn grant(&self, headers: &HeaderMap, form: &[(String, String)]) -> Response {
        let basic = after(headers.get(header::AUTHORIZATION), "basic ").unwrap_or_default();
        let basic = STANDARD.decode(basic).unwrap_or_default();
        let basic = String::from_utf8(basic).unwrap_or_default();
        let client = (&*self.config.client_id, &*self.config.client_secret);
        let field = |name| form.iter().find(|f| f.0 == name).map_or("", |f| &f.1);
        let (grant_type, scope) = (field("grant_type"), field("scope"));
        let scope = if scope.is_empty() { SCOPES } else { scope };
        let known = |wanted| SCOPES.split(' ').any(|scope| scope == wanted);
        if form.iter().any(|f| f.0 == "client_secret") {
            oauth_error("invalid_request", "Client credentials in the body")
        } else if basic.split_once(':') != Some(client) {
            let error = oauth_error("invalid_client", "ClientId is Invalid");
            (StatusCode::UNAUTHORIZED, error).into_response()
        } else if grant_type.is_empty() {
            oauth_error("invalid_request", "Required param : grant_type")
        } else if grant_type != "client_credentials" {
            let text = format!("Unsupported grant type : {grant_type}");
            oauth_error("unsupported_grant_type", &text)
        } else if !scope.split(' ').all(known) {
            oauth_error("invalid_scope", "Invalid Scopes")
        } else {
            let token: String = repeat_with(fastrand::alphanumeric).take(28).collect();
            let issued = (Instant::now(), false);
            self.ledger().tokens.insert(token.clone(), issued);
            Json(json!({
                "token_type": "BearerToken", "access_token": token, "scope": scope,
                "issued_at": UNIX_EPOCH.elapsed().unwrap_or_default().as_millis().to_string(),
                "expires_in": self.config.token_lifetime.as_secs().to_string(),
                "refresh_token_expires_in": "0", "refresh_count": "0", "status": "approved",
                "client_id": self.config.client_id, "application_name": "example-app",
                "organization_name": "example-org", "developer.email": "dev@example.com",
                "api_product_list": "[psd2-stet-v1]", "api_product_list_json": ["psd2-stet-v1"],
            }))
            .into_response()
        }
    }
}

async fn token(
    State(shared): State<Arc<Shared>>,
    method: Method,
    headers: HeaderMap,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Response {
    shared.token_requests.fetch_add(1, Relaxed);
    if method != Method::POST {
        let text = format!("Unable to identify proxy for host: default and url: {TOKEN_PATH}");
        let code = "messaging.adaptors.http.flow.ApplicationNotFound";
        return gateway_fault(StatusCode::NOT_FOUND, &text, code);
    }
    let failure = shared.ledger().failures.as_mut().and_then(Iterator::next);
    sleep(shared.config.token_latency).await;
    if let Some((status, retry_after)) = failure {
        let code = "messaging.adaptors.http.flow.ServiceUnavailable";
        let fault = gateway_fault(status, "The Service is temporarily unavailable", code);
        let after = retry_after.map(|after| [(header::RETRY_AFTER, after)]);
        return (after, fault).into_response();
    }
    // A body of another content type has no fields for the gateway.
    let form = form.map(|Form(fields)| fields).unwrap_or_default();
    shared.grant(&headers, &form)
}

/// Takes the body so that it is read, as hyper closes a connection on one that is not; over 2 MB it
/// gets a 413.
async fn api(State(shared): State<Arc<Shared>>, headers: HeaderMap, _body: Bytes) -> Response {
    shared.api_requests.fetch_add(1, Relaxed);
    let sent: Vec<_> = headers.get_all(header::AUTHORIZATION).iter().collect();
    if sent.iter().any(|v| after(Some(v), "basic").is_some()) {
        let text = "credentials do not belong here";
        return gateway_fault(StatusCode::BAD_REQUEST, text, "emulation.leak");
    }
    let token = after(sent.first().copied(), "bearer ");
    if sent.len() == 1 && token.is_some_and(|token| shared.accepts(token)) {
        return Json(json!({ "message": "hello" })).into_response();
    }
    shared.api_refused.fetch_add(1, Relaxed);
    let code = "keymanagement.service.invalid_access_token";
    let fault = gateway_fault(StatusCode::UNAUTHORIZED, "Invalid Access Token", code);
    let challenge = shared.config.challenge;
    let challenge = challenge.map(|text| [(header::WWW_AUTHENTICATE, text)]);
    (challenge, fault).into_response()
}

/// What follows the prefix, if the header has it in any case.
fn after<'a>(value: Option<&'a HeaderValue>, prefix: &str) -> Option<&'a str> {
    let (start, rest) = value?.to_str().ok()?.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn oauth_error(code: &str, text: &str) -> Response {
    let status = StatusCode::BAD_REQUEST;
    (status, Json(json!({ "ErrorCode": code, "Error": text }))).into_response()
}

fn gateway_fault(status: StatusCode, text: &str, code: &str) -> Response {
    let fault = json!({ "faultstring": text, "detail": { "errorcode": code } });
    (status, Json(json!({ "fault": fault }))).into_response()
}

const TOKEN_PATH: &str = "/oauth2/v1/token";
const SCOPES: &str = "pisp piisp aisp extended_transaction_history";
