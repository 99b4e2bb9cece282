//! Reads the files of the repository for the rules: which there are, their code without comments and strings, and the
//! paths that it names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// One file of `src/`, without its comments and strings.
pub(super) struct Source {
    pub path: String,
    /// The top-level module that it belongs to.
    pub top: String,
    /// How many modules deep: 1 for `src/queue.rs`.
    pub depth: usize,
    pub text: String,
}

pub(super) fn sources() -> Vec<Source> {
    files_below(&["src"], &["rs"])
        .into_iter()
        .map(|path| {
            let inside: Vec<String> = path
                .strip_prefix(root().join("src"))
                .expect("found below src")
                .with_extension("")
                .iter()
                .map(|part| part.to_string_lossy().into_owned())
                .collect();
            Source {
                path: shown(&path),
                top: inside[0].clone(),
                depth: inside.len(),
                text: code_of(&read(&path)),
            }
        })
        .collect()
}

impl Source {
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// Line and name of every top-level module that is reached: through `crate::`, in groups too, and by climbing with
    /// `super::` up to the root.
    pub fn imports(&self, known: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let climb = "super::".repeat(self.depth);
        for (start, prefix) in
            occurrences(&self.text, "crate::").chain(occurrences(&self.text, &climb))
        {
            let line = self.text[..start].matches('\n').count() + 1;
            for name in heads(&self.text[start + prefix.len()..]) {
                if known.contains_key(name.as_str()) {
                    found.push((line, name));
                }
            }
        }
        found.sort();
        found.dedup();
        found
    }

    pub fn crates_named(&self, crates: &[&str]) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (number, line) in self.code_lines() {
            for name in crates {
                if has_path(line, &[name]) {
                    found.push((number, (*name).to_owned()));
                }
            }
        }
        found.sort();
        found
    }
}

/// Where `needle` stands as the beginning of a path.
fn occurrences<'a>(text: &'a str, needle: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    text.match_indices(needle).filter(|(start, _)| {
        !text[..*start]
            .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
    })
}

/// The first names of what follows a path: one, or those of a group.
fn heads(rest: &str) -> Vec<String> {
    let Some(group) = rest.trim_start().strip_prefix('{') else {
        return vec![leading_name(rest)];
    };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(leading_name(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(leading_name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn leading_name(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|char| char.is_alphanumeric() || *char == '_')
        .collect()
}

/// `a::b` with nothing before that would make it another path, and `::` or an end behind.
pub(super) fn has_path(line: &str, path: &[&str]) -> bool {
    let needle = path.join("::");
    occurrences(line, &needle).any(|(start, _)| {
        let behind = &line[start + needle.len()..];
        behind.starts_with("::")
            || (path.len() > 1 && behind.starts_with(';'))
            || line
                .trim_start()
                .strip_prefix("use ")
                .is_some_and(|used| used == format!("{needle};"))
    })
}

/// `std::{env, …}` on one line.
pub(super) fn has_group(line: &str, above: &str, name: &str) -> bool {
    occurrences(line, &format!("{above}::")).any(|(start, prefix)| {
        heads(&line[start + prefix.len()..])
            .iter()
            .any(|head| head == name)
    })
}

/// Blanks comments, strings and characters, and keeps the lines.
pub(super) fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let at_is = |at: usize, what: &str| {
        what.chars()
            .enumerate()
            .all(|(i, c)| chars.get(at + i) == Some(&c))
    };
    while at < chars.len() {
        let end = if at_is(at, "//") {
            find_from(&chars, at, "\n")
        } else if at_is(at, "/*") {
            find_from(&chars, at + 2, "*/") + 2
        } else if let Some(hashes) = raw_string_hashes(&chars, at) {
            let close = format!("\"{}", "#".repeat(hashes));
            find_from(&chars, at + hashes + 2, &close) + close.len()
        } else if chars[at] == '"' {
            end_of_quoted(&chars, at)
        } else if chars[at] == '\'' && (at_is(at + 1, "\\") || chars.get(at + 2) == Some(&'\'')) {
            find_from(&chars, at + if at_is(at + 1, "\\") { 3 } else { 2 }, "'") + 1
        } else {
            out.push(chars[at]);
            at += 1;
            continue;
        };
        let end = end.min(chars.len());
        out.extend(chars[at..end].iter().filter(|char| **char == '\n'));
        at = end;
    }
    out
}

fn find_from(chars: &[char], from: usize, what: &str) -> usize {
    (from..chars.len())
        .find(|at| {
            what.chars()
                .enumerate()
                .all(|(i, c)| chars.get(at + i) == Some(&c))
        })
        .unwrap_or(chars.len())
}

fn raw_string_hashes(chars: &[char], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|before| chars[before]);
    if chars[at] != 'r'
        || before.is_some_and(|char| (char.is_alphanumeric() && char != 'b') || char == '_')
    {
        return None;
    }
    let hashes = chars[at + 1..]
        .iter()
        .take_while(|char| **char == '#')
        .count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

fn end_of_quoted(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

pub(super) fn names_machine(line: &str, machine: &str) -> bool {
    line.match_indices(machine).any(|(at, _)| {
        !line[..at]
            .ends_with(|before: char| before.is_alphanumeric() || "._-}*$)~".contains(before))
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(super) fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

pub(super) fn read(path: &Path) -> String {
    // What is no UTF-8 holds no text of ours.
    String::from_utf8(fs::read(path).unwrap_or_default()).unwrap_or_default()
}

/// Files with one of the extensions, sorted; build products and data folders are left out.
pub(super) fn files_below(folders: &[&str], extensions: &[&str]) -> Vec<PathBuf> {
    const PASSED_OVER: &[&str] = &[
        "target",
        ".git",
        "rowgate-data",
        "rowgate-demo",
        "node_modules",
        ".venv",
        "__pycache__",
    ];
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = open.pop() {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let extension = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if PASSED_OVER.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        } else if path.is_file() && extensions.contains(&extension.as_str()) {
            files.push(path);
        }
    }
    files.sort();
    files
}
