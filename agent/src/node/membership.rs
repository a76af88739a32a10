//! Who the members are, as clients see them.

use openraft::async_runtime::watch::WatchReceiver;
use proto::etcdserverpb::Member;

use super::Node;

impl Node {
    /// The members as etcd shows them, ascending by id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let metrics = self.inner.raft.server_metrics();
        let membership = metrics.borrow_watched().membership_config.clone();
        let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
        membership
            .nodes()
            .map(|(id, node)| {
                let published = self.inner.store.member_attributes(*id);
                Member {
                    id: *id,
                    name: published
                        .as_ref()
                        .map_or_else(|| node.name.clone(), |member| member.name.clone()),
                    peer_ur_ls: node.peer_urls.clone(),
                    client_ur_ls: published
                        .map(|attributes| attributes.client_urls)
                        .unwrap_or_default(),
                    is_learner: !voters.contains(id),
                }
            })
            .collect()
    }

    /// The first URL at which peers reach a member.
    pub(super) fn peer_url(&self, id: u64) -> Option<String> {
        let metrics = self.inner.raft.server_metrics();
        let membership = metrics.borrow_watched().membership_config.clone();
        membership
            .get_node(&id)
            .and_then(|node| node.peer_urls.first().cloned())
    }

    /// The voter other than this member whose log is furthest along; `None` unless this member leads.
    pub(super) fn best_successor(&self) -> Option<u64> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        voters
            .into_iter()
            .filter(|id| *id != self.member_id())
            .max_by_key(|id| {
                replication
                    .get(id)
                    .and_then(|matched| matched.as_ref().map(openraft::LogId::index))
            })
    }
}
