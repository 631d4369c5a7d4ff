//! The sidecar's binary over raw sockets: what it refuses, what it passes on, and as what.
//!
//! The token endpoint and the API are sockets of this test that keep what arrives, byte for byte.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What the API gets: the path, and the headers in one text.
#[derive(Clone, Debug)]
struct Arrived {
    line: String,
    headers: String,
    body: String,
}

impl Arrived {
    fn has(&self, header: &str) -> bool {
        let mut lines = self.headers.lines();
        lines.any(|line| line.eq_ignore_ascii_case(header))
    }

    fn names(&self, name: &str) -> usize {
        let names = self.headers.lines().filter_map(|line| line.split_once(':'));
        names.filter(|(n, _)| n.eq_ignore_ascii_case(name)).count()
    }
}

/// A server that keeps what arrives and gives one answer to all of it.
struct Server {
    address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Server {
    fn start(answer: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (arrived.clone(), answer.into());
        thread::spawn(move || {
            for tcp in listener.incoming() {
                let (seen, answer) = (seen.clone(), answer.clone());
                thread::spawn(move || serve(tcp.unwrap(), &seen, &answer));
            }
        });
        Self { address, arrived }
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }
}

/// Serves one request and closes. What has no length in its head has chunks, which are kept as they
/// are.
fn serve(tcp: TcpStream, seen: &Mutex<Vec<Arrived>>, answer: &str) {
    let mut reader = BufReader::new(tcp.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut arrived = Arrived {
        line: line.trim_end().to_owned(),
        headers: String::new(),
        body: String::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim_end().is_empty() {
            break;
        }
        arrived.headers += &line.replace('\r', "");
    }
    let length = arrived
        .headers
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    arrived.body = String::from_utf8(body).unwrap();
    if arrived.names("transfer-encoding") > 0 {
        while !arrived.body.ends_with("0\r\n\r\n") {
            reader.read_line(&mut arrived.body).unwrap();
        }
    }
    seen.lock().unwrap().push(arrived);
    _ = (&tcp).write_all(answer.as_bytes());
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn token() -> String {
    let body =
        format!(r#"{{"access_token":"{TOKEN}","expires_in":"1799","token_type":"BearerToken"}}"#);
    answer("200 OK", "content-type: application/json\r\n", &body)
}

struct Sidecar {
    process: Child,
    address: SocketAddr,
    tokens: Server,
    api: Server,
}

impl Sidecar {
    fn start() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let tokens = Server::start(config.token);
        let api = Server::start(config.api);
        let mut command = command();
        command
            .env(
                "OAUTH_TOKEN_URL",
                format!("http://{}/token", tokens.address),
            )
            .env("OAUTH_CLIENT_ID", "consumer-key")
            .env("OAUTH_CLIENT_SECRET", SECRET)
            .env("API_URL", format!("http://{}{}", api.address, config.path));
        if let Some(header) = config.header {
            command.env("SIDECAR_HEADER", header);
        }
        let mut process = command.spawn().unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        let address = said
            .strip_prefix("http://")
            .and_then(|said| said.split_once(' '));
        let address = address.unwrap_or_else(|| panic!("the sidecar said {said:?}"));
        let address = address.0.parse().unwrap();
        Self {
            process,
            address,
            tokens,
            api,
        }
    }

    /// Sends these bytes on a connection of their own and reads until the sidecar closes it or has
    /// nothing more to say.
    fn send(&self, bytes: impl AsRef<[u8]>) -> Reply {
        let mut tcp = TcpStream::connect(self.address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        tcp.write_all(bytes.as_ref()).unwrap();
        Reply::read(&mut tcp)
    }

    /// `{line}` and these headers, with the `Host` of the sidecar.
    fn ask(&self, line: &str, headers: &str) -> Reply {
        let address = self.address;
        self.send(format!(
            "{line} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n"
        ))
    }

    /// Refused with this status, and nothing of it reached the API.
    fn refuses(&self, bytes: impl AsRef<[u8]>, status: u16) {
        let bytes = bytes.as_ref();
        let before = self.api.arrived().len();
        let reply = self.send(bytes);
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(reply.status, status, "{shown}\n{reply:?}");
        assert_eq!(
            self.api.arrived().len(),
            before,
            "it reached the API: {shown}"
        );
        for secret in [SECRET, TOKEN] {
            assert!(!reply.text.contains(secret), "{reply:?}");
        }
    }

    /// Passed on: what the API got.
    fn passes(&self, bytes: impl AsRef<[u8]>) -> Arrived {
        let bytes = bytes.as_ref();
        let before = self.api.arrived().len();
        let reply = self.send(bytes);
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(reply.status, 200, "{shown}\n{reply:?}");
        let arrived = self.api.arrived();
        assert_eq!(arrived.len(), before + 1, "{shown}");
        let arrived = arrived.last().unwrap().clone();
        assert!(
            arrived.has(&format!("authorization: Bearer {TOKEN}")),
            "{arrived:?}"
        );
        assert_eq!(arrived.names("authorization"), 1);
        assert!(
            arrived.has(&format!("host: {}", self.api.address)),
            "{arrived:?}"
        );
        assert_eq!(arrived.names("host"), 1);
        arrived
    }

    /// For the fleet of headers of one request to a path: [`refuses`](Self::refuses), for each
    /// route.
    fn refuses_everywhere(&self, headers: impl AsRef<[u8]>, status: u16) {
        for path in ["/accounts", "/-/healthz", "/-/readyz"] {
            let mut bytes = format!("GET {path} HTTP/1.1\r\n").into_bytes();
            bytes.extend_from_slice(headers.as_ref());
            bytes.extend_from_slice(b"\r\n");
            self.refuses(bytes, status);
        }
    }

    fn host(&self) -> String {
        format!("Host: {}\r\n", self.address)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidecar"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("OAUTH_")) {
            command.env_remove(name);
        }
    }
    command
        .env_remove("API_URL")
        .env_remove("SIDECAR_HEADER")
        .env("LISTEN", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

struct Config {
    token: String,
    api: String,
    path: &'static str,
    header: Option<&'static str>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            token: token(),
            api: answer("200 OK", "", "from the API"),
            path: "",
            header: None,
        }
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    text: String,
}

impl Reply {
    /// A head and as much of a body as it says.
    fn read(tcp: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let mut one = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                let length = length.map_or(0, |length| length.parse().unwrap());
                let in_chunks = head.contains("\r\ntransfer-encoding: chunked");
                let whole = match in_chunks {
                    true => body.ends_with("0\r\n\r\n"),
                    false => body.len() >= length,
                };
                if whole {
                    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                    return Self { status, text };
                }
            }
            match tcp.read(&mut one) {
                // An answer to HEAD has a length and no body.
                Ok(0) => {
                    let status = text.split(' ').nth(1).unwrap_or("0");
                    let status = status.parse().unwrap();
                    return Self { status, text };
                }
                Ok(n) => bytes.extend_from_slice(&one[..n]),
                Err(error) => panic!("{error} after {text:?}"),
            }
        }
    }

    fn has(&self, header: &str) -> bool {
        let mut lines = self.text.lines();
        lines.any(|line| line.eq_ignore_ascii_case(header))
    }

    fn body(&self) -> &str {
        self.text
            .split_once("\r\n\r\n")
            .map_or("", |(_, body)| body)
    }
}

/// A port at which nobody listens.
fn closed() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn what_is_down_is_named_with_its_host_and_port_and_each_cause_is_told_once() {
    let (tokens, down) = (Server::start(token()), closed());
    for (token_url, api, wanted) in [
        (tokens.address, down, "no answer from the API at"),
        (down, tokens.address, "no access token from 127.0.0.1"),
    ] {
        let mut process = command()
            .env("OAUTH_TOKEN_URL", format!("http://{token_url}/token"))
            .env("OAUTH_CLIENT_ID", "consumer-key")
            .env("OAUTH_CLIENT_SECRET", SECRET)
            .env("API_URL", format!("http://{api}"))
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        let address = said.split(' ').next().unwrap();
        let address = address.strip_prefix("http://").unwrap();
        let mut tcp = TcpStream::connect(address).unwrap();
        tcp.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
            .unwrap();
        let reply = Reply::read(&mut tcp);
        _ = process.kill();
        _ = process.wait();
        let body = reply.body();
        assert!(body.starts_with(wanted), "{body}");
        assert!(body.contains(&down.to_string()), "{body}");
        assert_eq!(body.matches("Connection refused").count(), 1, "{body}");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let output = command()
        .env("OAUTH_TOKEN_URL", "http://127.0.0.1:9/token")
        .env("OAUTH_CLIENT_ID", "consumer-key")
        .env("OAUTH_CLIENT_SECRET", SECRET)
        .env("API_URL", "http://127.0.0.1:9")
        .env("LISTEN", &taken)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(&format!("LISTEN: {taken}")), "{said}");
}

// FS4, FS12: with the host of the API and not the inbound one.
#[test]
fn a_path_arrives_as_it_was_asked_for_with_the_token_and_the_hosts_own_name() {
    let sidecar = Sidecar::start();
    for target in [
        "/",
        "/accounts",
        "/accounts?from=2026-01-01&to=..",
        "/?/../x",
        "//evil.example/x",
        "/@evil.example/",
        "/:80/",
        "/http://evil.example/",
        "/a%20b/%C3%A9",
        "/a..b/.well-known/...",
        "/DOMAIN%5Cuser",
        "/a%2Fb",
        "/%",
        "/a;b=.",
        "/*",
    ] {
        let arrived = sidecar.passes(format!("GET {target} HTTP/1.1\r\n{}\r\n", sidecar.host()));
        assert_eq!(arrived.line, format!("GET {target} HTTP/1.1"));
    }
    assert_eq!(sidecar.tokens.arrived().len(), 1);
}

#[test]
fn the_path_of_the_api_url_stands_before_each_request() {
    let path = "/bank/v1/";
    let sidecar = Sidecar::with(Config {
        path,
        ..Config::default()
    });
    for (target, line) in [
        ("/", "/bank/v1/"),
        ("/a?b", "/bank/v1/a?b"),
        ("//a", "/bank/v1//a"),
    ] {
        let arrived = sidecar.passes(format!("GET {target} HTTP/1.1\r\n{}\r\n", sidecar.host()));
        assert_eq!(arrived.line, format!("GET {line} HTTP/1.1"));
    }
    sidecar.refuses(
        format!("GET /../admin HTTP/1.1\r\n{}\r\n", sidecar.host()),
        400,
    );
}

// FS4
#[test]
fn a_target_that_is_no_path_reaches_nobody() {
    let sidecar = Sidecar::start();
    let (host, api) = (sidecar.host(), sidecar.api.address);
    for line in [
        "OPTIONS *",
        "GET *",
        "GET accounts",
        "GET localhost:80",
        "GET ?a",
        "GET @evil/",
        "GET :80",
    ] {
        sidecar.refuses(format!("{line} HTTP/1.1\r\n{host}\r\n"), 400);
    }
    for line in [
        format!("GET http://{api}/accounts"),
        "GET http://evil.example/accounts".to_owned(),
        format!("GET https://{}/accounts", sidecar.address),
        format!("GET ftp://{}/accounts", sidecar.address),
        format!("GET http://user@{}/accounts", sidecar.address),
        "GET http://localhost/accounts".to_owned(),
    ] {
        sidecar.refuses(format!("{line} HTTP/1.1\r\n{host}\r\n"), 403);
    }
    assert!(
        sidecar.tokens.arrived().len() <= 1,
        "only that of the start"
    );
}

#[test]
fn the_absolute_form_with_our_own_host_passes_as_its_path() {
    let sidecar = Sidecar::start();
    for (path, line) in [("/accounts?x", "/accounts?x"), ("", "/"), ("?x", "/?x")] {
        let (host, address) = (sidecar.host(), sidecar.address);
        let arrived = sidecar.passes(format!("GET http://{address}{path} HTTP/1.1\r\n{host}\r\n"));
        assert_eq!(arrived.line, format!("GET {line} HTTP/1.1"));
    }
}

// FS5
#[test]
fn exactly_one_loopback_host_is_needed_on_every_route() {
    let sidecar = Sidecar::start();
    let own = sidecar.host();
    for headers in [
        "".to_owned(),
        format!("{own}{own}"),
        format!("{own}host: evil.example\r\n"),
    ] {
        sidecar.refuses_everywhere(&headers, 400);
        sidecar.refuses(format!("GET /a HTTP/1.0\r\n{headers}\r\n"), 400);
    }
    let port = sidecar.address.port();
    for host in [
        "",
        "evil.example",
        &format!("evil.example:{port}"),
        &format!("10.0.0.7:{port}"),
        "0.0.0.0",
        "[::]",
        "localhost.",
        "127.0.0.1.",
        "localhost.evil.example",
        "evil-localhost",
        "127.0.0.1.evil.example",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "::1",
        "[::1",
        "[::1]evil.example",
        "[127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::1%25lo]",
        "user@localhost",
        "localhost@evil.example",
        "localhost:",
        "localhost:abc",
        "localhost:+80",
        "localhost:-1",
        "localhost:99999",
        "localhost:80:80",
        "localhost, evil.example",
        "localhost evil.example",
        "localhost/",
        "localhost#",
        "http://localhost",
        "lоcalhost",
    ] {
        sidecar.refuses_everywhere(format!("Host: {host}\r\n"), 403);
    }
    sidecar.refuses_everywhere(b"Host: localhost\xff\r\n", 403);
}

#[test]
fn a_loopback_host_with_any_port_or_none_passes() {
    let sidecar = Sidecar::start();
    for host in [
        "localhost",
        "LocalHost:9000",
        "127.0.0.1",
        "127.8.8.8:1",
        "[::1]",
        "[::1]:8080",
    ] {
        let arrived = sidecar.passes(format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(arrived.names("host"), 1);
    }
}

// FS5
#[test]
fn a_web_page_is_refused_on_every_route() {
    let sidecar = Sidecar::start();
    let host = sidecar.host();
    for origin in [
        "https://evil.example",
        "null",
        "",
        "http://localhost:3000",
        "none",
        &format!("http://{}", sidecar.address),
    ] {
        sidecar.refuses_everywhere(format!("{host}Origin: {origin}\r\n"), 403);
    }
    sidecar.refuses_everywhere(format!("{host}origin: null\r\nORIGIN: null\r\n"), 403);
    sidecar.refuses_everywhere([host.as_bytes(), b"Origin: \xff\xfe\r\n"].concat(), 403);
    for site in [
        "cross-site",
        "same-site",
        "same-origin",
        "",
        "None",
        "none, none",
        "none;a=b",
        "no ne",
    ] {
        sidecar.refuses_everywhere(format!("{host}Sec-Fetch-Site: {site}\r\n"), 403);
    }
    sidecar.refuses_everywhere([host.as_bytes(), b"Sec-Fetch-Site: \xff\r\n"].concat(), 403);
    for (first, second) in [
        ("none", "none"),
        ("none", "cross-site"),
        ("cross-site", "none"),
    ] {
        let headers = format!("{host}Sec-Fetch-Site: {first}\r\nsec-fetch-site: {second}\r\n");
        sidecar.refuses_everywhere(headers, 403);
    }
    for name in ["Mode", "Dest", "User"] {
        let headers = format!("{host}Sec-Fetch-{name}: a\r\nSec-Fetch-{name}: a\r\n");
        sidecar.refuses_everywhere(headers, 403);
    }
    let preflight = format!(
        "OPTIONS /accounts HTTP/1.1\r\n{host}Origin: https://evil.example\r\n\
         Access-Control-Request-Method: POST\r\n\r\n"
    );
    sidecar.refuses(preflight, 403);
}

#[test]
fn what_a_person_types_and_what_node_fetches_passes() {
    let sidecar = Sidecar::start();
    let host = sidecar.host();
    for headers in [
        "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n",
        "Sec-Fetch-Mode: cors\r\n",
    ] {
        sidecar.passes(format!("GET /a HTTP/1.1\r\n{host}{headers}\r\n"));
        let reply = sidecar.ask("GET /-/healthz", headers);
        assert_eq!((reply.status, reply.body()), (200, "ok\n"));
    }
}

// FS5, S4
#[test]
fn dot_segments_are_refused_however_they_are_written() {
    let path = "/bank/v1";
    let sidecar = Sidecar::with(Config {
        path,
        ..Config::default()
    });
    let host = sidecar.host();
    for target in [
        "/..",
        "/.",
        "/../",
        "/./",
        "/a/..",
        "/a/.",
        "/a/../b",
        "/a/./b?c",
        "/../admin",
        "//../admin",
        "/%2e%2e",
        "/%2E%2e/a",
        "/%2E.",
        "/.%2e/a",
        "/%2e",
        "/a/%2E/b",
        "/..\\admin",
        "/a\\..\\b",
        "/..%5cadmin",
        "/..%5Cadmin",
        "/%2e%2e%5c",
        "/a%2f..%2fb",
        "/..%2Fadmin",
        "/%252e%252e/admin",
        "/%25252e./admin",
        "/..;/admin",
        "/..;a=b/admin",
        "/%2e%2e%3b/admin",
        "/..%00/admin",
        "/..%20/admin",
        "/..%3fx",
        "/..%3F/admin",
        "/..%23x",
        "/%2e%2e%253fx",
        "/%%32%65./admin",
        "/-/../-/readyz",
    ] {
        sidecar.refuses(format!("GET {target} HTTP/1.1\r\n{host}\r\n"), 400);
        let address = sidecar.address;
        sidecar.refuses(
            format!("GET http://{address}{target} HTTP/1.1\r\n{host}\r\n"),
            400,
        );
    }
}

// S4
#[test]
fn what_servers_read_differently_is_refused_in_a_path_and_passes_in_a_query() {
    let sidecar = Sidecar::start();
    let host = sidecar.host();
    for odd in [
        "%00",
        "%09",
        "%0a",
        "%0D%0A",
        "%7f",
        "%250a",
        "%c0%ae",
        "%C1%9C",
        "%c0%af",
        "%e0%80%ae",
        "%f0%80%80%ae",
        "%f8%80%80%80%ae",
        "%fc%80%80%80%80%ae",
        "%25c0%25ae",
        "%u002e",
        "%U002E",
        "%25u2215",
        "%%75002e",
    ] {
        for path in [format!("/a/.{odd}./b"), format!("/a{odd}b")] {
            sidecar.refuses(format!("GET {path} HTTP/1.1\r\n{host}\r\n"), 400);
        }
        sidecar.passes(format!("GET /a?{odd} HTTP/1.1\r\n{host}\r\n"));
    }
    for path in [
        "/%E9t%E9",
        "/%C0",
        "/%C3%80",
        "/%E0%A4%85",
        "/%F0%9F%98%80",
        "/100%users",
        "/a%3Fb",
    ] {
        let arrived = sidecar.passes(format!("GET {path} HTTP/1.1\r\n{host}\r\n"));
        assert_eq!(arrived.line, format!("GET {path} HTTP/1.1"));
    }
}

// S1
#[test]
fn a_long_path_that_is_encoded_thousands_of_times_is_judged_at_once() {
    let sidecar = Sidecar::start();
    let host = sidecar.host();
    let levels = "25".repeat(30_000);
    let start = Instant::now();
    for end in ["41", "2e."] {
        let bytes = format!("GET /%{levels}{end} HTTP/1.1\r\n{host}\r\n");
        match end {
            "41" => _ = sidecar.passes(bytes),
            _ => sidecar.refuses(bytes, 400),
        }
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

// FS3, FS5
#[test]
fn methods_that_echo_or_tunnel_are_not_implemented() {
    let sidecar = Sidecar::start();
    let host = sidecar.host();
    for line in [
        "TRACE /",
        "TRACE /-/readyz",
        "trace /",
        "TRACK /",
        "CONNECT localhost:80",
        "CONNECT evil.example:443",
        "CONNECT /",
    ] {
        sidecar.refuses(format!("{line} HTTP/1.1\r\n{host}\r\n"), 501);
    }
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "PROPFIND"] {
        let arrived = sidecar.passes(format!(
            "{method} /a HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
        ));
        assert_eq!(arrived.line, format!("{method} /a HTTP/1.1"));
    }
}

// FS5
#[test]
fn no_coding_passes_but_chunked_alone() {
    let sidecar = Sidecar::start();
    let host = sidecar.host();
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    for (codings, status) in [
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        (
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
            501,
        ),
        ("Transfer-Encoding: chunked, chunked\r\n", 501),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            501,
        ),
        ("Transfer-Encoding: identity, chunked\r\n", 501),
        ("Transfer-Encoding: , chunked\r\n", 501),
        // Here hyper is first: without `chunked` at the end nobody knows where the body ends (RFC
        // 9112 §6.3).
        ("Transfer-Encoding: gzip\r\n", 400),
        ("Transfer-Encoding: identity\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: xchunked\r\n", 400),
        ("Transfer-Encoding: chunked;a=b\r\n", 400),
    ] {
        sidecar.refuses(
            format!("POST /a HTTP/1.1\r\n{host}{codings}\r\n{chunks}"),
            status,
        );
    }
    sidecar.refuses(
        format!("POST /a HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n{chunks}"),
        400,
    );
}

// FS5
#[test]
fn two_lengths_are_refused_in_any_order_and_on_a_connection_in_use() {
    let sidecar = Sidecar::start();
    let host = sidecar.host();
    let (length, chunked) = ("Content-Length: 13\r\n", "Transfer-Encoding: chunked\r\n");
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    for both in [
        [length, chunked].concat(),
        [chunked, length].concat(),
        [chunked, "content-length:0\r\n"].concat(),
    ] {
        sidecar.refuses(format!("POST /a HTTP/1.1\r\n{host}{both}\r\n{chunks}"), 400);
        sidecar.refuses(
            format!("\r\nPOST /a HTTP/1.1\r\n{host}{both}\r\n{chunks}"),
            400,
        );
        let mut tcp = TcpStream::connect(sidecar.address).unwrap();
        let post = format!(
            "POST /a HTTP/1.1\r\n{host}Content-Length: 35\r\n\r\n\
             \r\nContent-Length: 1\r\nTransfer-Enc: x"
        );
        for _ in 0..2 {
            tcp.write_all(post.as_bytes()).unwrap();
            assert_eq!(Reply::read(&mut tcp).status, 200);
        }
        tcp.write_all(format!("POST /a HTTP/1.1\r\n{host}{both}\r\n{chunks}").as_bytes())
            .unwrap();
        assert_eq!(Reply::read(&mut tcp).status, 400);
    }
    for lengths in [
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: x\r\n",
    ] {
        sidecar.refuses(format!("POST /a HTTP/1.1\r\n{host}{lengths}\r\nab"), 400);
    }
}

// S5
#[test]
fn a_body_that_its_sender_breaks_is_no_fault_of_the_api() {
    let sidecar = Sidecar::start();
    let host = sidecar.host();
    for body in [
        "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nz\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nab",
        "Content-Length: 10\r\n\r\nabc",
    ] {
        let mut tcp = TcpStream::connect(sidecar.address).unwrap();
        tcp.write_all(format!("POST /a HTTP/1.1\r\n{host}{body}").as_bytes())
            .unwrap();
        tcp.shutdown(Shutdown::Write).unwrap();
        let reply = Reply::read(&mut tcp);
        assert_eq!(reply.status, 400, "{body:?} {reply:?}");
        let said = "the request's body cannot be read to its end";
        assert!(reply.body().starts_with(said), "{body:?} {reply:?}");
    }
    assert_eq!(sidecar.ask("GET /a", "").status, 200);
}

#[test]
fn a_body_passes_with_its_length_or_in_chunks() {
    let sidecar = Sidecar::start();
    let host = sidecar.host();
    let arrived = sidecar.passes(format!(
        "POST /a HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabc"
    ));
    assert_eq!(
        (arrived.body.as_str(), arrived.names("transfer-encoding")),
        ("abc", 0)
    );
    let chunked = "Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let arrived = sidecar.passes(format!("POST /a HTTP/1.1\r\n{host}{chunked}"));
    assert!(arrived.body.starts_with("3\r\nabc\r\n"), "{arrived:?}");
    assert_eq!(arrived.names("content-length"), 0);
}

#[test]
fn what_belongs_to_one_connection_is_not_passed_on() {
    let sidecar = Sidecar::start();
    let host = sidecar.host();
    let headers = "Connection: x-hop, close\r\nX-Hop: 1\r\nTE: trailers\r\n\
        Proxy-Authorization: Basic eA==\r\nUpgrade: h2c\r\n\
        Keep-Alive: 5\r\nAuthorization: Basic eA==\r\nX-Own: kept\r\nAccept: */*\r\n";
    let arrived = sidecar.passes(format!("GET /a HTTP/1.1\r\n{host}{headers}\r\n"));
    for name in [
        "x-hop",
        "te",
        "proxy-authorization",
        "upgrade",
        "keep-alive",
    ] {
        assert_eq!(arrived.names(name), 0, "{name}: {arrived:?}");
    }
    assert!(
        arrived.has("x-own: kept") && arrived.has("accept: */*"),
        "{arrived:?}"
    );
    for (headers, status) in [
        ("Connection: upgrade\r\nUpgrade: websocket\r\n", 501),
        ("Upgrade: h2c\r\nUpgrade: websocket\r\n", 501),
        ("Upgrade: h2c, websocket\r\n", 501),
        ("Expect: the-unexpected\r\n", 417),
    ] {
        sidecar.refuses(format!("GET /a HTTP/1.1\r\n{host}{headers}\r\n"), status);
    }
}

#[test]
fn what_is_not_http_is_refused() {
    let sidecar = Sidecar::start();
    let host = sidecar.host();
    for headers in [
        "X-A: b\r\n folded\r\n",
        "X-A : b\r\n",
        " X-A: b\r\n",
        "X A: b\r\n",
        "X-A\r\n",
        "X-A: b\0c\r\n",
        ": b\r\n",
    ] {
        sidecar.refuses(format!("GET /a HTTP/1.1\r\n{host}{headers}\r\n"), 400);
    }
    for line in [
        "GET /a b HTTP/1.1",
        "GET  HTTP/1.1",
        "GET /a HTTP/9.9",
        "G@T /a HTTP/1.1",
        "GET /a\u{7f} HTTP/1.1",
    ] {
        sidecar.refuses(format!("{line}\r\n{host}\r\n"), 400);
    }
}

// S2
#[test]
fn a_head_is_read_up_to_64_kib() {
    let sidecar = Sidecar::start();
    let host = sidecar.host();
    let head = |length: usize| {
        let head = format!("GET /a HTTP/1.1\r\n{host}X-Long: ");
        let rest = length - head.len() - 4;
        format!("{head}{}\r\n\r\n", "x".repeat(rest))
    };
    sidecar.passes(head(LONGEST_HEAD));
    sidecar.refuses(head(LONGEST_HEAD + 1), 431);
    // One that does not end.
    let mut tcp = TcpStream::connect(sidecar.address).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    tcp.write_all(&head(LONGEST_HEAD + 4).as_bytes()[..LONGEST_HEAD])
        .unwrap();
    assert_eq!(Reply::read(&mut tcp).status, 431);
}

// S2
#[test]
fn http_2_is_hung_up_on() {
    let sidecar = Sidecar::start();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut tcp = TcpStream::connect(sidecar.address).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    // The connection may be closed by now.
    _ = tcp.write_all(&settings);
    let mut answer = Vec::new();
    match tcp.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert!(answer.is_empty(), "{answer:?}");
    assert_eq!(sidecar.ask("GET /a", "").status, 200);
}

// Nobody reads what the sidecar prints by then, which must not matter.
#[test]
fn the_request_under_way_is_answered_before_the_end_and_no_other() {
    let mut sidecar = Sidecar::start();
    let host = sidecar.host();
    let mut idle = TcpStream::connect(sidecar.address).unwrap();
    idle.write_all(format!("GET /-/healthz HTTP/1.1\r\n{host}\r\n").as_bytes())
        .unwrap();
    assert_eq!(Reply::read(&mut idle).status, 200);
    let mut tcp = TcpStream::connect(sidecar.address).unwrap();
    let post = "POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3";
    tcp.write_all(format!("{post}\r\n{host}\r\n").as_bytes())
        .unwrap();
    let mut go_on = [0; 25];
    tcp.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");

    let id = sidecar.process.id().to_string();
    assert!(Command::new("kill").arg(id).status().unwrap().success());
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    assert!(sidecar.process.try_wait().unwrap().is_none());
    tcp.write_all(b"abc").unwrap();
    assert_eq!(Reply::read(&mut tcp).status, 200);
    assert!(sidecar.process.wait().unwrap().success());
    assert!(TcpStream::connect(sidecar.address).is_err());
}

// FS5
#[test]
fn the_required_header_is_needed_once_on_every_route_and_not_passed_on() {
    let header = Some("X-Sidecar: let me in");
    let sidecar = Sidecar::with(Config {
        header,
        ..Config::default()
    });
    let host = sidecar.host();
    let right = "x-sidecar: let me in\r\n";
    for wrong in [
        "",
        "X-Sidecar:\r\n",
        "X-Sidecar: let me\r\n",
        "X-Sidecar: let me in now\r\n",
        "X-Sidecar: Let me in\r\n",
        "X-Sidecars: let me in\r\n",
        &format!("{right}{right}"),
        &format!("{right}x-sidecar: other\r\n"),
    ] {
        sidecar.refuses_everywhere(format!("{host}{wrong}"), 403);
    }
    sidecar.refuses_everywhere(format!("{host}{right}Origin: null\r\n"), 403);
    let arrived = sidecar.passes(format!("GET /a HTTP/1.1\r\n{host}{right}\r\n"));
    assert_eq!(arrived.names("x-sidecar"), 0, "{arrived:?}");
    assert_eq!(sidecar.ask("GET /-/healthz", right).status, 200);
}

#[test]
fn readiness_follows_the_token_and_no_error_has_a_secret_in_it() {
    let sidecar = Sidecar::start();
    sidecar.passes(format!("GET /a HTTP/1.1\r\n{}\r\n", sidecar.host()));
    let reply = sidecar.ask("GET /-/readyz", "");
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(!reply.text.contains(TOKEN), "{reply:?}");
    assert_eq!(
        sidecar
            .ask("POST /-/readyz", "Content-Length: 0\r\n")
            .status,
        405
    );

    let body = format!(
        r#"{{"error":"invalid_client","error_description":"no client has the secret {SECRET}"}}"#
    );
    let token = answer(
        "401 Unauthorized",
        "content-type: application/json\r\n",
        &body,
    );
    let sidecar = Sidecar::with(Config {
        token,
        ..Config::default()
    });
    let host = sidecar.host();
    sidecar.refuses(format!("GET /a HTTP/1.1\r\n{host}\r\n"), 502);
    let reply = sidecar.ask("GET /a", "");
    assert!(reply.text.contains("invalid_client"), "{reply:?}");
    sidecar.refuses(format!("GET /-/readyz HTTP/1.1\r\n{host}\r\n"), 503);
    assert_eq!(sidecar.ask("GET /-/healthz", "").status, 200);

    let token = answer("503 Service Unavailable", "retry-after: 7\r\n", "");
    let sidecar = Sidecar::with(Config {
        token,
        ..Config::default()
    });
    let reply = sidecar.ask("GET /a", "");
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(
        reply
            .text
            .to_ascii_lowercase()
            .contains("\r\nretry-after: "),
        "{reply:?}"
    );
    assert!(sidecar.api.arrived().is_empty());
}

#[test]
fn an_api_that_is_away_is_a_502_without_the_token() {
    let sidecar = Sidecar::with(Config {
        api: String::new(),
        ..Config::default()
    });
    let reply = sidecar.ask("GET /a", "");
    assert_eq!(reply.status, 502, "{reply:?}");
    assert!(
        reply.body().starts_with("no answer from the API"),
        "{reply:?}"
    );
    assert!(!reply.text.contains(TOKEN), "{reply:?}");
}

#[test]
fn an_answer_of_the_api_comes_back_as_it_is_but_for_what_belongs_to_its_connection() {
    let headers = "x-own: kept\r\nx-hop: 1\r\nkeep-alive: 5\r\nconnection: x-hop\r\n\
        www-authenticate: Basic\r\n";
    let api = answer("403 Forbidden", headers, "no");
    let sidecar = Sidecar::with(Config {
        api,
        ..Config::default()
    });
    let reply = sidecar.ask("GET /a", "");
    assert_eq!((reply.status, reply.body()), (403, "no"));
    assert!(
        reply.has("x-own: kept") && reply.has("www-authenticate: Basic"),
        "{reply:?}"
    );
    let lower = reply.text.to_ascii_lowercase();
    assert!(
        !lower.contains("x-hop") && !lower.contains("keep-alive: 5"),
        "{reply:?}"
    );
}

#[test]
fn of_two_lengths_of_an_answer_the_chunks_count() {
    let chunks = "26\r\n{\"balance\":100,\"currency\":\"EUR\",\"a\":1}\r\n0\r\n\r\n";
    for lengths in [
        "transfer-encoding: chunked\r\ncontent-length: 12\r\n",
        "content-length: 0\r\ntransfer-encoding: chunked\r\n",
    ] {
        let sidecar = Sidecar::with(Config {
            api: format!("HTTP/1.1 200 OK\r\n{lengths}\r\n{chunks}"),
            ..Config::default()
        });
        let reply = sidecar.ask("GET /a", "");
        assert_eq!(reply.status, 200);
        assert!(reply.text.ends_with(chunks), "{reply:?}");
        assert!(!reply.text.to_ascii_lowercase().contains("content-length"));
    }
}

#[test]
fn an_api_that_switches_protocols_unasked_is_a_502() {
    let sidecar = Sidecar::with(Config {
        api: "HTTP/1.1 101 Switching Protocols\r\nupgrade: a\r\nconnection: upgrade\r\n\r\n"
            .to_owned(),
        ..Config::default()
    });
    assert_eq!(sidecar.ask("GET /a", "").status, 502);
}

#[test]
fn a_misspelt_variable_is_no_call_for_the_emulated_gateway() {
    for (variables, missing) in [
        (["OAUTH_TOKEN_URI", "API_URI"], "OAUTH_TOKEN_URL"),
        (
            ["OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET"],
            "OAUTH_TOKEN_URL",
        ),
        (
            ["OAUTH_TOKEN_URL", "OAUTH_CLIENT_ID"],
            "OAUTH_CLIENT_SECRET",
        ),
    ] {
        let mut command = command();
        for variable in variables {
            command.env(variable, "http://127.0.0.1:9/token");
        }
        let (code, said) = ends(command);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(missing), "{said}");
    }
}

#[test]
fn a_connection_serves_many_requests() {
    let sidecar = Sidecar::start();
    let mut tcp = TcpStream::connect(sidecar.address).unwrap();
    for n in 0..5 {
        let head = format!(
            "POST /{n} HTTP/1.1\r\n{}Content-Length: 2\r\n\r\nab",
            sidecar.host()
        );
        tcp.write_all(head.as_bytes()).unwrap();
        assert_eq!(Reply::read(&mut tcp).status, 200);
    }
    assert_eq!(sidecar.api.arrived().len(), 5);
}

#[test]
fn a_wrong_variable_is_said_at_the_start() {
    for (variable, value) in [
        ("API_URL", "api.example"),
        ("API_URL", "ftp://api.example"),
        ("API_URL", "https://user:hunter2@api.example"),
        ("API_URL", "https://api.example/?key=hunter2"),
        ("API_URL", "https://api.example/#a"),
        ("API_URL", "https://api.example/a/../b"),
        ("API_URL", "https://api.example:99999"),
        ("LISTEN", "0.0.0.0:0"),
        ("LISTEN", "localhost"),
        ("SIDECAR_HEADER", ""),
        ("SIDECAR_HEADER", "hunter2"),
        ("SIDECAR_HEADER", "x-a:"),
        ("SIDECAR_HEADER", "x a: hunter2"),
        ("SIDECAR_HEADER", "Content-Type: hunter2"),
        ("SIDECAR_HEADER", "sec-fetch-site: none"),
        ("SIDECAR_HEADER", "Cache-Control: hunter2"),
        ("SIDECAR_HEADER", "X-Requested-With: hunter2"),
    ] {
        let mut command = command();
        command
            .env("OAUTH_TOKEN_URL", "http://127.0.0.1:9/token")
            .env("OAUTH_CLIENT_ID", "consumer-key")
            .env("OAUTH_CLIENT_SECRET", SECRET)
            .env("API_URL", "https://api.example")
            .env(variable, value);
        let (code, said) = ends(command);
        assert_eq!(code, Some(1), "{variable}={value}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
        if value != "https://api.example:99999" {
            assert!(said.contains(variable), "{variable}={value}: {said}");
        }
    }
}

/// How a start that fails ends, and what it says then.
fn ends(mut command: Command) -> (Option<i32>, String) {
    let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while process.try_wait().unwrap().is_none() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    _ = process.kill();
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

const TOKEN: &str = "token-0123456789abcdef";
const SECRET: &str = "consumer-secret-0123456789";
const LONGEST_HEAD: usize = 64 * 1024;
