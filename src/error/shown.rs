//! What may be shown of a text that is not ours.

/// Printable ASCII, so that a log line stays one line, and not too much of it.
pub(crate) fn printable(text: &str, longest: usize) -> String {
    let printable = |c| if matches!(c, ' '..='~') { c } else { '?' };
    text.chars().map(printable).take(longest).collect()
}

/// What was written in a setting.
pub(super) fn shown(text: &str) -> String {
    printable(text, LONGEST_SHOWN)
}

/// A URL, or what was meant to be one, without what may be secret in it: user-info, query and
/// fragment.
pub(crate) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    // A `?` before the path may be part of a password, so the query begins after it.
    let path = rest.find('/').unwrap_or_default();
    let query = rest[path..].find(['?', '#']);
    let (shown, query) = rest.split_at(query.map_or(rest.len(), |query| path + query));
    // What looks like a query may then be the rest of a password.
    let shown = if query.contains('@') { "..." } else { shown };
    let shown = shown.rsplit('@').next().unwrap_or_default();
    let shown = shown.split(['?', '#']).next().unwrap_or_default();
    self::shown(&format!("{scheme}{shown}"))
}

/// HTTP clients put the URL into their errors, and its query may hold a key.
pub(super) fn without_queries(text: &str) -> String {
    let words = text.split_inclusive([' ', '(', ')', '"', '\'', '<', '>']);
    let cut = |word: &str| {
        if !word.contains("://") {
            return word.to_owned();
        }
        let end = word.trim_end_matches([' ', '(', ')', '"', '\'', '<', '>', ',', ':']);
        without_secrets(end) + &word[end.len()..]
    };
    words.map(cut).collect()
}

const LONGEST_SHOWN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    // FS11
    #[test]
    fn what_may_be_secret_in_a_url_is_cut() {
        for (url, shown) in [
            ("https://u:pw@a.example/b?apikey=x#y", "https://a.example/b"),
            ("https://u:p?w@a.example/b", "https://a.example/b"),
            ("https://u:p/w@a.example/b", "https://a.example/b"),
            ("https://u:p/w?x@a.example/b", "https://..."),
            ("u:pw@a.example:80", "a.example:80"),
            ("https://a.example?apikey=x", "https://a.example"),
            ("urn:a#x", "urn:a"),
            ("nowhere", "nowhere"),
        ] {
            assert_eq!(without_secrets(url), shown, "{url}");
        }
    }
}
