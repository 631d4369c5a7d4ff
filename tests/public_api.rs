//! The kept list of the public API, `tests/public-api.txt`, against what `src/lib.rs` re-exports.
//! The gate compares all of it where it has a nightly toolchain: `.ci/public-api`.

use std::collections::BTreeSet;

#[test]
fn the_kept_list_has_the_names_at_the_root_and_no_others() {
    let exported: BTreeSet<_> = include_str!("../src/lib.rs")
        .split("\npub ")
        .skip(1)
        .filter_map(|item| item.split_once(';'))
        .flat_map(|(item, _)| names(item))
        .collect();
    let listed: BTreeSet<_> = include_str!("public-api.txt")
        .lines()
        .filter_map(|line| line.split_once("tower_oauth::"))
        .filter(|(before, _)| is_item(before))
        .map(|(_, path)| {
            path.split(|c: char| !(c == '_' || c.is_alphanumeric()))
                .next()
                .unwrap()
        })
        .collect();
    assert_eq!(
        listed, exported,
        "the root of the crate changed; if that is meant: .ci/public-api --update"
    );
}

/// The names of `use self::token::{A, B}` or of `mod future`.
fn names(item: &str) -> Vec<&str> {
    let last = item.rsplit("::").next().unwrap().trim_start_matches("mod ");
    let last = last.trim_matches(|c: char| "{} \n".contains(c));
    last.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect()
}

/// Whether a line declares something, and is no `impl` of it.
fn is_item(before: &str) -> bool {
    let words: Vec<_> = before
        .split_whitespace()
        .filter(|word| *word != "#[non_exhaustive]")
        .collect();
    words.first() == Some(&"pub")
        && words
            .iter()
            .any(|word| ["struct", "enum", "trait", "fn", "mod", "type"].contains(word))
}
