//! The words of an error: what happened, and what to do about it.

use std::error::Error as StdError;
use std::fmt;

use super::{Class, Error, Reach};

impl Error {
    fn advice(&self) -> Option<&str> {
        self.cause.advice.as_deref().or(match self.cause.row.class {
            Class::Rejected if self.cause.row.reach == Reach::Client => Some(
                "check the client id, the secret and how they are sent, and that this client may use the client-credentials grant",
            ),
            Class::Rejected => Some("check the scope, audience, resource and extra parameters"),
            Class::InvalidResponse => {
                Some("check that the token URL is the token endpoint and that no proxy answers in its place")
            }
            Class::Transient if self.cause.retry_after.is_some() => {
                Some("the server asked to wait; requests resume by themselves")
            }
            Class::Transient => {
                Some("check that the token endpoint is up and reachable from here; requests resume by themselves")
            }
            Class::Destination => None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = &*self.cause;
        if cause.row.class == Class::Destination {
            f.write_str(&cause.what)?;
        } else {
            f.write_str("no access token")?;
            if let Some(host) = &cause.endpoint {
                write!(f, " from {host}")?;
            }
            write!(f, ": {}", cause.what)?;
        }
        match (cause.oauth_code.as_deref(), cause.status) {
            (Some(code), Some(status)) => write!(f, ": {code}, status {}", status.as_u16())?,
            (Some(code), None) => write!(f, ": {code}")?,
            (None, Some(status)) => write!(f, ": status {}", status.as_u16())?,
            (None, None) => {}
        }
        if let Some(description) = &cause.description {
            write!(f, ", \"{description}\"")?;
        }
        if let Some(code) = &cause.vendor_code {
            write!(f, ", the server's code {code}")?;
        }
        if let Some(uri) = &cause.error_uri {
            write!(f, ", see {uri}")?;
        }
        if let Some(id) = &cause.request_id {
            write!(f, ", request id {id}")?;
        }
        if let Some(elapsed) = cause.elapsed.filter(|_| cause.attempts > 0) {
            let plural = if cause.attempts == 1 { "" } else { "s" };
            write!(f, " ({} attempt{plural} in {elapsed:.1?})", cause.attempts)?;
        }
        if let Some(advice) = self.advice() {
            write!(f, "; {advice}")?;
        }
        // What the server asks for may be longer than we obey, so it is not told as our own next attempt.
        match (self.next_attempt_in, cause.retry_after) {
            (Some(wait), _) => write!(f, "; next attempt in {wait:.1?}"),
            (None, Some(asked)) => write!(f, "; Retry-After: {} s", asked.as_secs()),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = &*self.cause;
        f.debug_struct("Error")
            .field("class", &cause.row.class)
            .field("what", &cause.what)
            .field("endpoint", &cause.endpoint)
            .field("oauth_code", &cause.oauth_code)
            .field("description", &cause.description)
            .field("status", &cause.status)
            .field("attempts", &cause.attempts)
            .field("elapsed", &cause.elapsed)
            .field("retry_after", &self.retry_after())
            .field("source", &cause.source)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.cause.source.as_deref()?;
        Some(source)
    }
}
