//! The answer to a token request (RFC 6749 §5.1 and §5.2), read without I/O.
//!
//! Servers are read generously where no harm can come of it: numbers as strings, a form in place of JSON, a missing or odd
//! content type, Apigee's own error shape. What decides is whether there is a token that can be used.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

use super::endpoint::Answer;
use super::fields::{Fields, Unreadable, printable};
use crate::error::Error;
use crate::token::TokenResponse;

/// `mask` takes our own secrets out of what the server says.
pub(super) fn read(
    answer: &Answer,
    accepted_types: &[String],
    mask: &dyn Fn(&str) -> String,
) -> Result<TokenResponse, Error> {
    let (status, headers) = (answer.status, &answer.headers);
    let read = if status.is_success() {
        read_success(answer, accepted_types, mask)
    } else if status.is_redirection() {
        let location = headers.get(LOCATION).is_some();
        let what = if location {
            "the token endpoint answered with a redirect, which is never followed"
        } else {
            "the token endpoint answered with neither a token nor an error"
        };
        Err(Error::from_answer(status, None, what).with_advice(
            "check the token URL; it must be the address that answers with a token itself",
        ))
    } else {
        let fields = Fields::parse(&answer.body).ok();
        Err(refusal(status, fields.as_ref(), mask))
    };
    read.map_err(|error| {
        let error = error.with_request_id(request_id(headers, mask));
        // Servers put `Retry-After` on successes too, where it means nothing.
        let asked = (status.is_client_error() || status.is_server_error())
            .then(|| retry_after(headers, SystemTime::now()))
            .flatten();
        match asked {
            Some(span) => error.with_retry_after(span),
            None => error,
        }
    })
}

fn read_success(
    answer: &Answer,
    accepted_types: &[String],
    mask: &dyn Fn(&str) -> String,
) -> Result<TokenResponse, Error> {
    let status = answer.status;
    let mut fields = match Fields::parse(&answer.body) {
        Ok(fields) => fields,
        Err(Unreadable::Empty) => {
            return Err(Error::transient("the answer is empty").with_status(status));
        }
        Err(Unreadable::Torn) => {
            return Err(Error::transient("the answer breaks off").with_status(status));
        }
        Err(Unreadable::Foreign) => {
            let kind = match content_type(&answer.headers) {
                Some(kind) => Cow::Owned(printable(&mask(kind), 64)),
                None => Cow::Borrowed("no content type"),
            };
            return Err(Error::invalid_response(format!(
                "the answer ({kind}) is not a token response"
            ))
            .with_status(status));
        }
    };
    let Some(token) = fields.take_token() else {
        return Err(match fields.code(mask) {
            // A refusal under a status of 200 (GitHub): the status says nothing then.
            Some(_) => refusal(status, Some(&fields), mask),
            None => Error::invalid_response("the answer has no access_token").with_status(status),
        });
    };
    check_type(&fields, accepted_types, mask).map_err(|error| error.with_status(status))?;

    let mut response = TokenResponse::new(token).map_err(|error| error.with_status(status))?;
    response.expires_in = fields.seconds("expires_in");
    response.refresh_in = fields.seconds("refresh_in");
    response.scope = fields.scope(mask);
    let is_json = content_type(&answer.headers)
        .is_some_and(|kind| kind.to_ascii_lowercase().contains("json"));
    response.lenient = fields.lenient || !is_json;
    Ok(response)
}

/// RFC 6749 §7.1: a client must not use a token of a type it does not know. `BearerToken` is Apigee's name for Bearer.
fn check_type(
    fields: &Fields,
    accepted_types: &[String],
    mask: &dyn Fn(&str) -> String,
) -> Result<(), Error> {
    let Some(kind) = fields.text("token_type").filter(|kind| !kind.is_empty()) else {
        return Ok(());
    };
    let known = ["Bearer", "BearerToken"].into_iter();
    let mut known = known.chain(accepted_types.iter().map(String::as_str));
    if known.any(|known| known.eq_ignore_ascii_case(kind)) {
        return Ok(());
    }
    let kind = printable(&mask(kind), 64);
    Err(
        Error::invalid_response(format!("the token is of type \"{kind}\", not Bearer"))
            .with_advice(
                "if the API takes such a token as Bearer, say so with accept_token_type()",
            ),
    )
}

fn refusal(status: StatusCode, fields: Option<&Fields>, mask: &dyn Fn(&str) -> String) -> Error {
    let (code, description) = match fields {
        Some(fields) => (fields.code(mask), fields.description(mask)),
        None => (None, None),
    };
    let what = if status.is_server_error() {
        "the token endpoint failed"
    } else {
        "the token endpoint refused"
    };
    Error::from_answer(status, code, what).with_description(description)
}

/// RFC 9110 §10.2.3: seconds or a date. Anything else is ignored.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

/// The server's name for this exchange, which its operators can find in their logs.
fn request_id(headers: &HeaderMap, mask: &dyn Fn(&str) -> String) -> Option<String> {
    let names = [
        "x-request-id",
        "x-correlation-id",
        "request-id",
        "x-ms-request-id",
        "traceparent",
    ];
    let value = names.iter().find_map(|name| headers.get(*name))?;
    let id = printable(&mask(value.to_str().ok()?), MAX_REQUEST_ID);
    (!id.is_empty()).then_some(id)
}

/// Without its parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    kind.split(';').next()
}

const MAX_REQUEST_ID: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(value: &str, now: SystemTime) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        retry_after(&headers, now).map(|span| span.as_secs())
    }

    // K19
    #[test]
    fn retry_after_is_seconds_or_a_date_and_garbage_is_ignored() {
        let now = httpdate::parse_http_date("Mon, 23 Nov 2026 13:00:00 GMT").unwrap();
        assert_eq!(after("7", now), Some(7));
        assert_eq!(after("Mon, 23 Nov 2026 13:01:30 GMT", now), Some(90));
        assert_eq!(after("Mon, 23 Nov 2026 12:00:00 GMT", now), Some(0));
        assert_eq!(after("99999999999999999999999", now), Some(u64::MAX));
        for garbage in ["soon", "-1", "7.5", "", "7s"] {
            assert_eq!(after(garbage, now), None, "{garbage}");
        }
    }
}
