//! The servers of a run, and an HTTP client that trusts them.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tower::{Service, ServiceExt};
use tower_oauth::{BoxError, ClientAuth, OAuthLayer, OAuthLayerBuilder, TokenCache};

/// Where things are on one kind of server, and what it wants.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    token: &'static str,
    revoke: &'static str,
    api: &'static str,
    /// The same for tokens of a short life.
    short_token: &'static str,
    short_api: &'static str,
    /// How it reads a secret that the two forms of Basic send differently.
    pub(crate) encoded: bool,
    pub(crate) scopes: &'static [&'static str],
}

pub(crate) const OIDC_PROVIDER: Kind = Kind {
    name: "oidc-provider",
    token: "/token",
    revoke: "/token/revocation",
    api: "/protected",
    short_token: "/token",
    short_api: "/protected",
    encoded: true,
    scopes: &["", "read", "write read", "read admin", "read unknown"],
};

pub(crate) const GLEWLWYD: Kind = Kind {
    name: "glewlwyd",
    token: "/api/oidc/token",
    revoke: "/api/oidc/revoke",
    api: "/oidc",
    short_token: "/api/short/token",
    short_api: "/short",
    encoded: false,
    scopes: &["", "read", "write read", "admin", "read unknown"],
};

pub(crate) const APIGEE_LIKE: Kind = Kind {
    name: "apigee-like",
    token: "/oauth2/v1/token",
    revoke: "/_test/revoke",
    api: "/hello",
    short_token: "/oauth2/v1/token",
    short_api: "/hello",
    encoded: false,
    scopes: &["", "aisp", "pisp aisp", "aisp unknown"],
};

pub(crate) const NGINX_FRONT: Kind = Kind {
    name: "nginx-front",
    ..APIGEE_LIKE
};

pub(crate) const KINDS: [Kind; 4] = [OIDC_PROVIDER, GLEWLWYD, APIGEE_LIKE, NGINX_FRONT];

/// A running server.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) version: String,
    origin: String,
    api_origin: String,
}

impl Server {
    pub(crate) fn token_url(&self) -> String {
        self.fault_url("")
    }

    /// The token endpoint behind one of the front's faults.
    pub(crate) fn fault_url(&self, fault: &str) -> String {
        format!("{}{fault}{}", self.origin, self.kind.token)
    }

    pub(crate) fn short_token_url(&self) -> String {
        format!("{}{}", self.origin, self.kind.short_token)
    }

    pub(crate) fn api_url(&self) -> String {
        format!("{}{}", self.api_origin, self.kind.api)
    }

    pub(crate) fn short_api_url(&self) -> String {
        format!("{}{}", self.api_origin, self.kind.short_api)
    }

    /// A scope that it grants; one of them wants to be asked for one.
    pub(crate) fn scope(&self) -> &'static str {
        self.kind.scopes[1]
    }

    /// How many tokens it says it has given to this client.
    pub(crate) async fn issued(&self, client: &str) -> u64 {
        let url = format!("{}/_test/issued?client={client}", self.api_origin);
        let answer = https_client().get(url.parse().unwrap()).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        std::str::from_utf8(&body).unwrap().parse().unwrap()
    }

    /// Withdraws the token that the cache holds (RFC 7009, or what the server has in its place).
    pub(crate) async fn revoke(&self, tokens: &TokenCache, auth: &TestClient) {
        let token = tokens.token().await.unwrap();
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("token", token.expose_secret())
            .finish();
        let request = Request::post(format!("{}{}", self.origin, self.kind.revoke))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::AUTHORIZATION, auth.basic())
            .body(Full::from(form))
            .unwrap();
        let answer = https_client().request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{}", self.kind.name);
    }
}

/// The servers that `tests/conformance/run` has started.
pub(crate) fn running() -> Vec<Server> {
    let started = std::env::var("CONFORMANCE_SERVERS")
        .expect("CONFORMANCE_SERVERS is not set: start this by tests/conformance/run");
    KINDS
        .into_iter()
        .map(|kind| {
            let line = started
                .lines()
                .find(|line| line.split(' ').next() == Some(kind.name))
                .unwrap_or_else(|| panic!("{} was not started", kind.name));
            let mut fields = line.split(' ').skip(1).map(str::to_owned);
            let version = fields.next().expect("a version follows the name");
            let origin = fields.next().expect("an origin follows the version");
            let api_origin = fields.next().unwrap_or_else(|| origin.clone());
            Server {
                kind,
                version,
                origin,
                api_origin,
            }
        })
        .collect()
}

pub(crate) fn front() -> Server {
    running().pop().expect("the front is the last")
}

/// A client that all servers know, as far as they can: `tests/conformance/clients.json`.
#[derive(Clone)]
pub(crate) struct TestClient {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl TestClient {
    pub(crate) fn named(id: &str) -> Self {
        let known: serde_json::Value = serde_json::from_str(include_str!("clients.json")).unwrap();
        let found = known
            .as_array()
            .and_then(|all| all.iter().find(|one| one["id"] == id))
            .unwrap_or_else(|| panic!("clients.json has no {id}"));
        Self::new(id, found["secret"].as_str().unwrap())
    }

    pub(crate) fn new(id: &str, secret: &str) -> Self {
        Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
        }
    }

    /// Basic as it is, for clients without special characters.
    fn basic(&self) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};
        format!(
            "Basic {}",
            STANDARD.encode(format!("{}:{}", self.id, self.secret))
        )
    }
}

/// A way to authenticate: a column of the table. Those still to come are added here.
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) auth: fn(&TestClient) -> ClientAuth,
}

pub(crate) const METHODS: [Method; 3] = [
    Method {
        name: "`basic`",
        auth: |client| ClientAuth::basic(&client.id, client.secret.as_str()),
    },
    Method {
        name: "`basic_encoded`",
        auth: |client| ClientAuth::basic_encoded(&client.id, client.secret.as_str()),
    },
    Method {
        name: "`post`",
        auth: |client| ClientAuth::post(&client.id, client.secret.as_str()),
    },
];

pub(crate) type HttpsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// HTTP/1.1, in the clear or over TLS with the run's own CA.
pub(crate) fn https_client() -> HttpsClient {
    let path = std::env::var("CONFORMANCE_CA").expect("CONFORMANCE_CA is set by the run");
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(path).unwrap())
        .unwrap();
    client_with(roots)
}

/// The same without a CA to trust.
pub(crate) fn distrustful_client() -> HttpsClient {
    client_with(RootCertStore::empty())
}

fn client_with(roots: RootCertStore) -> HttpsClient {
    let tls = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    Client::builder(TokioExecutor::new()).build(connector)
}

/// A builder whose token client reaches every server of the run.
pub(crate) fn layer(
    token_url: impl Into<String>,
    auth: ClientAuth,
) -> OAuthLayerBuilder<tower_oauth::ClientCredentials> {
    OAuthLayer::client_credentials_with(token_url, auth).token_client(https_client())
}

/// One GET; the body is read, so that its connection can be used again.
pub(crate) async fn get<S, B>(service: S, url: String) -> Result<Response<()>, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let request = Request::get(url).body(Full::default()).unwrap();
    let answer = tokio::time::timeout(PATIENCE, service.oneshot(request)).await??;
    let (head, body) = answer.into_parts();
    body.collect().await.map_err(Into::into)?;
    Ok(Response::from_parts(head, ()))
}

/// How long an answer may take before the test fails; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
