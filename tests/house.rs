//! How the house is laid out: no circles among rooms or files, no giants, 100 columns, plain names.
//!
//! A room is a file or a folder of `src/`. Code under `#[cfg(test)]` may import what it likes.

#[path = "house/modules.rs"]
mod modules;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;

use modules::{Arrows, House, files, is_name, shown};

const COLUMNS: usize = 100;
const SOURCE_LINES: usize = 300;
const TEST_LINES: usize = 500;

/// Source files that may be longer, each with the reason.
const LONG_FOR_A_REASON: &[(&str, &str)] = &[
    (
        "src/cache/flight.rs",
        "a flight's task and the call that waits are two ends of one protocol",
    ),
    (
        "src/cache/machine.rs",
        "one state machine, with what it is asked and returns",
    ),
    (
        "src/future.rs",
        "one future with its detours; cut apart, its parts import each other",
    ),
    (
        "src/origin/mod.rs",
        "the only reader of origins, in which each rule excludes another reading",
    ),
];

/// Of the words of aviation only `flight` has a meaning here, and `launch` its beginning.
#[rustfmt::skip]
const AVIATION: &[&str] = &[
    "aboard", "airborne", "board", "boarding", "cockpit", "crew", "depart", "departed",
    "departure", "ground", "grounded", "hangar", "land", "landed", "landing", "lands", "passenger",
    "pilot", "runway", "takeoff", "ticket", "tickets", "touchdown",
];

#[test]
fn no_two_rooms_import_each_other() {
    let arrows = rooms(&House::read());
    report(
        circles(&arrows)
            .into_iter()
            .filter(|circle| circle.len() == 2),
        &arrows,
    );
}

#[test]
fn no_longer_circle_of_rooms() {
    let arrows = rooms(&House::read());
    report(
        circles(&arrows)
            .into_iter()
            .filter(|circle| circle.len() > 2),
        &arrows,
    );
}

#[test]
fn no_files_of_one_folder_import_each_other() {
    let house = House::read();
    // A folder's own file declares the others and is one with them.
    let arrows = house.arrows(
        |from, to| from[0] == to[0] && from.len() > 1 && to.len() > 1,
        |module| module.join("::"),
    );
    report(circles(&arrows).into_iter(), &arrows);
}

#[test]
fn no_line_is_longer_than_100_columns() {
    let mut long = Vec::new();
    for path in ["src", "tests", "benches", "examples"]
        .iter()
        .flat_map(|folder| files(folder))
    {
        // What a code generator wrote is not ours to wrap.
        if path.ends_with("generated.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS {
                long.push(format!(
                    "{}:{}: {columns} columns",
                    shown(&path),
                    number + 1
                ));
            }
        }
    }
    none("wrap these lines, comments and strings included", long);
}

#[test]
fn no_source_file_is_longer_than_300_lines_without_its_tests() {
    let mut wrong = Vec::new();
    let house = House::read();
    let files = house.files.values();
    for file in files.filter(|file| !file.path.contains("/tests/")) {
        let lines = file.lines.iter().filter(|line| !line.test).count();
        let excused = LONG_FOR_A_REASON.iter().any(|(path, _)| *path == file.path);
        if lines > SOURCE_LINES && !excused {
            wrong.push(format!(
                "{}: {lines} lines: split it by idea, not by length",
                file.path
            ));
        } else if lines <= SOURCE_LINES && excused {
            wrong.push(format!("{}: take it out of LONG_FOR_A_REASON", file.path));
        }
    }
    none(
        "shorten these files, or give the reason in LONG_FOR_A_REASON (tests/house.rs)",
        wrong,
    );
}

#[test]
fn no_test_file_is_longer_than_500_lines() {
    let mut long = Vec::new();
    for path in files("tests") {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > TEST_LINES {
            long.push(format!("{}: {lines} lines", shown(&path)));
        }
    }
    for file in House::read().files.values() {
        let lines = file.lines.iter().filter(|line| line.test).count();
        if lines > TEST_LINES {
            long.push(format!("{}: {lines} lines of tests", file.path));
        }
    }
    none("split these tests by the behaviour that they prove", long);
}

#[test]
fn no_identifier_is_a_word_of_aviation() {
    let mut found = Vec::new();
    for file in House::read().files.values() {
        for (number, line) in file.lines.iter().enumerate() {
            for name in line.code.split(|c: char| !is_name(c)) {
                if words(name)
                    .iter()
                    .any(|word| AVIATION.contains(&word.as_str()))
                {
                    found.push(format!("{}:{}: `{name}`", file.path, number + 1));
                }
            }
        }
    }
    none(
        "name these for what they are: attempt, waiter, end, turn, outcome",
        found,
    );
}

/// What `grep -w R15 src` leads to: `rules.md` names the rooms, and their pages name the rule.
#[test]
fn every_rule_stands_on_the_pages_of_the_rooms_that_keep_it() {
    let mut missing = Vec::new();
    let rules = include_str!("../src/docs/rules.md");
    for line in rules.lines().filter_map(|line| line.strip_prefix("- **")) {
        let (rule, text) = line.split_once("**").expect("a rule");
        let rooms = text
            .split_once("*(")
            .and_then(|(_, rest)| rest.split_once(")*"));
        let (rooms, _) = rooms.unwrap_or_else(|| panic!("{rule} names no room"));
        for room in rooms.split(", ") {
            let pages = [format!("src/{room}.rs"), format!("src/{room}/mod.rs")];
            let text = pages.iter().find_map(|page| fs::read_to_string(page).ok());
            let text = text.unwrap_or_else(|| panic!("{rule}: there is no room {room}"));
            let page = text.lines().take_while(|line| line.starts_with("//!"));
            let mut words = page.flat_map(|line| line.split(|c: char| !c.is_alphanumeric()));
            if !words.any(|word| word == rule) {
                missing.push(format!("{rule} is not on the page of src/{room}"));
            }
        }
    }
    none(
        "name the rule on the page, one by one and not as a range",
        missing,
    );
}

/// The first column of the table in CONTRIBUTING.md, from the top down.
#[test]
fn rooms_import_only_rooms_below_them_in_the_table() {
    let table = include_str!("../CONTRIBUTING.md");
    let rows = table
        .split("| room |")
        .nth(1)
        .and_then(|rest| rest.split("\n\n").next());
    let mut order: Vec<&str> = Vec::new();
    for row in rows.expect("the table of rooms").lines().skip(2) {
        let cell = row.split('|').nth(1).unwrap_or_default();
        let names = cell.split('`').skip(1).step_by(2);
        order.extend(names.map(|name| name.split('/').next().unwrap_or(name)));
    }
    order.dedup();
    let place = |room: &String| order.iter().position(|name| name == room);
    let mut wrong = Vec::new();
    for (from, all) in rooms(&House::read()) {
        let Some(above) = place(&from) else {
            wrong.push(format!("`{from}` is not in the table"));
            continue;
        };
        for (to, at) in all
            .iter()
            .filter(|(to, _)| place(to).is_some_and(|to| to < above))
        {
            wrong.push(format!("`{from}` imports `{to}`, which is above it ({at})"));
        }
    }
    none(
        "turn the import round, or put the rooms in order in CONTRIBUTING.md",
        wrong,
    );
}

#[test]
fn circles_are_found_whatever_way_a_module_is_named() {
    let house = House::of(&[
        (
            "src/lib.rs",
            "mod a;\nmod b;\nmod c;\npub use self::c::Thing;\n",
        ),
        (
            "src/a/mod.rs",
            "mod one;\nmod two;\npub(crate) use self::one::One;\n",
        ),
        (
            "src/a/one.rs",
            "use super::two::{self, Two as Other};\nuse crate::b;\n",
        ),
        ("src/a/two.rs", "fn f() { super::One::new(); }\n"),
        ("src/b.rs", "use crate::Thing; // use crate::a;\n"),
        (
            "src/c.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::b;\n}\n\nuse crate::{\n    a::One,\n};\n",
        ),
    ]);
    let files = house.arrows(|from, to| from[0] == to[0], |module| module.join("::"));
    assert_eq!(circles(&files), [["a::one", "a::two"]]);
    assert_eq!(files["a::two"]["a::one"], "src/a/two.rs:1");
    let rooms = rooms(&house);
    assert_eq!(circles(&rooms), [["a", "b", "c"]]);
    assert_eq!(rooms["c"]["a"], "src/c.rs:7");
}

#[test]
fn names_are_read_word_by_word() {
    assert_eq!(words("landing_at"), ["landing", "at"]);
    assert_eq!(words("TicketOffice2"), ["ticket", "office2"]);
    assert_eq!(words("MAX_BACKGROUND"), ["max", "background"]);
}

fn rooms(house: &House) -> Arrows {
    house.arrows(|_, _| true, |module| module[0].clone())
}

/// The shortest circle through each arrow.
fn circles(arrows: &Arrows) -> Vec<Vec<String>> {
    let mut circles = BTreeMap::new();
    for (from, to) in arrows
        .iter()
        .flat_map(|(from, all)| all.keys().map(move |to| (from, to)))
    {
        let mut ways = VecDeque::from([vec![to.clone()]]);
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop_front() {
            let last = &way[way.len() - 1];
            if last == from {
                let first = way
                    .iter()
                    .enumerate()
                    .min_by_key(|(_, name)| *name)
                    .unwrap()
                    .0;
                let mut circle = way.clone();
                circle.rotate_left(first);
                circles.insert(way.into_iter().collect::<BTreeSet<_>>(), circle);
                break;
            }
            for next in arrows.get(last).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(next.clone()) {
                    ways.push_back([way.clone(), vec![next.clone()]].concat());
                }
            }
        }
    }
    circles.into_values().collect()
}

#[track_caller]
fn report(circles: impl Iterator<Item = Vec<String>>, arrows_by: &Arrows) {
    let told = circles.map(|circle| {
        let next = circle.iter().cycle().skip(1);
        let arrows = circle.iter().zip(next);
        let told = arrows.map(|(from, to)| format!("{from} > {to} ({})", arrows_by[from][to]));
        told.collect::<Vec<_>>().join(", ")
    });
    none(
        "move what both need further down, or make one of what is one idea",
        told.collect(),
    );
}

#[track_caller]
fn none(what_to_do: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what_to_do}:\n  {}", found.join("\n  "));
}

fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && lower) {
            words.push(String::new());
        }
        lower = c.is_lowercase();
        if c != '_' {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
