//! What is wanted of a JSON object, and nothing about the rest of it.
//!
//! A member that nobody asked for must not make a token unusable, so its value is only skipped: a
//! number of any size, text with half a surrogate pair, any depth (serde_json skips without
//! recursion).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The members of an object that `wanted` names, in order, their values as they are written.
pub(super) fn members<'a>(
    json: &'a str,
    wanted: &[&'static str],
) -> serde_json::Result<Vec<(&'static str, &'a RawValue)>> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let members = deserializer.deserialize_map(Members(wanted))?;
    deserializer.end()?;
    Ok(members)
}

/// The elements of an array; none when it is something else.
pub(super) fn elements(json: &str) -> Vec<&RawValue> {
    serde_json::from_str(json).unwrap_or_default()
}

/// Whether `error` is only that the text ends too early.
pub(super) fn breaks_off(json: &str, error: &serde_json::Error) -> bool {
    if error.is_eof() {
        return true;
    }
    // After half a number serde_json misses the next digit rather than the end of the text.
    let mut longer = Zeroizing::new(String::with_capacity(json.len() + 1));
    longer.push_str(json);
    longer.push('0');
    members(&longer, &[]).is_err_and(|error| error.is_eof())
}

/// The characters of a JSON string; `None` for another value. Half a surrogate pair becomes U+FFFD.
///
/// In memory of the right size from the beginning, since it may be a token.
pub(super) fn string(value: &RawValue) -> Option<Zeroizing<String>> {
    let text = value.get().strip_prefix('"')?.strip_suffix('"')?;
    // No escape is shorter than what it stands for.
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let (character, length) = unescape(escape);
        out.push(character);
        rest = &escape[length..];
    }
    out.push_str(rest);
    Some(out)
}

/// The character that an escape stands for, and how long the escape is without its backslash.
fn unescape(escape: &str) -> (char, usize) {
    let unit = |at: usize| u16::from_str_radix(escape.get(at..at + 4)?, 16).ok();
    match escape.as_bytes().first() {
        Some(b'b') => ('\u{8}', 1),
        Some(b'f') => ('\u{c}', 1),
        Some(b'n') => ('\n', 1),
        Some(b'r') => ('\r', 1),
        Some(b't') => ('\t', 1),
        Some(b'u') => {
            let first = unit(1).unwrap_or(LONE);
            let second = escape.get(5..7).filter(|next| *next == "\\u");
            let second = second.and_then(|_| unit(7)).unwrap_or(LONE);
            let mut pair = char::decode_utf16([first, second]);
            match pair.next() {
                Some(Ok(character)) => (character, if pair.next().is_some() { 5 } else { 11 }),
                _ => (char::REPLACEMENT_CHARACTER, 5),
            }
        }
        Some(&other) => (char::from(other), 1),
        None => (char::REPLACEMENT_CHARACTER, 0),
    }
}

/// The first half of a surrogate pair: no character by itself, nor after another one.
const LONE: u16 = 0xD800;

struct Members<'a>(&'a [&'static str]);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Vec<(&'static str, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = object.next_key_seed(Name(self.0))? {
            match name {
                Some(name) => members.push((name, object.next_value()?)),
                None => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
    }
}

/// Reads a name as bytes, which need not be text.
struct Name<'a>(&'a [&'static str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        let mut wanted = self.0.iter().copied();
        Ok(wanted.find(|wanted| wanted.as_bytes() == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Vec<(&'static str, String)> {
        let members = members(json, &["a", "b"]).expect("an object");
        let values = members.into_iter().map(|(name, value)| {
            let value = string(value).map_or_else(|| value.get().to_owned(), |s| s.to_string());
            (name, value)
        });
        values.collect()
    }

    #[test]
    fn only_what_is_wanted_is_read_and_each_time_it_stands_there() {
        let json = r#"{"a":"1","x":{"a":"2"},"b":1e400,"\ud800":"\udc00","\u0061":"3"}"#;
        let read = read(json);
        let wanted = [("a", "1"), ("b", "1e400"), ("a", "3")];
        assert_eq!(read, wanted.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn escapes_are_read_as_serde_json_reads_them_and_half_a_pair_spoils_only_itself() {
        for text in [
            r#""plain é""#,
            r#""\"\\\/\b\f\n\r\t""#,
            r#""\u0041\u00e9\u20ac""#,
            r#""\ud83d\ude00.""#,
            r#""a\\u0041""#,
        ] {
            let raw: &RawValue = serde_json::from_str(text).expect("JSON");
            let wanted: String = serde_json::from_str(text).expect("JSON");
            assert_eq!(*string(raw).expect("a string"), wanted);
        }
        for (text, wanted) in [
            (r#""a\ud800b""#, "a\u{fffd}b"),
            (r#""\udc00\ud800""#, "\u{fffd}\u{fffd}"),
            (r#""\ud800\u0041""#, "\u{fffd}A"),
            (r#""\ud800\n""#, "\u{fffd}\n"),
        ] {
            let raw: &RawValue = serde_json::from_str(text).expect("JSON");
            assert_eq!(string(raw).as_deref().map(String::as_str), Some(wanted));
        }
    }

    #[test]
    fn a_text_that_ends_too_early_is_told_from_one_that_is_broken() {
        let whole = r#"{"a":"\u00e9\n","x":[true,{"y":null}],"b":-1.5e+7}"#;
        for end in 1..whole.len() {
            let error = members(&whole[..end], &["a"]).expect_err("half an object");
            assert!(breaks_off(&whole[..end], &error), "{}", &whole[..end]);
        }
        for broken in [
            r#"{"a":1,}"#,
            r#"{"a":nope"#,
            r#"{"a":1}x"#,
            r#"{a:1}"#,
            r#"{"a":1.}"#,
            "{\"a\":\"\n",
        ] {
            let error = members(broken, &["a"]).expect_err("no JSON");
            assert!(!breaks_off(broken, &error), "{broken}");
        }
    }
}
