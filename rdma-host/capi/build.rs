//! Name of the shared library for the dynamic linker: it changes when the interface does.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnvmf-rdma.so.0");
}
