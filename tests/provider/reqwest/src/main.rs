//! A program on the defaults of reqwest.

#[path = "../../probe.rs"]
mod probe;

fn main() {
    probe::run(|| {
        reqwest::Client::new();
    });
}
