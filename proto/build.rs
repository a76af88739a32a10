//! Compiles the `.proto` files with protox, a compiler in Rust: no `protoc` on the build machine.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;

const FILES: [&str; 7] = [
    "mvcc.proto",
    "authpb.proto",
    "rpc.proto",
    "lock.proto",
    "election.proto",
    "replicated.proto",
    "peer.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("proto");
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES.map(|file| root.join(file)), [root])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Keys, values and log entries are shared, not copied, between the socket, the log and the store.
        .bytes(".")
        // Maps are hashed and compared as bytes: their encoding must not depend on chance.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
