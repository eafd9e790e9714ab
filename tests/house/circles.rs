//! Files and folders that use each other, however long the way round is.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, sources, src};

/// What one file or folder uses beside it, each by an example.
type Uses = BTreeMap<String, String>;

/// Of each folder, which of its files and folders use which others. A folder's mod.rs stands for the
/// folder: it and what is in it may use each other.
type Arrows = BTreeMap<String, BTreeMap<String, Uses>>;

fn arrows(sources: &[Source]) -> Arrows {
    let modules: BTreeSet<String> = sources.iter().map(Source::module).collect();
    let taken_in: BTreeMap<String, BTreeMap<String, Vec<String>>> =
        sources.iter().map(|source| (source.module(), source.taken_in(&modules))).collect();
    // The file that a name is of. Each way through a mod.rs leads further down.
    let file_of = |mut path: Vec<String>| loop {
        let deepest = (1..=path.len()).rev().find(|length| modules.contains(&path[..*length].join("/")))?;
        let module = path[..deepest].join("/");
        match path.get(deepest).and_then(|name| taken_in[&module].get(name)) {
            Some(whole) => path = [&whole[..], &path[deepest + 1..]].concat(),
            None => return Some(module),
        }
    };
    let mut arrows = Arrows::new();
    for source in sources {
        let user = source.module();
        for used in source.named().into_iter().filter_map(file_of) {
            let (ours, theirs): (Vec<&str>, Vec<&str>) =
                (user.split('/').collect(), used.split('/').collect());
            let common = ours.iter().zip(&theirs).take_while(|(one, other)| one == other).count();
            if let (Some(one), Some(other)) = (ours.get(common), theirs.get(common)) {
                let folder = arrows.entry(ours[..common].join("/")).or_default();
                let beside = folder.entry((*one).to_owned()).or_default();
                beside.entry((*other).to_owned()).or_insert_with(|| format!("{user} uses {used}"));
            }
        }
    }
    arrows
}

/// What uses each other, however long the way round is: each circle by the arrows in it.
fn circles(arrows: &Arrows) -> Vec<String> {
    let mut circles = Vec::new();
    for folder in arrows.values() {
        let reached: BTreeMap<&String, BTreeSet<&String>> =
            folder.keys().map(|one| (one, reached_from(one, folder))).collect();
        let leads = |one: &String, other: &String| reached[one].contains(other);
        let mut known: BTreeSet<&String> = BTreeSet::new();
        for start in folder.keys() {
            let circle: BTreeSet<&String> =
                folder.keys().filter(|other| leads(start, other) && leads(other, start)).collect();
            if circle.is_empty() || known.contains(start) {
                continue;
            }
            let in_it = circle.iter().flat_map(|one| {
                folder[*one]
                    .iter()
                    .filter(|(used, _)| circle.contains(used))
                    .map(|(_, example)| example.as_str())
            });
            circles.push(in_it.collect::<Vec<_>>().join(", "));
            known.extend(circle);
        }
    }
    circles
}

/// All that is used from there on, itself only where the way comes back.
fn reached_from<'a>(start: &'a String, folder: &'a BTreeMap<String, Uses>) -> BTreeSet<&'a String> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
    while let Some(one) = next.pop() {
        let uses = folder.get(one).into_iter().flat_map(Uses::keys);
        next.extend(uses.filter(|used| reached.insert(*used)));
    }
    reached
}

#[test]
fn nothing_of_a_folder_uses_each_other_in_a_circle() {
    let sources = sources();
    let arrows = arrows(&sources);
    let count: usize = arrows.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum();
    assert!(count > 300, "nothing is found any more");
    let circles = circles(&arrows);
    assert!(circles.is_empty(), "these use each other:\n{}", circles.join("\n"));
}

#[test]
fn a_circle_is_found_over_folders_and_re_exports_however_long_it_is() {
    let file = |name: &str, code: &str| Source { path: src().join(name), code: code.to_owned() };
    let mut sources = vec![
        file("room/mod.rs", "mod third;\npub use self::third::{Other, Third};"),
        file("room/first.rs", "use super::{folder::{Second as Other}, Nothing};"),
        file("room/folder/mod.rs", "mod second;\npub use second::Second;\nuse super::Nothing;"),
        file("room/folder/second.rs", "use super::super::Third;"),
        file("room/third.rs", "use super::Nothing;"),
    ];
    assert_eq!(circles(&arrows(&sources)), [""; 0]);
    sources[4].code.push_str("\nfn third() -> crate::room::first::First {}");
    let found = circles(&arrows(&sources));
    let [circle] = &found[..] else { panic!("{found:?}") };
    for arrow in [
        "room/first uses room/folder/second",
        "room/folder/second uses room/third",
        "room/third uses room/first",
    ] {
        assert!(circle.contains(arrow), "{circle}");
    }
}
