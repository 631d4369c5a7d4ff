//! Fuzz targets for what servers send: the tests of this package.
//!
//! `cargo test -p tower-oauth-fuzz` runs each for a few seconds on random input. With
//! [cargo-bolero](https://docs.rs/bolero) the same targets run under libFuzzer, guided by coverage:
//! `cargo bolero test --package tower-oauth-fuzz TARGET`.

/// Makes a text of an input: a byte below the number of `fragments` stands for one of them, any
/// other for itself.
///
/// Random bytes alone would never get past the first word of a grammar.
pub fn text(input: &[u8], fragments: &[&str]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in input {
        match fragments.get(usize::from(*byte)) {
            Some(fragment) => text.extend_from_slice(fragment.as_bytes()),
            None => text.push(*byte),
        }
    }
    text
}
