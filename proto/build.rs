//! Compiles the `.proto` files with protox, a compiler in Rust: no `protoc` on the build machine.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;

const FILES: [&str; 8] = [
    "mvcc.proto",
    "authpb.proto",
    "rpc.proto",
    "lock.proto",
    "election.proto",
    "replicated.proto",
    "peer.proto",
    "agent.proto",
];

/// Messages with a secret in them: `redacted.rs` says how they show themselves.
const SECRETS: [&str; 13] = [
    ".etcdserverpb.AuthUserAddRequest",
    ".etcdserverpb.AuthUserChangePasswordRequest",
    ".etcdserverpb.AuthenticateRequest",
    ".etcdserverpb.AuthenticateResponse",
    ".replicated.AuthChange",
    ".replicated.AuthSettings",
    ".replicated.AuthUser",
    ".authpb.User",
    ".peer.JoinRequest",
    ".peer.IssuerAnswer",
    ".peer.SecretsKeyAnswer",
    ".agent.v1.EntrustRequest",
    ".agent.v1.JoinTicket",
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
        .skip_debug(SECRETS)
        .compile_fds(descriptors)?;
    Ok(())
}
