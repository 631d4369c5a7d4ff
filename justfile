# Bare `just` lists the recipes. The gate does not need just: every recipe is one or two commands.

_list:
    @just --list --unsorted

# Formatting, lints and the library's own tests: under a minute when warm
check:
    cargo fmt --all --check
    cargo clippy -q --all-targets --all-features -- -D warnings
    cargo test -q --all-features --lib --test house --test public_api

# All tests of the crate
test:
    cargo test --all-features

# Everything that must hold before a change is merged
gate:
    .ci/run

# Instructions and allocations of a cached request, then the timings
bench:
    .ci/instructions
    cargo bench

# The documentation, with all features
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features --open
