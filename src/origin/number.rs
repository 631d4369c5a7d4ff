//! A number for each origin, by which the cache tells the 401 budgets of origins apart (rule R20).

use std::hash::Hasher;
use std::net::Ipv6Addr;

use rustc_hash::FxHasher;

use super::default_port;

pub(super) fn of_name(https: bool, name: &str, port: u16) -> u64 {
    let mut hasher = FxHasher::default();
    for_each_word(name.as_bytes(), |word| {
        hasher.write_u64(lower_case(u64::from_le_bytes(word)));
    });
    hasher.write_u64(number_end(https, name.len(), port));
    hasher.finish()
}

pub(super) fn of_address(https: bool, address: &Ipv6Addr, port: u16) -> u64 {
    let mut hasher = FxHasher::default();
    for_each_word(&address.octets(), |word| {
        hasher.write_u64(u64::from_le_bytes(word));
    });
    hasher.write_u64(number_end(https, 0, port));
    hasher.finish()
}

/// [`Parts::number`](super::Parts::number) of `https://` and this authority, if that is written as
/// most are: a host of at least eight characters in lower case, neither port nor user-info nor
/// trailing dot. `None` says nothing.
///
/// Eight bytes are looked at together, to make this cheap enough for each request.
#[inline(always)]
pub(crate) fn number_of_plain_https(authority: &str) -> Option<u64> {
    let host = authority.as_bytes();
    match host.len() {
        0..8 => None,
        8..=32 => number_of_plain::<true>(host),
        _ => number_of_plain_and_long(host),
    }
}

/// A function of its own, so that its loop takes no registers from what most hosts need.
#[inline(never)]
fn number_of_plain_and_long(host: &[u8]) -> Option<u64> {
    number_of_plain::<false>(host)
}

#[inline(always)]
fn number_of_plain<const FEW: bool>(host: &[u8]) -> Option<u64> {
    if let [b'.', ..] | [.., b'.'] = host {
        return None;
    }
    let mut hasher = FxHasher::default();
    let mut odd = 0;
    let take = |word| {
        let word = u64::from_le_bytes(word);
        // `:` to `^`: what begins a port, user-info or an address, and upper case. Bytes past ASCII
        // spoil the sums.
        odd |= at_least(word, b':') ^ at_least(word, b'_') | word;
        hasher.write_u64(word);
    };
    if FEW {
        for_each_of_few_words(host, take);
    } else {
        for_each_word(host, take);
    }
    if odd & HIGH_BITS != 0 {
        return None;
    }
    hasher.write_u64(number_end(true, host.len(), default_port(true)));
    Some(hasher.finish())
}

/// [`Parts::number`](super::Parts::number) of `http://` and this authority, if it is loopback in
/// its usual spelling: `127.0.0.1` or `localhost`, with or without a port. `None` says nothing.
#[inline(never)]
pub(crate) fn number_of_plain_loopback(scheme: &str, authority: &str) -> Option<u64> {
    if scheme != "http" {
        return None;
    }
    let (host, after) = authority.as_bytes().split_first_chunk::<9>()?;
    if host != b"127.0.0.1" && host != b"localhost" {
        return None;
    }
    let port = match after {
        [] => digits_of(default_port(false)),
        [b':', digits @ ..] => read_digits(*authority.as_bytes().last_chunk()?, digits.len())?,
        _ => return None,
    };
    let mut hasher = FxHasher::default();
    for_each_word(host, |word| hasher.write_u64(u64::from_le_bytes(word)));
    hasher.write_u64(end_of_digits(false, host.len(), port));
    Some(hasher.finish())
}

/// The digits of a port, a byte each, the last one highest: as eight bytes of text hold them that
/// end with the port.
const fn digits_of(port: u16) -> u64 {
    let (mut rest, mut digits, mut shift) = (port, 0, 56);
    while rest > 0 {
        digits |= ((rest % 10) as u64) << shift;
        rest /= 10;
        shift -= 8;
    }
    digits
}

/// [`digits_of`] the port that `text` ends with, of which so many bytes are to be digits. `None` if
/// that is no port, or not written in one to five digits.
#[inline(always)]
fn read_digits(text: [u8; 8], count: usize) -> Option<u64> {
    if !(1..=5).contains(&count) {
        return None;
    }
    let text = u64::from_le_bytes(text) ^ (ONES * u64::from(b'0'));
    let digits = text & (u64::MAX << (64 - 8 * count));
    let odd = (digits | at_least(digits, 10)) & HIGH_BITS;
    let most = digits_of(u16::MAX).swap_bytes();
    let is_port = odd == 0 && digits != 0 && digits.swap_bytes() <= most;
    is_port.then_some(digits)
}

/// Sets the highest bit of each byte that is `from` or more, all being ASCII. The other bits mean
/// nothing.
#[inline(always)]
fn at_least(word: u64, from: u8) -> u64 {
    word.wrapping_add(ONES * u64::from(0x80 - from))
}

fn lower_case(word: u64) -> u64 {
    let upper = (at_least(word, b'A') ^ at_least(word, b'[')) & HIGH_BITS;
    // What tells the cases apart is two bits below.
    word | upper >> 2
}

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGH_BITS: u64 = ONES << 7;

/// The last eight bytes may overlap those before them. Less than eight are filled up with zeros.
#[inline(always)]
fn for_each_word(host: &[u8], mut take: impl FnMut([u8; 8])) {
    let (Some((first, mut rest)), Some(last)) = (host.split_first_chunk(), host.last_chunk())
    else {
        let mut word = [0; 8];
        word[..host.len()].copy_from_slice(host);
        return take(word);
    };
    take(*first);
    while let Some((word, after @ [_, ..])) = rest.split_first_chunk() {
        take(*word);
        rest = after;
    }
    take(*last);
}

/// The same for 8 to 32 bytes, with a loop that the compiler unrolls.
#[inline(always)]
fn for_each_of_few_words(host: &[u8], mut take: impl FnMut([u8; 8])) {
    let (Some(first), Some(last)) = (host.first_chunk(), host.last_chunk()) else {
        return;
    };
    take(*first);
    for from in [8, 16] {
        let rest = host.get(from..).and_then(|rest| rest.split_first_chunk());
        if let Some((word, [_, ..])) = rest {
            take(*word);
        }
    }
    take(*last);
}

/// The length is needed since words may overlap.
#[inline(always)]
fn number_end(https: bool, length: usize, port: u16) -> u64 {
    end_of_digits(https, length, digits_of(port))
}

/// The digits leave the lowest three bytes free.
#[inline(always)]
fn end_of_digits(https: bool, length: usize, port: u64) -> u64 {
    length as u64 ^ port ^ u64::from(https) << 23
}
