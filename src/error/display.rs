//! The text of an error: what happened, what the server said, what to do, and when.

use std::error::Error as StdError;
use std::fmt::{self, Write};

use super::{Class, Error};

/// The whole story in one line, cause and advice included: printing it alone is enough.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut OneLine(f);
        let cause = &*self.cause;
        if cause.row.class == Class::Destination {
            f.write_str(&cause.what)?;
        } else {
            f.write_str("no access token")?;
            if let Some(host) = &cause.host {
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
        if let Some(sources) = self.told_by_sources() {
            write!(f, ": {sources}")?;
        }
        if let Some(id) = &cause.request_id {
            write!(f, ", request id {id}")?;
        }
        if let Some(elapsed) = cause.elapsed.filter(|_| cause.attempts > 0) {
            let plural = if cause.attempts == 1 { "" } else { "s" };
            write!(f, " ({} attempt{plural} in {elapsed:.1?})", cause.attempts)?;
        }
        let advice = self.advice();
        if !advice.is_empty() {
            write!(f, "; {advice}")?;
        }
        // The server may ask for more than we obey, so its figure is not our own next attempt.
        match (self.next_attempt_in, cause.retry_after) {
            (Some(wait), _) => write!(f, "; next attempt in {wait:.1?}"),
            (None, Some(asked)) => write!(f, "; Retry-After: {} s", asked.as_secs()),
            (None, None) => Ok(()),
        }
    }
}

/// Replaces line breaks, which a source of the user's own may have in its words.
struct OneLine<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut lines = text.split(char::is_control);
        self.0.write_str(lines.next().unwrap_or_default())?;
        lines.try_for_each(|line| write!(self.0, " {line}"))
    }
}

/// Begins with the text: `main` prints an error by its `Debug`, and its reader needs the advice.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = &*self.cause;
        write!(f, "{self} ")?;
        f.debug_struct("Error")
            .field("class", &cause.row.class)
            .field("source", &cause.source)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.source.get()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    // FU13
    #[test]
    fn an_error_is_one_line_whatever_a_source_puts_into_it() {
        let error = Error::rejected("a\r\nb", "c\nd").with_advice("e\n\u{85}f");
        assert_eq!(error.to_string(), "no access token: c d: a  b; e  f");
        assert_eq!(format!("{error:?}").lines().count(), 1);
    }

    // FU13
    #[test]
    fn debug_begins_with_the_text() {
        let error = Error::transient("failed").with_source("the cause");
        assert!(format!("{error:?}").starts_with(&error.to_string()));
    }

    // FA13
    #[test]
    fn without_an_endpoint_nobody_is_sent_to_one() {
        for error in [
            Error::transient("the vault is sealed"),
            Error::timed_out("no answer"),
            Error::invalid_response("no token"),
            Error::transient("busy").with_retry_after(Duration::from_secs(1)),
        ] {
            let text = error.to_string();
            assert!(
                !text.contains("endpoint") && !text.contains("URL"),
                "{text}"
            );
        }
    }
}
