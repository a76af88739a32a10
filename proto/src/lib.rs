//! The wire. Generated code only, no logic; but what holds a secret does not show it.
//!
//! [`etcdserverpb`], [`mvccpb`], [`authpb`], [`v3lockpb`] and [`v3electionpb`] are wire-compatible with etcd
//! v3. [`replicated`] is what the log holds and what apply answers; [`peer`] is what members say to each
//! other. [`agent::v1`] is what people ask of hosts. Every `bytes` field is [`bytes::Bytes`].

#![allow(missing_docs, unreachable_pub, missing_debug_implementations, clippy::all)]

mod redacted;

/// Every message and service here as an encoded `FileDescriptorSet`: names and types at run time.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
pub mod authpb {
    tonic::include_proto!("authpb");
}
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
pub mod replicated {
    tonic::include_proto!("replicated");
}
pub mod agent {
    pub mod v1 {
        tonic::include_proto!("agent.v1");
    }
}
pub mod peer {
    tonic::include_proto!("peer");
}
