//! A process that gets a signal to stop, over real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, thread};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceExt};
use tower_oauth::{CachePolicy, OAuthLayer};

use crate::support::*;

// FC1
#[test]
fn a_process_that_is_stopped_in_the_middle_of_a_flight_serves_its_call_when_it_goes_on() {
    let days = [
        (Meanwhile::Answers, 1),
        (Meanwhile::Closes, 2),
        (Meanwhile::Forgets, 2),
    ];
    let runs = days.map(|(meanwhile, requests)| {
        thread::spawn(move || (meanwhile, requests, freeze(meanwhile, secs(4))))
    });
    for run in runs {
        let (meanwhile, wanted, (result, requests)) = run.join().expect("it ran");
        assert!(result.ends_with("Ok(200)"), "{meanwhile:?}: {result}");
        assert_eq!(requests, wanted, "{meanwhile:?}");
    }
}

/// What the endpoint does with the token request while the process is stopped.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    /// The answer arrives while the process stands still.
    Answers,
    Closes,
    /// The answer never comes.
    Forgets,
}

/// Runs a process that makes one call, and stops it for `span` during its first token request.
/// Returns what it printed, and the number of token requests.
fn freeze(meanwhile: Meanwhile, span: Duration) -> (String, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/token", listener.local_addr().expect("bound"));
    let mut child = Command::new(env::current_exe().expect("this test"))
        .args([
            "--exact",
            "stopped::the_process_that_is_frozen",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD_URL, url)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let requests = Arc::new(AtomicUsize::new(0));

    let (mut first, _) = listener.accept().expect("the first token request");
    read_request(&mut first);
    requests.fetch_add(1, Ordering::SeqCst);
    signal(&child, "STOP");
    let held = match meanwhile {
        Meanwhile::Answers => {
            answer(&mut first);
            None
        }
        Meanwhile::Closes => {
            first.shutdown(Shutdown::Both).expect("closed");
            None
        }
        Meanwhile::Forgets => Some(first),
    };
    thread::sleep(span);
    let count = Arc::clone(&requests);
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            read_request(&mut connection);
            count.fetch_add(1, Ordering::SeqCst);
            answer(&mut connection);
        }
    });
    signal(&child, "CONT");
    let mut printed = String::new();
    let out = child.stdout.take().expect("piped");
    BufReader::new(out)
        .read_to_string(&mut printed)
        .expect("text");
    child.wait().expect("ended");
    drop(held);
    let line = printed.lines().find(|line| line.contains(RESULT));
    let line = line.unwrap_or_else(|| panic!("no result in {printed}"));
    (line.to_owned(), requests.load(Ordering::SeqCst))
}

#[test]
#[ignore = "the process that other tests start and stop"]
fn the_process_that_is_frozen() {
    let Ok(url) = env::var(CHILD_URL) else {
        return;
    };
    let result = two_threads().block_on(async {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build_http::<Full<Bytes>>();
        // Short, so that a stop of a few seconds outlasts them.
        let policy = CachePolicy::new().attempts(2).attempt_timeout(secs(1));
        let layer = OAuthLayer::client_credentials(url, "id", "secret")
            .token_client(client)
            .cache_policy(policy)
            .build()
            .expect("a layer");
        let call = layer.layer(Api::ok()).oneshot(get(API)).await;
        call.map(|answer| answer.status())
    });
    println!("{RESULT} {result:?}");
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), child.id().to_string()])
        .status();
    assert!(status.expect("kill").success());
}

fn read_request(connection: &mut TcpStream) {
    let mut reader = BufReader::new(connection);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().expect("a number");
        }
        if line.is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).expect("a body");
}

fn answer(connection: &mut TcpStream) {
    let body = r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
    // The child may have given up and closed the connection.
    let _ = write!(
        connection,
        "{head}content-length: {}\r\n\r\n{body}",
        body.len()
    );
}

const CHILD_URL: &str = "TOWER_OAUTH_TEST_TOKEN_URL";
const RESULT: &str = "the call:";
