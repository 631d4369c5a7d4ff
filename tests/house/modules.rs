//! Reads `src/` as modules that import each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) type Module = Vec<String>;
/// Who imports whom, and the first line that does so.
pub(crate) type Arrows = BTreeMap<String, BTreeMap<String, String>>;

pub(crate) struct House {
    pub(crate) files: BTreeMap<Module, File>,
    /// What a module offers under a name of another module's.
    exports: BTreeMap<(Module, String), Vec<String>>,
}

pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) code: String,
    pub(crate) test: bool,
}

struct Import {
    line: usize,
    path: Vec<String>,
    name: String,
    exported: bool,
}

impl House {
    pub(crate) fn read() -> Self {
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

    pub(crate) fn of(texts: &[(&str, &str)]) -> Self {
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
    pub(crate) fn arrows(
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

pub(crate) fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// The Rust files under a folder of the repository, in order. The package lacks some folders.
pub(crate) fn files(folder: &str) -> Vec<PathBuf> {
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

pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
