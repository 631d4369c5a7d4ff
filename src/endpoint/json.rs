//! The members of a JSON object as they are written.
//!
//! A member that nobody asked for must not make a token unusable, so values are only skipped here:
//! a number of any size, text with half a surrogate pair, any depth (serde_json skips without
//! recursion).

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The members of an object, in order, repeated ones included.
pub(super) fn members(json: &str) -> serde_json::Result<Vec<(Zeroizing<String>, &RawValue)>> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let members = deserializer.deserialize_map(Members)?;
    deserializer.end()?;
    Ok(members)
}

/// The elements of an array; none when it is something else.
pub(super) fn elements(json: &str) -> Vec<&RawValue> {
    serde_json::from_str(json).unwrap_or_default()
}

/// Whether `error` only says that the text ends too early.
pub(super) fn breaks_off(json: &str, error: &serde_json::Error) -> bool {
    // After half a number serde_json misses the next digit rather than the end of the text.
    let mut longer = Zeroizing::new(String::with_capacity(json.len() + 1));
    longer.push_str(json);
    longer.push('0');
    error.is_eof() || members(&longer).is_err_and(|error| error.is_eof())
}

/// The characters of a JSON string; `None` for another value. Half a surrogate pair becomes U+FFFD.
///
/// It may be a token, so the memory has its full capacity up front.
pub(super) fn string(value: &RawValue) -> Option<Zeroizing<String>> {
    let mut rest = value.get().strip_prefix('"')?.strip_suffix('"')?;
    // No escape is shorter than what it stands for.
    let mut out = Zeroizing::new(String::with_capacity(rest.len()));
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
    let pair = escape.get(5..7) == Some("\\u");
    let (longest, length) = match escape.as_bytes() {
        [b'u', ..] if pair => (11, 5),
        [b'u', ..] => (5, 5),
        _ => (1, 1),
    };
    let mut lengths = [longest, length].into_iter();
    let read = lengths.find_map(|length| {
        let json = format!("\"\\{}\"", escape.get(..length)?);
        Some((serde_json::from_str(&json).ok()?, length))
    });
    read.unwrap_or((char::REPLACEMENT_CHARACTER, length))
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(Zeroizing<String>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = object.next_entry::<&RawValue, _>()? {
            members.push((string(name).unwrap_or_default(), value));
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_each_time_they_stand_there_whatever_they_hold() {
        let json = r#"{"a":"1","x":{"a":"2"},"b":1e400,"\ud800":"\udc00","\u0061":"3"}"#;
        let read = members(json).expect("an object");
        let read: Vec<_> = (read.iter())
            .map(|(name, value)| (name.as_str(), value.get()))
            .collect();
        let wanted = [
            ("a", r#""1""#),
            ("x", r#"{"a":"2"}"#),
            ("b", "1e400"),
            ("\u{fffd}", r#""\udc00""#),
            ("a", r#""3""#),
        ];
        assert_eq!(read, wanted);
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
            let error = members(&whole[..end]).expect_err("half an object");
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
            let error = members(broken).expect_err("no JSON");
            assert!(!breaks_off(broken, &error), "{broken}");
        }
    }
}
