//! `WWW-Authenticate`, as any server may send it.

use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use tower_oauth::challenge::Challenges;
use tower_oauth_fuzz::text;

const FRAGMENTS: [&str; 128] = {
    let mut fragments = [""; 128];
    let known = [
        "Bearer",
        "Basic",
        "Negotiate",
        "DPoP",
        "realm",
        "error",
        "error_description",
        "scope",
        "claims",
        "resource_metadata",
        "invalid_token",
        "insufficient_scope",
        "YII=",
        "=",
        "\"",
        "\\",
        ",",
        " ",
        ";",
        "\t",
        "\\\"",
        "=\"",
        "\", ",
        ", ",
        " =",
        "= ",
        "==",
        "a",
        "b",
        "c",
        "Bearer error=\"invalid_token\"",
        "Basic realm=\"x\", ",
        "é",
        "\u{7f}",
        "error_description=\"",
        "@",
        "/",
        ":",
        "  ",
        "0123456789012345678901234567890123456789",
    ];
    let mut place = 0;
    // The rest of the places are used again, so that most bytes mean something.
    while place < fragments.len() {
        fragments[place] = known[place % known.len()];
        place += 1;
    }
    fragments
};

#[test]
fn no_value_panics_or_leaves_the_limits() {
    bolero::check!()
        .with_test_time(Duration::from_secs(5))
        .with_max_len(2048)
        .for_each(|input| {
            for value in [input.to_vec(), text(input, &FRAGMENTS)] {
                let challenges = Challenges::parse_value(&value);
                check(&challenges);
                assert_eq!(Challenges::parse_value(&value), challenges);
            }
        });
}

#[test]
fn a_line_hides_no_other_line() {
    bolero::check!()
        .with_test_time(Duration::from_secs(5))
        .with_max_len(64)
        .for_each(|input| {
            let mut value = text(input, &FRAGMENTS);
            value.truncate(4096);
            let Ok(line) = HeaderValue::from_bytes(&value) else {
                return;
            };
            let alone = Challenges::parse_value(&value);
            let mut headers = HeaderMap::new();
            headers.append(WWW_AUTHENTICATE, line);
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Zed x=\"1\""));
            let both = Challenges::parse(&headers);
            check(&both);
            if alone.iter().count() < MAX_CHALLENGES {
                let zed = both.iter().last().expect("the second line");
                assert!(zed.is("zed") && zed.param("X") == Some("1"));
                assert!(
                    both.iter()
                        .zip(alone.iter())
                        .all(|(one, other)| one == other)
                );
            }
        });
}

/// What the module's page promises.
fn check(challenges: &Challenges) {
    assert!(challenges.iter().count() <= MAX_CHALLENGES);
    assert_eq!(challenges.is_empty(), challenges.iter().next().is_none());
    for challenge in challenges.iter() {
        assert!(!challenge.scheme().is_empty() && challenge.is(&challenge.scheme().to_uppercase()));
        if let Some(description) = challenge.error_description() {
            assert!(description.len() <= 256);
            assert!(
                description
                    .bytes()
                    .all(|byte| (b' '..=b'~').contains(&byte))
            );
        }
        assert_ne!(challenge.error(), Some(""));
    }
    match challenges.bearer() {
        Some(bearer) => assert!(bearer.is("bearer")),
        None => assert!(challenges.iter().all(|challenge| !challenge.is("bearer"))),
    }
}

const MAX_CHALLENGES: usize = 32;
