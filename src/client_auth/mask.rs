//! Takes our own secrets out of what a server says.
//!
//! A server may repeat a secret as it was sent, or as its own layers have rewritten it: in another
//! case, percent-encoded, form-encoded or -decoded, HTML-escaped, JSON-escaped, up to three of these
//! on top of each other. So each place of the text is read in all ways, and these are compared with
//! the secret; no copy of the secret is made.
//!
//! The work is bounded whatever the server says: `LONGEST` bytes are looked at, each place is read
//! in a few ways (at most eight backslashes in a row stand for one), and each of these takes one
//! step for each character of the secret that it may be.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use super::SHORTEST_VALUE;

/// A secret to look for in a text.
pub(super) struct Needle<'a> {
    text: &'a str,
    /// Pieces of this many characters are masked too, when it is cut off.
    piece: Option<usize>,
    base64: bool,
}

impl<'a> Needle<'a> {
    /// A secret, and what is left of it when it is cut off.
    pub(super) fn secret(text: &'a str) -> Self {
        Self {
            text,
            piece: Some(PIECE),
            base64: false,
        }
    }

    /// A value that may be no secret at all, so that pieces of it are left alone.
    pub(super) fn value(text: &'a str) -> Self {
        Self {
            text,
            piece: None,
            base64: false,
        }
    }

    /// Something in base64, of either alphabet. Its padding is repeated as often as not.
    pub(super) fn base64(text: &'a str) -> Self {
        Self {
            text: text.trim_end_matches('='),
            piece: Some(PIECE),
            base64: true,
        }
    }

    /// Notes for each place of the text how far this secret, or a piece of it, goes from there on.
    ///
    /// From the last place to the first: what is found at one place is one character more than what
    /// was found after it.
    fn find(&self, text: &Text<'_>, ends: &mut [usize]) {
        let mut parts = HashMap::new();
        // What was found at the places after this one, by where it begins in the needle.
        let mut after: VecDeque<BTreeMap<usize, Found>> = VecDeque::with_capacity(WIDEST);
        if !text.cut {
            after.push_front(BTreeMap::new());
        }
        for (at, longest) in ends.iter_mut().enumerate().rev() {
            let mut here = BTreeMap::new();
            for reading in text.readings(at) {
                let rest = after.get(reading.end - at - 1);
                let parts = parts.entry(reading.c);
                for part in parts.or_insert_with(|| self.parts(reading.c)) {
                    let rest = rest.map_or(Found::CUT, |rest| {
                        rest.get(&part.end).copied().unwrap_or_default()
                    });
                    let found = Found {
                        to_end: rest.to_end || part.end == self.text.len(),
                        characters: rest.characters + 1,
                        end: rest.end.max(reading.end),
                    };
                    let whole = part.start == 0 && found.to_end;
                    if whole || self.piece.is_some_and(|piece| found.characters >= piece) {
                        *longest = found.end.max(*longest);
                    }
                    let best: &mut Found = here.entry(part.start).or_default();
                    *best = found.max(*best);
                }
            }
            after.truncate(WIDEST - 1);
            after.push_front(here);
        }
    }

    /// The parts of the needle that may have become this character.
    fn parts(&self, seen: char) -> Vec<Range<usize>> {
        // What a server compared with the secret may be what it got when it decoded ours.
        let decoded = !self.base64 && self.text.chars().count() >= SHORTEST_VALUE;
        let mut parts = Vec::new();
        for (start, c) in self.text.char_indices() {
            let mut add = |length: usize, c: char| {
                if self.is_same(c, seen) {
                    parts.push(start..start + length);
                }
            };
            add(c.len_utf8(), c);
            match c {
                '+' if decoded => add(1, ' '),
                '%' if decoded => {
                    for length in [3, 6, 9, 12] {
                        let part = self.text.get(start..start + length);
                        if let Some(c) = part.and_then(|part| hexadecimal(part, PERCENT).0) {
                            add(length, c);
                        }
                    }
                }
                _ => {}
            }
        }
        parts
    }

    /// Whether `seen` may be what became of `c`.
    fn is_same(&self, c: char, seen: char) -> bool {
        // Read as UTF-8, or written where there are fewer characters, it is lost.
        let lost = matches!(seen, char::REPLACEMENT_CHARACTER | '?');
        seen.eq_ignore_ascii_case(&c)
            || self.base64 && matches!((c, seen), ('+', '-') | ('/', '_'))
            || !c.is_ascii() && (lost || c.to_lowercase().eq(seen.to_lowercase()))
    }
}

/// How much of a needle was found at a place of the text. The greatest is the best.
///
/// Compared in this order: what reaches the needle's end is whole if it began at its beginning.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    to_end: bool,
    characters: usize,
    /// Where it ends in the text.
    end: usize,
}

impl Found {
    /// What goes on where the text was cut may be the secret, so it is taken for it.
    const CUT: Self = Self {
        to_end: true,
        characters: PIECE,
        end: 0,
    };
}

/// A text and the ways in which it may be read.
struct Text<'a> {
    text: &'a str,
    /// What the escapes that begin at each place stand for.
    escapes: Vec<Vec<Reading>>,
    /// Whether there is more of it than is looked at.
    cut: bool,
}

/// A character that may be meant at a place of the text.
#[derive(Clone, Copy)]
struct Reading {
    c: char,
    end: usize,
    /// How many layers have escaped it.
    depth: u8,
}

impl<'a> Text<'a> {
    fn new(text: &'a str, cut: bool) -> Self {
        let mut read = Self {
            text,
            escapes: vec![Vec::new(); text.len()],
            cut,
        };
        // From the end, so that escapes that are part of another have been read before it.
        for (at, c) in text.char_indices().rev() {
            if escape(c.encode_utf8(&mut [0; 4])) != (None, false) {
                read.read_escapes(at);
            }
        }
        read
    }

    fn readings(&self, at: usize) -> impl Iterator<Item = Reading> + '_ {
        // None in the middle of a character.
        let c = self.text.get(at..).and_then(|rest| rest.chars().next());
        let itself = c.map(|c| Reading {
            c,
            end: at + c.len_utf8(),
            depth: 0,
        });
        let escapes = self.escapes.get(at).into_iter().flatten();
        itself.into_iter().chain(escapes.copied())
    }

    fn read_escapes(&mut self, at: usize) {
        for depth in 0..DEEPEST {
            let mut found = Vec::new();
            for first in self.readings(at) {
                self.go_on(&mut String::new(), first, depth, &mut found);
            }
            for (c, end) in found {
                let known = self
                    .readings(at)
                    .any(|known| (known.c, known.end) == (c, end));
                if !known && end - at <= WIDEST {
                    self.escapes[at].push(Reading {
                        c,
                        end,
                        depth: depth + 1,
                    });
                }
            }
        }
    }

    /// Finds the escapes that begin with what was read so far and then `next`, and are made of
    /// nothing deeper than `depth`.
    fn go_on(&self, so_far: &mut String, next: Reading, depth: u8, found: &mut Vec<(char, usize)>) {
        if next.depth > depth {
            return;
        }
        so_far.push(next.c);
        let (escaped, goes_on) = escape(so_far);
        found.extend(escaped.map(|c| (c, next.end)));
        if goes_on {
            for next in self.readings(next.end) {
                self.go_on(so_far, next, depth, found);
            }
        }
        so_far.pop();
    }
}

/// The character for which this escape stands, and whether it may be the beginning of a longer one.
fn escape(text: &str) -> (Option<char>, bool) {
    match text.chars().next() {
        Some('+') => (Some(' '), false),
        Some('%') => hexadecimal(text, PERCENT),
        Some('&') => entity(&text[1..]),
        Some('\\') => backslash(text),
        Some('\u{c2}'..='\u{f4}') => mojibake(text),
        _ => (None, false),
    }
}

/// `%2F`, `%C3%A9`, and `%E9` where that is Latin-1; in another form, which has four bytes, likewise.
fn hexadecimal(text: &str, form: &str) -> (Option<char>, bool) {
    let width = form.len() / 4;
    if !begins(text, form) {
        return (None, false);
    }
    if text.len() % width != 0 {
        return (None, true);
    }
    let mut bytes = [0; 4];
    let digits = (width..=text.len()).step_by(width);
    for (byte, end) in bytes.iter_mut().zip(digits) {
        *byte = u8::from_str_radix(&text[end - 2..end], 16).unwrap_or_default();
    }
    let bytes = &bytes[..text.len() / width];
    let (c, goes_on) = utf8(bytes);
    let latin = (bytes.len() == 1).then(|| char::from(bytes[0]));
    (c.or(latin), goes_on)
}

/// UTF-8 that was read as Latin-1, as many servers read Basic credentials.
fn mojibake(text: &str) -> (Option<char>, bool) {
    let bytes: Result<Vec<_>, _> = text.chars().map(|c| u8::try_from(u32::from(c))).collect();
    bytes.map_or((None, false), |bytes| utf8(&bytes))
}

/// The one character that these bytes are, and whether they may be the beginning of one.
fn utf8(bytes: &[u8]) -> (Option<char>, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().count() == 1 => (text.chars().next(), false),
        Ok(_) => (None, false),
        Err(error) => (None, error.error_len().is_none()),
    }
}

/// `amp;`, `#38;`, `#x26;`.
fn entity(text: &str) -> (Option<char>, bool) {
    let Some(name) = text.strip_suffix(';') else {
        let name = |c: char| c == '#' || c.is_ascii_alphanumeric();
        return (None, text.len() < LONGEST_ENTITY && text.chars().all(name));
    };
    let number = name
        .strip_prefix('#')
        .map(|number| match number.strip_prefix(['x', 'X']) {
            Some(number) => u32::from_str_radix(number, 16),
            None => number.parse(),
        });
    let c = match number {
        Some(number) => number.ok().and_then(char::from_u32),
        None => {
            let mut names = NAMES.iter();
            names
                .find(|(known, _)| name.eq_ignore_ascii_case(known))
                .map(|(_, c)| *c)
        }
    };
    (c, false)
}

const PERCENT: &str = "%00%00%00%00";
const BACKSLASH_X: &str = r"\x00\x00\x00\x00";
const LONGEST_ENTITY: usize = 10;

const NAMES: [(&str, char); 6] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("sol", '/'),
];

/// `\"`, `\/`, `\\`, `\x26`, `\u0026`, `\ud83d\ude00`.
fn backslash(text: &str) -> (Option<char>, bool) {
    let number = |digits| u32::from_str_radix(digits, 16).unwrap_or_default();
    if begins(text, BACKSLASH_X) {
        return hexadecimal(text, BACKSLASH_X);
    }
    if begins(text, "\\u0000\\u0000") {
        if text.len() % 6 != 0 {
            return (None, true);
        }
        let units = text
            .split("\\")
            .skip(1)
            .map(|unit| number(&unit[1..]) as u16);
        let c = char::decode_utf16(units).next().and_then(Result::ok);
        // Without its second half, the first of a pair is none.
        return (c, c.is_none());
    }
    let itself = text[1..].chars().next().filter(char::is_ascii_punctuation);
    (itself.filter(|_| text.len() == 2), false)
}

/// Whether this is a beginning of something of this form, in which `0` is any hexadecimal digit.
fn begins(text: &str, form: &str) -> bool {
    let mut both = text.bytes().zip(form.bytes());
    text.len() <= form.len()
        && both.all(|(byte, form)| match form {
            b'0' => byte.is_ascii_hexdigit(),
            _ => byte.eq_ignore_ascii_case(&form),
        })
}

/// The text with `***` in place of every secret. What is beyond `LONGEST` is left out: nothing that
/// long is shown.
pub(super) fn mask(text: &str, needles: &[Needle<'_>]) -> String {
    let cut = boundary(text, LONGEST);
    // An escape that begins before the cut is read to its end.
    let read = Text::new(&text[..boundary(text, LONGEST + WIDEST)], cut < text.len());
    let mut ends = vec![0; cut];
    for needle in needles.iter().filter(|needle| !needle.text.is_empty()) {
        needle.find(&read, &mut ends);
    }
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, end) in ends.into_iter().enumerate().filter(|(_, end)| *end > 0) {
        match found.last_mut() {
            Some(last) if at <= last.end => last.end = last.end.max(end),
            _ => found.push(at..end),
        }
    }
    let mut masked = String::with_capacity(cut);
    let mut at = 0;
    for range in found {
        masked.push_str(&text[at..range.start]);
        masked.push_str("***");
        at = range.end;
    }
    masked.push_str(text.get(at..cut).unwrap_or_default());
    masked
}

/// The end of the text, or the last place up to `longest` where it can be cut.
fn boundary(text: &str, longest: usize) -> usize {
    let mut places = (0..=longest.min(text.len())).rev();
    places
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or_default()
}

/// Of a value that was cut off, pieces from this length on are told from words.
const PIECE: usize = 12;

/// The longest text that is shown (4,096), and some.
const LONGEST: usize = 5 * 1024;

/// The most bytes in which one character is recognised.
const WIDEST: usize = 64;

/// How often a character that is recognised was escaped.
const DEEPEST: u8 = 3;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

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
        let needle = || [Needle::base64("aWQ6Y2FuYXJ5LXMzY3JldC+/")];
        for (text, shown) in [
            ("Basic aWQ6Y2FuYXJ5LXMz...", "Basic ***..."),
            ("...uYXJ5LXMzY3JldC-_ ends", "...*** ends"),
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
                let started = Instant::now();
                let masked = mask(&text, &[Needle::secret(secret), Needle::value(secret)]);
                let took = started.elapsed();
                assert!(
                    took < Duration::from_secs(5),
                    "{took:?} for {unit} and {secret}"
                );
                assert!(masked.len() <= LONGEST + "***".len());
                let cut = boundary(&text, LONGEST);
                let read = Text::new(&text[..cut], true);
                let most = (0..cut).map(|at| read.readings(at).count()).max();
                assert!(most <= Some(16), "{most:?} for {unit}");
            }
        }
    }
}
