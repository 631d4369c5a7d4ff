//! `application/x-www-form-urlencoded`, which some servers answer with in place of JSON.

use percent_encoding::percent_decode;
use zeroize::Zeroizing;

type Text = Zeroizing<String>;

/// The names and values of a form, in order, repeated ones included.
///
/// The links of a page have names and values with `=` and `&` between them, too. So a form is only
/// what begins with a parameter of OAuth.
pub(super) fn members(body: &[u8]) -> Option<Vec<(Text, Text)>> {
    let pairs = body.split(|byte| *byte == b'&').map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        (parts.next().unwrap_or_default(), parts.next())
    });
    let (name, value) = pairs.clone().next()?;
    value.filter(|_| PARAMETERS.contains(&decode(name).as_str()))?;
    let decoded = pairs.map(|(name, value)| (decode(name), decode(value.unwrap_or_default())));
    Some(decoded.collect())
}

/// It may be a token, so the memory has its full capacity up front.
fn decode(text: &[u8]) -> Zeroizing<String> {
    let mut spaced = Zeroizing::new(text.to_vec());
    let pluses = spaced.iter_mut().filter(|byte| **byte == b'+');
    pluses.for_each(|byte| *byte = b' ');
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    bytes.extend(percent_decode(&spaced));
    lossy(&bytes)
}

/// `String::from_utf8_lossy`, in memory that has its full capacity up front.
pub(super) fn lossy(bytes: &[u8]) -> Zeroizing<String> {
    const SPOILT: &str = "\u{fffd}";
    let mut text = Zeroizing::new(String::with_capacity(SPOILT.len() * bytes.len()));
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.push_str(if chunk.invalid().is_empty() {
            ""
        } else {
            SPOILT
        });
    }
    text
}

/// RFC 6749 §11.2.2, any of which may come first in a form.
const PARAMETERS: &[&str] = &[
    "access_token",
    "client_id",
    "client_secret",
    "code",
    "error",
    "error_description",
    "error_uri",
    "expires_in",
    "grant_type",
    "password",
    "redirect_uri",
    "refresh_token",
    "response_type",
    "scope",
    "state",
    "token_type",
    "username",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn forms_are_decoded_as_everybody_decodes_them(text in "[a-f0-9%+é&]{0,40}") {
            let text = text.replace('&', "");
            let wanted = form_urlencoded::parse(text.as_bytes()).next();
            let wanted = wanted.map_or_else(String::new, |(name, _)| name.into_owned());
            prop_assert_eq!(&*decode(text.as_bytes()), &wanted);
        }

        #[test]
        fn bytes_become_the_text_that_the_standard_library_makes_of_them(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let text = lossy(&bytes);
            prop_assert_eq!(&*text, &*String::from_utf8_lossy(&bytes));
            prop_assert_eq!(text.capacity(), 3 * bytes.len(), "it did not grow");
        }
    }
}
