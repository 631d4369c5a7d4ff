//! The answer to a token request (RFC 6749 §5.1 and §5.2), read without I/O.
//!
//! Servers are read generously where that does no harm: numbers as strings, a form in place of
//! JSON, a missing or odd content type, Apigee's own error shape. What decides is whether there is
//! a token that can be used.
//!
//! Rules: R24, R27.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::time::SystemTime;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, StatusCode};
use zeroize::Zeroizing;

use super::body::{Answer, End};
use super::fields::{Fields, Unreadable, is_code};
use super::retry_after::retry_after;
use crate::challenge::{Challenge, Challenges};
use crate::client_auth::Credentials;
use crate::error::{Error, Success, is_registered, printable, without_secrets};
use crate::params::TokenParams;
use crate::token::TokenResponse;

pub(super) fn read(
    answer: Answer,
    accepted_types: &[String],
    params: &TokenParams,
    credentials: &Credentials<'_>,
) -> Result<TokenResponse, Error> {
    let reader = Reader {
        accepted_types,
        params,
        credentials,
        token: OnceCell::new(),
    };
    let read = match answer.status.as_u16() {
        200..300 => reader.read_success(&answer),
        400..600 => Err(reader.read_rejection(&answer)),
        _ => Err(reader.neither(&answer)),
    };
    read.map_err(|error| {
        let error = error.with_request_id(reader.request_id(&answer.headers));
        match answer.end {
            End::Torn(source) if answer.status.is_success() => error.with_source(source),
            _ => error,
        }
    })
}

/// Reads one answer. What the server says is shown only with our own secrets masked. What decides
/// is the text as it came.
struct Reader<'a> {
    accepted_types: &'a [String],
    params: &'a TokenParams,
    credentials: &'a Credentials<'a>,
    /// The token of the answer, which is no less a secret when the server repeats it elsewhere.
    token: OnceCell<Zeroizing<String>>,
}

impl Reader<'_> {
    fn read_success(&self, answer: &Answer) -> Result<TokenResponse, Error> {
        let status = answer.status;
        let failure = |success, what| Error::of_success(success, status, what);
        match answer.end {
            End::Whole => {}
            End::Torn(_) => return Err(failure(Success::Torn, "the answer broke off")),
            End::None => return Err(failure(Success::NoContent, "the answer has no content")),
            End::TooLarge => {
                return Err(failure(Success::Foreign, "the answer is larger than 1 MiB"));
            }
        }
        let fields = Fields::parse(&answer.body).map_err(|unreadable| match unreadable {
            Unreadable::Torn => failure(Success::Torn, "the answer breaks off"),
            Unreadable::Empty if status == StatusCode::OK => {
                failure(Success::Empty, "the answer is empty")
            }
            Unreadable::Empty => failure(Success::Foreign, "the answer is empty"),
            Unreadable::Foreign => self.foreign(answer),
        })?;
        self.note_token(&fields);
        let repeated = ["access_token", "token_type", "expires_in", "error"];
        if let Some(name) = repeated.iter().find(|name| fields.contradicts(name)) {
            let what = format!("the answer has two different values of {name}");
            return Err(Error::of_success(Success::Contradiction, status, what).with_advice(MEND));
        }
        if fields.code().is_some() {
            // A rejection under a status of 200 (GitHub): the status says nothing then.
            let error = self.rejected(StatusCode::BAD_REQUEST, Some(&fields), &answer.headers);
            return Err(error.with_status(status));
        }
        let token = self
            .check_type(&fields)
            .and_then(|()| match fields.token() {
                Ok(Some(token)) => Ok(token),
                Ok(None) => Err(Error::invalid_response("the answer has no access_token")),
                Err(kind) => {
                    let error = Error::invalid_response(format!("the access_token is {kind}"));
                    Err(error.with_advice(MEND))
                }
            });
        let token = token.map_err(|error| self.with_words(error, &fields).with_status(status))?;
        let mut response = TokenResponse::new(token)
            .map_err(|error| error.with_status(status).with_advice(MEND))?;
        response.expires_in = fields.seconds("expires_in");
        response.refresh_in = fields.seconds("refresh_in");
        response.scope = self.scope(&fields);
        Ok(response)
    }

    /// A 2xx with something other than a token response.
    fn foreign(&self, answer: &Answer) -> Error {
        let failure = |what| Error::of_success(Success::Foreign, answer.status, what);
        let kind = match content_type(&answer.headers) {
            Some(kind) => Cow::Owned(self.shown(kind, MAX_NAME)),
            None => Cow::Borrowed("no content type"),
        };
        let Some(coding) = answer.headers.get(CONTENT_ENCODING) else {
            return failure(format!("the answer ({kind}) is not a token response"));
        };
        let coding = self.shown(&String::from_utf8_lossy(coding.as_bytes()), MAX_NAME);
        failure(format!("the answer ({kind}) is encoded as {coding}")).with_advice(
            "no encoding was asked for: the operator of the token endpoint, or of a proxy in \
             between, has to leave it out; or give token_client() a client that decodes it",
        )
    }

    /// RFC 6749 §7.1: a client must not use a token of a type it does not know. `BearerToken` is
    /// Apigee's name for Bearer.
    fn check_type(&self, fields: &Fields) -> Result<(), Error> {
        let kind = match fields.token_type() {
            Ok(Some(kind)) => kind,
            Ok(None) => return Ok(()),
            Err(()) => {
                let error = Error::invalid_response("the token_type is not a string");
                return Err(error.with_advice(MEND));
            }
        };
        let known = ["Bearer", "BearerToken"].into_iter();
        let mut known = known.chain(self.accepted_types.iter().map(String::as_str));
        if known.any(|known| known.eq_ignore_ascii_case(kind)) {
            return Ok(());
        }
        let kind = self.shown(kind, MAX_NAME);
        let what = format!("the token is of type \"{kind}\", not Bearer");
        Err(Error::invalid_response(what).with_advice(
            "if the API takes such a token as Bearer, say so with accept_token_type()",
        ))
    }

    /// 4xx or 5xx. The body may be missing. Of one that broke off, a whole JSON object counts all
    /// the same, while half a form could be half a code.
    fn read_rejection(&self, answer: &Answer) -> Error {
        let whole = matches!(answer.end, End::Whole);
        let fields = Fields::parse(&answer.body).ok();
        let fields = fields.filter(|fields| whole || fields.is_json);
        fields.iter().for_each(|fields| self.note_token(fields));
        self.rejected(answer.status, fields.as_ref(), &answer.headers)
    }

    fn rejected(&self, status: StatusCode, fields: Option<&Fields>, headers: &HeaderMap) -> Error {
        let in_body = fields.and_then(Fields::code);
        let challenges = match in_body {
            Some(_) => Challenges::default(),
            None => Challenges::parse(headers),
        };
        let coded = |challenge: &&Challenge| challenge.error().is_some_and(is_code);
        let challenge = challenges.iter().find(coded);
        let code = in_body.or_else(|| challenge?.error());

        let what = if status.is_server_error() {
            "the token endpoint failed"
        } else {
            "the token endpoint rejected the request"
        };
        let mut error = Error::of_head(status, code, what);
        error = error.with_code(code.map(|code| match is_registered(code) {
            true => code.to_owned(),
            false => self.shown(code, MAX_NAME),
        }));
        if let Some(fields) = fields {
            error = self.with_words(error, fields);
        }
        if error.description().is_none() {
            let mut challenges = challenge.into_iter().chain(challenges.iter());
            let words = challenges.find_map(Challenge::said);
            error = error.with_description(words.and_then(|words| self.words(words)));
        }
        match retry_after(headers, SystemTime::now()) {
            Some(span) => error.with_retry_after(span),
            None => error,
        }
    }

    /// Neither 2xx nor an error.
    fn neither(&self, answer: &Answer) -> Error {
        let location = answer.headers.get(LOCATION);
        let what = match location.filter(|_| answer.status.is_redirection()) {
            Some(location) => {
                let target = String::from_utf8_lossy(location.as_bytes());
                let target = without_secrets(&self.credentials.mask(&target, None));
                Cow::Owned(format!(
                    "the token endpoint answered with a redirect to {target}, which is never \
                     followed"
                ))
            }
            None => Cow::Borrowed("the token endpoint answered with neither a token nor an error"),
        };
        Error::of_head(answer.status, None, what).with_advice(
            "check the token URL; it must be the address that answers with a token itself",
        )
    }

    /// What the server says besides its code.
    fn with_words(&self, error: Error, fields: &Fields) -> Error {
        let words = |text: Option<Zeroizing<String>>| self.words(&text?);
        let vendor_code = match fields.code() {
            Some(_) => None,
            None => fields.vendor_code(),
        };
        error
            .with_description(words(fields.description()))
            .with_error_uri(words(fields.said("error_uri")))
            .with_vendor_code(vendor_code.map(|code| self.shown(&code, MAX_NAME)))
    }

    /// What was asked for is shown as it is: it is the user's own, and `read` remains the scope
    /// even where it is the secret as well. The rest is masked in one piece, so that the work is
    /// bounded.
    fn scope(&self, fields: &Fields) -> Option<String> {
        let granted = fields.scope()?;
        let is_granted = |asked: &&str| granted.iter().any(|word| word.as_str() == *asked);
        let mut shown: Vec<_> = self.params.scopes().filter(is_granted).collect();
        let others = granted.iter().map(|word| word.as_str());
        let others = others.filter(|word| !word.is_empty() && !shown.contains(word));
        let others = Zeroizing::new(others.collect::<Vec<_>>().join(" "));
        let others = self.shown(&others, MAX_SCOPE);
        if !others.is_empty() {
            shown.push(&others);
        }
        Some(shown.join(" "))
    }

    /// A token that the server repeats elsewhere is masked there. A short one would be a word.
    fn note_token(&self, fields: &Fields) {
        let token = fields.token().ok().flatten();
        if let Some(token) = token.filter(|token| token.len() >= SHORTEST_TOKEN) {
            self.token.get_or_init(|| Zeroizing::new(token.to_owned()));
        }
    }

    fn words(&self, text: &str) -> Option<String> {
        let text = self.shown(text, MAX_WORDS);
        (!text.is_empty()).then_some(text)
    }

    /// Masked before it is cut: half a secret must not survive.
    fn shown(&self, text: &str, longest: usize) -> String {
        let token = self.token.get().map(|token| token.as_str());
        printable(&self.credentials.mask(text, token), longest)
    }

    /// The server's name for this exchange, which its operators find in their logs.
    fn request_id(&self, headers: &HeaderMap) -> Option<String> {
        let value = REQUEST_IDS.iter().find_map(|name| headers.get(*name))?;
        let id = self.shown(value.to_str().ok()?, MAX_NAME);
        (!id.is_empty()).then_some(id)
    }
}

/// Without its parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    kind.split(';').next()
}

/// The token endpoint answers, but not with a token.
const MEND: &str = "ask the operator of the token endpoint to fix its response";

const REQUEST_IDS: &[&str] = &[
    "x-request-id",
    "x-correlation-id",
    "request-id",
    "x-ms-request-id",
    "x-okta-request-id",
    "x-amzn-requestid",
    "x-trace-id",
    "cf-ray",
    "traceparent",
];

const MAX_WORDS: usize = 256;

/// What is kept of a scope that was not asked for.
const MAX_SCOPE: usize = 4096;

const SHORTEST_TOKEN: usize = 8;
const MAX_NAME: usize = 64;
