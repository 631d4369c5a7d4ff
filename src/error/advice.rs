//! What to do about a failure: the advice at the end of an error's text.

use std::borrow::Cow;

use http::uri::Authority;

use super::rules::{RESUME, TOO_MANY};
use super::shown::shown;
use super::{Class, Error, Inner};

/// What was asked, where and how: nothing secret, for whoever has to look for the fault.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) https: bool,
    /// Whether `http` would do for this host.
    pub(crate) loopback: bool,
    /// Host and port, as the token URL has them.
    pub(crate) authority: String,
    pub(crate) path: String,
    /// The token client is the user's, and may use a proxy unknown to this crate.
    pub(crate) own_client: bool,
    /// Space-separated; empty when none was asked for.
    pub(crate) scope: String,
    /// What to check when the server does not know this client.
    pub(crate) client: &'static str,
    /// The answer was a page or the like, which no token endpoint sends.
    pub(crate) page: bool,
}

impl Error {
    /// Names what was asked, for the advice.
    pub(crate) fn with_asked(mut self, asked: Asked) -> Self {
        self.edit().asked = Some(asked);
        self
    }

    pub(super) fn advice(&self) -> Cow<'_, str> {
        let cause = &*self.cause;
        if let Some(advice) = &cause.advice {
            return Cow::Borrowed(advice);
        }
        let template = match cause.fault {
            Some(fault) => fault.texts().1,
            None => cause.template(),
        };
        let mut text = cause.fill(template);
        // The advice for a code is not all there is to say under a status that passes.
        if cause.is(Class::Transient) && cause.status.is_some() && !text.contains(RESUME) {
            text += "; ";
            text += if cause.answers(&[429]) {
                TOO_MANY
            } else {
                RESUME
            };
        }
        Cow::Owned(text)
    }
}

impl Inner {
    fn fill(&self, template: &str) -> String {
        let asked = self.asked.as_ref();
        let host = self.host.as_deref().unwrap_or("the token endpoint");
        let at = asked.map_or(host, |asked| &asked.authority);
        let has_port = at.parse().is_ok_and(|at: Authority| at.port().is_some());
        let scope = match asked {
            Some(asked) if asked.scope.is_empty() => "the scope (none was asked for)".into(),
            Some(asked) => format!("the scope (\"{}\")", shown(&asked.scope)),
            None => String::from("the scope"),
        };
        let check_scope = match asked {
            Some(asked) if asked.scope.is_empty() => {
                "no scope was asked for, and the server may want one: set it with scope()".into()
            }
            _ => format!("check {scope}, and that the server grants it to this client"),
        };
        let path = asked.map_or_else(String::new, |asked| shown(&asked.path));
        let https = asked.is_none_or(|asked| asked.https);
        let scheme = if https { "https" } else { "http" };
        let connect = format!("{at}{}", if has_port { "" } else { ":443" });
        let also = format!(
            "; check also that the token URL, {scheme}://{at}{path}, is that of the token endpoint"
        );
        let path = format!(" ({path})");
        let if_tls = format!("if {at} speaks TLS, write https:// in the token URL; otherwise ");
        let when = |fits: bool, text| if fits { text } else { "" };
        let is = |fits: fn(&Asked) -> bool| asked.is_some_and(fits);
        // A page under another status than 400 is not about TLS.
        let may_want_tls = !https && (self.status.is_none() || self.answers(&[400, 426]));
        [
            ("{client}", asked.map_or(CLIENT, |asked| asked.client)),
            ("{connector}", if https { WITH_TLS } else { WITHOUT_TLS }),
            ("{proxy}", when(is(|asked| asked.own_client), PROXY)),
            ("{write_http}", when(is(|asked| asked.loopback), WRITE_HTTP)),
            ("{if_tls}", when(may_want_tls, &if_tls)),
            ("{also}", when(asked.is_some(), &also)),
            ("{path}", when(asked.is_some(), &path)),
            ("{resume}", RESUME),
            ("{host}", host),
            ("{at}", at),
            ("{connect}", &connect),
            ("{check_scope}", &check_scope),
            ("{scope}", &scope),
            ("{code}", self.code().unwrap_or_default()),
        ]
        .iter()
        .fold(template.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
    }
}

/// When the client's authentication is not known.
const CLIENT: &str = "check the client id and the secret, and how they are sent";
const PROXY: &str = "; if the token client goes through a proxy, the proxy may be the cause";
const WITH_TLS: &str = "with a TLS connector";
const WITHOUT_TLS: &str = "that may connect without TLS";
const WRITE_HTTP: &str = "write http:// in the token URL, or ";

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn asked() -> Asked {
        Asked {
            https: true,
            loopback: false,
            authority: String::from("gw.example:8443"),
            path: String::from("/oauth2/v1/token"),
            own_client: false,
            scope: String::from("aisp pisp"),
            client: "check the client",
            page: false,
        }
    }

    fn advice(error: &Error) -> String {
        error.advice().into_owned()
    }

    fn answer(status: u16, code: Option<&str>, description: Option<&str>) -> Error {
        let status = StatusCode::from_u16(status).unwrap();
        Error::of_head(status, code, "rejected")
            .with_code(code.map(String::from))
            .with_description(description.map(String::from))
            .at_host(Some("gw.example"))
    }

    // FA9
    #[test]
    fn a_path_that_is_not_there_is_what_is_to_be_checked_first() {
        for status in [404, 405] {
            let advice = advice(&answer(status, None, None).with_asked(asked()));
            assert!(
                advice.starts_with("check the path of the token URL (/oauth2/v1/token)"),
                "{advice}"
            );
            assert!(
                !advice.contains("scope") && !advice.contains("check the client"),
                "{advice}"
            );
        }
    }

    // FA9, FA11
    #[test]
    fn the_client_comes_first_only_with_its_codes_and_under_401() {
        for (status, code, first) in [
            (400, Some("invalid_client"), true),
            (400, Some("unauthorized_client"), false),
            (401, Some("invalid_token"), false),
            (401, None, true),
            (401, Some("of_its_own"), true),
            (400, Some("of_its_own"), false),
            (400, None, false),
            (403, None, false),
            (404, None, false),
            (400, Some("invalid_scope"), false),
        ] {
            let advice = advice(&answer(status, code, None).with_asked(asked()));
            assert_eq!(
                advice.starts_with("check the client"),
                first,
                "{status} {code:?}: {advice}"
            );
        }
    }

    // FA11
    #[test]
    fn a_rejected_scope_is_named_with_and_without_a_code() {
        for error in [
            answer(400, Some("invalid_scope"), None),
            answer(400, None, Some("The Scope is unknown")),
            answer(403, None, Some("this client may not have that scope")),
        ] {
            let advice = advice(&error.with_asked(asked()));
            assert!(
                advice.contains("the scope (\"aisp pisp\")") && !advice.contains("client id"),
                "{advice}"
            );
        }
        let none = Asked {
            scope: String::new(),
            ..asked()
        };
        let advice = advice(&answer(400, Some("invalid_scope"), None).with_asked(none));
        assert!(advice.contains("set it with scope()"), "{advice}");
    }

    // FA10
    #[test]
    fn a_token_client_of_ones_own_may_go_through_a_proxy_and_openssl_wants_a_port() {
        let advice = |authority: &str, own_client, text: &'static str| {
            let authority = authority.to_owned();
            let asked = Asked {
                authority,
                own_client,
                ..asked()
            };
            let error = Error::no_answer(text.into()).with_asked(asked);
            advice(&error.at_host(Some("gw.example")))
        };
        for text in [
            "dns error",
            "connection refused",
            "no route to host",
            "a riddle",
        ] {
            assert!(advice("gw.example", true, text).contains("proxy"), "{text}");
            assert!(
                !advice("gw.example", false, text).contains("proxy"),
                "{text}"
            );
        }
        for (authority, shown) in [
            ("gw.example", "-connect gw.example:443`"),
            ("gw.example:8443", "-connect gw.example:8443`"),
            ("[::1]", "-connect [::1]:443`"),
        ] {
            let advice = advice(authority, false, "invalid certificate");
            assert!(advice.contains(shown), "{advice}");
        }
    }

    // FA24
    #[test]
    fn a_rejection_by_a_page_says_that_something_in_front_rejected_it_and_may_want_headers() {
        for status in [400, 403, 418] {
            let page = Asked {
                page: true,
                ..asked()
            };
            let advice = advice(&answer(status, None, None).with_asked(page));
            assert!(
                advice.contains("in front of the token endpoint"),
                "{advice}"
            );
            assert!(advice.contains("user_agent()"), "{advice}");
        }
    }
}
