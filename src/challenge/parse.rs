//! The `WWW-Authenticate` parser: a single pass over bytes that neither fails nor panics.
//!
//! The work is linear in the input. A malformed quoted string is read twice, once in search of its
//! end and once more after its opening quote, but never a third time: only a quote without a
//! backslash before it can begin a value, and any such quote would have ended the first search.

use super::{Challenge, Challenges};

/// Reads header lines as one list of challenges.
pub(super) fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Challenges {
    let mut parser = Parser::default();
    let mut left = MAX_INPUT;
    for line in lines {
        let kept = cut(line, left);
        parser.line(kept);
        if kept.len() < line.len() {
            parser.found.cut = true;
            break;
        }
        left -= kept.len();
    }
    parser.found
}

/// What has been read so far. It outlives a line, since a parameter may stand on a later line than
/// its scheme.
#[derive(Default)]
struct Parser {
    found: Challenges,
    /// Whether the parameters that follow belong to the last challenge found.
    open: bool,
}

impl Parser {
    fn line(&mut self, mut rest: &[u8]) {
        let mut first = true;
        // Whether a scheme or a parameter has just ended, after which a comma may be missing.
        let mut between = false;
        loop {
            first |= take(&mut rest, is_gap).contains(&b',');
            if rest.is_empty() {
                return;
            }
            let word = take(&mut rest, is_token);
            let spaced = !take(&mut rest, is_space).is_empty();
            let ended = spaced || at_gap(rest);

            if !word.is_empty() && rest.starts_with(b"=") {
                let value = take_value(&mut rest);
                between = value.is_some();
                if let Some(value) = value {
                    self.param(word, &value);
                }
            } else if !word.is_empty() && ended && (first || between && is_registered(word)) {
                self.scheme(word);
                skip_token68(&mut rest);
                between = true;
            } else {
                between = false;
                // A scheme stands only at the head of a list element, so a stray word further in
                // ends nothing. An unreadable head may be a scheme that owns the next parameters.
                self.open &= !first;
                if !ended {
                    take(&mut rest, |byte| !is_gap(byte));
                }
            }
            first = false;
        }
    }

    fn scheme(&mut self, name: &[u8]) {
        self.open = self.found.list.len() < MAX_CHALLENGES;
        self.found.cut |= !self.open;
        if self.open {
            self.found.list.push(Challenge {
                scheme: text(name),
                params: Vec::new(),
                said: None,
            });
        }
    }

    fn param(&mut self, name: &[u8], value: &[u8]) {
        let Some(challenge) = self.found.list.last_mut().filter(|_| self.open) else {
            return;
        };
        let name = text(name).to_ascii_lowercase();
        if challenge.params.len() == MAX_PARAMS || challenge.param(&name).is_some() {
            return;
        }
        let mut value = text(value);
        if name == "error_description" {
            let printable = value.chars().filter(|char| matches!(char, ' '..='~'));
            let shown = printable.take(MAX_DESCRIPTION).collect();
            challenge.said = Some(std::mem::replace(&mut value, shown));
        }
        challenge.params.push((name, value));
    }
}

/// Skips a token68 if the challenge holds nothing else. `error=` is one too, by RFC 9110 §11.2.
fn skip_token68(rest: &mut &[u8]) {
    let mut ahead = *rest;
    let body = take(&mut ahead, is_token68).len();
    let padding = take(&mut ahead, |byte| byte == b'=').len();
    let token68 = &rest[..body + padding];
    let spaced = !take(&mut ahead, is_space).is_empty();
    let next = take(&mut &*ahead, is_token);
    let alone = matches!(ahead, [] | [b',', ..]) || spaced && is_registered(next);
    // The name of a scheme is the next challenge, with the comma before it missing.
    if body > 0 && alone && !is_registered(token68) {
        *rest = ahead;
    }
}

/// Takes `=` and the value after it. `None` is a malformed quoted string.
fn take_value(rest: &mut &[u8]) -> Option<Vec<u8>> {
    take(rest, |byte| byte == b'=');
    take(rest, is_space);
    match rest.strip_prefix(b"\"") {
        Some(body) => take_quoted(rest, body),
        None => Some(take(rest, |byte| !is_gap(byte)).to_vec()),
    }
}

fn take_quoted<'a>(rest: &mut &'a [u8], body: &'a [u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => value.extend(bytes.next()),
            b'"' if at_gap(bytes.as_slice()) => {
                *rest = bytes.as_slice();
                return Some(value);
            }
            b'"' => break,
            _ => value.push(*byte),
        }
    }
    // In `Basic realm="x, Bearer error="y"` the quote that seems to end the realm begins another
    // value, so reading resumes at the first comma after the quote that was left open.
    *rest = body;
    take(rest, |byte| byte != b',');
    None
}

fn take<'a>(rest: &mut &'a [u8], accept: impl Fn(u8) -> bool) -> &'a [u8] {
    let end = rest.iter().position(|byte| !accept(*byte));
    let (taken, left) = rest.split_at(end.unwrap_or(rest.len()));
    *rest = left;
    taken
}

/// Shortens `line` to `limit` bytes and to whole words: half an error code would be another code.
fn cut(line: &[u8], limit: usize) -> &[u8] {
    if line.len() <= limit {
        return line;
    }
    let end = line[..limit].iter().rposition(|byte| is_gap(*byte));
    &line[..end.unwrap_or(0)]
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn at_gap(rest: &[u8]) -> bool {
    rest.first().is_none_or(|byte| is_gap(*byte))
}

fn is_gap(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b',' | b';')
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 §11.2, without the padding.
fn is_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte)
}

fn is_registered(word: &[u8]) -> bool {
    let mut schemes = SCHEMES.split(' ');
    schemes.any(|scheme| scheme.as_bytes().eq_ignore_ascii_case(word))
}

/// IANA's registry of HTTP authentication schemes. Any other word might belong to an unquoted
/// description. (NTLM is not registered, and its servers send it on a line of its own.)
const SCHEMES: &str = "Basic Bearer Concealed Digest DPoP GNAP HOBA Mutual Negotiate OAuth \
                       PrivateToken SCRAM-SHA-1 SCRAM-SHA-256 vapid";

const MAX_INPUT: usize = 16 * 1024;
const MAX_CHALLENGES: usize = 32;
const MAX_PARAMS: usize = 32;
const MAX_DESCRIPTION: usize = 256;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
    use proptest::collection::btree_map;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::{Challenge, Challenges};
    use super::*;

    fn rows() -> Vec<Value> {
        serde_json::from_str(include_str!("../../tests/cases/challenges.json"))
            .expect("the table is JSON")
    }

    fn read(value: &str) -> Challenges {
        parse([value.as_bytes()].into_iter())
    }

    fn lines(values: &[&str]) -> Challenges {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
            headers.append(WWW_AUTHENTICATE, value);
        }
        Challenges::parse(&headers)
    }

    fn find<'a>(challenges: &'a Challenges, scheme: &str) -> Option<&'a Challenge> {
        challenges.iter().find(|challenge| challenge.is(scheme))
    }

    fn schemes(challenges: &Challenges) -> Vec<&str> {
        challenges.iter().map(Challenge::scheme).collect()
    }

    #[test]
    fn every_row_of_the_table_reads_as_expected() {
        for row in rows() {
            let (id, value) = (&row["id"], row["value"].as_str().expect("a value"));
            let challenges = read(value);
            assert_eq!(challenges, lines(&[value]), "{id}");
            let Some(expect) = row["expect"].as_object() else {
                continue;
            };
            let bearer = challenges.bearer();
            for (key, wanted) in expect {
                let found = match key.as_str() {
                    "bearer" => Value::from(bearer.is_some()),
                    "bearer_error" => bearer.and_then(Challenge::error).into(),
                    "dpop_error" => find(&challenges, "dpop").and_then(Challenge::error).into(),
                    "error_description" => bearer.and_then(Challenge::error_description).into(),
                    "scope" => bearer.and_then(Challenge::scope).into(),
                    "realm" | "claims" | "resource_metadata" => {
                        bearer.and_then(|bearer| bearer.param(key)).into()
                    }
                    other => panic!("{id}: unknown expectation {other}"),
                };
                assert_eq!(&found, wanted, "{id}: {key}");
            }
        }
    }

    #[test]
    fn no_row_hides_a_neighbour() {
        let neighbour = "Zed x=\"1\"";
        for row in rows() {
            let (id, value) = (&row["id"], row["value"].as_str().expect("a value"));
            let joined = [
                format!("{value}, {neighbour}"),
                format!("{neighbour}, {value}"),
            ];
            for challenges in [
                read(&joined[0]),
                read(&joined[1]),
                lines(&[value, neighbour]),
                lines(&[neighbour, value]),
            ] {
                let zed = find(&challenges, "zed").unwrap_or_else(|| panic!("{id} hides it"));
                assert_eq!(zed.param("x"), Some("1"), "{id}");
            }
        }
    }

    #[test]
    fn lines_are_read_as_one_list() {
        let challenges = lines(&[
            "Basic realm=\"a\"",
            "Bearer realm=\"b\"",
            "error=\"invalid_token\"",
        ]);
        assert_eq!(schemes(&challenges), ["Basic", "Bearer"]);
        let bearer = challenges.bearer().expect("a Bearer challenge");
        assert_eq!(
            (bearer.param("realm"), bearer.error()),
            (Some("b"), Some("invalid_token"))
        );
        assert_eq!(lines(&["", " ,, ", "Bearer"]), read("Bearer"));
        assert_eq!(lines(&[]), Challenges::default());
    }

    #[test]
    fn an_open_quote_on_one_line_does_not_reach_the_next() {
        let challenges = lines(&["Basic realm=\"x", "Bearer error=\"invalid_token\""]);
        assert_eq!(schemes(&challenges), ["Basic", "Bearer"]);
        let bearer = challenges.bearer().expect("a Bearer challenge");
        assert_eq!(bearer.error(), Some("invalid_token"));
    }

    #[test]
    fn token68_is_told_from_parameters() {
        for (value, params) in [
            ("Negotiate YIIB/wYJKoZI==", 0),
            ("Negotiate\tabc \t, Basic", 0),
            ("Negotiate", 0),
            ("Negotiate error=", 0),
            ("Bearer realm=x", 1),
            ("Bearer realm = \"x\"", 1),
            ("Bearer invalid_token", 0),
            ("Bearer not|token68", 0),
        ] {
            let challenges = read(value);
            let first = challenges.iter().next().expect("a challenge");
            assert_eq!(first.params.len(), params, "{value}");
        }
    }

    #[test]
    fn a_malformed_part_hides_nothing_after_it() {
        for value in [
            "Basic realm=\"x, Bearer error=\"invalid_token\"",
            "Basic realm=\"x, Bearer error=invalid_token",
            "Basic realm=\"a\\\", Bearer error=invalid_token",
            "Basic realm=\"a\"b\"c, Bearer error=\"invalid_token\"",
            "B@d realm=\"a, b\", Bearer error=\"invalid_token\"",
            "{\"error\":\"x\"}, Bearer error=\"invalid_token\"",
            "Bearer error=\"invalid_token\", Basic realm=\"x",
            "Bearer error=\"invalid_token\" error_description=\"no comma\"",
            "Bearer error_description=\"the \"old\" token\", error=\"invalid_token\"",
            "Bearer error=invalid_token; error_description=semi",
            "Bearer: x, Bearer error=invalid_token",
            "Bearer stray error=invalid_token",
            "Bearer stray words error=invalid_token",
            "Bearer\t \terror\t=\tinvalid_token\t,\t,",
        ] {
            let challenges = read(value);
            let bearer = challenges.bearer().unwrap_or_else(|| panic!("{value}"));
            assert_eq!(bearer.error(), Some("invalid_token"), "{value}");
        }
    }

    // FA15
    #[test]
    fn a_registered_scheme_begins_a_challenge_where_its_comma_is_missing() {
        for (value, wanted) in [
            (
                "Basic realm=\"x\" Bearer error=\"invalid_token\"",
                &["Basic", "Bearer"][..],
            ),
            (
                "Basic realm=x bearer error=invalid_token",
                &["Basic", "bearer"],
            ),
            (
                "Basic realm=\"x\"; Bearer error=\"invalid_token\"",
                &["Basic", "Bearer"],
            ),
            (
                "Digest realm=\"a, b\" nonce=\"c\"\tBEARER error=invalid_token",
                &["Digest", "BEARER"],
            ),
            (
                "DPoP algs=\"ES256\" Bearer error=invalid_token",
                &["DPoP", "Bearer"],
            ),
            (
                "Bearer error=\"invalid_token\" DPoP algs=\"ES256\"",
                &["Bearer", "DPoP"],
            ),
            ("Bearer error=\"invalid_token\" Basic", &["Bearer", "Basic"]),
            (
                "Bearer error=\"invalid_token\" Negotiate, Basic",
                &["Bearer", "Negotiate", "Basic"],
            ),
            (
                "Negotiate Bearer error=\"invalid_token\"",
                &["Negotiate", "Bearer"],
            ),
            (
                "Negotiate YII= Bearer error=\"invalid_token\"",
                &["Negotiate", "Bearer"],
            ),
            (
                "vapid t=x SCRAM-SHA-256 realm=y Mutual z=1 Bearer error=invalid_token",
                &["vapid", "SCRAM-SHA-256", "Mutual", "Bearer"],
            ),
        ] {
            let challenges = read(value);
            assert_eq!(schemes(&challenges), wanted, "{value}");
            let bearer = challenges.bearer().unwrap_or_else(|| panic!("{value}"));
            assert_eq!(bearer.error(), Some("invalid_token"), "{value}");
        }
        assert_eq!(schemes(&read("Basic Bearer")), ["Basic", "Bearer"]);
        let negotiate = read("Negotiate YII= Bearer");
        assert_eq!(schemes(&negotiate), ["Negotiate", "Bearer"]);
        assert_eq!(negotiate.list[0].params, []);
    }

    // FA15
    #[test]
    fn a_word_that_is_no_registered_scheme_begins_no_challenge() {
        for value in [
            "Bearer error=\"invalid_token\" Keystone uri=\"x\"",
            "Bearer error=\"invalid_token\" NTLM",
            "Bearer error=\"invalid_token\" Basically realm=\"x\"",
            "Bearer error=\"invalid_token\" Basic=\"x\"",
            "Bearer error=invalid_token error_description=The token expired",
            // Further into a description without quotes, a scheme's name is a word like any other.
            "Bearer error=invalid_token error_description=The token is no Basic realm=x",
            "Bearer realm=Basic error=invalid_token",
            "Bearer realm=\"x Basic y\" error=invalid_token",
        ] {
            let challenges = read(value);
            assert_eq!(schemes(&challenges), ["Bearer"], "{value}");
            let bearer = challenges.bearer().unwrap_or_else(|| panic!("{value}"));
            assert_eq!(bearer.error(), Some("invalid_token"), "{value}");
        }
    }

    #[test]
    fn an_error_is_never_laid_to_a_challenge_that_did_not_send_it() {
        for value in [
            "Bearer, B@d error=\"insufficient_scope\"",
            "Bearer, B@d realm=\"x\", error=\"insufficient_scope\"",
            "Bearer, Other error=\"insufficient_scope\"",
            "error=\"insufficient_scope\", Bearer",
            "Bearer error_description=\"error=insufficient_scope",
        ] {
            let challenges = read(value);
            let bearer = challenges.bearer().unwrap_or_else(|| panic!("{value}"));
            assert_eq!(bearer.error(), None, "{value}");
        }
    }

    #[test]
    fn a_value_without_scheme_holds_no_challenge() {
        for value in [
            "error=invalid_request, error_description=The access token expired",
            "error = \"invalid_token\"",
            "{\"error\":\"invalid_token\"}",
            "\"Bearer\"",
            "=",
            ",;\t",
        ] {
            assert!(read(value).is_empty(), "{value}");
        }
    }

    #[test]
    fn nested_quotes_and_escapes_are_undone_once() {
        let challenges = read(r#"Bearer realm="a \"b \\\"c\\\" d\" \e", error="invalid_token""#);
        let bearer = challenges.bearer().expect("a Bearer challenge");
        assert_eq!(bearer.param("realm"), Some(r#"a "b \"c\" d" e"#));
        assert_eq!(bearer.error(), Some("invalid_token"));

        let deep = format!("Bearer realm=\"{}\", error=x", "\\\"".repeat(4000));
        let challenges = read(&deep);
        let bearer = challenges.bearer().expect("a Bearer challenge");
        assert_eq!(bearer.param("realm"), Some("\"".repeat(4000).as_str()));
        assert_eq!(bearer.error(), Some("x"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        let challenges = parse([&b"Bearer realm=\"a\xffb\", error=\xfe, scope=x"[..]].into_iter());
        let bearer = challenges.bearer().expect("a Bearer challenge");
        assert_eq!(bearer.param("realm"), Some("a\u{fffd}b"));
        assert_eq!(bearer.error(), Some("\u{fffd}"));
        assert_eq!(bearer.scope(), Some("x"));
    }

    #[test]
    fn a_description_is_kept_as_printable_ascii() {
        let value = format!(
            "Bearer error_description=\"a\u{1b}[1mÿ\r\n{}\"",
            "b".repeat(400)
        );
        let challenges = read(&value);
        let bearer = challenges.bearer().expect("a Bearer challenge");
        let wanted = format!("a[1m{}", "b".repeat(252));
        assert_eq!(bearer.error_description(), Some(wanted.as_str()));
    }

    #[test]
    fn the_bearer_challenge_with_an_error_decides() {
        for (value, error) in [
            (
                "Bearer realm=a, Bearer error=invalid_token",
                Some("invalid_token"),
            ),
            ("Bearer error=x, Bearer error=y", Some("x")),
            (
                "Bearer error=x, Bearer error=invalid_token",
                Some("invalid_token"),
            ),
            ("Bearer error=\"\", Bearer error=y", Some("y")),
            ("Bearer realm=a, Bearer realm=b", None),
        ] {
            let challenges = read(value);
            let bearer = challenges.bearer().expect("a Bearer challenge");
            assert_eq!(bearer.error(), error, "{value}");
        }
        let challenges = read("Bearer realm=a, Bearer realm=b");
        assert_eq!(
            challenges.bearer().and_then(|bearer| bearer.param("realm")),
            Some("a")
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many = read(&"A x=1, ".repeat(1000));
        assert_eq!(many.iter().count(), MAX_CHALLENGES);

        let params: String = (0..1000).map(|n| format!("p{n}=1,")).collect();
        let wide = read(&format!("A {params}"));
        assert_eq!(wide.list[0].params.len(), MAX_PARAMS);

        let repeated = read(&format!("A {}y=2", "x=1, ".repeat(MAX_PARAMS)));
        assert_eq!(repeated.list[0].param("y"), Some("2"));

        // The parameters of a challenge that is not kept are dropped with it.
        let over = read(&format!("{}Bearer error=x", "A, ".repeat(MAX_CHALLENGES)));
        assert_eq!(over.iter().count(), MAX_CHALLENGES);
        assert_eq!(over.list[MAX_CHALLENGES - 1].params, []);
    }

    // FA17
    #[test]
    fn what_is_not_read_or_not_kept_is_told() {
        assert!(!read("Basic, Bearer").are_cut());
        let full = "A x=1, ".repeat(MAX_CHALLENGES);
        assert!(!read(&full).are_cut());
        assert!(read(&format!("{full}B")).are_cut());
        let unbroken = "y".repeat(MAX_INPUT);
        assert!(!read(&unbroken).are_cut());
        assert!(lines(&[&unbroken, "B"]).are_cut());
    }

    #[test]
    fn input_past_the_limit_is_not_read() {
        let padding = format!("A x=\"{}\"", "y".repeat(MAX_INPUT - 20));
        let challenges = lines(&[&padding, "Bearer error=invalid_token", "Basic"]);
        assert_eq!(schemes(&challenges), ["A", "Bearer"]);
        let bearer = challenges.bearer().expect("a Bearer challenge");
        assert_eq!(bearer.error(), None, "half a word is no word");

        let unbroken = format!("Negotiate {}", "y".repeat(100 * 1024));
        assert_eq!(read(&unbroken).list, read("Negotiate").list);
    }

    #[test]
    fn work_is_linear_in_the_input() {
        for shape in [
            "\"",
            "\\\"",
            "=\"",
            "a=\"",
            "a=\"\\",
            ",a=\"x\"b",
            ",a=\"\\\"",
            "a=\"b\" ",
            "a ",
            "a,",
            "=",
            "\\",
            ";",
            " ",
            "a=\"=\"\\\"",
            "\u{ff}",
        ] {
            let attack = format!("A {}", shape.repeat(1024 * 1024 / shape.len()));
            assert_eq!(read(&attack), read(&attack[..100 * 1024]), "{shape}");

            // Without the limit on the input; quadratic work on a mebibyte would take many minutes.
            let started = Instant::now();
            Parser::default().line(attack.as_bytes());
            assert!(started.elapsed() < Duration::from_secs(10), "{shape}");
        }
    }

    fn print((challenge, token68): &(Challenge, Option<String>)) -> String {
        let params = challenge.params.iter().map(|(name, value)| {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{name}=\"{escaped}\"")
        });
        let rest: Vec<_> = token68.iter().cloned().chain(params).collect();
        format!("{} {}", challenge.scheme, rest.join(", "))
    }

    prop_compose! {
        fn challenge()(
            scheme in "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}",
            token68 in proptest::option::of("[A-Za-z0-9._~+/-]{1,20}={0,2}"),
            params in btree_map("[a-z0-9!#$%&'*+.^_`|~-]{1,12}", "[ -~]{0,40}", 0..6),
        ) -> (Challenge, Option<String>) {
            let params = if token68.is_some() { Vec::new() } else { params.into_iter().collect() };
            (Challenge { scheme, params, said: None }, token68)
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse([&*bytes].into_iter());
        }

        #[test]
        fn arbitrary_syntax_never_panics_and_hides_no_line(text in "[Ba=\", ;\\\\\t@ÿ]{0,80}") {
            let challenges = parse([text.as_bytes(), b"Zed x=1"].into_iter());
            let zed = find(&challenges, "zed").expect("the second line");
            prop_assert_eq!(zed.param("x"), Some("1"));
        }

        #[test]
        fn a_printed_list_reads_back(list in proptest::collection::vec(challenge(), 0..6)) {
            let printed: Vec<_> = list.iter().map(print).collect();
            let wanted: Vec<_> = list.into_iter().map(|(challenge, _)| challenge).collect();
            prop_assert_eq!(read(&printed.join(", ")).list, wanted);
        }
    }
}
