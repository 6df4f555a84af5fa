//! The build script. In the default configuration it does nothing, and needs nothing.

#[cfg(feature = "bindgen")]
mod bindings;
#[cfg(feature = "static-linking")]
mod building;
#[cfg(feature = "bindgen")]
mod generate;
#[cfg(all(feature = "dynamic-linking", not(feature = "static-linking")))]
mod linking;

#[cfg(all(any(feature = "bindgen", feature = "dynamic-linking"), not(feature = "static-linking")))]
mod environment;

fn main() {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rustc-check-cfg=cfg(ibverbs_linked_efa)");
    // Documentation is built where there is neither a library to link nor a source to build.
    if std::env::var_os("DOCS_RS").is_none() {
        #[cfg(feature = "static-linking")]
        building::build();
        #[cfg(all(feature = "dynamic-linking", not(feature = "static-linking")))]
        linking::link();
        #[cfg(feature = "bindgen")]
        bindings::generate();
    }
}

/// Ends the build with a message.
#[cfg(any(feature = "bindgen", feature = "dynamic-linking", feature = "static-linking"))]
fn fail(message: &str) -> ! {
    eprintln!("\nibverbs-sys: {message}\n");
    std::process::exit(1);
}

/// The folder for whatever the build makes.
#[cfg(any(feature = "bindgen", feature = "static-linking"))]
fn out_dir() -> std::path::PathBuf {
    std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR").into()
}
