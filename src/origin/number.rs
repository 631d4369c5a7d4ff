//! A number for each origin, by which the cache tells the 401 budgets of origins apart (rule R20).

use std::hash::Hasher;
use std::net::Ipv6Addr;

use http::uri::Scheme;
use rustc_hash::FxHasher;

use super::{default_port, read_port};

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
    if host.len() < 8 {
        return None;
    }
    let mut hasher = FxHasher::default();
    let mut odd = 0;
    for_each_word(host, |word| {
        let word = u64::from_le_bytes(word);
        // `:` to `^`: what begins a port, user-info or an address, and upper case. Bytes past ASCII
        // spoil the sums.
        odd |= at_least(word, b':') ^ at_least(word, b'_') | word;
        hasher.write_u64(word);
    });
    let dotted = host.first() == Some(&b'.') || host.last() == Some(&b'.');
    if dotted || odd & HIGH_BITS != 0 {
        return None;
    }
    hasher.write_u64(number_end(true, host.len(), default_port(true)));
    Some(hasher.finish())
}

/// [`Parts::number`](super::Parts::number) of `http://` and this authority, if it is loopback in
/// its usual spelling: `127.0.0.1` or `localhost`, with or without a port. `None` says nothing.
#[inline(always)]
pub(crate) fn number_of_plain_loopback(scheme: &Scheme, authority: &str) -> Option<u64> {
    if scheme.as_str() != "http" {
        return None;
    }
    let (host, after) = authority.as_bytes().split_first_chunk::<9>()?;
    if host != b"127.0.0.1" && host != b"localhost" {
        return None;
    }
    let port = match after {
        [] => default_port(false),
        [b':', digits @ ..] => read_port(digits).ok()?,
        _ => return None,
    };
    let mut hasher = FxHasher::default();
    for_each_word(host, |word| hasher.write_u64(u64::from_le_bytes(word)));
    hasher.write_u64(number_end(false, host.len(), port));
    Some(hasher.finish())
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
    let Some(last) = host.last_chunk() else {
        let mut word = [0; 8];
        word[..host.len()].copy_from_slice(host);
        return take(word);
    };
    let mut rest = host;
    while let Some((word, after @ [_, ..])) = rest.split_first_chunk() {
        take(*word);
        rest = after;
    }
    take(*last);
}

/// The length is needed since words may overlap.
#[inline(always)]
fn number_end(https: bool, length: usize, port: u16) -> u64 {
    length as u64 ^ u64::from(port) << 32 ^ u64::from(https) << 48
}
