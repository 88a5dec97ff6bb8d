//! Tells the code whether the HDF5 library in use can read compressed chunks as they are (1.10.3 and later).
fn main() {
    println!("cargo::rustc-check-cfg=cfg(raw_chunks)");
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("DEP_HDF5_VERSION_1_10_3").is_some() {
        println!("cargo::rustc-cfg=raw_chunks");
    }
}
