//! Whether an answer refuses the token that its request carried (rule R19), as a pure function.
//!
//! Only a refused token is worth a renewal: any other denial would meet the new token as well.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use http::status::StatusCode;

use super::Challenges;

/// Whether the status alone may call for a closer look. No setting names a status of success.
#[inline(always)]
pub(crate) fn may_refuse(status: StatusCode) -> bool {
    status.as_u16() >= 300
}

/// Whether an answer needs a closer look: [`refuses_token`] may say so, or a 403 may hold
/// challenges for the caller to see.
#[inline(always)]
pub(crate) fn is_suspicious(
    posted: bool,
    status: StatusCode,
    headers: &HeaderMap,
    also: &[StatusCode],
) -> bool {
    status == StatusCode::FORBIDDEN
        || is_unauthorized(status, also)
        || posted && is_grpc_unauthenticated(status, headers)
}

/// Judges the answer to a request, which was a POST if it was `posted`.
///
/// `also` holds the statuses that the user named. Each counts as a 401, and a 401 that is among
/// them counts whatever its schemes.
pub(crate) fn refuses_token(
    posted: bool,
    status: StatusCode,
    headers: &HeaderMap,
    challenges: &Challenges,
    also: &[StatusCode],
) -> bool {
    if !is_unauthorized(status, also) {
        return posted && is_grpc_unauthenticated(status, headers);
    }
    match challenges.bearer() {
        // An unknown code counts as `invalid_token`. A needless renewal is bounded by its budget,
        // while a dead token would be kept.
        Some(bearer) => !bearer
            .error()
            .is_some_and(|code| NOT_THE_TOKEN.contains(&code)),
        None => {
            // What was cut off may have been a Bearer challenge.
            let unreadable = challenges.is_empty() || challenges.are_cut();
            unreadable || status == StatusCode::UNAUTHORIZED && also.contains(&status)
        }
    }
}

#[inline(always)]
fn is_unauthorized(status: StatusCode, also: &[StatusCode]) -> bool {
    status == StatusCode::UNAUTHORIZED || also.contains(&status)
}

/// A gRPC server refuses in a trailers-only answer: HTTP 200, with its own status among the
/// headers. Only a POST is a gRPC call, so no other answer is searched.
#[inline(always)]
fn is_grpc_unauthenticated(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::OK
        && is_grpc(headers)
        && headers
            .get(&GRPC_STATUS)
            .is_some_and(|code| code.as_bytes() == b"16")
}

#[inline(always)]
fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(&CONTENT_TYPE) else {
        return false;
    };
    let Some((kind, rest)) = kind.as_bytes().split_at_checked(GRPC.len()) else {
        return false;
    };
    // Not `application/grpc-web`, which is another protocol.
    kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// Error codes of a Bearer challenge that a new token does not help against.
const NOT_THE_TOKEN: [&str; 4] = [
    "insufficient_scope",
    "insufficient_claims",
    "insufficient_user_authentication",
    "invalid_request",
];
const GRPC: &[u8] = b"application/grpc";
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;
    use serde_json::Value;

    use super::*;

    fn answer(status: u16, lines: &[(&'static str, &str)], also: &[u16]) -> bool {
        answer_to(false, status, lines, also)
    }

    fn answer_to(posted: bool, status: u16, lines: &[(&'static str, &str)], also: &[u16]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
            headers.append(HeaderName::from_static(name), value);
        }
        let status_of = |code: &u16| StatusCode::from_u16(*code).expect("a status");
        let (status, also) = (
            status_of(&status),
            also.iter().map(status_of).collect::<Vec<_>>(),
        );
        let challenges = Challenges::parse(&headers);
        let refused = refuses_token(posted, status, &headers, &challenges, &also);
        let suspicious = is_suspicious(posted, status, &headers, &also);
        assert!(suspicious || !refused, "a refusal must be suspicious");
        refused
    }

    fn challenged(status: u16, challenge: &str) -> bool {
        answer(status, &[("www-authenticate", challenge)], &[])
    }

    #[test]
    fn every_row_of_the_table_renews_as_expected() {
        let table = include_str!("../../tests/cases/challenges.json");
        let rows: Vec<Value> = serde_json::from_str(table).expect("the table is JSON");
        for row in rows {
            let value = row["value"].as_str().expect("a value");
            let Some(renew) = row["renew"].as_bool() else {
                continue;
            };
            assert_eq!(challenged(401, value), renew, "{}", row["id"]);
        }
    }

    #[test]
    fn a_401_is_judged_by_its_challenges() {
        for (lines, wanted) in [
            (&[][..], true),
            (&["error=invalid_request, error_description=\"x\""], true),
            (&["Bearer error=\"made_up\""], true),
            (&["Bearer error=\"invalid_request\""], false),
            (&["Basic", "Negotiate", "Digest realm=\"x\""], false),
            (&["Basic", "Bearer"], true),
            (&["Bearer", "Bearer error=\"insufficient_scope\""], false),
            (&["@", "Basic"], false),
        ] {
            let headers: Vec<_> = lines
                .iter()
                .map(|line| ("www-authenticate", *line))
                .collect();
            assert_eq!(answer(401, &headers, &[]), wanted, "{lines:?}");
        }
    }

    #[test]
    fn other_statuses_never_renew() {
        for (status, challenge, wanted) in [
            (200, "Bearer", false),
            (200, "", false),
            (400, "Bearer error=\"invalid_request\"", false),
            (400, "Bearer error=\"invalid_token\"", false),
            (403, "Bearer error=\"insufficient_scope\"", false),
            (403, "Bearer error=\"invalid_token\"", false),
            (403, "", false),
            (407, "Bearer error=\"invalid_token\"", false),
            (419, "", false),
            (500, "", false),
        ] {
            assert_eq!(
                challenged(status, challenge),
                wanted,
                "{status} {challenge}"
            );
        }
    }

    #[test]
    fn a_named_status_is_handled_as_401() {
        assert!(answer(419, &[], &[419]));
        assert!(answer(401, &[], &[419]));
        assert!(answer(403, &[], &[419, 403]));
        for (challenge, wanted) in [
            ("Bearer error=\"invalid_token\"", true),
            ("Bearer error=\"insufficient_scope\"", false),
            ("Basic", false),
        ] {
            let headers = [("www-authenticate", challenge)];
            assert_eq!(answer(403, &headers, &[403]), wanted, "{challenge}");
        }
    }

    // FA14, FA23
    #[test]
    fn a_401_that_was_named_counts_whatever_its_schemes_unless_a_new_token_would_not_help() {
        for (challenge, wanted) in [
            ("Keystone uri=\"https://keystone.example\"", true),
            ("Basic, Negotiate", true),
            ("DPoP error=\"invalid_dpop_proof\"", true),
            ("Keystone, Bearer error=\"invalid_token\"", true),
            ("Keystone, Bearer error=\"insufficient_scope\"", false),
            ("Bearer error=\"insufficient_claims\"", false),
            ("Bearer error=\"insufficient_user_authentication\"", false),
            ("Bearer error=\"invalid_request\"", false),
        ] {
            let headers = [("www-authenticate", challenge)];
            assert_eq!(answer(401, &headers, &[419, 401]), wanted, "{challenge}");
        }
        let basic = [("www-authenticate", "Basic")];
        assert!(!answer(401, &basic, &[419]));
        assert!(!answer(419, &basic, &[419, 401]));
        assert!(!answer(403, &basic, &[401]));
    }

    // FA17
    #[test]
    fn a_401_whose_challenges_were_cut_before_a_bearer_was_found_counts_as_unreadable() {
        let long = format!("Negotiate {}", "y".repeat(17 * 1024));
        let wide = format!("Digest nonce=\"{}\"", "a, ".repeat(6 * 1024));
        let many = "Basic, ".repeat(33);
        for first in [&*long, &*wide, &*many] {
            for second in ["Bearer error=\"invalid_token\"", "Basic"] {
                let lines = [("www-authenticate", first), ("www-authenticate", second)];
                assert!(answer(401, &lines, &[]), "{first:.20}");
                assert!(!answer(403, &lines, &[]), "{first:.20}");
            }
            let found = [
                ("www-authenticate", "Bearer error=\"insufficient_scope\""),
                ("www-authenticate", first),
            ];
            assert!(!answer(401, &found, &[]), "{first:.20}");
        }
        let fits = format!("Digest nonce=\"{}\"", "a".repeat(15 * 1024));
        let fits = [("www-authenticate", &*fits), ("www-authenticate", "Basic")];
        assert!(!answer(401, &fits, &[]));
    }

    // FA23
    #[test]
    fn of_several_bearer_challenges_one_with_invalid_token_decides() {
        const SCOPE: &str = "Bearer error=\"insufficient_scope\"";
        const TOKEN: &str = "Bearer error=\"invalid_token\"";
        const STEP_UP: &str = "Bearer error=\"insufficient_user_authentication\"";
        for (challenges, wanted) in [
            (&[SCOPE, TOKEN][..], true),
            (&[TOKEN, SCOPE], true),
            (&["Bearer", "Basic", STEP_UP, TOKEN], true),
            (&["Bearer", STEP_UP], false),
            (&[STEP_UP, "Bearer error=\"made_up\""], false),
            (&["Bearer error=\"made_up\"", STEP_UP], true),
        ] {
            let lines: Vec<_> = challenges
                .iter()
                .map(|line| ("www-authenticate", *line))
                .collect();
            assert_eq!(answer(401, &lines, &[]), wanted, "{challenges:?}");
            let one_line = challenges.join(", ");
            assert_eq!(challenged(401, &one_line), wanted, "{one_line}");
        }
    }

    #[test]
    fn grpc_unauthenticated_counts_as_401_without_challenge() {
        for (status, kind, code, wanted) in [
            (200, "application/grpc", "16", true),
            (200, "application/grpc+proto", "16", true),
            (200, "Application/GRPC; charset=utf-8", "16", true),
            (200, "application/grpc", "7", false),
            (200, "application/grpc", "0", false),
            (200, "application/grpc-web", "16", false),
            (200, "application/json", "16", false),
            (200, "app", "16", false),
            (503, "application/grpc", "16", false),
        ] {
            let headers = [("content-type", kind), ("grpc-status", code)];
            assert_eq!(
                answer_to(true, status, &headers, &[]),
                wanted,
                "{status} {kind} {code}"
            );
            assert!(!answer(status, &headers, &[]), "no POST");
        }
        let untyped = [("grpc-status", "16")];
        assert!(!answer_to(true, 200, &untyped, &[]));
        let challenged = [
            ("content-type", "application/grpc"),
            ("grpc-status", "16"),
            ("www-authenticate", "Basic"),
        ];
        assert!(answer_to(true, 200, &challenged, &[]));
    }

    #[test]
    fn ordinary_answers_are_not_suspicious() {
        let empty = HeaderMap::new();
        let teapot = StatusCode::IM_A_TEAPOT;
        for posted in [false, true] {
            let suspicious = |status, also: &[_]| is_suspicious(posted, status, &empty, also);
            assert!(!suspicious(StatusCode::OK, &[]));
            assert!(!suspicious(teapot, &[]));
            assert!(suspicious(StatusCode::UNAUTHORIZED, &[]));
            assert!(suspicious(StatusCode::FORBIDDEN, &[]));
            assert!(suspicious(teapot, &[teapot]));
        }
    }
}
