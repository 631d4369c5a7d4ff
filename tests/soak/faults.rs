//! What goes wrong: the schedule, and what the token endpoint answers in each phase of it.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use crate::World;
use crate::endpoint::SecretFile;

/// What the token endpoint, or the API with its tokens, is doing to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Peace,
    /// Answers late, sometimes too late.
    Slow,
    /// 500 and 503.
    Down,
    /// 429 and 503 with `Retry-After`.
    Busy,
    /// Resets connections, before the answer or within.
    Reset,
    /// A page of a proxy, or JSON that is no token.
    Garbage,
    /// JSON that breaks off.
    Truncated,
    /// Tokens without a life.
    Tiny,
    /// A new secret, in the file first; the old one is good for another moment.
    Rotation,
    /// A new secret, in the file last; the old one is void at once.
    HardRotation,
    /// All tokens are revoked.
    Revocation,
    /// Each token is revoked as soon as it is seen.
    Storm,
}

const FAULTS: [Phase; 11] = [
    Phase::Slow,
    Phase::Down,
    Phase::Busy,
    Phase::Reset,
    Phase::Garbage,
    Phase::Truncated,
    Phase::Tiny,
    Phase::Rotation,
    Phase::HardRotation,
    Phase::Revocation,
    Phase::Storm,
];

/// Goes from fault to fault until it is dropped. A fault lasts for a second and a half at least,
/// and until it has hit two token requests.
pub(crate) async fn fire(world: &World, secret: &SecretFile, mut rng: Rng) {
    let mut newest = 0;
    loop {
        let mut faults = FAULTS;
        rng.shuffle(&mut faults);
        for fault in faults {
            world.book().faults.enter(Phase::Peace);
            sleep(Duration::from_millis(rng.u64(700..1_800))).await;
            world.book().faults.enter(fault);
            // With the token, a fault hits an idle endpoint or a pressing need.
            if fault == Phase::Revocation || rng.bool() {
                world.book().revoke();
            }
            match fault {
                Phase::Rotation => {
                    newest += 1;
                    world.book().faults.secrets = [newest - 1, newest];
                    secret.write(world, newest);
                    sleep(Duration::from_secs(1)).await;
                    world.book().faults.secrets = [newest, newest];
                }
                Phase::HardRotation => {
                    newest += 1;
                    world.book().faults.secrets = [newest, newest];
                    sleep(Duration::from_millis(rng.u64(200..1_500))).await;
                    secret.write(world, newest);
                }
                _ => {}
            }
            sleep(Duration::from_millis(1_500)).await;
            while world.book().faults.hits < 2 {
                sleep(Duration::from_millis(20)).await;
            }
            world.book().faults.over += 1;
        }
    }
}

/// The phase that the token endpoint is in.
pub(crate) struct Faults {
    pub(crate) phase: Phase,
    /// The phases that are over.
    pub(crate) over: u64,
    rng: Rng,
    /// Token requests in this phase.
    hits: u32,
    /// The oldest and the newest client secret that are good.
    secrets: [u64; 2],
}

/// What the token endpoint answers, and after which time.
pub(crate) struct Answer {
    pub(crate) delay: Duration,
    pub(crate) reply: Reply,
    /// How long the token lives that it has.
    pub(crate) life: Option<Duration>,
    pub(crate) retry_after: Option<Duration>,
}

pub(crate) enum Reply {
    Whole(String),
    /// Half of it, and then a reset.
    Torn(String),
    Reset,
}

impl Faults {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            phase: Phase::Peace,
            over: 0,
            rng,
            hits: 0,
            secrets: [0; 2],
        }
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.hits) = (phase, 0);
    }

    pub(crate) fn end(&mut self) {
        self.enter(Phase::Peace);
        self.secrets = [0, u64::MAX];
    }

    /// The answer to a token request with this number and this secret.
    pub(crate) fn answer(&mut self, number: u64, secret: u64) -> Answer {
        self.hits += 1;
        let delay = Duration::from_millis(match self.phase {
            Phase::Slow => self.rng.u64(150..1_000),
            _ => self.rng.u64(2..30),
        });
        let failure = self.failure(secret);
        let busy = self.phase == Phase::Busy;
        let retry_after = busy.then_some(Duration::from_secs(1));
        if let Some(reply) = failure {
            return Answer {
                delay,
                reply,
                life: None,
                retry_after,
            };
        }
        let seconds = match self.phase {
            Phase::Tiny => 0,
            _ => self.rng.u64(2..=4),
        };
        let text = format!(
            r#"{{"access_token":"token-{number}","token_type":"Bearer","expires_in":"{seconds}"}}"#
        );
        let text = wire("200 OK", JSON, &text);
        let (reply, life) = match self.phase {
            Phase::Reset => (Reply::Torn(text), None),
            _ => (Reply::Whole(text), Some(Duration::from_secs(seconds))),
        };
        Answer {
            delay,
            reply,
            life,
            retry_after,
        }
    }

    fn failure(&mut self, secret: u64) -> Option<Reply> {
        let first = self.rng.bool();
        let (status, fields, body) = match self.phase {
            Phase::Reset if first => return Some(Reply::Reset),
            Phase::Down if first => ("500 Internal Server Error", HTML, "<html>oops</html>"),
            Phase::Down => (
                "503 Service Unavailable",
                JSON,
                r#"{"error":"server_error"}"#,
            ),
            Phase::Busy if first => ("429 Too Many Requests", BUSY, ""),
            Phase::Busy => ("503 Service Unavailable", BUSY, ""),
            Phase::Garbage if first => ("200 OK", HTML, "<html>please sign in</html>"),
            Phase::Garbage => ("200 OK", JSON, r#"{"status":"ok"}"#),
            Phase::Truncated => ("200 OK", JSON, r#"{"access_token":"to"#),
            _ if secret < self.secrets[0] || secret > self.secrets[1] => {
                ("401 Unauthorized", JSON, r#"{"error":"invalid_client"}"#)
            }
            _ => return None,
        };
        Some(Reply::Whole(wire(status, fields, body)))
    }
}

fn wire(status: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{fields}\r\n{body}"
    )
}

const JSON: &str = "content-type: application/json\r\n";
const HTML: &str = "content-type: text/html\r\n";
const BUSY: &str = "retry-after: 1\r\n";
