//! The first program stands in three places, which must not part: the example that is run, the README
//! and the crate's documentation.

const EXAMPLE: &str = include_str!("../../examples/first.rs");
const README: &str = include_str!("../../README.md");
const CRATE_DOCS: &str = include_str!("../src/lib.rs");

/// From the signature of `main` to its end.
fn program() -> &'static str {
    &EXAMPLE[EXAMPLE.find("fn main()").expect("the example has a main function")..]
}

#[test]
fn the_readme_shows_the_example() {
    assert!(program().lines().count() > 20);
    assert!(README.contains(program()));
}

#[test]
fn the_crate_docs_show_the_example() {
    let docs: String = program().lines().map(|line| format!("//! {line}\n")).collect();
    assert!(CRATE_DOCS.contains(&docs));
}
