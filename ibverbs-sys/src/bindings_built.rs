// The bindings that `build.rs` generated: cargo feature `bindgen`.
include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
