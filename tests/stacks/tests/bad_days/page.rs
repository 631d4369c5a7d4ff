//! `src/docs/failure.md`: checked against what was seen, or written by it.

use std::fmt::Write;

use super::Day;

/// Checks that the page says under `## The days` what was seen, or writes it there when
/// `TOWER_OAUTH_WRITE_FAILURE` is set. The part before that heading is written by hand.
pub(crate) fn settle(days: &[Day]) {
    let text = std::fs::read_to_string(PAGE).expect("the page is in the repository");
    let start = text.find(HEADING).expect("the page has its heading");
    let (before, old) = text.split_at(start);
    let new = render(days);
    if std::env::var_os("TOWER_OAUTH_WRITE_FAILURE").is_some() {
        std::fs::write(PAGE, format!("{before}{new}")).expect("the page can be written");
        return;
    }
    let differing = old.lines().zip(new.lines()).find(|(old, new)| old != new);
    let hint =
        "TOWER_OAUTH_WRITE_FAILURE=1 cargo test -p tower-oauth-stacks --test bad_days writes it";
    if let Some((old, new)) = differing {
        panic!("{PAGE} says\n  {old}\nand seen was\n  {new}\n{hint}");
    }
    assert!(
        old == new,
        "{PAGE} is longer or shorter than what was seen; {hint}"
    );
}

fn render(days: &[Day]) -> String {
    let mut page = format!("{HEADING}\n| bad day | what fails | class |\n|---|---|---|\n");
    for day in days {
        let anchor = anchor(day.name);
        let (name, group, class) = (day.name, day.group, day.class());
        writeln!(page, "| [{name}](#{anchor}) | {group} | {class} |").unwrap();
    }
    let mut group = "";
    for day in days {
        if day.group != group {
            group = day.group;
            let mut letters = group.chars();
            let first = letters.next().into_iter().flat_map(char::to_uppercase);
            let group: String = first.chain(letters).collect();
            write!(page, "\n## {group}\n").unwrap();
        }
        write!(page, "\n### {}\n\n{}\n", day.name, day.what).unwrap();
        write!(page, "\n```text\n{}\n```\n", day.seen.text).unwrap();
        match day.seen.log.is_empty() {
            true => page += "\nNothing is logged.\n",
            false => write!(page, "\nLogged:\n\n```text\n{}```\n", day.seen.log).unwrap(),
        }
        if let Some(act) = day.act {
            write!(page, "\n{act}\n").unwrap();
        }
    }
    page
}

/// The anchor that rustdoc and GitHub give a heading.
fn anchor(heading: &str) -> String {
    let lower = heading.to_lowercase();
    let kept = lower
        .chars()
        .filter(|c| c.is_alphanumeric() || " -".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Puts names in place of what differs from run to run: these ports, spans of time, times of day.
pub(crate) fn normalise(text: &str, ports: &[u16]) -> String {
    let mut normal = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let last = normal.chars().last();
        let inside = last.is_some_and(|last| last.is_alphanumeric() || "._".contains(last));
        if !first.is_ascii_digit() || inside {
            normal.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let end = rest[..end].trim_end_matches('.').len();
        let (number, after) = rest.split_at(end);
        if let Some(unit) = unit(after).filter(|_| !normal.ends_with("Retry-After: ")) {
            normal += "{duration}";
            rest = &after[unit..];
        } else {
            let port = number
                .parse()
                .is_ok_and(|number: u16| ports.contains(&number));
            let count = normal.ends_with("_ms=") || after.starts_with(" seconds ago");
            normal += match number.len() {
                _ if port => "{port}",
                _ if count => "{n}",
                9.. if !number.contains('.') => "{time}",
                _ => number,
            };
            rest = after;
        }
    }
    normal
}

/// How long the unit of time is that follows a number, with the blank before it.
fn unit(after: &str) -> Option<usize> {
    let blank = usize::from(after.starts_with(' '));
    let word = &after[blank..];
    let end = word
        .find(|c: char| !c.is_alphanumeric())
        .unwrap_or(word.len());
    ["ns", "µs", "ms", "s", "min"]
        .contains(&&word[..end])
        .then_some(blank + end)
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/docs/failure.md");
const HEADING: &str = "## The days\n";
