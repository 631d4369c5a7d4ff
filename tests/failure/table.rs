//! Each row of the failure table: its class, its attempts and whom it speaks for.

use std::time::Duration;

use class::{Class, Codes, Reach, Row, Success};
use tokio::time::{Instant, advance};
use tower_oauth::{Error, TokenParams};

use crate::support::*;
use crate::{class, other};

// K20
#[tokio::test(start_paused = true)]
async fn every_rejected_row_is_one_request_and_then_backoff() {
    let rows = [
        Answer::Error(400, "invalid_client"),
        Answer::Error(400, "unauthorized_client"),
        raw(401, &[], ""),
        raw(403, &[], ""),
        raw(404, &[], ""),
        Answer::Error(400, "invalid_scope"),
        Answer::Error(400, "invalid_target"),
        Answer::Error(400, "invalid_request"),
        Answer::Error(400, "unsupported_grant_type"),
        Answer::Error(400, "something_of_its_own"),
        raw(418, &[], ""),
        raw(200, &[], "<html>"),
        raw(200, &[], "{}"),
        raw(304, &[], ""),
        raw(200, &[], r#"{"access_token":"t","token_type":"mac"}"#),
    ];
    for row in rows {
        let endpoint = Endpoint::new().always(row.clone());
        let tokens = layer(&endpoint).token_cache();
        for _ in 0..100 {
            let error = tokens.token().await.unwrap_err();
            assert!(
                error.is_rejected() || error.is_invalid_response(),
                "{row:?}: {error}"
            );
        }
        assert_eq!(endpoint.requests(), 1, "{row:?}");
        advance(secs(11)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 2, "{row:?}");
    }
}

// K21
#[tokio::test(start_paused = true)]
async fn every_transient_row_is_tried_three_times_and_then_backs_off() {
    let rows = [
        Answer::Refused,
        raw(408, &[], ""),
        raw(425, &[], ""),
        raw(500, &[], ""),
        raw(502, &[], "<html>"),
        raw(503, &[], ""),
        raw(599, &[], ""),
        raw(200, &[], ""),
        raw(200, &[], "{\"access_token\":"),
        Answer::Error(400, "server_error"),
        Answer::Error(400, "temporarily_unavailable"),
    ];
    for row in rows {
        let endpoint = Endpoint::new().always(row.clone());
        let tokens = layer(&endpoint).token_cache();
        let start = Instant::now();
        for _ in 0..100 {
            assert!(tokens.token().await.unwrap_err().is_transient(), "{row:?}");
        }
        assert_eq!(endpoint.requests(), 3, "{row:?}");
        assert!(
            start.elapsed() <= Duration::from_millis(605),
            "short pauses: {:?}",
            start.elapsed()
        );
        advance(secs(3)).await;
        tokens.token().await.unwrap_err();
        assert_eq!(endpoint.requests(), 6, "{row:?}");
    }
}

/// What a failure led to, seen from outside.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    class: Class,
    /// Token requests in the first flight.
    requests: usize,
    /// Whether other parameters of the same client back off too.
    reach: Reach,
}

impl Seen {
    fn of(row: Row) -> Self {
        let again = row.again;
        Self {
            class: row.class,
            requests: if again { 3 } else { 1 },
            reach: row.reach,
        }
    }

    async fn come_of(endpoint: &Endpoint) -> (Self, Error) {
        let tokens = layer(endpoint).token_cache();
        let error = tokens.token().await.unwrap_err();
        let requests = endpoint.requests();
        let class = if error.is_transient() {
            Class::Transient
        } else if error.is_rejected() {
            Class::Rejected
        } else {
            assert!(error.is_invalid_response(), "{error}");
            Class::InvalidResponse
        };
        tokens.with_params(other("b")).token().await.unwrap_err();
        let reach = match endpoint.requests() == requests {
            true => Reach::Client,
            false => Reach::Params,
        };
        let seen = Self {
            class,
            requests,
            reach,
        };
        (seen, error)
    }
}

fn coded(status: u16, code: Option<&str>) -> Answer {
    let body = code.map_or_else(String::new, |code| format!(r#"{{"error":"{code}"}}"#));
    raw(status, &[], &body)
}

// FA19, FA20, K20, K21
#[tokio::test(start_paused = true)]
async fn every_head_that_is_not_2xx_comes_to_the_first_row_that_fits() {
    let lines = class::NOT_2XX;
    // Both ends of each row's range, and the codes of each row under the statuses of all.
    let ends = lines.iter().flat_map(|line| line.when);
    let mut statuses: Vec<_> = ends
        .flat_map(|head| [head.statuses.0, head.statuses.1])
        .chain([302, 402, 409, 502, 503])
        .collect();
    statuses.sort_unstable();
    statuses.dedup();
    let mut codes = vec![None, Some("invalid_scope"), Some("of_a_vendor")];
    for head in lines.iter().flat_map(|line| line.when) {
        if let Codes::OneOf(some) | Codes::NoneOrOneOf(some) = head.codes {
            codes.extend(some.iter().copied().map(Some));
        }
    }
    codes.sort_unstable();
    codes.dedup();
    let mut met = vec![0; lines.len()];
    for &status in &statuses {
        for &code in &codes {
            let fits = |line: &class::Line<class::Head>| {
                line.when.iter().any(|head| head.fits(status, code))
            };
            let place = lines.iter().position(fits).unwrap();
            met[place] += 1;
            let endpoint = Endpoint::new().always(coded(status, code));
            let (seen, error) = Seen::come_of(&endpoint).await;
            let text = lines[place].text;
            assert_eq!(
                seen,
                Seen::of(lines[place].row.unwrap()),
                "{status} {code:?} is \"{text}\": {error}"
            );
            assert_eq!(error.status().unwrap().as_u16(), status);
            if (400..600).contains(&status) {
                assert_eq!(error.oauth_code(), code, "{status}");
            }
        }
    }
    assert!(met.iter().all(|met| *met > 0), "{met:?}");
}

// FA1, FA3, FA4, FA5, FA7, FA8
#[tokio::test(start_paused = true)]
async fn every_2xx_without_a_token_comes_to_its_row() {
    let token = r#""access_token":"t""#;
    let page = "<html><a href=\"?a=b&access_token=stranger&error=made_up\">x</a></html>";
    let rows = [
        (200, String::new(), Success::Empty),
        (200, String::from(" \r\n"), Success::Empty),
        (200, format!("{{{token}"), Success::Torn),
        (200, format!("{{{token},\"expires_in\":3."), Success::Torn),
        (200, String::from("{\"a\":[[[\"\\u12"), Success::Torn),
        (204, String::new(), Success::NoContent),
        (204, format!("{{{token}}}"), Success::NoContent),
        (205, String::new(), Success::NoContent),
        (201, String::new(), Success::Foreign),
        (200, String::from(page), Success::Foreign),
        (203, String::from(page), Success::Foreign),
        (200, format!("[{{{token}}}]"), Success::Foreign),
        (200, format!("\"access_token=t&{token}\""), Success::Foreign),
        (200, String::from("null"), Success::Foreign),
        (
            200,
            String::from("see ?x=1&access_token=t"),
            Success::Foreign,
        ),
        (200, String::from("access_token"), Success::Foreign),
        (
            200,
            String::from("token=t&access_token=t"),
            Success::Foreign,
        ),
        (200, format!("{{{token}}} {{}}"), Success::Foreign),
        (200, format!("{{{token},}}"), Success::Foreign),
        (200, "x".repeat(2 << 20), Success::Foreign),
        (
            200,
            String::from(r#"{"access_token":"a","access_token":"b"}"#),
            Success::Contradiction,
        ),
        (
            200,
            format!(r#"{{{token},"token_type":"Bearer","token_type":"mac"}}"#),
            Success::Contradiction,
        ),
        (
            200,
            format!(r#"{{{token},"expires_in":1,"x":0,"expires_in":2}}"#),
            Success::Contradiction,
        ),
        (
            200,
            format!(r#"{{{token},"error":"","error":"invalid_client"}}"#),
            Success::Contradiction,
        ),
        (
            200,
            String::from("access_token=a&access_token=b"),
            Success::Contradiction,
        ),
        (200, String::from("{}"), Success::NoToken),
        (200, String::from("scope=a&state=b"), Success::NoToken),
        (200, String::from(r#"{"error":"0"}"#), Success::NoToken),
        (
            200,
            String::from(r#"{"error":"Not Found"}"#),
            Success::NoToken,
        ),
        (200, String::from("error=please+log+in"), Success::NoToken),
        (
            200,
            String::from(r#"{"access_token":["t"]}"#),
            Success::NoToken,
        ),
        (
            200,
            format!(r#"{{{token},"token_type":"mac"}}"#),
            Success::NoToken,
        ),
        (
            200,
            format!(r#"{{{token},"token_type":1}}"#),
            Success::NoToken,
        ),
        (
            200,
            format!(r#"{{{token},"token_type":true}}"#),
            Success::NoToken,
        ),
        (
            200,
            format!(r#"{{{token},"token_type":["Bearer"]}}"#),
            Success::NoToken,
        ),
        (
            200,
            format!(r#"{{{token},"token_type":{{}}}}"#),
            Success::NoToken,
        ),
    ];
    let mut met = Vec::new();
    for (status, body, success) in rows {
        let endpoint = Endpoint::new().always(raw(status, &[("retry-after", "60")], &body));
        let (seen, error) = Seen::come_of(&endpoint).await;
        let shown = &body[..body.len().min(99)];
        assert_eq!(
            seen,
            Seen::of(class::of_success(success)),
            "{status} {shown}: {error}"
        );
        assert_eq!(error.server_retry_after(), None, "{shown}");
        assert_eq!(
            (error.oauth_code(), error.status().unwrap().as_u16()),
            (None, status)
        );
        met.push(success);
    }
    let lines = class::SUCCESS.iter().filter(|line| line.row.is_some());
    for success in lines.flat_map(|line| line.when) {
        assert!(met.contains(success), "{success:?}");
    }
}

// FA7
#[tokio::test(start_paused = true)]
async fn a_2xx_with_a_code_is_as_a_400_with_that_code() {
    let codes = [
        "invalid_client",
        "server_error",
        "slow_down",
        "invalid_scope",
        "of_a_vendor",
    ];
    for code in codes {
        for body in [
            format!(r#"{{"error":"{code}"}}"#),
            format!(r#"{{"ErrorCode":"{code}"}}"#),
            format!(r#"{{"access_token":"t","token_type":"mac","error":"{code}"}}"#),
            format!("error={code}&access_token=t"),
        ] {
            let endpoint = Endpoint::new().always(raw(200, &[], &body));
            let (seen, error) = Seen::come_of(&endpoint).await;
            assert_eq!(seen, Seen::of(class::of_code(code)), "{body}");
            assert_eq!(
                (error.oauth_code(), error.status().unwrap().as_u16()),
                (Some(code), 200)
            );

            let endpoint = Endpoint::new().always(raw(200, &[("retry-after", "60")], &body));
            let (seen, error) = Seen::come_of(&endpoint).await;
            assert_eq!(
                (seen.class, seen.requests),
                (class::of_code(code).class, 1),
                "{body}"
            );
            assert_eq!(error.server_retry_after(), Some(secs(60)), "{body}");
        }
    }
}

// FA20
#[tokio::test(start_paused = true)]
async fn a_portals_page_holds_all_kinds_and_a_denied_audience_its_own() {
    let page = Endpoint::new().always(raw(200, &[("content-type", "text/html")], "<html>"));
    let tokens = layer(&page).token_cache();
    for n in 0..300 {
        let kind = tokens.with_params(other(&format!("s{n}")));
        assert!(kind.token().await.unwrap_err().is_invalid_response());
    }
    assert_eq!(page.requests(), 1);

    let denied = Endpoint::new().then([Answer::Error(403, "access_denied")]);
    let tokens = layer(&denied).token_cache();
    let audience = tokens.with_params(TokenParams::new().with_audience("payments"));
    assert!(audience.token().await.unwrap_err().is_rejected());
    tokens.token().await.unwrap();
    audience.token().await.unwrap_err();
    assert_eq!(denied.requests(), 2);
}
