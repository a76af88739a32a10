//! Who this member is to be, where its data directory is empty: that is asked of the others, never assumed.
//!
//! A member that lost its data has forgotten its votes. If it came back under its old id it could vote twice in
//! one term, and split the history. So an empty directory becomes a member only
//! - of a new cluster, when a quorum of the initial members, itself included, belongs to none yet;
//! - of a running cluster, when its leader says, after it has asked a quorum, that a member with our peer URLs
//!   was added and has never run.
//!
//! Everything else is waited out, and said: the way out is typed on another host, and this one then goes on by
//! itself.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::peer::description::State;
use proto::peer::{Description, KnownMember};
use raft_store::wal::Identity;
use thiserror::Error;

use super::describe::ask;
use super::identity::InitialCluster;
use crate::peer::{Dialer, Whom};

/// Between two rounds of questions: short while members start, longer for a host that waits to be added.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What a member's flags say of it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub name: String,
    pub initial_cluster: InitialCluster,
    /// What the flags make of this member: its identity in a new cluster.
    pub identity: Identity,
    pub peer_urls: Vec<String>,
    /// `--initial-cluster-state new`.
    pub may_form: bool,
    /// How the others are reached.
    pub dialer: Dialer,
}

/// Why a member with an empty data directory waits.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
enum Obstacle {
    #[error("waiting for the other members: {answered} of {asked} answer")]
    NoQuorum { answered: usize, asked: usize },
    #[error(
        "the cluster knows this host as member {id:x}, which has run before, but the data directory is empty: its \
         data is lost, its votes are forgotten, and it must not come back under that id. Type on another host: \
         agentctl member replace {name}. Then this one joins by itself"
    )]
    LostData { id: u64, name: String },
    #[error(
        "the running cluster {cluster:x} has no member with the peer URLs {urls}. To add this host, type on another \
         one: agentctl member add {name} --peer-urls={urls}. Then this one joins by itself"
    )]
    NotAMember {
        cluster: u64,
        name: String,
        urls: String,
    },
    #[error("the cluster has no leader now, and only that can say who this member is to be")]
    Unconfirmed,
    #[error(
        "the members at these peer URLs belong to different clusters ({0:x} and {1:x}): compare --initial-cluster"
    )]
    TwoClusters(u64, u64),
    #[error(
        "a member with an empty data directory would form another cluster ({theirs:x}, not {ours:x}): compare \
         --initial-cluster and --initial-cluster-token on all hosts"
    )]
    OtherFlags { ours: u64, theirs: u64 },
    #[error("--initial-cluster-state existing, but no member of the cluster runs yet")]
    NothingToJoin,
}

/// What follows from the answers of one round.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Become(Identity),
    Wait(Obstacle),
}

impl Candidate {
    /// Completes with the identity that this member may take.
    pub async fn search(&self, patience: Duration) -> Identity {
        let others: Vec<(&String, Whom)> = self
            .initial_cluster
            .members
            .iter()
            .filter(|(id, _)| **id != self.identity.member_id)
            .filter_map(|(_, node)| Some((node.peer_urls.first()?, Whom::Named(node.name.clone()))))
            .collect();
        let mut told = None;
        let mut reasons: BTreeMap<&String, String> = BTreeMap::new();
        let mut pause = FIRST_PAUSE;
        loop {
            let asking = others
                .iter()
                .map(|(url, whom)| ask(&self.dialer, url, whom, patience));
            let asked = futures::future::join_all(asking).await;
            let mut answers = Vec::new();
            for ((url, _), answer) in others.iter().zip(asked) {
                match answer {
                    Ok(answer) => answers.push(answer),
                    Err(reason) => {
                        if reasons.get(url) != Some(&reason) {
                            tracing::info!(url, reason, "a member does not answer");
                            reasons.insert(url, reason);
                        }
                    }
                }
            }
            match self.decide(&answers) {
                Decision::Become(identity) => return identity,
                Decision::Wait(obstacle) => {
                    if told.as_ref() != Some(&obstacle) {
                        obstacle.say();
                        told = Some(obstacle);
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn decide(&self, answers: &[Description]) -> Decision {
        let formed: Vec<&Description> = answers
            .iter()
            .filter(|answer| answer.state() == State::Formed)
            .collect();
        if let Some(first) = formed.first() {
            if let Some(other) = formed.iter().find(|answer| answer.cluster_id != first.cluster_id) {
                return Decision::Wait(Obstacle::TwoClusters(first.cluster_id, other.cluster_id));
            }
            return match formed.iter().find(|answer| answer.confirmed) {
                Some(confirmed) => self.place_in(confirmed),
                None => Decision::Wait(Obstacle::Unconfirmed),
            };
        }
        let unformed = |answer: &&Description| matches!(answer.state(), State::Empty | State::Ready);
        let ours = self.identity.cluster_id;
        if let Some(other) = answers
            .iter()
            .filter(unformed)
            .find(|answer| answer.cluster_id != ours)
        {
            let theirs = other.cluster_id;
            return Decision::Wait(Obstacle::OtherFlags { ours, theirs });
        }
        let size = self.initial_cluster.members.len();
        let with_nothing = answers.iter().filter(unformed).count() + 1;
        // Who has data and cannot say yet what is in it may belong to a cluster.
        let all_clear = answers.iter().all(|answer| answer.state() != State::Unknown);
        if with_nothing > size / 2 && all_clear {
            return if self.may_form {
                Decision::Become(self.identity)
            } else {
                Decision::Wait(Obstacle::NothingToJoin)
            };
        }
        Decision::Wait(Obstacle::NoQuorum {
            answered: answers.len(),
            asked: size - 1,
        })
    }

    fn place_in(&self, cluster: &Description) -> Decision {
        let mut ours = self.peer_urls.clone();
        ours.sort();
        let is_ours = |member: &&KnownMember| {
            let mut urls = member.peer_urls.clone();
            urls.sort();
            urls == ours
        };
        match cluster.members.iter().find(is_ours) {
            Some(member) if !member.started => Decision::Become(Identity {
                cluster_id: cluster.cluster_id,
                member_id: member.id,
            }),
            Some(member) => Decision::Wait(Obstacle::LostData {
                id: member.id,
                name: if member.name.is_empty() {
                    format!("{:x}", member.id)
                } else {
                    member.name.clone()
                },
            }),
            None => Decision::Wait(Obstacle::NotAMember {
                cluster: cluster.cluster_id,
                name: self.name.clone(),
                urls: ours.join(","),
            }),
        }
    }
}

impl Obstacle {
    /// ERROR where a person must act.
    fn say(&self) {
        match self {
            Obstacle::NoQuorum { .. } | Obstacle::Unconfirmed => tracing::info!("{self}"),
            Obstacle::NothingToJoin => tracing::warn!("{self}"),
            Obstacle::LostData { .. }
            | Obstacle::NotAMember { .. }
            | Obstacle::TwoClusters(..)
            | Obstacle::OtherFlags { .. } => tracing::error!("{self}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3";

    fn candidate(may_form: bool) -> Candidate {
        let initial_cluster = InitialCluster::parse(CLUSTER, "t").unwrap();
        let peer_urls = vec!["http://127.0.0.1:2".to_owned()];
        Candidate {
            name: "b".to_owned(),
            identity: initial_cluster.identity("b", &peer_urls).unwrap(),
            initial_cluster,
            peer_urls,
            may_form,
            dialer: Dialer::default(),
        }
    }

    fn nothing(state: State) -> Description {
        Description {
            state: state.into(),
            cluster_id: candidate(true).identity.cluster_id,
            ..Description::default()
        }
    }

    fn formed(confirmed: bool, members: &[(u64, &str, bool)]) -> Description {
        let member = |&(id, url, started): &(u64, &str, bool)| KnownMember {
            id,
            name: format!("n{id}"),
            peer_urls: vec![url.to_owned()],
            started,
        };
        Description {
            state: State::Formed.into(),
            cluster_id: 7,
            confirmed,
            members: members.iter().map(member).collect(),
            ..Description::default()
        }
    }

    fn became(cluster_id: u64, member_id: u64) -> Decision {
        Decision::Become(Identity {
            cluster_id,
            member_id,
        })
    }

    #[test]
    fn a_quorum_that_has_nothing_forms_a_cluster() {
        let own = candidate(true).identity;
        let decide = |answers: &[Description]| candidate(true).decide(answers);
        assert_eq!(
            decide(&[nothing(State::Empty)]),
            became(own.cluster_id, own.member_id)
        );
        assert_eq!(
            decide(&[nothing(State::Ready), nothing(State::Empty)]),
            became(own.cluster_id, own.member_id)
        );
        let alone = Obstacle::NoQuorum {
            answered: 0,
            asked: 2,
        };
        assert_eq!(decide(&[]), Decision::Wait(alone));
    }

    #[test]
    fn one_that_may_have_data_is_waited_for() {
        let answers = [nothing(State::Empty), nothing(State::Unknown)];
        let waits = Obstacle::NoQuorum {
            answered: 2,
            asked: 2,
        };
        assert_eq!(candidate(true).decide(&answers), Decision::Wait(waits));
    }

    #[test]
    fn an_existing_cluster_is_never_formed() {
        let answers = [nothing(State::Empty), nothing(State::Empty)];
        assert_eq!(
            candidate(false).decide(&answers),
            Decision::Wait(Obstacle::NothingToJoin)
        );
    }

    #[test]
    fn an_id_is_taken_once_and_only_on_the_leaders_word() {
        const OURS: &str = "http://127.0.0.1:2";
        for may_form in [true, false] {
            let decide = |answers: &[Description]| candidate(may_form).decide(answers);
            let (added, lost) = ((9, OURS, false), (8, OURS, true));
            assert_eq!(decide(&[formed(true, &[added])]), became(7, 9));
            assert_eq!(
                decide(&[formed(false, &[added])]),
                Decision::Wait(Obstacle::Unconfirmed)
            );
            assert_eq!(
                decide(&[formed(false, &[added]), formed(true, &[lost])]),
                Decision::Wait(Obstacle::LostData {
                    id: 8,
                    name: "n8".to_owned()
                })
            );
            let stranger = Decision::Wait(Obstacle::NotAMember {
                cluster: 7,
                name: "b".to_owned(),
                urls: OURS.to_owned(),
            });
            assert_eq!(decide(&[formed(true, &[])]), stranger);
            // One formed member outweighs any number of empty ones.
            assert_eq!(decide(&[nothing(State::Empty), formed(true, &[])]), stranger);
        }
    }

    #[test]
    fn other_clusters_are_named() {
        let mut other = nothing(State::Empty);
        other.cluster_id = 5;
        let ours = candidate(true).identity.cluster_id;
        assert_eq!(
            candidate(true).decide(&[other]),
            Decision::Wait(Obstacle::OtherFlags { ours, theirs: 5 })
        );
        let mut second = formed(true, &[]);
        second.cluster_id = 8;
        assert_eq!(
            candidate(true).decide(&[formed(true, &[]), second]),
            Decision::Wait(Obstacle::TwoClusters(7, 8))
        );
    }
}
