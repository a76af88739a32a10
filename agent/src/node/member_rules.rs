//! Which changes of the membership are refused, and why: etcd's rules, in etcd's order. Pure.
//!
//! A member that is to be a voter counts as a voter here, as etcd counts it from the moment it is added. But a
//! quorum is made of those that vote: what would lose it is refused even where etcd's rules allow it.

use proto::peer::MemberRefusal;

/// A member, as the rules see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) id: u64,
    pub(super) peer_urls: Vec<String>,
    /// It, or whoever added it, has said its name.
    pub(super) started: bool,
    pub(super) learner: bool,
    /// Raft counts its vote: it is no learner, and not on its way to be a voter.
    pub(super) votes: bool,
    /// It has answered the leader since the change was asked for.
    pub(super) active: bool,
    /// The last index of its log that the leader knows of.
    pub(super) matched: u64,
}

/// The membership at the moment of a change.
#[derive(Clone, Debug, Default)]
pub(super) struct Roll {
    pub(super) peers: Vec<Peer>,
    /// The last index of the leader's log.
    pub(super) last_index: u64,
}

/// etcd's default of `--max-learners`.
const MAX_LEARNERS: usize = 1;
/// A learner that has this much of the leader's log may vote, in percent.
const READY_PERCENT: u64 = 90;

type Verdict = Result<(), MemberRefusal>;

impl Roll {
    fn find(&self, id: u64) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    fn voters(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| !peer.learner)
    }

    fn url_is_taken(&self, urls: &[String], except: Option<u64>) -> bool {
        self.peers
            .iter()
            .filter(|peer| Some(peer.id) != except)
            .any(|peer| peer.peer_urls.iter().any(|url| urls.contains(url)))
    }

    pub(super) fn may_add(&self, peer_urls: &[String], learner: bool) -> Verdict {
        let (voters, started) = self.counts(None);
        // One member alone may become two.
        let alone = started == 1 && voters == 1;
        if !learner && !alone && started < quorum(voters + 1) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        if !self.voters().all(|peer| peer.active) {
            return Err(MemberRefusal::Unhealthy);
        }
        if self.url_is_taken(peer_urls, None) {
            return Err(MemberRefusal::PeerUrlExists);
        }
        let learners = self.peers.iter().filter(|peer| peer.learner).count();
        if learner && learners >= MAX_LEARNERS {
            return Err(MemberRefusal::TooManyLearners);
        }
        Ok(())
    }

    pub(super) fn may_remove(&self, id: u64) -> Verdict {
        let member = self.find(id);
        if member.is_some_and(|member| member.learner) {
            return Ok(());
        }
        let (others, started) = self.counts(Some(id));
        if started < quorum(others) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        let member = member.ok_or(MemberRefusal::MemberNotFound)?;
        // One that is down is no part of the active quorum.
        if !member.active {
            return Ok(());
        }
        let active = self.voters().filter(|peer| peer.active).count();
        if active.saturating_sub(1) < 1 + self.voters().count().saturating_sub(1) / 2 {
            return Err(MemberRefusal::Unhealthy);
        }
        let left = || self.peers.iter().filter(|peer| peer.votes && peer.id != id);
        if left().filter(|peer| peer.active).count() < quorum(left().count()) {
            return Err(MemberRefusal::Unhealthy);
        }
        Ok(())
    }

    pub(super) fn may_update(&self, id: u64, peer_urls: &[String]) -> Verdict {
        self.find(id).ok_or(MemberRefusal::MemberNotFound)?;
        if self.url_is_taken(peer_urls, Some(id)) {
            return Err(MemberRefusal::PeerUrlExists);
        }
        Ok(())
    }

    pub(super) fn may_promote(&self, id: u64) -> Verdict {
        let Some(member) = self.find(id) else {
            return Err(MemberRefusal::MemberNotFound);
        };
        if member.matched * 100 < self.last_index * READY_PERCENT {
            return Err(MemberRefusal::LearnerNotReady);
        }
        let (voters, started) = self.counts(None);
        // The one to be promoted counts, and as started.
        if started + 1 < quorum(voters + 1) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        if !member.learner {
            return Err(MemberRefusal::MemberNotLearner);
        }
        Ok(())
    }

    /// Voters, and how many of them have started.
    fn counts(&self, except: Option<u64>) -> (usize, usize) {
        let counted = || self.voters().filter(|peer| Some(peer.id) != except);
        (counted().count(), counted().filter(|peer| peer.started).count())
    }
}

fn quorum(members: usize) -> usize {
    members / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use MemberRefusal as R;

    fn voter(id: u64) -> Peer {
        Peer {
            id,
            peer_urls: vec![format!("http://127.0.0.1:{id}")],
            started: true,
            active: true,
            matched: 100,
            learner: false,
            votes: true,
        }
    }

    fn down(id: u64) -> Peer {
        Peer {
            active: false,
            ..voter(id)
        }
    }

    fn unstarted(id: u64) -> Peer {
        Peer {
            started: false,
            votes: false,
            matched: 0,
            ..down(id)
        }
    }

    fn learner(id: u64, matched: u64) -> Peer {
        Peer {
            learner: true,
            votes: false,
            matched,
            ..voter(id)
        }
    }

    fn roll(peers: Vec<Peer>) -> Roll {
        Roll {
            peers,
            last_index: 100,
        }
    }

    fn three() -> Vec<Peer> {
        vec![voter(1), voter(2), voter(3)]
    }

    fn with(mut peers: Vec<Peer>, more: Peer) -> Roll {
        peers.push(more);
        roll(peers)
    }

    #[test]
    fn adding() {
        let new = ["http://127.0.0.1:9".to_owned()];
        let taken = ["http://127.0.0.1:2".to_owned()];
        assert_eq!(roll(three()).may_add(&new, false), Ok(()));
        assert_eq!(roll(three()).may_add(&taken, false), Err(R::PeerUrlExists));
        let degraded = roll(vec![voter(1), voter(2), down(3)]);
        assert_eq!(degraded.may_add(&new, false), Err(R::Unhealthy));
        assert_eq!(degraded.may_add(&taken, true), Err(R::Unhealthy));
        let with_learner = with(three(), learner(4, 0));
        assert_eq!(with_learner.may_add(&new, true), Err(R::TooManyLearners));
        assert_eq!(with_learner.may_add(&new, false), Ok(()));
        assert_eq!(with(three(), unstarted(4)).may_add(&new, true), Err(R::Unhealthy));
        // As etcd says it of a cluster of one, of two and of three that wait for one more.
        let waiting = |n: u64| with((1..=n).map(voter).collect(), unstarted(9)).may_add(&new, false);
        assert_eq!(waiting(1), Err(R::NotEnoughStarted));
        assert_eq!(waiting(2), Err(R::NotEnoughStarted));
        assert_eq!(waiting(3), Err(R::Unhealthy));
    }

    #[test]
    fn removing() {
        assert_eq!(roll(three()).may_remove(1), Ok(()));
        assert_eq!(roll(three()).may_remove(9), Err(R::MemberNotFound));
        assert_eq!(roll(vec![voter(1)]).may_remove(1), Err(R::NotEnoughStarted));
        let degraded = roll(vec![voter(1), voter(2), down(3)]);
        assert_eq!(degraded.may_remove(3), Ok(()));
        assert_eq!(degraded.may_remove(1), Err(R::Unhealthy));
        let growing = roll(vec![voter(1), unstarted(2)]);
        assert_eq!(growing.may_remove(1), Err(R::NotEnoughStarted));
        assert_eq!(growing.may_remove(2), Ok(()));
        // The fourth runs and does not vote yet: without the second, one of two voters would be left.
        let catching_up = Peer {
            votes: false,
            ..voter(4)
        };
        let mixed = roll(vec![voter(1), voter(2), down(3), catching_up]);
        assert_eq!(mixed.may_remove(2), Err(R::Unhealthy));
        assert_eq!(mixed.may_remove(3), Ok(()));
        assert_eq!(with(vec![voter(1)], learner(2, 0)).may_remove(2), Ok(()));
    }

    #[test]
    fn updating() {
        let urls = |id: u64| vec![format!("http://127.0.0.1:{id}")];
        assert_eq!(roll(three()).may_update(1, &urls(9)), Ok(()));
        assert_eq!(roll(three()).may_update(1, &urls(1)), Ok(()));
        assert_eq!(roll(three()).may_update(1, &urls(2)), Err(R::PeerUrlExists));
        assert_eq!(roll(three()).may_update(9, &urls(9)), Err(R::MemberNotFound));
    }

    #[test]
    fn promoting() {
        assert_eq!(roll(three()).may_promote(9), Err(R::MemberNotFound));
        assert_eq!(roll(three()).may_promote(1), Err(R::MemberNotLearner));
        for (matched, expected) in [
            (0, Err(R::LearnerNotReady)),
            (89, Err(R::LearnerNotReady)),
            (90, Ok(())),
        ] {
            assert_eq!(with(three(), learner(4, matched)).may_promote(4), expected);
        }
        assert_eq!(
            with(three(), unstarted(4)).may_promote(4),
            Err(R::LearnerNotReady)
        );
    }
}
