//! What a token request asks for.
//!
//! Rules: R5, R24.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use form_urlencoded::Serializer;
use http::Uri;
use zeroize::Zeroizing;

use crate::error::{BuildError, without_secrets};
use crate::origin;

/// The scope, audience, resource and extra parameters of a token request: everything that makes one
/// token differ from another of the same client.
///
/// A layer has parameters of its own, from its builder. A request with other ones in its extensions
/// gets its own token, with its own cache entry and its own flight:
///
/// ```
/// use tower_oauth::TokenParams;
///
/// let payments = TokenParams::new().with_scope("pisp")?;
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(payments);
/// # Ok::<_, tower_oauth::BuildError>(())
/// ```
///
/// They replace the layer's parameters entirely. To ask for more than the layer does, start from
/// [`OAuthLayer::params`](crate::OAuthLayer::params): scopes, resources and parameters add up, an
/// audience replaces the earlier one.
///
/// Parameters are equal when they ask for the same token. The order of scopes does not count, nor
/// does that of parameters with different names. The order of resources and of parameters with the
/// same name does: a server may go by the first or by the last of them.
///
/// Build them once and clone them: a clone is one reference count.
#[derive(Clone, Default)]
pub struct TokenParams(Arc<Fields>);

#[derive(Clone, Default)]
struct Fields {
    scope: Vec<String>,
    audience: Option<String>,
    resource: Vec<String>,
    /// The values may be secrets of the server's own, so they are wiped.
    parameters: Vec<(String, Zeroizing<String>)>,
    /// All of the above as one form in canonical order. Equality looks at this text alone.
    identity: Zeroizing<String>,
    /// The hash of that text, since a request's parameters are looked up on the cached path. Keyed,
    /// so that nobody who chooses an audience can make them collide.
    hash: u64,
}

impl TokenParams {
    /// Asks for nothing in particular: the server grants its default scope.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the scopes of a space-separated list (RFC 6749 §3.3). An empty list sends no `scope`.
    ///
    /// # Errors
    ///
    /// [`BuildError::Scope`] when a scope has characters outside the grammar.
    pub fn with_scope(mut self, scope: impl AsRef<str>) -> Result<Self, BuildError> {
        let fields = Arc::make_mut(&mut self.0);
        for scope in scope.as_ref().split(' ') {
            if !scope.bytes().all(is_scope_character) {
                let scope = scope.to_owned();
                return Err(BuildError::Scope { scope });
            }
            if !scope.is_empty() && !fields.scope.iter().any(|known| known == scope) {
                fields.scope.push(scope.to_owned());
            }
        }
        Ok(self.identified())
    }

    /// Sets the `audience` parameter that some servers require. An empty one is not sent.
    #[must_use]
    pub fn with_audience(mut self, audience: impl Into<String>) -> Self {
        let audience = Some(audience.into()).filter(|audience| !audience.is_empty());
        Arc::make_mut(&mut self.0).audience = audience;
        self.identified()
    }

    /// Adds a resource indicator (RFC 8707). Several are sent as several parameters, duplicates
    /// once.
    ///
    /// For a server that expects something else under that name, such as the id of an application,
    /// use [`with_parameter("resource", ..)`](Self::with_parameter), which sends it unchecked.
    ///
    /// # Errors
    ///
    /// [`BuildError::Resource`] when it is not an absolute URI, or has a fragment.
    pub fn with_resource(mut self, resource: impl Into<String>) -> Result<Self, BuildError> {
        let resource = resource.into();
        if !is_absolute_uri(&resource) {
            let resource = origin::without_secrets(&resource);
            return Err(BuildError::Resource { resource });
        }
        let fields = Arc::make_mut(&mut self.0);
        if !fields.resource.contains(&resource) {
            fields.resource.push(resource);
        }
        Ok(self.identified())
    }

    /// Adds a parameter that this server defines. A name may be given several times, for servers
    /// that take lists: all values are sent, in order.
    ///
    /// The value is treated as a secret: it is wiped when it is dropped, is never in `Debug`
    /// output, and is masked in what the server says if it has at least eight characters.
    ///
    /// # Errors
    ///
    /// [`BuildError::Parameter`] when the name is empty, has white space or control characters, or
    /// is set by the grant or the client authentication.
    pub fn with_parameter(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, BuildError> {
        let name = name.into();
        let odd = name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control());
        if odd || RESERVED.contains(&name.as_str()) {
            return Err(BuildError::Parameter { name });
        }
        let parameter = (name, Zeroizing::new(value.into()));
        Arc::make_mut(&mut self.0).parameters.push(parameter);
        Ok(self.identified())
    }

    /// The scopes, in the order they were given.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.0.scope.iter().map(String::as_str)
    }

    /// The audience.
    #[must_use]
    pub fn audience(&self) -> Option<&str> {
        self.0.audience.as_deref()
    }

    /// The resource indicators.
    pub fn resources(&self) -> impl Iterator<Item = &str> {
        self.0.resource.iter().map(String::as_str)
    }

    /// The extra parameters, names and values.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let parameters = self.0.parameters.iter();
        parameters.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The pairs of the form, in the order given.
    fn pairs(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        let scope = Some(self.0.scope.join(" ")).filter(|scope| !scope.is_empty());
        let scope = scope.map(|scope| ("scope", Cow::Owned(scope)));
        let audience = self.audience().map(|audience| ("audience", audience));
        let resources = self.resources().map(|resource| ("resource", resource));
        let others = audience.into_iter().chain(resources);
        let others = others.chain(self.parameters());
        let others = others.map(|(name, value)| (name, Cow::Borrowed(value)));
        scope.into_iter().chain(others)
    }

    /// Writes the parameters in the order given.
    pub(crate) fn write_form(&self, form: &mut Serializer<'_, String>) {
        form.extend_pairs(self.pairs());
    }

    /// An upper bound of the bytes that [`write_form`](Self::write_form) writes.
    pub(crate) fn form_size(&self) -> usize {
        self.pairs()
            .map(|(name, value)| form_size(name, &value))
            .sum()
    }

    fn identified(mut self) -> Self {
        let mut canonical = self.clone();
        let fields = Arc::make_mut(&mut canonical.0);
        fields.scope.sort_unstable();
        // A stable sort: parameters with the same name keep their order.
        fields.parameters.sort_by(|(a, _), (b, _)| a.cmp(b));
        // Full capacity up front: growing would leave copies of the values behind, unwiped.
        let mut form = Serializer::new(String::with_capacity(canonical.form_size()));
        canonical.write_form(&mut form);
        let identity = Zeroizing::new(form.finish());
        let fields = Arc::make_mut(&mut self.0);
        // Zero for parameters that ask for nothing, however they came to.
        fields.hash = match identity.is_empty() {
            true => 0,
            false => KEYS.hash_one(&*identity),
        };
        fields.identity = identity;
        self
    }
}

/// An upper bound of the bytes of one pair in a form: all percent-encoded, with `&` and `=`.
pub(crate) fn form_size(name: &str, value: &str) -> usize {
    2 + 3 * (name.len() + value.len())
}

/// RFC 6749 §3.3: `scope-token = 1*( %x21 / %x23-5B / %x5D-7E )`.
fn is_scope_character(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'
}

/// RFC 8707 §2 requires an absolute URI, which may be a `urn:`. `http::Uri` only knows URIs with an
/// authority.
fn is_absolute_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let in_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(in_scheme)
        && !rest.is_empty()
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
        && (!rest.starts_with("//") || text.parse::<Uri>().is_ok())
}

/// Set by the grant, by the client authentication, or by the methods above.
const RESERVED: [&str; 7] = [
    "grant_type",
    "scope",
    "audience",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
];

static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl PartialEq for TokenParams {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.0.hash == other.0.hash && self.0.identity == other.0.identity
    }
}

impl Eq for TokenParams {}

impl Hash for TokenParams {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

/// Omits the values of extra parameters, and the user-info and query of URLs, which may be secret.
impl fmt::Debug for TokenParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.parameters().map(|(name, _)| name).collect();
        f.debug_struct("TokenParams")
            .field("scope", &self.0.scope)
            .field("audience", &self.0.audience.as_deref().map(without_secrets))
            .field(
                "resource",
                &self.resources().map(without_secrets).collect::<Vec<_>>(),
            )
            .field("parameters", &names)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(request: &TokenParams) -> String {
        let mut form = Serializer::new(String::new());
        request.write_form(&mut form);
        form.finish()
    }

    #[test]
    fn what_is_asked_for_can_be_read() {
        let bare = TokenParams::new();
        assert_eq!((bare.audience(), bare.scopes().count()), (None, 0));
        let full = bare.with_scope("a b").unwrap().with_audience("x");
        assert_eq!(full.audience(), Some("x"));
        assert_eq!(full.scopes().collect::<Vec<_>>(), ["a", "b"]);
    }

    // FA25
    #[test]
    fn a_resource_is_any_absolute_uri() {
        for uri in [
            "https://api.example/a?b",
            "api://5f2c/x",
            "urn:a:b",
            "urn:a:[b]",
        ] {
            assert!(is_absolute_uri(uri), "{uri}");
        }
        for text in [
            "https://[",
            "https://a b",
            "https:///x",
            "//api.example",
            "urn:",
            "1a:b",
        ] {
            assert!(!is_absolute_uri(text), "{text}");
        }
    }

    // K14
    #[test]
    fn the_order_of_scopes_does_not_count_and_everything_else_does() {
        let base = || TokenParams::new().with_scope("a b").unwrap();
        assert_eq!(base(), TokenParams::new().with_scope("b a b").unwrap());
        let others = [
            TokenParams::new().with_scope("a").unwrap(),
            base().with_audience("x"),
            base().with_resource("https://api.example").unwrap(),
            base().with_parameter("x", "y").unwrap(),
            base().with_parameter("x", "z").unwrap(),
            TokenParams::new().with_parameter("a&b", "").unwrap(),
        ];
        for (n, other) in others.iter().enumerate() {
            assert_ne!(&base(), other);
            assert!(others[n + 1..].iter().all(|next| next != other));
        }
    }

    // Q10
    #[test]
    fn two_resources_are_two_parameters() {
        let request = TokenParams::new().with_resource("https://a").unwrap();
        let request = request.with_resource("urn:b").unwrap();
        assert_eq!(form(&request), "resource=https%3A%2F%2Fa&resource=urn%3Ab");
    }

    // Q11
    #[test]
    fn an_empty_scope_list_sends_no_scope() {
        for empty in ["", " "] {
            let params = TokenParams::new().with_scope(empty).unwrap();
            assert_eq!(form(&params), "");
        }
    }

    // Q12
    #[test]
    fn a_scope_outside_the_grammar_is_an_error_that_names_it() {
        for bad in ["a\"b", "a\\b", "a\tb", "é"] {
            let error = TokenParams::new().with_scope(bad).unwrap_err();
            assert!(matches!(error, BuildError::Scope { scope } if scope == bad));
        }
    }

    // Q13
    #[test]
    fn a_parameter_of_the_grant_or_the_authentication_is_an_error_that_names_it() {
        for name in RESERVED {
            let error = TokenParams::new().with_parameter(name, "x").unwrap_err();
            assert!(error.to_string().contains(name));
        }
    }

    #[test]
    fn a_resource_is_an_absolute_uri_without_fragment() {
        for bad in [
            "",
            "api",
            "/api",
            "https://api#x",
            "https://a b",
            ":x",
            "https:",
        ] {
            assert!(TokenParams::new().with_resource(bad).is_err(), "{bad}");
        }
    }

    // FS14
    #[test]
    fn the_order_of_parameters_with_one_name_counts_and_that_of_different_names_does_not() {
        let request = |parameters: &[(&str, &str)]| {
            let none = TokenParams::new();
            let mut all = parameters.iter();
            all.try_fold(none, |request, (name, value)| {
                request.with_parameter(*name, *value)
            })
            .unwrap()
        };
        assert_eq!(
            request(&[("a", "1"), ("b", "2")]),
            request(&[("b", "2"), ("a", "1")])
        );
        assert_ne!(
            request(&[("a", "1"), ("a", "2")]),
            request(&[("a", "2"), ("a", "1")])
        );
        assert_ne!(request(&[("a", "1"), ("a", "1")]), request(&[("a", "1")]));
        assert_eq!(
            request(&[("a", "1"), ("b", "x"), ("a", "2")]),
            request(&[("b", "x"), ("a", "1"), ("a", "2")])
        );
        assert_eq!(
            form(&request(&[("b", "2"), ("a", "1"), ("b", "1")])),
            "b=2&a=1&b=1"
        );
        let resources = |first, second| {
            TokenParams::new()
                .with_resource(first)
                .unwrap()
                .with_resource(second)
                .unwrap()
        };
        assert_ne!(resources("urn:a", "urn:b"), resources("urn:b", "urn:a"));
        assert_eq!(
            resources("urn:a", "urn:a"),
            TokenParams::new().with_resource("urn:a").unwrap()
        );
    }

    // FA25
    #[test]
    fn a_resource_that_is_no_uri_can_be_sent_as_a_parameter_and_the_error_says_so() {
        let error = TokenParams::new()
            .with_resource("resource1")
            .unwrap_err()
            .to_string();
        assert!(error.contains("parameter(\"resource\", ..)"), "{error}");
        let request = TokenParams::new()
            .with_parameter("resource", "resource1")
            .unwrap();
        assert_eq!(form(&request), "resource=resource1");
    }

    // FS7
    #[test]
    fn a_form_is_never_larger_than_was_reckoned() {
        let request = TokenParams::new()
            .with_scope("a b")
            .unwrap()
            .with_audience("é");
        let request = request
            .with_resource("urn:b")
            .unwrap()
            .with_parameter("x&y", "&&&")
            .unwrap();
        assert!(form(&request).len() <= request.form_size());
    }

    // FS11
    #[test]
    fn debug_leaves_out_parameter_values_and_of_urls_user_info_and_query() {
        let request = TokenParams::new().with_parameter("pin", "4711").unwrap();
        let request = request.with_audience("https://a.example/?apikey=4711");
        let request = request
            .with_resource("https://user:4711@b.example/c?key=4711")
            .unwrap();
        let shown = format!("{request:?}");
        assert!(
            !shown.contains("4711") && shown.contains("https://b.example/c"),
            "{shown}"
        );
    }
}
