//! Takes our own secrets out of what a server says.
//!
//! A server may repeat a secret as it was sent, or as its own layers have rewritten it: in another case, percent-encoded,
//! form-encoded or -decoded, HTML-escaped, JSON-escaped, up to three of these on top of each other. So each place of the text
//! is read in all ways, and these are compared with the secret; no copy of the secret is made.
//!
//! The work is bounded whatever the server says: `LONGEST` places, a few ways at each, one comparison with each character of
//! the secret for each way.

use std::collections::VecDeque;
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
    /// From the last place to the first: what is found at one place is one character more than what was found after it.
    fn find(&self, text: &Text<'_>, ends: &mut [usize]) {
        let length = self.text.len();
        let decoded = !self.base64 && self.text.chars().count() >= SHORTEST_VALUE;
        // How much of the needle was found at the places after this one, for each place of the needle.
        let mut after: VecDeque<Vec<Found>> = VecDeque::with_capacity(WIDEST);
        if !text.cut {
            let mut nothing = vec![Found::default(); length + 1];
            nothing[length].to_end = true;
            after.push_front(nothing);
        }
        for at in (0..ends.len()).rev() {
            let mut row = vec![Found::default(); length + 1];
            row[length].to_end = true;
            for reading in text.readings(at) {
                let rest = after.get(reading.end - at - 1);
                let mut add = |from: usize, to: usize| {
                    let rest = rest.map_or(Found::CUT, |rest| rest[to]);
                    row[from] = row[from].max(Found {
                        to_end: rest.to_end,
                        characters: rest.characters + 1,
                        end: rest.end.max(reading.end),
                    });
                };
                for (from, c) in self.text.char_indices() {
                    if self.is_same(c, reading.c) {
                        add(from, from + c.len_utf8());
                    }
                    // What the server compared may be what came of this when it decoded it.
                    if decoded && c == '+' && reading.c == ' ' {
                        add(from, from + 1);
                    }
                    if decoded && c == '%' {
                        for to in [3, 6, 9, 12].map(|length| from + length) {
                            let escape = self.text.get(from..to).and_then(|text| percent(text).0);
                            if escape.is_some_and(|c| self.is_same(c, reading.c)) {
                                add(from, to);
                            }
                        }
                    }
                }
            }
            let whole = row.first().filter(|found| found.to_end);
            let enough = |found: &&Found| self.piece.is_some_and(|piece| found.characters >= piece);
            let found = whole.into_iter().chain(row.iter().filter(enough));
            ends[at] = found.map(|found| found.end).fold(ends[at], usize::max);
            after.truncate(WIDEST - 1);
            after.push_front(row);
        }
    }

    /// Whether `seen` may be what became of `c`.
    fn is_same(&self, c: char, seen: char) -> bool {
        // Latin-1 that was read as UTF-8 has lost the character.
        let lost = seen == char::REPLACEMENT_CHARACTER;
        seen.eq_ignore_ascii_case(&c)
            || self.base64 && matches!((c, seen), ('+', '-') | ('/', '_'))
            || !c.is_ascii() && (lost || c.to_lowercase().eq(seen.to_lowercase()))
    }
}

/// How much of a needle was found at a place of the text. The greatest is the best.
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
            if matches!(c, '%' | '&' | '\\' | '+') {
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
                    let depth = depth + 1;
                    self.escapes[at].push(Reading { c, end, depth });
                }
            }
        }
    }

    /// Finds the escapes that begin with what was read so far and then `next`, and are made of nothing deeper than `depth`.
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
    match text.as_bytes().first() {
        Some(b'+') => (Some(' '), false),
        Some(b'%') => percent(text),
        Some(b'&') => entity(&text[1..]),
        Some(b'\\') => backslash(&text[1..]),
        _ => (None, false),
    }
}

/// `%2F`, `%C3%A9`, and `%E9` where that is Latin-1.
fn percent(text: &str) -> (Option<char>, bool) {
    let mut bytes = [0; 4];
    let mut length = 0;
    let mut escapes = text.split('%').skip(1).peekable();
    while let Some(digits) = escapes.next() {
        let Some(byte) = bytes.get_mut(length) else {
            return (None, false);
        };
        match hex(digits, 2) {
            Some(value) => *byte = value as u8,
            None => return (None, escapes.peek().is_none() && begins_hex(digits, 2)),
        }
        length += 1;
    }
    let bytes = &bytes[..length];
    let latin = (length == 1).then(|| char::from(bytes[0]));
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().count() == 1 => (text.chars().next(), false),
        Ok(_) => (None, false),
        Err(error) => (latin, error.error_len().is_none()),
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

const LONGEST_ENTITY: usize = 10;

const NAMES: [(&str, char); 6] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("sol", '/'),
];

/// `"`, `/`, `\`, `x26`, `u0026`, and a second `\u` after the first half of a surrogate pair.
fn backslash(text: &str) -> (Option<char>, bool) {
    let mut characters = text.chars();
    let Some(kind) = characters.next() else {
        return (None, true);
    };
    if kind.is_ascii_punctuation() {
        return (Some(kind).filter(|_| text.len() == 1), false);
    }
    let (digits, width) = match kind {
        'x' | 'X' => (&text[1..], 2),
        'u' | 'U' => (&text[1..], 4),
        _ => return (None, false),
    };
    let (first, second) = match digits.split_once('\\') {
        Some((first, second)) => (first, Some(second)),
        None => (digits, None),
    };
    let Some(first) = hex(first, width) else {
        return (None, second.is_none() && begins_hex(first, width));
    };
    let Some(second) = second else {
        let pair = width == 4 && (0xd800..0xdc00).contains(&first);
        return (char::from_u32(first), pair);
    };
    let digits = second.strip_prefix(['u', 'U']).unwrap_or_default();
    match hex(digits, 4) {
        Some(second) => {
            let units = [first as u16, second as u16];
            (char::decode_utf16(units).next().and_then(Result::ok), false)
        }
        None => (None, digits.len() < 4),
    }
}

/// The number that so many digits make.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let all = text.len() == digits && begins_hex(text, digits);
    all.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

fn begins_hex(text: &str, digits: usize) -> bool {
    text.len() <= digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The text with `***` in place of every secret. What is beyond `LONGEST` is left out: nothing that long is shown.
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
        let text = "-".repeat(LONGEST - 3) + "abcdefgh" + &"-".repeat(99);
        let masked = mask(&text, &[Needle::secret("abcdefgh")]);
        assert!(masked.ends_with("-***"), "{}", &masked[LONGEST - 9..]);
    }
}
