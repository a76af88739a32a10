//! Tests that are the same on a real etcd and on the agent.

/// Names a check once for each subject. `on_both!(check)` makes the tests `etcd` and `agent` of a
/// `check(&Subject)`; `on_both!(check: a, b)` makes `etcd::a`, `agent::a`, ... of a `check(&Subject, part)`, of which etcd's
/// are left to CI: golden files hold what it answers.
#[macro_export]
macro_rules! on_both {
    ($check:path) => {
        #[tokio::test]
        async fn etcd() {
            match $crate::cluster::Subject::etcd() {
                Some(etcd) => $check(&etcd).await,
                None => $crate::notes::skipped("no etcd 3.5"),
            }
        }

        #[tokio::test]
        async fn agent() {
            $check(&$crate::cluster::Subject::agent()).await;
        }
    };
    ($check:ident: $($part:ident),* $(,)?) => {
        mod etcd {
            $(#[tokio::test]
            #[ignore = "CI asks etcd as well; UPDATE_GOLDEN=1 writes down what it answers"]
            async fn $part() {
                match $crate::cluster::Subject::etcd() {
                    Some(etcd) => super::$check(&etcd, stringify!($part)).await,
                    None => $crate::notes::skipped("no etcd 3.5"),
                }
            })*
        }
        mod agent {
            $(#[tokio::test]
            async fn $part() {
                super::$check(&$crate::cluster::Subject::agent(), stringify!($part)).await;
            })*
        }
    };
}
