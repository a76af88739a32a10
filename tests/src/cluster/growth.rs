//! Members that come later than the cluster, and hosts that lose their data.

use std::fs;

use proto::etcdserverpb::{Member as Listed, MemberAddRequest, MemberRemoveRequest};
use tonic::Status;

use super::{Cluster, Member};
use crate::wait;

impl Cluster {
    /// A place for one more member, which is not admitted and does not run. Its number.
    pub fn place(&mut self) -> usize {
        let i = self.members.len();
        let name = format!("m{i}");
        let data = self.folder.path().join(&name);
        let log = self.folder.path().join(format!("{name}.log"));
        self.members.push(Member::new(
            &name,
            self.address,
            self.builder.peer_scheme(),
            data,
            log,
        ));
        self.joined.insert(i);
        i
    }

    /// Admits member `i`, through member `through`, as `agentctl member add` does. Its id.
    ///
    /// # Errors
    /// As the server says.
    pub async fn admit(&self, through: usize, i: usize, learner: bool) -> Result<u64, Status> {
        let add = MemberAddRequest {
            peer_ur_ls: vec![self.members[i].peer_url.clone()],
            is_learner: learner,
        };
        let answer = self.client(through).cluster.member_add(add).await?.into_inner();
        Ok(answer.member.map_or(0, |member| member.id))
    }

    /// # Errors
    /// As the server says.
    pub async fn remove(&self, through: usize, id: u64) -> Result<Vec<Listed>, Status> {
        let request = MemberRemoveRequest { id };
        let answer = self.client(through).cluster.member_remove(request).await?;
        Ok(answer.into_inner().members)
    }

    /// Admits one more member, starts it, and waits until it serves; it votes soon after. Its number.
    ///
    /// # Panics
    /// When it is refused, or does not come up.
    pub async fn grow(&mut self, through: usize) -> usize {
        let i = self.place();
        wait::until("the new member to be admitted", async || {
            self.admit(through, i, false).await.ok()
        })
        .await;
        self.start(i);
        self.member_ready(i).await;
        i
    }

    /// The id of a running member, as it says itself.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn id(&self, i: usize) -> u64 {
        let status = wait::until("a member's status", async || self.client(i).status().await.ok());
        status.await.header.map_or(0, |header| header.member_id)
    }

    /// What a host has left after its disk was replaced.
    ///
    /// # Panics
    /// When the folder cannot be removed.
    pub fn wipe(&mut self, i: usize) {
        assert!(!self.members[i].is_running(), "m{i} runs");
        fs::remove_dir_all(&self.members[i].data_dir).expect("remove a data directory");
    }

    /// Another peer port for member `i`, from its next start on. The URL.
    pub fn move_peer(&mut self, i: usize) -> String {
        self.members[i].move_peer(self.address);
        self.members[i].peer_url.clone()
    }
}
