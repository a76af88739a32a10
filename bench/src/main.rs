//! The same load on three members of ours and on three of etcd, one after the other, side by side.
//!
//! Owns its processes and folders, which are gone when it ends. It measures from outside, through one client
//! for both, and knows nothing of how either works inside.

mod compare;
mod keep_alives;
mod load;
mod servers;
mod watchers;

use clap::Parser;

#[derive(Parser)]
#[command(
    name = "bench",
    about = "The same load on us and on a real etcd, side by side"
)]
enum Command {
    /// Puts and gets with few and many clients, on both, and the ratio
    Compare(compare::Args),
    /// Renewals of very many leases, on both, and the ratio
    KeepAlives(keep_alives::Args),
    /// Puts while very many watch other keys, and the ratio to none
    Watchers(watchers::Args),
}

fn main() -> anyhow::Result<()> {
    let command = Command::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            match command {
                Command::Compare(args) => compare::run(&args).await,
                Command::KeepAlives(args) => keep_alives::run(&args).await,
                Command::Watchers(args) => watchers::run(&args).await,
            }
        })
}
