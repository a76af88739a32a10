//! The `etcd-client` crate, as a program in Rust would use it, on etcd and on the agent.

mod auth;
mod concurrency;
mod keys;
mod members;

/// Tests of these parts on etcd, each on a fresh cluster.
macro_rules! on_etcd {
    ($($part:ident),* $(,)?) => {
        mod etcd {
            $(#[tokio::test]
            async fn $part() {
                match tests::cluster::Subject::etcd() {
                    Some(etcd) => {
                        let cluster = tests::cluster::Cluster::builder(&etcd, 3).start().await;
                        super::$part::check(&cluster).await;
                    }
                    None => tests::notes::skipped("no etcd 3.5"),
                }
            })*
        }
    };
}

/// The same on the agent.
macro_rules! on_agent {
    ($($part:ident),* $(,)?) => {
        mod agent {
            $(#[tokio::test]
            async fn $part() {
                let agent = tests::cluster::Subject::agent();
                let cluster = tests::cluster::Cluster::builder(&agent, 3).start().await;
                super::$part::check(&cluster).await;
            })*
        }
    };
}

on_etcd!(keys, concurrency, auth, members);
on_agent!(keys, concurrency, auth, members);

/// What the server said.
fn message(error: &etcd_client::Error) -> &str {
    match error {
        etcd_client::Error::GRpcStatus(status) => status.message(),
        other => panic!("no answer of the server: {other}"),
    }
}
