//! The tables of `src/docs/interop.md`: each is checked against what a run saw, or written by it.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Checks that the table under the heading `## section` says what was seen, or writes it there.
///
/// The day of the last writing stands above the table and is not compared.
pub(crate) fn settle(section: &str, columns: &[&str], rows: &[Vec<String>]) {
    let table = table(columns, rows);
    let page = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let text = std::fs::read_to_string(PAGE).expect("the page is in the repository");
    let heading = format!("## {section}\n");
    let start = text
        .find(&heading)
        .unwrap_or_else(|| panic!("{PAGE} has no section {section:?}"));
    let end = text[start + 1..]
        .find("\n## ")
        .map_or(text.len(), |next| start + 1 + next);
    let (before, after) = (&text[..start], &text[end..]);
    let old = &text[start..end];
    if std::env::var_os("TOWER_OAUTH_WRITE_INTEROP").is_none() {
        let told: Vec<_> = old.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(
            told,
            table.lines().collect::<Vec<_>>(),
            "the table {section:?} of {PAGE} (left) does not say what was seen (right)"
        );
        return;
    }
    let prose = old.split(SEEN).next().unwrap_or(old).trim_end();
    let now = httpdate::fmt_http_date(SystemTime::now());
    let day = now.get(5..16).expect("the form of RFC 9110 §5.6.7");
    let new = format!("{before}{prose}\n\n{SEEN}{day}.\n\n{table}{after}");
    std::fs::write(PAGE, new).expect("the page can be written");
    drop(page);
}

fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut table = line(columns.to_vec());
    table += &format!("|{}\n", "---|".repeat(columns.len()));
    for row in rows {
        assert_eq!(row.len(), columns.len(), "a row of another shape: {row:?}");
        assert!(!row.iter().any(|cell| cell.contains(['|', '\n'])));
        table += &line(row.iter().map(String::as_str).collect());
    }
    table
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/interop.md");
const SEEN: &str = "Last written on ";

/// Tests run side by side, and each writes its section of the one page.
static WRITING: Mutex<()> = Mutex::new(());
