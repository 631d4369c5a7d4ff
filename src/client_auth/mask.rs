//! Masks our own secrets in what a server says.
//!
//! A server may repeat a secret as it was sent, or as its layers have rewritten it: in another
//! case, percent-encoded, form-encoded or form-decoded, HTML-escaped, JSON-escaped, several of
//! these on top of each other, or cut off. So the text is read as it is and with one layer of
//! escapes after another removed, each character with its place in the original; the secret is read
//! in the same way; and every reading of the one is searched for every reading of the other.
//!
//! The work is bounded whatever the server says: at most `LONGEST` bytes are read, at most
//! `DEEPEST` times, and a search looks up one window for each character.
//!
//! Rules: R24.

use std::collections::HashSet;

use zeroize::{DefaultIsZeroes, Zeroizing};

/// Shorter values may be words.
pub(super) const SHORTEST_VALUE: usize = 8;

/// A secret to look for in a text.
#[derive(Clone, Copy)]
pub(super) struct Needle<'a> {
    text: &'a str,
    /// The pieces that are masked are this long, or the whole where that is shorter.
    piece: usize,
}

impl<'a> Needle<'a> {
    /// A secret. Pieces of it are masked too, since a server may cut it off.
    pub(super) fn secret(text: &'a str) -> Self {
        Self { text, piece: PIECE }
    }

    /// A value that may be no secret at all, so pieces of it are left alone.
    pub(super) fn value(text: &'a str) -> Self {
        let piece = usize::MAX;
        Self { text, piece }
    }

    /// The secret as it was sent, and as a server has it after decoding. The latter only for a long
    /// one: of a short one, it may be a word.
    fn readings(&self) -> Vec<Reading> {
        let long = self.text.chars().count() >= SHORTEST_VALUE;
        readings(self.text, if long { DEEPEST } else { 0 })
    }
}

/// The text with `***` in place of every secret. What is beyond `LONGEST` is left out: nothing that
/// long is shown.
pub(super) fn mask(text: &str, needles: &[Needle<'_>]) -> String {
    let shown = boundary(text, LONGEST);
    let cut = shown < text.len();
    // An escape that begins before the cut is read to its end.
    let read = &text[..boundary(text, LONGEST + WIDEST)];
    let readings = readings(read, DEEPEST);
    let mut hidden = vec![false; read.len()];
    for needle in needles.iter().filter(|needle| !needle.text.is_empty()) {
        for secret in needle.readings() {
            let width = needle.piece.min(secret.codes.len());
            let pieces = secret.codes.windows(width).collect();
            for reading in &readings {
                reading.hide(&pieces, width, cut, &mut hidden);
            }
        }
    }
    let mut masked = String::with_capacity(shown);
    let mut after_hidden = false;
    for (at, c) in text[..shown].char_indices() {
        match hidden[at] {
            false => masked.push(c),
            true if !after_hidden => masked.push_str("***"),
            true => {}
        }
        after_hidden = hidden[at];
    }
    masked
}

/// The end of the text, or the last place up to `longest` where it can be cut.
fn boundary(text: &str, longest: usize) -> usize {
    let mut places = (0..=longest.min(text.len())).rev();
    places
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or_default()
}

/// A text with some layers of escapes removed.
struct Reading {
    units: Zeroizing<Vec<Unit>>,
    /// The units' codes, as they are compared.
    codes: Zeroizing<Vec<u32>>,
}

/// One character of a reading, or half of a UTF-16 pair, or a byte of UTF-8 not yet put together.
#[derive(Clone, Copy, Default)]
struct Unit {
    code: u32,
    /// Where it stands in the original text.
    start: usize,
    end: usize,
}

impl DefaultIsZeroes for Unit {}

impl Reading {
    fn new(units: Zeroizing<Vec<Unit>>) -> Self {
        let codes = Zeroizing::new(units.iter().map(|unit| compared(unit.code)).collect());
        Self { units, codes }
    }

    /// Removes one layer of escapes.
    fn decoded(&self) -> Self {
        // In full size, as all buffers here: growing would leave copies behind that nobody wipes.
        let mut units = Zeroizing::new(Vec::with_capacity(self.units.len()));
        let mut rest = &self.units[..];
        while let [first, ..] = *rest {
            let (code, length) = escape(rest).unwrap_or((first.code, 1));
            let (start, end) = (first.start, rest[length - 1].end);
            units.push(Unit { code, start, end });
            rest = &rest[length..];
        }
        Self::new(units)
    }

    /// Marks every place of one of these pieces, which are `width` characters each.
    fn hide(&self, pieces: &HashSet<&[u32]>, width: usize, cut: bool, hidden: &mut [bool]) {
        let mut hide = |units: &[Unit]| {
            let (first, last) = (units[0], units[units.len() - 1]);
            hidden[first.start..last.end].fill(true);
        };
        for (at, window) in self.codes.windows(width).enumerate() {
            if pieces.contains(window) {
                hide(&self.units[at..at + width]);
            }
        }
        if cut {
            // What goes on beyond the cut may be the secret, so it is taken for it.
            for at in (self.codes.len() + 1).saturating_sub(width)..self.codes.len() {
                let rest = &self.codes[at..];
                if pieces.iter().any(|piece| piece.starts_with(rest)) {
                    hide(&self.units[at..]);
                }
            }
        }
    }
}

/// The text as it is, then with one layer of escapes after another removed, up to `deepest`.
fn readings(text: &str, deepest: usize) -> Vec<Reading> {
    let mut units = Zeroizing::new(Vec::with_capacity(text.len()));
    units.extend(text.char_indices().map(|(start, c)| Unit {
        code: c.into(),
        start,
        end: start + c.len_utf8(),
    }));
    let mut readings = vec![Reading::new(units)];
    while readings.len() <= deepest {
        let last = &readings[readings.len() - 1];
        let next = last.decoded();
        if next.codes == last.codes {
            break;
        }
        readings.push(next);
    }
    readings
}

/// Letters in one case. All that is not ASCII counts as the same: servers that write fewer
/// characters than they read have `?` or U+FFFD there.
fn compared(code: u32) -> u32 {
    let c = u8::try_from(code).ok().filter(u8::is_ascii);
    c.map_or(b'?', |c| c.to_ascii_lowercase()).into()
}

/// What the escape at the beginning of these units stands for, and how many of them it is.
fn escape(units: &[Unit]) -> Option<(u32, usize)> {
    let mut head = [0; LONGEST_ESCAPE];
    for (byte, unit) in head.iter_mut().zip(units) {
        *byte = u8::try_from(unit.code).unwrap_or_default();
    }
    let hexadecimal = |start, end| Some((number(&head[start..end], 16)?, end));
    match (head[0], head[1]) {
        (b'+', _) => Some((' '.into(), 1)),
        (b'%', _) => hexadecimal(1, 3),
        (b'\\', b'x' | b'X') => hexadecimal(2, 4),
        (b'\\', b'u' | b'U') => hexadecimal(2, 6),
        (b'\\', c) if c.is_ascii_punctuation() => Some((c.into(), 2)),
        (b'&', _) => {
            let end = head.iter().position(|byte| *byte == b';')?;
            Some((entity(&head[1..end])?, end + 1))
        }
        // UTF-8 whose bytes were escaped one by one, or read as Latin-1.
        (0xc2..=0xf4, _) => (2..=4).find_map(|length| {
            let c = std::str::from_utf8(&head[..length]).ok()?.chars().next()?;
            Some((c.into(), length))
        }),
        _ => {
            let [high, low] = [units.first()?, units.get(1)?].map(|unit| u16::try_from(unit.code));
            let c = char::decode_utf16([high.ok()?, low.ok()?]).next()?.ok()?;
            (c > '\u{ffff}').then_some((c.into(), 2))
        }
    }
}

/// The character of `&name;`, `&#38;` or `&#x26;`.
fn entity(name: &[u8]) -> Option<u32> {
    match name {
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        _ => {
            let mut names = NAMES.iter();
            let (_, c) = names.find(|(known, _)| name.eq_ignore_ascii_case(known))?;
            Some((*c).into())
        }
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    // `from_str_radix` takes a sign as well.
    let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

const NAMES: [(&[u8], char); 6] = [
    (b"amp", '&'),
    (b"lt", '<'),
    (b"gt", '>'),
    (b"quot", '"'),
    (b"apos", '\''),
    (b"sol", '/'),
];

/// Of a secret that was cut off, pieces of this length are told from words.
const PIECE: usize = 12;

/// The longest text that is shown (4,096 bytes), and some.
const LONGEST: usize = 5 * 1024;

/// As many layers as are removed. A layer of escapes takes two where they stand for bytes or halves
/// of a pair, which are put together in a second one.
const DEEPEST: usize = 8;

/// The most bytes that one escape is looked for in beyond `LONGEST`.
const WIDEST: usize = 64;

/// `&#x10ffff;`, with leading zeros.
const LONGEST_ESCAPE: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a&b'c\"d<e/f+g h\\i%é";

    fn masked(text: &str) -> String {
        mask(text, &[Needle::secret(SECRET)])
    }

    // FS8
    #[test]
    fn a_secret_is_masked_however_a_server_plausibly_rewrites_it() {
        for form in [
            "a&b'c\"d<e/f+g h\\i%é",
            "A&B'C\"D<E/F+G H\\I%é",
            "a%26b%27c%22d%3Ce%2Ff%2Bg%20h%5Ci%25%C3%A9",
            "a%26b%27c%22d%3ce%2ff%2bg%20h%5ci%25%c3%a9",
            "a%26b'c%22d%3ce%2Ff%2Bg+h%5Ci%25%C3%a9",
            "a%2526b%2527c%2522d%253Ce%252Ff%252Bg%2520h%255Ci%2525%25C3%25A9",
            "a&amp;b&#39;c&quot;d&lt;e/f+g h\\i%é",
            "a&#38;b&#x27;c&#34;d&#x3C;e&#47;f+g h\\i%&#233;",
            "a&amp;amp;b&amp;#39;c&amp;quot;d&amp;lt;e/f+g h\\i%é",
            "a&b'c\\\"d<e/f+g h\\\\i%é",
            "a&b'c\\\\\\\"d<e\\/f+g h\\\\\\\\i%é",
            "a\\u0026b\\u0027c\\u0022d\\u003ce/f\\u002bg h\\u005ci%\\u00e9",
            "a\\\\u0026b'c\\\"d<e/f+g h\\\\\\\\i%\\\\u00e9",
            "a&b'c\"d<e/f+g h\\i%\u{fffd}",
            "a&b'c\"d<e/f+g h\\i%?",
            "a&b'c\"d<e/f+g h\\i%Ã©",
            "a&b'c\"d<e/f+g h\\\\i%\\xc3\\xa9",
            "a&b'c\"d<e/f+g h\\\\i%\\xe9",
        ] {
            assert_eq!(
                masked(&format!("say {form} again")),
                "say *** again",
                "{form}"
            );
        }
    }

    // FS8
    #[test]
    fn of_a_secret_that_was_cut_off_twelve_characters_and_more_are_masked() {
        let needle = || [Needle::secret("aWQ6Y2FuYXJ5LXMzY3JldC+/")];
        for (text, shown) in [
            ("Basic aWQ6Y2FuYXJ5LXMz...", "Basic ***..."),
            ("...uYXJ5LXMzY3JldC+/ ends", "...*** ends"),
            ("aWQ6Y2FuYXJ5LXMzY3JldC%2B%2F==", "***=="),
            ("aWQ6Y2FuYXJ", "aWQ6Y2FuYXJ"),
        ] {
            assert_eq!(mask(text, &needle()), shown);
        }
    }

    // FS6
    #[test]
    fn pieces_of_a_value_that_may_be_no_secret_stay() {
        let needles = [Needle::value("https://tenant.example/x")];
        assert_eq!(
            mask("see https://tenant.example/y", &needles),
            "see https://tenant.example/y"
        );
        assert_eq!(
            mask("see https%3A%2F%2Ftenant.example%2Fx", &needles),
            "see ***"
        );
    }

    #[test]
    fn secrets_that_overlap_leave_nothing_and_a_short_one_is_masked_too() {
        let needles = [
            Needle::secret("abcd"),
            Needle::secret("cdef"),
            Needle::secret("x"),
        ];
        assert_eq!(mask("1abcdef2x3xx4", &needles), "1***2***3***4");
        assert_eq!(mask("abc", &[Needle::secret("")]), "abc");
    }

    #[test]
    fn a_secret_that_looks_like_an_escape_itself_is_masked_once_encoded() {
        for (secret, text) in [
            ("%25", "%2525"),
            ("&amp;", "&amp;amp;"),
            ("\\\\", "\\\\\\\\"),
        ] {
            assert_eq!(mask(text, &[Needle::secret(secret)]), "***", "{secret}");
        }
    }

    #[test]
    fn what_is_too_long_to_be_shown_is_cut_and_a_secret_there_is_not_cut_in_half() {
        for (before, secret, after) in [
            (LONGEST - 3, "abcdefgh", "-"),
            (LONGEST - 1, "a%62cdefgh", "-"),
            // An escape has its middle there, and only the text after it would tell.
            (LONGEST - 8, "abcdefg%68", "-"),
            (LONGEST - 8, "abcdefg&#104;", "-"),
            // As much of a longer one.
            (LONGEST - 3, "abcd", ""),
        ] {
            let text = "-".repeat(before) + secret + &after.repeat(99);
            for needle in [Needle::secret("abcdefgh"), Needle::value("abcdefgh")] {
                let masked = mask(&text, &[needle]);
                assert_eq!(masked.len(), before + 3, "{secret}");
                assert!(masked.ends_with("-***"), "{}", &masked[before - 9..]);
            }
        }
    }

    #[test]
    fn a_secret_that_was_escaped_in_several_ways_is_masked() {
        for (secret, text) in [
            ("ab&cd<ef", "ab%26amp%3Bcd%26lt%3Bef"),
            ("ab\"cd\\ef", "ab%5C%22cd%5C%5Cef"),
            ("ab&cd<ef", "ab\\u0026amp;cd\\u0026lt;ef"),
            ("ab&cd<ef", "ab\\u0026amp\\u003bcd\\u0026#60\\u003bef"),
            ("ab+cd/ef", "ab%26%2343%3Bcd%26%23x2F%3Bef"),
            ("ab cd/ef", "ab%2Bcd%252fef"),
            ("ab&cd'ef", "ab&amp;amp;amp;cd\\\\\\'ef"),
            ("ab&cdéef", "ab\\x26cd%E9ef"),
            ("abécdÉef", "ABÉCD&#233;EF"),
            ("ab\u{1f600}cd", "ab\\ud83d\\ude00cd"),
            ("ab\u{1f600}cd", "ab\\\\uD83D\\\\uDE00cd"),
            ("ab\u{1f600}cd", "ab%25F0%259F%2598%2580cd"),
        ] {
            let text = format!("say {text} again");
            assert_eq!(
                mask(&text, &[Needle::secret(secret)]),
                "say *** again",
                "{text}"
            );
        }
    }

    #[test]
    fn what_a_server_reads_when_it_form_decodes_a_raw_secret_is_masked() {
        let needle = |secret| [Needle::secret(secret), Needle::value(secret)];
        for (secret, text) in [
            ("Pa55+w0rd/Qx7+mN2+kL9+vB4", "Pa55 w0rd/Qx7 mN2 kL9 vB4"),
            ("Zk%41%42c%2Fd%43ef%2B%44gh%45", "ZkABc/dCef+DghE"),
            ("a+b%2Bc%C3%A9%E9", "a b+céé"),
            ("a+b%2Bc%C3%A9%E9", "a+b+céé"),
            ("a+b%2Bc%C3%A9%E9", "a b%2Bc%C3%A9%E9"),
            ("a+b%2Bc%C3%A9%E9", "a b+cé\u{fffd}"),
            ("a+b%26c%zz%4", "a b&amp;c%zz%4"),
        ] {
            for needle in needle(secret) {
                assert_eq!(mask(&format!("[{text}]"), &[needle]), "[***]", "{text}");
            }
        }
        // Of a short one, this would be a word.
        assert_eq!(mask("a b", &needle("a+b")), "a b");
    }

    #[test]
    fn the_work_is_bounded_whatever_the_text_and_the_secret() {
        let long: String = ('!'..='~').cycle().take(800).collect();
        let same = "a".repeat(64);
        let slashes = "\\&%+".repeat(16);
        for secret in [SECRET, &long, &same, &slashes] {
            let half = secret
                .chars()
                .take(secret.chars().count() / 2)
                .collect::<String>();
            for unit in [
                "&",
                "\\",
                "%",
                "+",
                ";",
                "%26",
                "%25",
                "%5C",
                "%C3",
                "&amp;",
                "amp;",
                "&#",
                "&#x5c;",
                "&aaaaaaaaa",
                "\\u0026",
                "\\u005c",
                "\\ud83d",
                "\\ud83d\\x",
                "u",
                "\\%5C",
                "\\\\&bsol;%",
                "x ",
                "é",
                &half,
            ] {
                let text = unit.repeat((1 << 20) / unit.len());
                let mask =
                    |text: &str| mask(text, &[Needle::secret(secret), Needle::value(secret)]);
                let masked = mask(&text);
                assert!(masked.len() <= LONGEST + "***".len());
                // Counted, since a time would be the machine's: what is beyond is not read, and
                // what is read is read so often at most.
                let read = &text[..boundary(&text, LONGEST + WIDEST)];
                if secret == SECRET {
                    assert_eq!(mask(&format!("{read}{}", "!".repeat(LONGEST))), masked);
                }
                let readings = readings(read, DEEPEST);
                let units: usize = readings.iter().map(|reading| reading.codes.len()).sum();
                assert!(units <= (DEEPEST + 1) * (LONGEST + WIDEST));
            }
        }
    }
}
