//! `client_secret_basic`, raw and percent-encoded.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

pub(super) fn apply(headers: &mut HeaderMap, id: &str, secret: &str) {
    let pair = encode_pair(id, secret);
    let mut value = Zeroizing::new(Vec::with_capacity(SCHEME.len() + pair.len()));
    value.extend_from_slice(SCHEME);
    value.extend_from_slice(pair.as_bytes());
    // Owned bytes, so that they are wiped with the last header that shares them.
    let value = Bytes::from_owner(value);
    let mut value = HeaderValue::from_maybe_shared(value).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
}

const SCHEME: &[u8] = b"Basic ";

pub(super) fn apply_encoded(headers: &mut HeaderMap, id: &str, secret: &str) {
    apply(headers, &percent_encode(id), &percent_encode(secret));
}

pub(super) fn encode_pair(id: &str, secret: &str) -> Zeroizing<String> {
    // Made in its full size, since growing would leave copies behind that nobody wipes. So are all buffers here.
    let mut pair = Zeroizing::new(String::with_capacity(id.len() + 1 + secret.len()));
    pair.push_str(id);
    pair.push(':');
    pair.push_str(secret);
    encode(&pair)
}

pub(super) fn encode(text: &str) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(text))
}

/// Everything but the unreserved characters of RFC 3986 §2.3.
///
/// RFC 6749 §2.3.1 asks for the form encoding of appendix B, where a space is `+` and `~` is `%7E`; servers exist that read neither.
/// `%20` and a bare `~` are read by all that decode at all.
pub(super) fn percent_encode(text: &str) -> Zeroizing<String> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let escapes = text.bytes().filter(|byte| !is_unreserved(*byte)).count();
    let mut encoded = Zeroizing::new(String::with_capacity(text.len() + 2 * escapes));
    for byte in text.bytes() {
        if is_unreserved(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}

/// Whether percent-encoding changes nothing.
pub(super) fn is_plain(text: &str) -> bool {
    text.bytes().all(is_unreserved)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Q3
    #[test]
    fn unreserved_characters_are_left_alone_and_a_space_is_percent_20() {
        assert_eq!(
            *percent_encode("a~*!'()-_.b%&+ £€"),
            "a~%2A%21%27%28%29-_.b%25%26%2B%20%C2%A3%E2%82%AC"
        );
    }

    #[test]
    fn the_header_is_sensitive() {
        let mut headers = HeaderMap::new();
        apply(&mut headers, "id", "secret");
        assert!(headers[AUTHORIZATION].is_sensitive());
        assert!(!format!("{headers:?}").contains("Basic"));
    }
}
