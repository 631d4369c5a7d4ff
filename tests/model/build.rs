//! Switches the source to the types of the model checker, see `src/cache/sync.rs`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cfg=model");
}
