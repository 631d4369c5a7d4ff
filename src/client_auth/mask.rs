//! Takes our own secrets out of what a server says.
//!
//! A server may repeat a secret as it was sent, or as its own layers have rewritten it: in another case, percent-encoded,
//! form-encoded, HTML-escaped, JSON-escaped, each once or twice and mixed. So the text is read as each of these at once and
//! compared with the secret, and no copy of the secret is made.

use std::ops::Range;

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

    /// The longest end of a match that begins at `start`.
    fn find_at(&self, text: &str, start: usize) -> Option<usize> {
        let whole = self.longest(self.text, text, start, None);
        let pieces = self.piece.into_iter().flat_map(|piece| {
            let tails = self.text.char_indices().map(|(at, _)| &self.text[at..]);
            tails.filter_map(move |tail| self.longest(tail, text, start, Some(piece)))
        });
        whole.into_iter().chain(pieces).max()
    }

    /// How far `needle` is found in the text from `start` on: all of it, or at least `piece` characters.
    fn longest(
        &self,
        needle: &str,
        text: &str,
        start: usize,
        piece: Option<usize>,
    ) -> Option<usize> {
        let mut characters = needle.chars();
        // Most starts end here, without an allocation.
        let mut ends = self.ways(text, start, characters.next()?);
        if ends.is_empty() {
            return None;
        }
        let mut found = 1;
        let mut whole = true;
        for c in characters {
            let mut next: Vec<_> = ends
                .iter()
                .flat_map(|end| self.ways(text, *end, c))
                .collect();
            if next.is_empty() {
                whole = false;
                break;
            }
            next.sort_unstable();
            next.dedup();
            ends = next;
            found += 1;
        }
        let enough = piece.map_or(whole, |piece| found >= piece);
        ends.last().copied().filter(|_| enough)
    }

    /// The ends of all the ways in which `c` may be written at this place.
    fn ways(&self, text: &str, at: usize, c: char) -> Vec<usize> {
        let rest = &text[at..];
        let mut ways = Vec::new();
        let mut add = |length: usize| ways.push(at + length);
        let Some(first) = rest.chars().next() else {
            return ways;
        };
        let other_alphabet = self.base64 && matches!((c, first), ('+', '-') | ('/', '_'));
        // Latin-1 that was read as UTF-8 has lost the character.
        let lost = first == char::REPLACEMENT_CHARACTER && !c.is_ascii();
        if first.eq_ignore_ascii_case(&c) || other_alphabet || lost {
            add(first.len_utf8());
        }
        match first {
            '+' if c == ' ' => add(1),
            '%' => percent(rest, c).for_each(add),
            '&' => entity(rest, c).for_each(add),
            '\\' => escaped(rest, c).for_each(add),
            _ => {}
        }
        ways
    }
}

/// `%2F`, and `%252F` where that was encoded again.
fn percent(text: &str, c: char) -> impl Iterator<Item = usize> {
    ["%", "%25", "%2525"].into_iter().filter_map(move |sign| {
        let mut buffer = [0; 4];
        let mut rest = text;
        for byte in c.encode_utf8(&mut buffer).bytes() {
            let digits = rest.strip_prefix(sign)?;
            if hex(digits, 2)? != u32::from(byte) {
                return None;
            }
            rest = &digits[2..];
        }
        Some(text.len() - rest.len())
    })
}

/// `&amp;`, `&#38;`, `&#x26;`, and `&amp;amp;` where that was escaped again.
fn entity(text: &str, c: char) -> impl Iterator<Item = usize> {
    ["&", "&amp;", "&amp;amp;"]
        .into_iter()
        .filter_map(move |sign| {
            let (name, rest) = text.strip_prefix(sign)?.split_once(';')?;
            let is = match name.strip_prefix('#') {
                Some(number) => match number.strip_prefix(['x', 'X']) {
                    Some(number) => u32::from_str_radix(number, 16) == Ok(c.into()),
                    None => number.parse() == Ok(u32::from(c)),
                },
                None => NAMES.contains(&(&*name.to_ascii_lowercase(), c)),
            };
            is.then_some(text.len() - rest.len())
        })
}

const NAMES: [(&str, char); 6] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("sol", '/'),
];

/// `\"`, `\/`, `\\`, `\u0026`, with more backslashes where that was escaped again.
fn escaped(text: &str, c: char) -> impl Iterator<Item = usize> {
    let rest = text.trim_start_matches('\\');
    let slashes = text.len() - rest.len();
    let runs = [2, 4, 8]
        .into_iter()
        .filter(move |run| c == '\\' && *run <= slashes);
    let itself = c.is_ascii_punctuation() && rest.starts_with(c);
    let units = code_units(rest, c).map(|length| slashes + length);
    runs.chain(itself.then_some(slashes + 1)).chain(units)
}

/// The length of `u0026`, or of a surrogate pair, if it stands for `c`.
fn code_units(text: &str, c: char) -> Option<usize> {
    let mut buffer = [0; 2];
    let mut rest = text;
    for (place, unit) in c.encode_utf16(&mut buffer).iter().enumerate() {
        if place > 0 {
            rest = rest.trim_start_matches('\\');
        }
        let digits = rest.strip_prefix(['u', 'U'])?;
        if hex(digits, 4)? != u32::from(*unit) {
            return None;
        }
        rest = &digits[4..];
    }
    Some(text.len() - rest.len())
}

fn hex(text: &str, digits: usize) -> Option<u32> {
    let digits = text.get(..digits)?;
    let all = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    all.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// The text with `***` in place of every secret. What is beyond `LONGEST` is left out: nothing that long is shown.
pub(super) fn mask(text: &str, needles: &[Needle<'_>]) -> String {
    let needles = || needles.iter().filter(|needle| !needle.text.is_empty());
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.char_indices().take_while(|(at, _)| *at < LONGEST) {
        let Some(end) = needles()
            .filter_map(|needle| needle.find_at(text, at))
            .max()
        else {
            continue;
        };
        match found.last_mut() {
            Some(last) if at <= last.end => last.end = last.end.max(end),
            _ => found.push(at..end),
        }
    }
    let mut characters = text.char_indices().map(|(at, _)| at);
    let end = characters.find(|at| *at >= LONGEST).unwrap_or(text.len());
    let mut masked = String::with_capacity(end);
    let mut at = 0;
    for range in found {
        masked.push_str(&text[at..range.start]);
        masked.push_str("***");
        at = range.end;
    }
    masked.push_str(text.get(at..end).unwrap_or_default());
    masked
}

/// Of a value that was cut off, pieces from this length on are told from words.
const PIECE: usize = 12;

/// Twice what is shown of the longest text, and some.
const LONGEST: usize = 8 * 1024;

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
