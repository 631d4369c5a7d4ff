//! The members of an answer, from JSON or from a form.

use std::time::Duration;

use http::StatusCode;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{form, json};

/// The members of an answer.
pub(super) struct Fields {
    members: Members,
    pub(super) is_json: bool,
}

/// In order, repeated ones included.
type Members = Vec<(Zeroizing<String>, Value)>;

#[derive(Clone)]
enum Value {
    Text(Zeroizing<String>),
    /// As it is written: a number, a list, an object, `true`, `false` or `null`.
    Json(Zeroizing<String>),
}

/// Why an answer has no members.
pub(super) enum Unreadable {
    Empty,
    /// It begins like JSON and ends too early.
    Torn,
    /// Something else: a page of a proxy, an array, `null`.
    Foreign,
}

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Unreadable> {
        let body = trimmed(body);
        let read = |text: &str| {
            members(text).map_err(|error| match json::breaks_off(text, &error) {
                true => Unreadable::Torn,
                false => Unreadable::Foreign,
            })
        };
        let (members, is_json) = match (body.first(), std::str::from_utf8(body)) {
            (None, _) => return Err(Unreadable::Empty),
            (Some(b'{'), Ok(text)) => (read(text)?, true),
            // JSON is UTF-8, but some servers write Latin-1 into members that nobody asked for.
            (Some(b'{'), Err(_)) => (read(&form::lossy(body))?, true),
            _ => {
                let members = form::members(body).ok_or(Unreadable::Foreign)?.into_iter();
                let members = members.map(|(name, value)| (name, Value::Text(value)));
                (members.collect(), false)
            }
        };
        Ok(Self { members, is_json })
    }

    fn find(&self, name: &str) -> Option<&Value> {
        find(&self.members, name)
    }

    /// Whether a member is repeated with another value (RFC 6749 §3.2 allows no repetition).
    pub(super) fn contradicts(&self, name: &str) -> bool {
        let values = self.members.iter().filter(|(known, _)| **known == name);
        let mut values = values.map(|(_, value)| value.characters());
        let first = values.next();
        values.any(|value| Some(value) != first)
    }

    /// The token; `Ok(None)` when there is none, and what stands in its place otherwise.
    pub(super) fn token(&self) -> Result<Option<&str>, &'static str> {
        match self.find("access_token") {
            None => Ok(None),
            Some(Value::Text(token)) if token.is_empty() => Err("empty"),
            Some(Value::Text(token)) => Ok(Some(token)),
            Some(Value::Json(value)) => Err(match value.as_bytes().first() {
                Some(b'n') => "null",
                Some(b'[') => "a list, not a string",
                Some(b'{') => "an object, not a string",
                Some(b't' | b'f') => "true or false, not a string",
                _ => "a number, not a string",
            }),
        }
    }

    /// `Err` when the type is something other than text.
    pub(super) fn token_type(&self) -> Result<Option<&str>, ()> {
        match self.find("token_type") {
            None => Ok(None),
            Some(Value::Text(kind)) => Ok(Some(kind.as_str()).filter(|kind| !kind.is_empty())),
            Some(Value::Json(value)) if **value == "null" => Ok(None),
            Some(Value::Json(_)) => Err(()),
        }
    }

    /// A number, or a string that holds one. Fractions are cut off, and less than zero is zero.
    pub(super) fn seconds(&self, name: &str) -> Option<Duration> {
        let text = self.find(name)?.characters().trim();
        let is_number = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
        // Without the names that Rust gives to floats, such as `infinity`.
        let number: f64 = text.bytes().all(is_number).then(|| text.parse().ok())??;
        // A cast from float saturates at both ends, so that a number past all bounds is the longest
        // life and not none.
        Some(Duration::from_secs(number as u64))
    }

    /// The words of the scope. RFC 6749 §3.3 has a space-separated string; some servers send an
    /// array.
    pub(super) fn scope(&self) -> Option<Vec<Zeroizing<String>>> {
        let texts = match self.find("scope")? {
            Value::Text(scope) => vec![scope.clone()],
            Value::Json(value) if value.starts_with('[') => {
                let scopes = json::elements(value).into_iter();
                scopes.filter_map(json::string).collect()
            }
            Value::Json(_) => return None,
        };
        let words = texts.iter().flat_map(|text| text.split(' '));
        let words = words.map(|word| Zeroizing::new(word.to_owned()));
        Some(words.collect())
    }

    /// The error code, by RFC 6749 §5.2 or in Apigee's shape, as it came.
    pub(super) fn code(&self) -> Option<&str> {
        CODES.iter().find_map(|name| match self.find(name)? {
            Value::Text(text) if is_code(text) && !self.contradicts(name) => Some(text.as_str()),
            _ => None,
        })
    }

    /// What the server says in words, as it came: by RFC 6749, else where vendors say it, else what
    /// stands in the place of a code without being one.
    pub(super) fn description(&self) -> Option<Zeroizing<String>> {
        let words = DESCRIPTIONS.iter().find_map(|path| self.said(path));
        let error = self.said("error").filter(|text| !is_code(text));
        match (error, words) {
            // Keycloak says there what is wrong, and in the description where to look.
            (Some(error), Some(words)) if is_sentence(&error) && !words.contains(&**error) => {
                Some(Zeroizing::new(format!("{}: {}", *error, *words)))
            }
            (error, words) => words.or(error),
        }
    }

    /// A vendor's own code, which is shown and decides nothing.
    pub(super) fn vendor_code(&self) -> Option<Zeroizing<String>> {
        VENDOR_CODES.iter().find_map(|path| self.said(path))
    }

    /// The text at the end of a path, unless it is blank. The first of a list stands for the list.
    pub(super) fn said(&self, path: &str) -> Option<Zeroizing<String>> {
        let mut names = path.split('.');
        let mut value = self.find(names.next()?)?.clone();
        for name in names {
            let Value::Json(object) = &value else {
                return None;
            };
            let list = json::elements(object);
            let object = list.first().map_or(object.as_str(), |first| first.get());
            value = find(&members(object).ok()?, name)?.clone();
        }
        match value {
            Value::Text(text) if !text.trim().is_empty() => Some(text),
            _ => None,
        }
    }
}

impl Value {
    fn new(value: &RawValue) -> Self {
        match json::string(value) {
            Some(text) => Self::Text(text),
            None => Self::Json(Zeroizing::new(value.get().to_owned())),
        }
    }

    fn characters(&self) -> &str {
        match self {
            Self::Text(text) | Self::Json(text) => text,
        }
    }
}

fn members(object: &str) -> serde_json::Result<Members> {
    let members = json::members(object)?.into_iter();
    let members = members.map(|(name, value)| (name, Value::new(value)));
    Ok(members.collect())
}

/// The last one counts where a member is repeated, as in most readers of JSON.
fn find<'a>(members: &'a [(Zeroizing<String>, Value)], name: &str) -> Option<&'a Value> {
    let mut members = members.iter().rev();
    let (_, value) = members.find(|(known, _)| **known == name)?;
    Some(value)
}

/// Whether a body is something that no token endpoint sends: a page of a firewall or a proxy.
pub(super) fn is_page(body: &[u8]) -> bool {
    let parsed = Fields::parse(body);
    matches!(parsed, Err(Unreadable::Foreign)) && !trimmed(body).starts_with(b"{")
}

/// Without a byte order mark and white space around it.
fn trimmed(body: &[u8]) -> &[u8] {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    body.trim_ascii()
}

/// Whether it is more than the reason phrase of a status.
fn is_sentence(text: &str) -> bool {
    text.contains(' ') && !is_reason(text)
}

/// As HTTP writes it: `unauthorized` is a vendor's code.
fn is_reason(text: &str) -> bool {
    let mut phrases = (100..1000).filter_map(|status| {
        let status = StatusCode::from_u16(status).ok()?;
        status.canonical_reason()
    });
    phrases.any(|phrase| phrase == text)
}

/// Whether it is an error code, and not a sentence, a number or the reason phrase of a status.
pub(super) fn is_code(text: &str) -> bool {
    let in_grammar = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte))
        && text.len() <= MAX_CODE;
    let no_error = ["none", "null", "ok", "success"];
    in_grammar && !no_error.iter().any(|word| word.eq_ignore_ascii_case(text)) && !is_reason(text)
}

const CODES: &[&str] = &["error", "ErrorCode"];

const DESCRIPTIONS: &[&str] = &[
    "error_description",
    "Error",
    "message",
    "errorSummary",
    "error.message",
    "fault.faultstring",
    "detail",
    "detail.msg",
    "title",
    "errors.message",
    "errors.detail",
    "errors.title",
];

const VENDOR_CODES: &[&str] = &[
    "errorCode",
    "error.code",
    "fault.detail.errorcode",
    "errors.errorType",
    "errors.code",
];

const MAX_CODE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::printable;

    #[test]
    fn what_is_shown_of_a_servers_text_is_printable_and_short() {
        assert_eq!(printable("a\r\nb\u{1b}[31mé", 256), "a??b?[31m?");
        assert_eq!(printable(&"x".repeat(999), 256).len(), 256);
    }

    // FA8, FA22
    #[test]
    fn a_code_is_a_word_that_is_no_reason_phrase_and_does_not_say_that_all_is_well() {
        let longest = "a".repeat(64);
        for code in [
            "invalid_client",
            "unauthorized",
            "forbidden",
            "FORBIDDEN",
            "InvalidClient",
            "oauth.v2.InvalidClient",
            "urn:example:error",
            "a-b",
            "E1",
            "x",
            "okay",
            &longest,
        ] {
            assert!(is_code(code), "{code}");
        }
        let too_long = "a".repeat(65);
        for text in [
            "",
            "0",
            "401",
            "_a",
            "Not Found",
            "no credentials",
            "Forbidden",
            "Unauthorized",
            "Conflict",
            "OK",
            "none",
            "NULL",
            "ok",
            "Success",
            "a b",
            "caf\u{e9}",
            " invalid_client",
            "invalid_client\n",
            "a/b",
            &too_long,
        ] {
            assert!(!is_code(text), "{text}");
        }
    }

    #[test]
    fn a_path_ends_in_text_or_nowhere() {
        let said = |json: &str| {
            let fields = Fields::parse(json.as_bytes()).ok()?;
            fields.said("errors.message").map(|text| text.to_string())
        };
        for (json, text) in [
            (r#"{"errors":[{"message":"a"},{"message":"b"}]}"#, Some("a")),
            (r#"{"errors":{"message":"a"}}"#, Some("a")),
            (r#"{"errors":[]}"#, None),
            (r#"{"errors":["a"]}"#, None),
            (r#"{"errors":[[{"message":"a"}]]}"#, None),
            (r#"{"errors":"a"}"#, None),
            (r#"{"errors":{"message":1}}"#, None),
            (r#"{"errors":{"message":" "}}"#, None),
        ] {
            assert_eq!(said(json).as_deref(), text, "{json}");
        }
    }
}
