//! Compares the committed bindings with the C headers: every size, alignment, field offset and constant.
//!
//! bindgen leaves the numbers in the text of the bindings, as assertions about the Rust side, which the Rust compiler
//! checks. Here they become assertions about the C side, which the C compiler checks against the headers at hand.

// With the feature `bindgen` the crate has other bindings than the committed ones.
#![cfg(not(feature = "bindgen"))]

#[allow(unreachable_pub)]
mod c;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::offset_of;

use ibverbs_sys::*;

const BINDINGS: &str = include_str!("../src/bindings.rs");

/// What is in the bindings of rdma-core 65.0, less some, so that no loss in the reading of the text goes unnoticed.
const AT_LEAST: Counts = Counts { sizes: 165, offsets: 980, constants: 760 };

/// Where anonymous members are, of which bindgen asserts nothing.
const ANONYMOUS: [(&str, &str, usize); 8] = [
    ("ibv_wc", "__bindgen_anon_1", offset_of!(ibv_wc, __bindgen_anon_1)),
    ("ibv_send_wr", "__bindgen_anon_1", offset_of!(ibv_send_wr, __bindgen_anon_1)),
    ("ibv_send_wr", "__bindgen_anon_2", offset_of!(ibv_send_wr, __bindgen_anon_2)),
    ("ibv_flow_spec", "__bindgen_anon_1", offset_of!(ibv_flow_spec, __bindgen_anon_1)),
    ("rdma_addr", "__bindgen_anon_1", offset_of!(rdma_addr, __bindgen_anon_1)),
    ("rdma_addr", "__bindgen_anon_2", offset_of!(rdma_addr, __bindgen_anon_2)),
    (
        "ib_uverbs_flow_action_esp_encap",
        "__bindgen_anon_1",
        offset_of!(ib_uverbs_flow_action_esp_encap, __bindgen_anon_1),
    ),
    (
        "ib_uverbs_flow_action_esp_encap",
        "__bindgen_anon_2",
        offset_of!(ib_uverbs_flow_action_esp_encap, __bindgen_anon_2),
    ),
];

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    sizes: usize,
    offsets: usize,
    constants: usize,
}

#[test]
fn bindings_agree_with_the_headers() {
    let Some(c) = c::Compiler::with_headers() else { return };
    let bindings = Bindings::read(BINDINGS);
    let (program, counts) = bindings.c_program();
    println!("compared: {counts:?}");
    assert!(
        counts.sizes >= AT_LEAST.sizes
            && counts.offsets >= AT_LEAST.offsets
            && counts.constants >= AT_LEAST.constants,
        "the test read less out of the bindings than there is: {counts:?}, expected {AT_LEAST:?}"
    );
    if let Err(messages) = c.compile(&program, &c::scratch("layout")) {
        panic!(
            "the bindings do not agree with the headers in {}:\n{messages}",
            c.headers().display()
        );
    }
}

#[test]
fn a_wrong_number_is_noticed() {
    let Some(c) = c::Compiler::with_headers() else { return };
    for (before, right, wrong) in [
        ("::core::mem::size_of::<ibv_sge>() - ", "16", "24"),
        ("::core::mem::offset_of!(ibv_sge, lkey) - ", "12", "8"),
        ("::core::mem::size_of::<efadv_device_attr>() - ", "32", "24"),
        ("::core::mem::offset_of!(efadv_qp_init_attr, wr_flags) - ", "16", "8"),
        ("pub const EFADV_QP_FLAGS_INLINE_WRITE: ::core::ffi::c_uint = ", "2", "1"),
        ("pub const IBV_WC_WR_FLUSH_ERR: ibv_wc_status = ", "5", "6"),
    ] {
        let text = unwrapped(BINDINGS);
        let broken = text.replace(&format!("{before}{right}"), &format!("{before}{wrong}"));
        assert_ne!(text, broken, "the bindings have no {before}{right}");
        let (program, _) = Bindings::read(&broken).c_program();
        let messages = c
            .compile(&program, &c::scratch("layout-wrong"))
            .expect_err("a wrong number was accepted");
        assert!(messages.contains("static assertion failed"), "{messages}");
    }
}

/// A structure or union of the bindings.
#[derive(Debug)]
struct Record {
    keyword: &'static str,
    /// Fields and their types, as far as these are plain names.
    fields: Vec<(String, String)>,
}

#[derive(Debug)]
struct Bindings {
    records: BTreeMap<String, Record>,
    sizes: Vec<(String, String)>,
    alignments: Vec<(String, String)>,
    offsets: Vec<(String, String, String)>,
    constants: Vec<(String, String)>,
}

/// The text with all white space reduced to one space, and none where a line was broken inside brackets.
fn unwrapped(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.replace("[ ", "[").replace(", ]", "]").replace("( ", "(").replace(", )", ")")
}

impl Bindings {
    fn read(text: &str) -> Self {
        let text = unwrapped(text);
        let mut bindings = Self {
            records: records(&text),
            sizes: Vec::new(),
            alignments: Vec::new(),
            offsets: Vec::new(),
            constants: constants(&text),
        };
        let mut before = "";
        for block in text.split("const _: () = {") {
            let other_machine = before.trim_end().ends_with("#[cfg(target_arch = \"x86_64\")]");
            if !other_machine || cfg!(target_arch = "x86_64") {
                bindings.read_assertions(block.split("};").next().expect("there is a first part"));
            }
            before = block;
        }
        bindings
    }

    fn read_assertions(&mut self, block: &str) {
        for assertion in block.split("];") {
            let Some((what, number)) = assertion.split_once("\"][") else { continue };
            let Some(number) =
                number.rsplit_once(" - ").and_then(|(_, number)| number.strip_suffix("usize"))
            else {
                continue;
            };
            let what = what.trim_start_matches([' ', '[', '"']);
            let number = number.to_owned();
            if let Some(name) = what.strip_prefix("Size of ") {
                self.sizes.push((name.to_owned(), number));
            } else if let Some(name) = what.strip_prefix("Alignment of ") {
                self.alignments.push((name.to_owned(), number));
            } else if let Some((name, field)) =
                what.strip_prefix("Offset of field: ").and_then(|field| field.split_once("::"))
            {
                self.offsets.push((name.to_owned(), field.to_owned(), number));
            }
        }
    }

    /// The assertions in C.
    fn c_program(&self) -> (String, Counts) {
        let mut program = String::from(
            "#include <infiniband/verbs.h>\n#include <infiniband/opcode.h>\n#include <infiniband/tm_types.h>\n\
             #include <infiniband/sa.h>\n#include <infiniband/ib.h>\n#include <infiniband/efadv.h>\n\
             #include <rdma/rdma_cma.h>\n#include <rdma/rdma_verbs.h>\n#include <rdma/rsocket.h>\n",
        );
        let mut counts = Counts::default();
        let mut claim = |claim: String| {
            let message = claim.replace('"', "'");
            writeln!(program, "_Static_assert({claim}, \"{message}\");")
                .expect("writing to a string succeeds");
        };
        for (name, size) in &self.sizes {
            if let Some(c) = self.c_type(name) {
                claim(format!("sizeof({c}) == {size}"));
                counts.sizes += 1;
            }
        }
        for (name, alignment) in &self.alignments {
            if let Some(c) = self.c_type(name) {
                claim(format!("_Alignof({c}) == {alignment}"));
            }
        }
        for (name, field, offset) in &self.offsets {
            let place = self.place(name);
            let Some(member) = c_member(field) else { continue };
            claim(format!(
                "__builtin_offsetof({}, {}) == {} + {offset}",
                place.of,
                joined(&place.path, &member),
                place.offset
            ));
            counts.offsets += 1;
        }
        for (name, value) in &self.constants {
            claim(format!("({name}) == ({value})"));
            counts.constants += 1;
        }
        program.push_str("int main(void) { return 0; }\n");
        (program, counts)
    }

    /// The C type of a record, unless it has no name in C by which to ask for its size.
    fn c_type(&self, name: &str) -> Option<String> {
        let place = self.place(name);
        match (place.path.as_str(), place.anonymous) {
            (_, true) => None,
            ("", false) => Some(place.of),
            (path, false) => Some(format!("__typeof__((({} *)0)->{path})", place.of)),
        }
    }

    /// Where a record is in C: itself, or a member of the record that it was declared in.
    fn place(&self, name: &str) -> Place {
        if !name.contains("__bindgen_ty_") {
            let record = &self.records[name];
            let of = format!("{} {name}", record.keyword);
            return Place { of, path: String::new(), offset: 0, anonymous: false };
        }
        let declared_in = self.records.iter().find_map(|(outer, record)| {
            record
                .fields
                .iter()
                .find(|(_, ty)| ty == name)
                .map(|(field, _)| (outer.as_str(), field.as_str()))
        });
        let (outer, field) =
            declared_in.unwrap_or_else(|| panic!("no record has a field of type {name}"));
        let outer_place = self.place(outer);
        match c_member(field) {
            Some(member) => {
                let offset = outer_place.offset + self.offset(outer, field);
                Place {
                    path: joined(&outer_place.path, &member),
                    offset,
                    anonymous: false,
                    ..outer_place
                }
            }
            // The members of an anonymous record are members of the outer one.
            None => {
                let offset = outer_place.offset + self.offset(outer, field);
                Place { offset, anonymous: true, ..outer_place }
            }
        }
    }

    fn offset(&self, record: &str, field: &str) -> usize {
        if let Some((_, _, offset)) =
            ANONYMOUS.iter().find(|(name, of, _)| *name == record && *of == field)
        {
            return *offset;
        }
        let found = self.offsets.iter().find(|(name, of, _)| name == record && of == field);
        let (_, _, offset) = found.unwrap_or_else(|| {
            panic!("the bindings state no offset of {record}::{field}: add it to ANONYMOUS")
        });
        offset.parse().expect("an offset is a number")
    }
}

struct Place {
    of: String,
    path: String,
    offset: usize,
    anonymous: bool,
}

fn joined(path: &str, member: &str) -> String {
    if path.is_empty() {
        member.to_owned()
    } else {
        format!("{path}.{member}")
    }
}

/// A member's name in C, unless it has none: bindgen appends an underscore to what is a keyword in Rust.
fn c_member(field: &str) -> Option<String> {
    if field.starts_with("__bindgen_anon_") {
        return None;
    }
    let keywords = ["type_", "match_", "priv_", "ref_", "mod_", "use_", "in_", "move_"];
    Some(if keywords.contains(&field) { field.trim_end_matches('_') } else { field }.to_owned())
}

fn records(text: &str) -> BTreeMap<String, Record> {
    let mut records = BTreeMap::new();
    for (marker, keyword) in [("pub struct ", "struct"), ("pub union ", "union")] {
        for declaration in text.split(marker).skip(1) {
            let (name, rest) = declaration.split_once(" {").expect("a record has a body");
            let body = rest.split('}').next().expect("there is a first part");
            let fields = body.split("pub ").skip(1).filter_map(|field| {
                let (field, ty) = field.split_once(": ")?;
                Some((field.to_owned(), ty.trim().trim_end_matches(',').to_owned()))
            });
            records.insert(name.to_owned(), Record { keyword, fields: fields.collect() });
        }
    }
    records
}

/// Constants, and the names that C gives them in addition.
fn constants(text: &str) -> Vec<(String, String)> {
    let mut constants: Vec<(String, String)> = Vec::new();
    for declaration in text.split("pub const ").skip(1) {
        let declaration = declaration.split(';').next().expect("there is a first part");
        let (declared, value) = declaration.split_once(" = ").expect("a constant has a value");
        let (name, _) = declared.split_once(": ").expect("a constant has a type");
        let value = if value.starts_with('-') { value.to_owned() } else { format!("{value}ULL") };
        constants.push((name.to_owned(), value));
    }
    for alias in text.split("pub use self::").skip(1) {
        let (target, name) =
            alias.split(';').next().and_then(|alias| alias.split_once(" as ")).expect("an alias");
        let value = constants
            .iter()
            .find(|(constant, _)| constant == target)
            .map(|(_, value)| value.clone());
        constants.extend(value.map(|value| (name.to_owned(), value)));
    }
    constants
}
