//! How the house is laid out: no circles among rooms or files, no giants, 100 columns, plain names.
//!
//! A room is a file or a folder of `src/`. Code under `#[cfg(test)]` may import what it likes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

const COLUMNS: usize = 100;
const SOURCE_LINES: usize = 300;
const TEST_LINES: usize = 500;

/// Source files that may be longer, each with the reason.
const LONG_FOR_A_REASON: &[(&str, &str)] = &[];

/// Of the words of aviation only `flight` has a meaning here, and `launch` its beginning.
#[rustfmt::skip]
const AVIATION: &[&str] = &[
    "aboard", "airborne", "board", "boarding", "cockpit", "crew", "depart", "departed",
    "departure", "ground", "grounded", "hangar", "land", "landed", "landing", "lands", "passenger",
    "pilot", "runway", "takeoff", "ticket", "tickets", "touchdown",
];

type Module = Vec<String>;
/// Who imports whom, and the first line that does so.
type Arrows = BTreeMap<String, BTreeMap<String, String>>;

#[test]
#[ignore = "until the merge"]
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
#[ignore = "until the merge"]
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
#[ignore = "until the merge"]
fn no_files_of_one_folder_import_each_other() {
    let house = House::read();
    let arrows = house.arrows(|from, to| from[0] == to[0], |module| module.join("::"));
    report(circles(&arrows).into_iter(), &arrows);
}

#[test]
#[ignore = "until the merge"]
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
#[ignore = "until the merge"]
fn no_source_file_is_longer_than_300_lines_without_its_tests() {
    let mut wrong = Vec::new();
    for file in House::read().files.values() {
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
#[ignore = "until the merge"]
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
#[ignore = "until the merge"]
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

struct House {
    files: BTreeMap<Module, File>,
    /// What a module offers under a name of another module's.
    exports: BTreeMap<(Module, String), Vec<String>>,
}

struct File {
    path: String,
    lines: Vec<Line>,
}

struct Line {
    code: String,
    test: bool,
}

struct Import {
    line: usize,
    path: Vec<String>,
    name: String,
    exported: bool,
}

impl House {
    fn read() -> Self {
        let texts: Vec<_> = files("src")
            .iter()
            .map(|path| (shown(path), fs::read_to_string(path).unwrap()))
            .collect();
        let texts: Vec<_> = texts
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        Self::of(&texts)
    }

    fn of(texts: &[(&str, &str)]) -> Self {
        let mut files = BTreeMap::new();
        let mut only_tests = Vec::new();
        for (path, text) in texts {
            let module = module_of(path);
            let lines = without_tests(text);
            for pair in lines.windows(2).filter(|pair| pair[1].test) {
                let declared = pair[1].code.trim().strip_prefix("mod ");
                if let Some(name) = declared.and_then(|rest| rest.strip_suffix(';')) {
                    only_tests.push([module.clone(), vec![name.to_owned()]].concat());
                }
            }
            files.insert(
                module,
                File {
                    path: (*path).to_owned(),
                    lines,
                },
            );
        }
        for (module, file) in &mut files {
            if only_tests.iter().any(|tests| module.starts_with(tests)) {
                file.lines.iter_mut().for_each(|line| line.test = true);
            }
        }
        let mut house = Self {
            files,
            exports: BTreeMap::new(),
        };
        let mut exports = BTreeMap::new();
        for module in house.files.keys() {
            for import in house
                .imports(module)
                .into_iter()
                .filter(|import| import.exported)
            {
                exports.insert((module.clone(), import.name), import.path);
            }
        }
        house.exports = exports;
        house
    }

    /// Everything in the module that names a path of the crate, as an absolute one.
    fn imports(&self, module: &Module) -> Vec<Import> {
        let file = &self.files[module];
        let mut imports = Vec::new();
        let code: String = file
            .lines
            .iter()
            .map(|line| {
                if line.test {
                    "\n".into()
                } else {
                    format!("{}\n", line.code)
                }
            })
            .collect();
        let mut at = 0;
        while let Some(length) = code[at..].find(is_name) {
            let start = at + length;
            let (paths, end) = paths_at(&code, start);
            at = end;
            let before = code[..start].trim_end();
            // The end of a path that began with something else, such as `<T as X>::y`.
            if before.ends_with("::") || before.ends_with('.') {
                continue;
            }
            let statement = before.rsplit([';', '}', '{']).next().unwrap_or_default();
            let words: Vec<_> = statement.split_whitespace().collect();
            let exported =
                words.last() == Some(&"use") && words.iter().any(|word| word.starts_with("pub"));
            for (path, name, place) in paths {
                if let Some(path) = self.absolute(module, path) {
                    let line = code[..place].matches('\n').count() + 1;
                    imports.push(Import {
                        line,
                        path,
                        name,
                        exported,
                    });
                }
            }
        }
        imports
    }

    fn absolute(&self, module: &Module, path: Vec<String>) -> Option<Vec<String>> {
        let mut base = module.clone();
        let mut rest = path.as_slice();
        match rest.first()?.as_str() {
            "crate" => (base, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|first| first == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                let child = [module.clone(), vec![first.to_owned()]].concat();
                if path.len() < 2 || !self.files.contains_key(&child) {
                    return None;
                }
            }
        }
        Some([base.as_slice(), rest].concat())
    }

    /// The file in which that is defined, through all re-exports.
    fn home(&self, path: &[String], steps: usize) -> Module {
        let mut module = Vec::new();
        for (at, name) in path.iter().enumerate() {
            let child = [module.clone(), vec![name.clone()]].concat();
            if self.files.contains_key(&child) {
                module = child;
            } else if let (Some(target), 1..) =
                (self.exports.get(&(module.clone(), name.clone())), steps)
            {
                return self.home(&[target.as_slice(), &path[at + 1..]].concat(), steps - 1);
            } else {
                break;
            }
        }
        module
    }

    /// Imports between files that `of_interest` picks, under the names that `name` gives them.
    fn arrows(
        &self,
        of_interest: impl Fn(&Module, &Module) -> bool,
        name: impl Fn(&Module) -> String,
    ) -> Arrows {
        let mut arrows = Arrows::new();
        for (module, file) in self.files.iter().filter(|(module, _)| !module.is_empty()) {
            for import in self
                .imports(module)
                .iter()
                .filter(|import| !import.exported)
            {
                let home = self.home(&import.path, 8);
                if home.is_empty() || !of_interest(module, &home) || name(module) == name(&home) {
                    continue;
                }
                arrows
                    .entry(name(module))
                    .or_default()
                    .entry(name(&home))
                    .or_insert_with(|| format!("{}:{}", file.path, import.line));
            }
        }
        arrows
    }
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

/// The paths that begin at `start`, a group's members each, with their names and where they stand;
/// and where the reader goes on.
fn paths_at(code: &str, start: usize) -> (Vec<(Vec<String>, String, usize)>, usize) {
    let mut paths = Vec::new();
    let mut path = Vec::new();
    let end = read_tree(code, start, &mut path, &mut paths);
    (paths, end)
}

fn read_tree(
    code: &str,
    mut at: usize,
    path: &mut Vec<String>,
    paths: &mut Vec<(Vec<String>, String, usize)>,
) -> usize {
    let (start, depth) = (at, path.len());
    loop {
        let length = code[at..].find(|c| !is_name(c)).unwrap_or(code.len() - at);
        path.push(code[at..at + length].to_owned());
        at += length;
        let Some(rest) = code[at..].strip_prefix("::") else {
            break;
        };
        if rest.starts_with('{') {
            at = read_group(code, at + 3, path, paths);
            path.truncate(depth);
            return at;
        }
        if !rest.starts_with(is_name) {
            break;
        }
        at += 2;
    }
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if let Some(rest) = code[at..].strip_prefix(" as ") {
        let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        rest[..length].clone_into(&mut name);
        if depth > 0 {
            at += 4 + length;
        }
    }
    paths.push((path.clone(), name, start));
    path.truncate(depth);
    at
}

fn read_group(
    code: &str,
    mut at: usize,
    path: &mut Vec<String>,
    paths: &mut Vec<(Vec<String>, String, usize)>,
) -> usize {
    while let Some(next) = code[at..].find(|c| is_name(c) || c == '}') {
        at += next;
        if code[at..].starts_with('}') {
            return at + 1;
        }
        at = read_tree(code, at, path, paths);
    }
    code.len()
}

/// The lines without comments, and which of them belong to an item for tests only.
fn without_tests(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut item: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        let comment = if trimmed.starts_with("//") {
            Some(0)
        } else {
            line.find(" // ")
        };
        let code = line[..comment.unwrap_or(line.len())].to_owned();
        if item.is_none()
            && (trimmed.starts_with("#[cfg(test") || trimmed.starts_with("#[cfg(all(test"))
        {
            item = Some(indent.to_owned());
        }
        let test = item.is_some();
        let outermost = item.as_deref() == Some(indent) && !trimmed.starts_with("#[");
        if outermost && (code.ends_with(';') || code.ends_with('}')) {
            item = None;
        }
        lines.push(Line { code, test });
    }
    lines
}

fn module_of(path: &str) -> Module {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: Module = inner.split('/').map(str::to_owned).collect();
    if module
        .last()
        .is_some_and(|last| last == "mod" || last == "lib")
    {
        module.pop();
    }
    module
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

fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// The Rust files under a folder of the repository, in order. The package lacks some folders.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
