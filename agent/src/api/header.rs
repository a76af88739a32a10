//! The header of every response: which cluster, which member, at which revision and term.

use proto::etcdserverpb::ResponseHeader;
use tokio::sync::watch;

use crate::node::{Node, RaftView};

/// What stays the same in every header of this member, and the term as it is now.
#[derive(Clone, Debug)]
pub(super) struct Headers {
    cluster_id: u64,
    member_id: u64,
    view: watch::Receiver<RaftView>,
}

impl Headers {
    pub(super) fn new(node: &Node) -> Headers {
        Headers {
            cluster_id: node.cluster_id(),
            member_id: node.member_id(),
            view: node.raft_view(),
        }
    }

    /// What this member sees of its group now.
    pub(super) fn view(&self) -> RaftView {
        *self.view.borrow()
    }

    /// A header at `revision`; 0 where etcd gives none.
    pub(super) fn at(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision,
            raft_term: self.view().term,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_term_is_the_current_one() {
        let (sender, view) = watch::channel(RaftView {
            term: 3,
            ..RaftView::default()
        });
        let headers = Headers {
            cluster_id: 7,
            member_id: 8,
            view,
        };
        let expected = ResponseHeader {
            cluster_id: 7,
            member_id: 8,
            revision: 5,
            raft_term: 3,
        };
        assert_eq!(headers.at(5), expected);
        sender
            .send(RaftView {
                term: 4,
                ..RaftView::default()
            })
            .unwrap();
        assert_eq!(
            headers.at(0),
            ResponseHeader {
                revision: 0,
                raft_term: 4,
                ..expected
            }
        );
    }
}
