//! The members of an answer, whatever they are written in.

use std::time::Duration;

use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

/// The members of an answer, from JSON or from a form.
pub(super) struct Fields {
    members: Map<String, Value>,
    /// Read from something else than JSON.
    pub(super) lenient: bool,
}

/// Why there are none.
pub(super) enum Unreadable {
    Empty,
    /// It begins like JSON and ends too early.
    Torn,
    /// Something else: a page of a proxy, an array, `null`.
    Foreign,
}

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Unreadable> {
        let body = body
            .strip_prefix(b"\xEF\xBB\xBF")
            .unwrap_or(body)
            .trim_ascii();
        if body.is_empty() {
            return Err(Unreadable::Empty);
        }
        if body[0] == b'{' {
            // JSON is UTF-8, but some servers write Latin-1 into members that nobody asked for.
            let text = Zeroizing::new(String::from_utf8_lossy(body).into_owned());
            return match serde_json::from_str(&text) {
                Ok(members) => Ok(Self {
                    members,
                    lenient: text.as_bytes() != body,
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

    pub(super) fn take_token(&mut self) -> Option<String> {
        match self.members.remove("access_token") {
            Some(Value::String(token)) if !token.is_empty() => Some(token),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name)?.as_str()
    }

    /// A number, or a string that holds one; a fraction is cut off, and what is below zero is zero.
    pub(super) fn seconds(&self, name: &str) -> Option<Duration> {
        let number = match self.members.get(name)? {
            Value::Number(number) => number.as_f64()?,
            Value::String(text) => text.trim().parse().ok()?,
            _ => return None,
        };
        // A cast from float saturates at both ends; only NaN would become a 0 that nobody sent.
        (!number.is_nan()).then(|| Duration::from_secs(number as u64))
    }

    /// RFC 6749 §3.3 has a space-separated string; some servers send an array.
    pub(super) fn scope(&self, mask: &dyn Fn(&str) -> String) -> Option<String> {
        let scope = match self.members.get("scope")? {
            Value::String(scope) => scope.clone(),
            Value::Array(scopes) => {
                let scopes = scopes.iter().filter_map(Value::as_str);
                scopes.collect::<Vec<_>>().join(" ")
            }
            _ => return None,
        };
        Some(printable(&mask(&scope), MAX_SCOPE))
    }

    /// The error code, by RFC 6749 §5.2 or in Apigee's shape.
    pub(super) fn code(&self, mask: &dyn Fn(&str) -> String) -> Option<String> {
        let code = ["error", "ErrorCode"]
            .iter()
            .find_map(|name| self.text(name))?;
        let code = printable(&mask(code), MAX_CODE);
        (!code.is_empty()).then_some(code)
    }

    pub(super) fn description(&self, mask: &dyn Fn(&str) -> String) -> Option<String> {
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
pub(super) fn printable(text: &str, longest: usize) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_servers_text_is_printable_and_short() {
        assert_eq!(printable("a\r\nb\u{1b}[31mé", 256), "a??b?[31m?");
        assert_eq!(printable(&"x".repeat(999), 256).len(), 256);
    }
}
