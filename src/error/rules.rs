//! The rules of advice: what to do, by what the server answered.

use super::codes::is_registered;
use super::fault::UNREACHABLE;
use super::{Class, Inner};

impl Inner {
    /// The first rule that fits. A source of the user's own may have no endpoint, and is sent to
    /// none.
    pub(super) fn template(&self) -> &'static str {
        let of_an_endpoint = |text: &str| text.contains("endpoint") || text.contains("token URL");
        let speaks_to_it = |text: &str| self.host.is_some() || !of_an_endpoint(text);
        let rule = RULES.iter().find(|(when, text)| {
            speaks_to_it(text)
                && match when {
                    When::Code(codes) => self.code().is_some_and(|code| has_word(codes, code)),
                    When::Status(statuses) => self.answers(statuses),
                    When::If(fits) => fits(self),
                }
        });
        rule.map_or("", |(_, text)| text)
    }

    pub(super) fn is(&self, class: Class) -> bool {
        self.row.class == class
    }

    pub(super) fn code(&self) -> Option<&str> {
        self.oauth_code.as_deref()
    }

    fn is_own_code(&self) -> bool {
        self.code().is_some_and(|code| !is_registered(code))
    }

    pub(super) fn answers(&self, statuses: &[u16]) -> bool {
        let status = self.status.map(|status| status.as_u16());
        status.is_some_and(|status| statuses.contains(&status))
    }

    fn is_page(&self) -> bool {
        let page = self.asked.as_ref().is_some_and(|asked| asked.page);
        page && self.code().is_none() && self.description.is_none()
    }

    /// Whether the server's description has one of these, whatever the case.
    fn says(&self, parts: &[&str]) -> bool {
        let text = self.description.as_deref().unwrap_or_default();
        let text = text.to_ascii_lowercase();
        parts.iter().any(|part| text.contains(part))
    }

    /// The server misses a token, as an endpoint for revocation or introspection does, or an API.
    fn misses_token(&self) -> bool {
        let text = self.description.as_deref().unwrap_or_default();
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        self.says(&["missing"]) && words.any(|word| word.eq_ignore_ascii_case("token"))
    }

    /// The server's description or its own code is about the client and its secret.
    fn says_client(&self) -> bool {
        let code = self.code().unwrap_or_default().to_ascii_lowercase();
        self.says(ABOUT_CLIENT) || ABOUT_CLIENT.iter().any(|part| code.contains(part))
    }
}

fn has_word(words: &str, word: &str) -> bool {
    words.split_ascii_whitespace().any(|known| known == word)
}

const ABOUT_CLIENT: &[&str] = &[
    "credential",
    "secret",
    "client id",
    "client_id",
    "clientid",
    "client authentication",
];

pub(super) const RESUME: &str = "requests recover on their own once this is fixed";
pub(super) const TOO_MANY: &str = "too many token requests: make one layer for the whole process \
                                   and clone it; requests recover on their own once this is fixed";

/// When a rule fits.
enum When {
    /// One of these codes, separated by blanks.
    Code(&'static str),
    Status(&'static [u16]),
    If(fn(&Inner) -> bool),
}

/// What to do, by the cause; the first rule that fits counts. Faults have their own, see
/// [`Fault`](super::fault::Fault).
const RULES: &[(When, &str)] = &[
    // Something in between.
    (
        When::Status(&[407]),
        "a proxy wants credentials: give them to the token client, with token_client()",
    ),
    (
        When::Status(&[511]),
        "this network wants a login before it lets anything through",
    ),
    // A code says more than the status it comes with.
    (When::Code("invalid_client"), "{client}"),
    (
        When::Code("unauthorized_client"),
        "check that the server lets this client use the client-credentials grant; if it does, \
         {client}",
    ),
    (When::Code("invalid_scope"), "{check_scope}"),
    (
        When::Code("invalid_target"),
        "check the audience and the resource asked for, and that the server grants them to this \
         client",
    ),
    (
        When::Code("unsupported_grant_type"),
        "check the path of the token URL{path}, and that the server offers the client-credentials \
         grant there",
    ),
    (
        When::Code("invalid_grant"),
        "check that the server lets this client use the client-credentials grant; some servers \
         also answer wrong credentials so: {client}",
    ),
    (
        When::Code("invalid_authorization_details"),
        "check the authorization_details, and that the server grants them to this client",
    ),
    (
        When::Code("insufficient_scope"),
        "APIs send this code; token endpoints do not: check the path of the token \
         URL{path}, and its host and port, {at}; if they are right, {check_scope}",
    ),
    (
        When::Code("insufficient_user_authentication invalid_token"),
        "APIs send this code; token endpoints do not: check the path of the token \
         URL{path}, and its host and port, {at}; if they are right, {client}",
    ),
    // Of a sign-in, a device, a registration, a revocation.
    (
        When::Code(
            "account_selection_required authorization_pending consent_required expired_token \
             interaction_required invalid_client_metadata invalid_redirect_uri \
             invalid_request_object invalid_request_uri invalid_software_statement \
             login_required request_not_supported request_uri_not_supported \
             unapproved_software_statement unsupported_response_type unsupported_token_type",
        ),
        "this is no answer to a client-credentials request: check the path of the token \
         URL{path}, and its host and port, {at}; if they are right, ask the server's operator",
    ),
    // RFC 9449, RFC 9200.
    (
        When::Code("invalid_dpop_proof unsupported_pop_key use_dpop_nonce"),
        "the server wants tokens that are bound to a key (such as DPoP), which this crate does \
         not do: have it give Bearer tokens to this client, or write a TokenSource",
    ),
    // What passes.
    (
        When::If(|it| {
            let slow = it
                .code()
                .is_some_and(|code| has_word("slow_down too_many_requests", code));
            it.is(Class::Transient) && (slow || it.answers(&[429]))
        }),
        TOO_MANY,
    ),
    (
        When::If(|it| it.is(Class::Transient) && it.retry_after.is_some()),
        "the server asked to wait; {resume}",
    ),
    (
        When::If(|it| it.is(Class::Transient) && it.status.is_some()),
        "the fault lies with the token endpoint or a proxy in front of it; {resume}",
    ),
    (
        When::If(|it| it.is(Class::Transient) && it.timeout),
        "check that the token endpoint is up and that no firewall drops traffic to it; {resume}",
    ),
    (When::If(|it| it.is(Class::Transient)), UNREACHABLE),
    (When::If(|it| it.is(Class::Transient)), RESUME),
    (
        When::If(|it| it.is(Class::InvalidResponse)),
        "check that the token URL{path} is the token endpoint and that no proxy or login page \
         answers in its place",
    ),
    (When::If(|it| !it.is(Class::Rejected)), ""),
    // From here on the server rejected the request.
    (
        When::If(|it| it.answers(&[401]) && it.says_client()),
        "{client}",
    ),
    (When::Status(&[401]), "{client}{also}"),
    (
        When::Code("server_error temporarily_unavailable"),
        "ask the server's operator, who may find the request in the log; some servers report a \
         wrong secret this way: {client}",
    ),
    (
        When::Code("access_denied"),
        "the server denies this to the client: check {scope}, the audience and the resource, and \
         what this client may have",
    ),
    (
        When::If(|it| it.code() == Some("invalid_request") && it.misses_token()),
        "an endpoint that wants a token is there to revoke or inspect tokens, not to give them: \
         check the path of the token URL{path}",
    ),
    (
        When::If(|it| {
            let no = ["not allowed", "not permitted", "not supported", "must not"];
            it.code() == Some("invalid_request") && it.says(&["query"]) && it.says(&no)
        }),
        "leave the query out of the token URL, and set what it says with parameter()",
    ),
    (
        When::If(|it| it.is_own_code() && it.says_client()),
        "{code} is the server's own code: look it up there; {client}",
    ),
    (
        When::If(Inner::is_own_code),
        "{code} is the server's own code: look it up there; check {scope}, the audience, the \
         resource and extra parameters{also}",
    ),
    // A status alone.
    (
        When::Status(&[404, 405, 406, 410, 501, 505]),
        "check the path of the token URL{path}: it must be the address that takes the POST for a \
         token; then the client id",
    ),
    (
        When::Status(&[413]),
        "the server, or something in front of it, finds the token request too large: shorten what \
         is asked for, the scope and extra parameters, or have its operator raise the limit",
    ),
    (
        When::Status(&[414]),
        "the server, or something in front of it, finds the token URL too long: set what its \
         query says with parameter()",
    ),
    (
        When::Status(&[415]),
        "what answers does not take a form, in which every token request is sent: check the path \
         of the token URL{path}",
    ),
    (
        When::Status(&[421]),
        "what answers says that it does not serve {host}: check the host and port of the token \
         URL, {at}, and the proxy in between, if there is one",
    ),
    (
        When::Status(&[426]),
        "the server wants another protocol: {if_tls}give token_client() a client that speaks it, \
         perhaps HTTP/2",
    ),
    (
        When::Status(&[431]),
        "the server, or something in front of it, finds the headers too large: send a long secret \
         in the form (ClientAuth::post), and look at what the token client adds",
    ),
    (
        When::Status(&[451]),
        "the server may not answer here, for legal reasons: ask the operator of {host} from which \
         addresses it does",
    ),
    (
        When::If(Inner::is_page),
        "{if_tls}something in front of the token endpoint, a firewall or a gateway, rejected the \
         request with a page: it may want other headers, such as user_agent(), or block the \
         address of this machine; check the path of the token URL{path} too",
    ),
    (When::If(|it| it.says(&["scope"])), "{check_scope}"),
    (When::If(Inner::says_client), "{client}"),
    (
        When::If(|it| it.answers(&[403]) && it.description.is_some()),
        "the server says why; check {scope}, and what this client may have{also}",
    ),
    (
        When::Status(&[403]),
        "{check_scope}; something in front of the token endpoint may want other headers, such as \
         user_agent(); otherwise {client}{also}",
    ),
    (
        When::If(|_| true),
        "check {scope}, the audience, the resource and extra parameters; if they are right, \
         {client}{also}",
    ),
];
