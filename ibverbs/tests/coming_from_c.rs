//! The page for those who come from C names every verb there is, and none that is not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the functions of the three libraries begin with.
const PREFIXES: [&str; 3] = ["ibv_", "rdma_", "efadv_"];

fn is_verb(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Every function of the three libraries: those that they export, and those that are inline in their headers.
fn verbs() -> BTreeSet<String> {
    let mut sources = vec![read("ibverbs-sys/src/functions.rs")];
    let inline = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ibverbs-sys/src/verbs_inline");
    for entry in fs::read_dir(inline).unwrap() {
        sources.push(fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let names = sources.iter().flat_map(|source| {
        source.split("fn ").skip(1).map(|rest| {
            rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap()
        })
    });
    names.filter(|name| is_verb(name)).map(str::to_owned).collect()
}

/// The names in backquotes that begin like a verb. One may end, or have in its middle, an asterisk.
fn named(page: &str) -> BTreeSet<&str> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter(|name| is_verb(name)).collect()
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    }
}

/// The sources in a folder, one after the other.
fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        all += &if path.is_dir() { sources(&path) } else { fs::read_to_string(path).unwrap() };
    }
    all
}

#[test]
fn every_name_on_the_page_is_somewhere_in_the_crate_or_in_c() {
    let page = read("docs/coming-from-c.md");
    let crate_sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let known = crate_sources
        + &read("ibverbs-sys/src/bindings.rs")
        + &read("ibverbs-sys/src/functions.rs");
    let quoted = page.split('`').skip(1).step_by(2).filter(|name| !is_verb(name));
    let words = quoted.flat_map(|name| name.split(|c: char| !(c.is_alphanumeric() || c == '_')));
    let unknown: Vec<_> = words.filter(|word| !known.contains(word)).collect();
    assert!(unknown.is_empty(), "nowhere else: {unknown:?}");
}

#[test]
fn every_verb_has_its_place_on_the_page() {
    let page = read("docs/coming-from-c.md");
    let (verbs, named) = (verbs(), named(&page));
    assert!(verbs.len() > 150, "{verbs:?}");
    let missing: Vec<_> =
        verbs.iter().filter(|verb| !named.iter().any(|name| matches(name, verb))).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
    let unknown: Vec<_> =
        named.iter().filter(|name| !verbs.iter().any(|verb| matches(name, verb))).collect();
    assert!(unknown.is_empty(), "not in C: {unknown:?}");
}

/// What is in backquotes in the left columns of the tables of what is wrapped.
fn wrapped(page: &str) -> BTreeSet<&str> {
    let (wrapped, _) = page.split_once("\n## Habits that change\n").expect("that heading");
    let rows = wrapped.lines().filter_map(|line| line.strip_prefix('|'));
    let cells = rows.filter_map(|row| row.split('|').next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_wrapped_verb_is_an_alias() {
    let page = read("docs/coming-from-c.md");
    let crate_sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut verbs = wrapped(&page);
    verbs.retain(|name| is_verb(name) && !name.contains('*'));
    assert!(verbs.len() > 80, "{verbs:?}");
    let missing: Vec<_> = verbs
        .iter()
        .filter(|verb| !crate_sources.contains(&format!("#[doc(alias = \"{verb}\")]")))
        .collect();
    assert!(missing.is_empty(), "rustdoc does not find: {missing:?}");
}
