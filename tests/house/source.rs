//! The files of src/, and what they name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file of src/ without its comments and its tests.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) code: String,
}

impl Source {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).expect("a source file");
        let mut lines = text.lines();
        let mut code: Vec<&str> = Vec::new();
        while let Some(line) = lines.next() {
            if line == "#[cfg(test)]" {
                // The one item that it is about: rustfmt begins and ends it without a space in front.
                for line in lines.by_ref() {
                    if line.starts_with('}') || (line.ends_with([';', '}']) && !line.starts_with(' ')) {
                        break;
                    }
                }
            } else if !is_comment(line) {
                code.push(line);
            }
        }
        Self { path, code: code.join("\n") }
    }

    /// The path in src/, without its end.
    pub(super) fn module(&self) -> String {
        let path = self.path.strip_prefix(src()).expect("in src/").with_extension("");
        path.to_str().expect("UTF-8").trim_end_matches("/mod").to_owned()
    }

    pub(super) fn room(&self) -> String {
        self.module().split('/').next().expect("a name").to_owned()
    }

    /// The names that come right after this one and `::`, also in braces.
    pub(super) fn after(&self, start: &str) -> BTreeSet<String> {
        let start = format!("{start}::");
        let mut names = BTreeSet::new();
        for (at, _) in self.code.match_indices(&start) {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|letter| letter == ':' || is_of_name(letter)) {
                continue;
            }
            let rest = &self.code[at + start.len()..];
            let listed = rest.strip_prefix('{').map_or(rest, |list| {
                // Nested braces end it early, which loses names of the libraries only.
                list.split('}').next().unwrap_or(list)
            });
            let words = if rest.starts_with('{') { listed.split(',').collect() } else { vec![listed] };
            for word in words {
                let name: String =
                    word.trim_start().chars().take_while(|letter| is_of_name(*letter)).collect();
                names.insert(name);
            }
        }
        names
    }

    /// What this file names of the crate, as paths from its root.
    pub(super) fn named(&self) -> BTreeSet<Vec<String>> {
        let module = self.module();
        let module: Vec<&str> = module.split('/').collect();
        let (_, folder) = module.split_last().expect("a name");
        let mut named = BTreeSet::new();
        for (root, base) in [("crate::", &[][..]), ("super::", folder), ("self::", &module[..])] {
            for (at, _) in self.code.match_indices(root) {
                if self.code[..at].ends_with(|before: char| before == ':' || is_of_name(before)) {
                    continue;
                }
                for path in paths(&self.code[at + root.len()..]).0 {
                    let up = path.iter().take_while(|name| **name == "super").count();
                    let base = &base[..base.len() - up];
                    named.insert(base.iter().chain(&path[up..]).map(|name| (*name).to_owned()).collect());
                }
            }
        }
        named
    }

    /// What it takes in from the files below it, by name: who names that here uses the file.
    pub(super) fn taken_in(&self, modules: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
        let module = self.module();
        let uses =
            self.code.match_indices("use ").flat_map(|(at, word)| paths(&self.code[at + word.len()..]).0);
        let mut taken_in = BTreeMap::new();
        for mut path in uses {
            path.retain(|name| *name != "self");
            if let [file, .., name] = &path[..]
                && modules.contains(&format!("{module}/{file}"))
            {
                let whole = module.split('/').chain(path.iter().copied()).map(str::to_owned).collect();
                taken_in.insert((*name).to_owned(), whole);
            }
        }
        taken_in
    }
}

pub(super) fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn is_of_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The path that a text begins with, or each of a list in braces; and what comes after.
fn paths(text: &str) -> (Vec<Vec<&str>>, &str) {
    let Some(mut list) = text.strip_prefix('{') else {
        let (name, rest) = text.split_at(text.find(|letter| !is_of_name(letter)).unwrap_or(text.len()));
        let Some(more) = rest.strip_prefix("::") else { return (vec![vec![name]], rest) };
        let (ends, rest) = paths(more);
        return (ends.into_iter().map(|end| [&[name][..], &end].concat()).collect(), rest);
    };
    let mut found = Vec::new();
    loop {
        list = list.trim_start_matches(|letter: char| letter == ',' || letter.is_whitespace());
        if list.is_empty() || list.starts_with('}') {
            return (found, list.get(1..).unwrap_or_default());
        }
        let (some, rest) = paths(list);
        found.extend(some);
        // A name of its own (`as`), or a star.
        list = rest.trim_start_matches(|letter| letter != ',' && letter != '}');
    }
}

pub(super) fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

pub(super) fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

pub(super) fn sources() -> Vec<Source> {
    let found = sources_in(&src());
    assert!(found.len() > 100, "the sources are not where they were");
    found
}

/// The files below a folder.
pub(super) fn sources_in(folder: &Path) -> Vec<Source> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(Source::read(path));
            }
        }
    }
    found
}
