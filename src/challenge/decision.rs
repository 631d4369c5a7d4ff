//! Whether an answer means that the token was refused (rule R19), as a pure function.
//!
//! Only a refused token is worth a renewal; any other refusal would come back with a new token as well.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use http::status::StatusCode;

use super::Challenges;

/// What an answer says about the token that its request carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing in the answer speaks against the token.
    Accepted,
    /// The token was refused: renew.
    Refused,
    /// The request was refused in a way that a new token would not cure.
    Denied,
}

/// Whether an answer needs a closer look: [`decide`] may say [`Verdict::Refused`], or, at a 403, there may be challenges for the
/// caller to see.
#[inline(always)]
pub(crate) fn is_suspicious(status: StatusCode, headers: &HeaderMap, also: &[StatusCode]) -> bool {
    status == StatusCode::FORBIDDEN
        || is_unauthorized(status, also)
        || is_grpc_unauthenticated(status, headers)
}

/// Judges an answer; `also` holds the statuses that count as a 401 besides 401 itself.
pub(crate) fn decide(
    status: StatusCode,
    headers: &HeaderMap,
    challenges: &Challenges,
    also: &[StatusCode],
) -> Verdict {
    let bearer = challenges.bearer();
    if is_unauthorized(status, also) {
        return match bearer {
            Some(bearer) => refusal(bearer.error()),
            None if challenges.is_empty() => Verdict::Refused,
            None => Verdict::Denied,
        };
    }
    if is_grpc_unauthenticated(status, headers) {
        return Verdict::Refused;
    }
    let denied = matches!(
        status,
        StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED
    );
    if denied || bearer.is_some_and(|bearer| bearer.error().is_some()) {
        return Verdict::Denied;
    }
    Verdict::Accepted
}

/// An unknown code counts as `invalid_token`: a needless renewal is bounded by its budget, a dead token kept is not.
fn refusal(error: Option<&str>) -> Verdict {
    match error {
        Some("insufficient_scope" | "insufficient_claims" | "invalid_request") => Verdict::Denied,
        _ => Verdict::Refused,
    }
}

#[inline(always)]
fn is_unauthorized(status: StatusCode, also: &[StatusCode]) -> bool {
    status == StatusCode::UNAUTHORIZED || also.contains(&status)
}

/// A gRPC server refuses in a trailers-only answer: HTTP 200, with its own status among the headers.
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

const GRPC: &[u8] = b"application/grpc";
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;
    use serde_json::Value;

    use super::*;

    fn answer(status: u16, lines: &[(&'static str, &str)], also: &[u16]) -> Verdict {
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
        let verdict = decide(status, &headers, &Challenges::parse(&headers), &also);
        if verdict == Verdict::Refused {
            assert!(
                is_suspicious(status, &headers, &also),
                "a refusal must be suspicious"
            );
        }
        verdict
    }

    fn challenged(status: u16, challenge: &str) -> Verdict {
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
            let wanted = if renew {
                Verdict::Refused
            } else {
                Verdict::Denied
            };
            assert_eq!(challenged(401, value), wanted, "{}", row["id"]);
        }
    }

    #[test]
    fn a_401_is_judged_by_its_challenges() {
        for (lines, wanted) in [
            (&[][..], Verdict::Refused),
            (
                &["error=invalid_request, error_description=\"x\""],
                Verdict::Refused,
            ),
            (&["Bearer error=\"made_up\""], Verdict::Refused),
            (&["Bearer error=\"invalid_request\""], Verdict::Denied),
            (
                &["Basic", "Negotiate", "Digest realm=\"x\""],
                Verdict::Denied,
            ),
            (&["Basic", "Bearer"], Verdict::Refused),
            (
                &["Bearer", "Bearer error=\"insufficient_scope\""],
                Verdict::Denied,
            ),
            (&["@", "Basic"], Verdict::Denied),
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
            (200, "Bearer", Verdict::Accepted),
            (200, "", Verdict::Accepted),
            (400, "Bearer error=\"invalid_request\"", Verdict::Denied),
            (400, "Bearer error=\"invalid_token\"", Verdict::Denied),
            (403, "Bearer error=\"insufficient_scope\"", Verdict::Denied),
            (403, "Bearer error=\"invalid_token\"", Verdict::Denied),
            (403, "", Verdict::Denied),
            (407, "Bearer error=\"invalid_token\"", Verdict::Denied),
            (419, "", Verdict::Accepted),
            (500, "", Verdict::Accepted),
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
        assert_eq!(answer(419, &[], &[419]), Verdict::Refused);
        assert_eq!(answer(401, &[], &[419]), Verdict::Refused);
        assert_eq!(answer(403, &[], &[419, 403]), Verdict::Refused);
        for (challenge, wanted) in [
            ("Bearer error=\"invalid_token\"", Verdict::Refused),
            ("Bearer error=\"insufficient_scope\"", Verdict::Denied),
            ("Basic", Verdict::Denied),
        ] {
            let headers = [("www-authenticate", challenge)];
            assert_eq!(answer(403, &headers, &[403]), wanted, "{challenge}");
        }
    }

    #[test]
    fn grpc_unauthenticated_counts_as_401_without_challenge() {
        for (status, kind, code, wanted) in [
            (200, "application/grpc", "16", Verdict::Refused),
            (200, "application/grpc+proto", "16", Verdict::Refused),
            (
                200,
                "Application/GRPC; charset=utf-8",
                "16",
                Verdict::Refused,
            ),
            (200, "application/grpc", "7", Verdict::Accepted),
            (200, "application/grpc", "0", Verdict::Accepted),
            (200, "application/grpc-web", "16", Verdict::Accepted),
            (200, "application/json", "16", Verdict::Accepted),
            (200, "app", "16", Verdict::Accepted),
            (503, "application/grpc", "16", Verdict::Accepted),
        ] {
            let headers = [("content-type", kind), ("grpc-status", code)];
            assert_eq!(
                answer(status, &headers, &[]),
                wanted,
                "{status} {kind} {code}"
            );
        }
        let untyped = [("grpc-status", "16")];
        assert_eq!(answer(200, &untyped, &[]), Verdict::Accepted);
    }

    #[test]
    fn ordinary_answers_are_not_suspicious() {
        let empty = HeaderMap::new();
        assert!(!is_suspicious(StatusCode::OK, &empty, &[]));
        assert!(!is_suspicious(StatusCode::IM_A_TEAPOT, &empty, &[]));
        assert!(is_suspicious(StatusCode::UNAUTHORIZED, &empty, &[]));
        assert!(is_suspicious(StatusCode::FORBIDDEN, &empty, &[]));
        assert!(is_suspicious(
            StatusCode::IM_A_TEAPOT,
            &empty,
            &[StatusCode::IM_A_TEAPOT]
        ));
    }
}
