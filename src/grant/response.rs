//! The answer to a token request (RFC 6749 §5.1 and §5.2), read without I/O.
//!
//! Servers are read generously where no harm can come of it: numbers as strings, a form in place of JSON, a missing or odd
//! content type, Apigee's own error shape. What decides is whether there is a token that can be used.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};
use zeroize::Zeroize;

use super::endpoint::Answer;
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
        let error = error.with_request_id(request_id(headers));
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
            let kind = content_type(&answer.headers);
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
    check_type(&fields, accepted_types).map_err(|error| error.with_status(status))?;

    let mut response = TokenResponse::new(token).map_err(|error| error.with_status(status))?;
    response.expires_in = fields.seconds("expires_in");
    response.refresh_in = fields.seconds("refresh_in");
    response.scope = fields.scope();
    response.lenient = fields.lenient || !content_type(&answer.headers).contains("json");
    Ok(response)
}

/// RFC 6749 §7.1: a client must not use a token of a type it does not know. `BearerToken` is Apigee's name for Bearer.
fn check_type(fields: &Fields, accepted_types: &[String]) -> Result<(), Error> {
    let Some(kind) = fields.text("token_type").filter(|kind| !kind.is_empty()) else {
        return Ok(());
    };
    let known = ["Bearer", "BearerToken"].into_iter();
    let mut known = known.chain(accepted_types.iter().map(String::as_str));
    if known.any(|known| known.eq_ignore_ascii_case(kind)) {
        return Ok(());
    }
    let kind = printable(kind, 64);
    Err(
        Error::invalid_response(format!("the token is of type \"{kind}\", not Bearer"))
            .with_advice(
                "if the API takes such a token as Bearer, say so with accept_token_type()",
            ),
    )
}

fn refusal(status: StatusCode, fields: Option<&Fields>, mask: &dyn Fn(&str) -> String) -> Error {
    let what = "the token endpoint refused";
    let (code, description) = match fields {
        Some(fields) => (fields.code(mask), fields.description(mask)),
        None => (None, None),
    };
    let what = if status.is_server_error() {
        "the token endpoint failed"
    } else {
        what
    };
    let error = Error::from_answer(status, code, what);
    error.with_description(description)
}

/// The members of an answer, from JSON or from a form.
struct Fields {
    members: Map<String, Value>,
    lenient: bool,
}

enum Unreadable {
    Empty,
    /// It begins like JSON and ends too early.
    Torn,
    /// Something else: a page of a proxy, an array, `null`.
    Foreign,
}

impl Fields {
    fn parse(body: &[u8]) -> Result<Self, Unreadable> {
        let body = body
            .strip_prefix(b"\xEF\xBB\xBF")
            .unwrap_or(body)
            .trim_ascii();
        if body.is_empty() {
            return Err(Unreadable::Empty);
        }
        if body[0] == b'{' {
            return match serde_json::from_slice(body) {
                Ok(members) => Ok(Self {
                    members,
                    lenient: false,
                }),
                Err(error) if error.is_eof() => Err(Unreadable::Torn),
                Err(_) => Err(Unreadable::Foreign),
            };
        }
        let members: Map<_, _> = form_urlencoded::parse(body)
            .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
            .collect();
        let is_answer = ["access_token", "error"]
            .iter()
            .any(|name| members.contains_key(*name));
        if is_answer {
            Ok(Self {
                members,
                lenient: true,
            })
        } else {
            Err(Unreadable::Foreign)
        }
    }

    fn take_token(&mut self) -> Option<String> {
        match self.members.remove("access_token") {
            Some(Value::String(token)) if !token.is_empty() => Some(token),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name)?.as_str()
    }

    /// A number, or a string that holds one; a fraction is cut off, and what is below zero is zero.
    fn seconds(&self, name: &str) -> Option<Duration> {
        let number = match self.members.get(name)? {
            Value::Number(number) => number.as_f64()?,
            Value::String(text) => text.trim().parse().ok()?,
            _ => return None,
        };
        // A cast from float saturates at both ends; only NaN would become a 0 that nobody sent.
        (!number.is_nan()).then(|| Duration::from_secs(number as u64))
    }

    /// RFC 6749 §3.3 has a space-separated string; some servers send an array.
    fn scope(&self) -> Option<String> {
        let scope = match self.members.get("scope")? {
            Value::String(scope) => scope.clone(),
            Value::Array(scopes) => {
                let scopes = scopes.iter().filter_map(Value::as_str);
                scopes.collect::<Vec<_>>().join(" ")
            }
            _ => return None,
        };
        Some(printable(&scope, MAX_SCOPE))
    }

    /// The error code, by RFC 6749 §5.2 or in Apigee's shape.
    fn code(&self, mask: &dyn Fn(&str) -> String) -> Option<String> {
        let code = ["error", "ErrorCode"]
            .iter()
            .find_map(|name| self.text(name))?;
        let code = printable(&mask(code), MAX_CODE);
        (!code.is_empty()).then_some(code)
    }

    fn description(&self, mask: &dyn Fn(&str) -> String) -> Option<String> {
        let fault = || self.members.get("fault")?.get("faultstring")?.as_str();
        let text = ["error_description", "Error"]
            .iter()
            .find_map(|name| self.text(name))
            .or_else(fault)?;
        // Masked before it is cut: a secret must not survive by half.
        let text = printable(&mask(text), MAX_DESCRIPTION);
        (!text.is_empty()).then_some(text)
    }
}

/// A token that was parsed and then not wanted, and the refresh token that never is, should not stay in freed memory.
impl Drop for Fields {
    fn drop(&mut self) {
        for name in ["access_token", "refresh_token", "id_token"] {
            if let Some(Value::String(secret)) = self.members.get_mut(name) {
                secret.zeroize();
            }
        }
    }
}

/// What may be shown of a server's text: printable ASCII, so that a log line stays one line, and not too much of it.
fn printable(text: &str, longest: usize) -> String {
    let shown = text.chars().map(|c| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '?'
        }
    });
    shown.take(longest).collect()
}

const MAX_DESCRIPTION: usize = 256;
const MAX_CODE: usize = 64;
const MAX_SCOPE: usize = 4096;

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
fn request_id(headers: &HeaderMap) -> Option<String> {
    let names = [
        "x-request-id",
        "x-correlation-id",
        "request-id",
        "x-ms-request-id",
        "traceparent",
    ];
    let value = names.iter().find_map(|name| headers.get(*name))?;
    let id = printable(value.to_str().ok()?, MAX_CODE);
    (!id.is_empty()).then_some(id)
}

fn content_type(headers: &HeaderMap) -> Cow<'_, str> {
    match headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    {
        Some(kind) => {
            let kind = kind.split(';').next().unwrap_or_default();
            Cow::Owned(printable(kind, 64).to_ascii_lowercase())
        }
        None => Cow::Borrowed("no content type"),
    }
}

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

    #[test]
    fn what_is_shown_of_a_servers_text_is_printable_and_short() {
        assert_eq!(printable("a\r\nb\u{1b}[31mé", 256), "a??b?[31m?");
        assert_eq!(printable(&"x".repeat(999), 256).len(), 256);
    }
}
