//! The error underneath an [`Error`]: kept as the type it is, and told in its text.

use std::error::Error as StdError;
use std::iter::successors;
use std::sync::Arc;
use std::{fmt, io};

use super::shown::{printable, without_queries};
use super::{BoxError, Error};
use crate::guard::guarded;

/// It may be the user's own type, whose drop may panic: it must do so nowhere where we are half
/// done with something.
#[derive(Clone, Default)]
pub(super) struct Source(Option<Arc<dyn StdError + Send + Sync>>);

impl Source {
    /// What an `Arc<dyn Error>` holds is the source itself, so that it can be downcast.
    fn new(source: BoxError) -> Self {
        Self(Some(
            match source.downcast::<Arc<dyn StdError + Send + Sync>>() {
                Ok(shared) => *shared,
                Err(source) => Arc::from(source),
            },
        ))
    }

    pub(super) fn get(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.0.as_deref()?)
    }
}

/// By the rules for its text: a client's error may have the whole URL in its fields.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let debug = format!("{:?}", self.get());
        f.write_str(&printable(&without_queries(&debug), LONGEST_DEBUG))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(source) = self.0.take() {
            guarded(|| drop(source));
        }
    }
}

impl Error {
    /// The error underneath, which [`source`](StdError::source) gives back as the type it is, also
    /// out of an `Arc<dyn Error + Send + Sync>`; an `Arc<E>` of one type is given back as that.
    /// Its text is part of this error's text, so it must hold no secret.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.edit().source = Source::new(source.into());
        self
    }

    /// Takes what `mask` knows out of the sources, which are texts of others. Sources without it
    /// stay what they are.
    pub(crate) fn with_masked_source(self, mask: impl Fn(&str) -> String) -> Self {
        let Some(source) = self.cause.source.get() else {
            return self;
        };
        let mut texts: Vec<_> = chain(source).map(ToString::to_string).collect();
        texts.dedup();
        let (text, debug) = (texts.join(": "), format!("{source:?}"));
        let masked = mask(&text);
        if masked == text && mask(&debug) == debug {
            return self;
        }
        self.with_source(masked)
    }

    /// What the sources say, each once and unless this error's own words say it already. Of an
    /// exchange with the token endpoint only the innermost counts: the others are the HTTP
    /// client's ways of saying that it failed.
    pub(crate) fn told_by_sources(&self) -> Option<String> {
        let cause = &*self.cause;
        let mut links: Vec<_> = chain(cause.source.get()?).collect();
        if cause.fault.is_some() || cause.asked.is_some() {
            links.drain(..links.len() - 1);
        }
        let own = [
            Some(&*cause.what),
            cause.description.as_deref(),
            cause.advice.as_deref(),
        ];
        let mut told = String::new();
        for link in links {
            let text = without_queries(&link.to_string());
            let text = printable(text.trim(), LONGEST);
            let known = |own: &Option<&str>| own.is_some_and(|own| own.contains(&text));
            if !told.contains(&text) && !own.iter().any(known) {
                told += if told.is_empty() { "" } else { ": " };
                told += &text;
            }
        }
        told.truncate(LONGEST);
        (!told.is_empty()).then_some(told)
    }
}

/// An error and its sources, from the outside in. The error inside an `io::Error` is a link too,
/// which `io::Error::source` leaves out.
pub(super) fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    successors(Some(error), |&error| {
        let wrapper = error.downcast_ref::<io::Error>();
        match wrapper.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

const LONGEST: usize = 256;

const LONGEST_DEBUG: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// An error type of a user's own.
    #[derive(Debug)]
    struct LoginFailed(io::Error);

    impl fmt::Display for LoginFailed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the login failed")
        }
    }

    impl StdError for LoginFailed {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    fn login_failed() -> LoginFailed {
        LoginFailed(io::Error::from(io::ErrorKind::NotFound))
    }

    // FU26
    #[test]
    fn a_source_comes_back_as_the_type_it_is_and_out_of_an_arc() {
        let shared: Arc<dyn StdError + Send + Sync> = Arc::new(login_failed());
        for error in [
            Error::transient("no luck").with_source(login_failed()),
            Error::transient("no luck").with_source(BoxError::from(login_failed())),
            Error::transient("no luck").with_source(shared),
        ] {
            let source = error.source().unwrap();
            assert!(source.is::<LoginFailed>(), "{source:?}");
            assert!(source.source().is_some_and(|inner| inner.is::<io::Error>()));
        }
        let shared = Error::transient("no luck").with_source(Arc::new(login_failed()));
        assert!(shared.source().unwrap().is::<Arc<LoginFailed>>());
    }

    // FU26
    #[test]
    fn each_error_of_the_chain_stands_in_the_text_once() {
        let error = Error::transient("no luck").with_source(login_failed());
        assert_eq!(
            error.to_string(),
            "no access token: no luck: the login failed: entity not found; requests recover on \
             their own once this is fixed"
        );
        let wrapped = io::Error::other(io::Error::other("the cause\r\nof it all"));
        let error = Error::transient("failed").with_source(wrapped);
        assert_eq!(
            error.to_string(),
            "no access token: failed: the cause??of it all; requests recover on their own once \
             this is fixed"
        );
        let told = Error::transient("failed: the cause").with_source("the cause");
        assert_eq!(told.to_string().matches("the cause").count(), 1);
    }

    // R24
    #[test]
    fn the_query_of_a_url_in_a_source_is_cut() {
        let source = "for url (https://u:pw@gw.example/t?apikey=canary): gone";
        let error = Error::transient("failed").with_source(source);
        let text = error.to_string();
        assert!(
            text.contains("for url (https://gw.example/t): gone"),
            "{text}"
        );
        for text in [text, format!("{error:?}"), format!("{error:#?}")] {
            assert!(!text.contains("canary") && !text.contains("pw"), "{text}");
            assert!(text.contains("gone"), "{text}");
        }
    }
}
