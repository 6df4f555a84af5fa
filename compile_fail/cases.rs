//! Misuse of `ibverbs` does not compile, and for the reason that is given.
//!
//! Each program in `fail/` has a twin in `pass/` that compiles and differs in the misuse only, so that no
//! slip of the pen can be why it is refused. Its `//~` lines tell what the compiler must say; everything
//! that it says is in the `.stderr` file beside it. `README.md` tells how to add a case and how to bless.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The compiler whose words the `.stderr` files are, without the sources of the standard library (with
/// them it quotes more). Any other one must find the same errors, in words of its own.
const BLESSED: &str = "rustc 1.95.";

/// How a line begins that tells an error which the compiler must find.
const EXPECTED: &str = "//~ ";

/// Errors that have no code, and why.
const WITHOUT_CODE: &[(&str, &str)] = &[
    (
        "awaited_completions_in_other_task",
        "the compiler explains what is in a future in other words",
    ),
    ("batch_kept_across_await", "the compiler explains what is in a future in other words"),
    ("batch_not_kept", "a lint: discarding a batch is allowed, and aborts it"),
    ("cm_connected_in_other_task", "the compiler explains what is in a future in other words"),
    ("cm_id_lent_to_other_task", "the compiler explains what is in a future in other words"),
    ("connection_not_kept", "a lint: discarding a connection is allowed, and ends it"),
    ("op_not_named", "a lint: discarding an operation is allowed, and posts nothing"),
    ("queue_pair_not_kept", "a lint: discarding a queue pair is allowed, and destroys it"),
];

/// How many lines the two programs of a case may differ in, counted from the first to the last.
const MISUSE_LINES: usize = 5;

#[test]
fn misuse_does_not_compile() {
    // Whoever asks trybuild to overwrite the files is about to bless them.
    let exact = blessed_compiler() || env::var_os("TRYBUILD").is_some();
    // A path within the package makes trybuild keep the line numbers.
    let mut directory = PathBuf::from("fail");
    if !exact {
        eprintln!("this compiler is not {BLESSED}*: its errors are compared, its words are not");
        directory = copied_cases();
        env::set_var("TRYBUILD", "overwrite");
    }
    trybuild::TestCases::new().compile_fail(directory.join("*.rs"));
    for name in names("fail", "stderr") {
        assert!(case("fail", &name).exists(), "fail/{name}.stderr has no program");
    }
    for (name, _) in WITHOUT_CODE {
        assert!(case("fail", name).exists(), "WITHOUT_CODE names {name}, which is no program");
    }
    for name in names("fail", "rs") {
        check_errors(&name, &directory.join(&name).with_extension("stderr"));
    }
}

/// The errors in the output are those that the case expects: no more, no fewer, no others.
fn check_errors(name: &str, output: &Path) {
    let source = read(&case("fail", name));
    let expected: Vec<_> = source.lines().filter_map(|line| line.strip_prefix(EXPECTED)).collect();
    assert!(!expected.is_empty(), "fail/{name}.rs does not tell what the compiler must say");
    let output = read(output);
    let found: Vec<_> = output.lines().filter(|line| line.starts_with("error")).collect();
    assert_eq!(found.len(), expected.len(), "fail/{name}.rs has other errors: {found:#?}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!(found.contains(expected), "fail/{name}.rs: `{expected}` expected, but `{found}`");
    }
    let coded = expected.iter().all(|error| error.starts_with("error[E"));
    let listed = WITHOUT_CODE.iter().any(|(listed, _)| *listed == name);
    assert!(coded != listed, "fail/{name}.rs: errors have a code, or a reason in WITHOUT_CODE");
}

#[test]
fn the_twins_compile() {
    // As modules of one program, which takes the compiler a second where a program for each takes a minute.
    let mut program = String::from("fn main() {}\n");
    for name in names("pass", "rs") {
        program += &format!("#[path = {:?}]\nmod {name};\n", case("pass", &name));
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("twins.rs");
    fs::write(&path, program).unwrap();
    trybuild::TestCases::new().pass(path);
}

#[test]
fn the_twins_differ_in_the_misuse_only() {
    for name in names("pass", "rs") {
        assert!(case("fail", &name).exists(), "pass/{name}.rs is no program's twin");
    }
    for name in names("fail", "rs") {
        let (fail, pass) = (read(&case("fail", &name)), read(&case("pass", &name)));
        let fail: Vec<_> = fail.lines().filter(|line| !line.starts_with(EXPECTED)).collect();
        let pass: Vec<_> = pass.lines().collect();
        let equal = |(a, b): &(&&str, &&str)| a == b;
        let before = fail.iter().zip(&pass).take_while(equal).count();
        let (fail, pass) = (&fail[before..], &pass[before..]);
        let after = fail.iter().rev().zip(pass.iter().rev()).take_while(equal).count();
        let lines = fail.len().max(pass.len()) - after;
        assert!(lines > 0, "{name}: the program and its twin are the same");
        assert!(
            lines <= MISUSE_LINES,
            "{name}: the twins differ in more than a misuse: {lines} lines"
        );
    }
}

/// Whether the compiler is the one that the `.stderr` files were written by.
fn blessed_compiler() -> bool {
    let rustc = |argument: &[&str]| {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(rustc).args(argument).output().expect("cannot run rustc");
        String::from_utf8(output.stdout).expect("rustc prints UTF-8")
    };
    let sysroot = rustc(&["--print", "sysroot"]);
    let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    rustc(&["--version"]).starts_with(BLESSED) && !sources.exists()
}

/// A copy of the programs in `fail/`, beside which trybuild may write what another compiler says.
fn copied_cases() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fail");
    if directory.exists() {
        fs::remove_dir_all(&directory).unwrap();
    }
    fs::create_dir_all(&directory).unwrap();
    for name in names("fail", "rs") {
        fs::copy(case("fail", &name), directory.join(name).with_extension("rs")).unwrap();
    }
    directory
}

fn directory(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind)
}

fn case(kind: &str, name: &str) -> PathBuf {
    directory(kind).join(name).with_extension("rs")
}

/// The names of the files of a kind, sorted.
fn names(kind: &str, extension: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory(kind))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension() == Some(OsStr::new(extension)))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
