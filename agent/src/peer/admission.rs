//! Which member's certificate opens what: pure.
//!
//! A certificate of a member says its name; members are known by ids. The two come together in the membership, and
//! in what members published of themselves.

use raft_store::Store;
use thiserror::Error;

/// The member whose verified certificate a connection was opened with: an extension of each request on it, put there
/// by the TLS listener. A connection without TLS has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    pub member: String,
}

/// Why a certificate does not do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    #[error("the certificate shown is that of {shown}, and member {id:x} is {name}")]
    Another { shown: String, id: u64, name: String },
    #[error("the certificate shown is that of {shown}, and {shown} is another member than {id:x}")]
    Taken { shown: String, id: u64 },
    #[error(
        "the certificate shown is that of {0}, which is no member of this cluster: it was removed, or not added yet"
    )]
    NoMember(String),
}

/// The members by name, as far as this member knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Roll(Vec<(u64, String)>);

impl Roll {
    /// By the applied membership.
    pub(super) fn of(store: &Store) -> Roll {
        let membership = store.membership();
        let nodes = membership.nodes();
        Roll(
            nodes
                .map(|(id, node)| {
                    let published = store.member_attributes(*id);
                    (
                        *id,
                        published.map_or_else(|| node.name.clone(), |known| known.name),
                    )
                })
                .collect(),
        )
    }

    /// Whether whoever shows this certificate is member `id`. One that has not said its name yet may be anybody who is
    /// not another member.
    pub(super) fn is(&self, id: u64, shown: &str) -> Result<(), NotAdmitted> {
        let known = self.0.iter().find(|(known, _)| *known == id);
        match known {
            Some((_, name)) if name.eq_ignore_ascii_case(shown) => Ok(()),
            Some((_, name)) if !name.is_empty() => Err(NotAdmitted::Another {
                shown: shown.to_owned(),
                id,
                name: name.clone(),
            }),
            Some(_) if self.has(shown) => Err(NotAdmitted::Taken {
                shown: shown.to_owned(),
                id,
            }),
            Some(_) => Ok(()),
            None => Err(NotAdmitted::NoMember(shown.to_owned())),
        }
    }

    /// As [`Roll::is`], for what makes a member know the membership in the first place. Until it knows one, every member's
    /// certificate will do. And while it has no leader, its membership may be an old one: the members may all have
    /// been replaced while it was away, and only they can tell it.
    pub(super) fn may_teach(&self, id: u64, shown: &str, has_leader: bool) -> Result<(), NotAdmitted> {
        match self.is(id, shown) {
            // A host that came back under a new id.
            Err(NotAdmitted::NoMember(_)) if !has_leader || self.has(shown) => Ok(()),
            outcome if self.0.is_empty() => outcome.or(Ok(())),
            outcome => outcome,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(_, known)| known.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roll() -> Roll {
        Roll(vec![(1, "ovh".into()), (2, "ionos".into()), (3, String::new())])
    }

    #[test]
    fn a_name_and_an_id_belong_together() {
        let roll = roll();
        assert_eq!(roll.is(1, "OVH"), Ok(()));
        assert!(matches!(roll.is(1, "ionos"), Err(NotAdmitted::Another { .. })));
        // The one without a name is new, and nobody else.
        assert_eq!(roll.is(3, "liquidweb"), Ok(()));
        assert!(matches!(roll.is(3, "ovh"), Err(NotAdmitted::Taken { .. })));
        assert!(matches!(roll.is(4, "ovh"), Err(NotAdmitted::NoMember(_))));
    }

    #[test]
    fn only_those_without_a_leader_listen_to_strangers() {
        let roll = roll();
        let strange = Err(NotAdmitted::NoMember("hetzner".into()));
        assert_eq!(roll.may_teach(4, "hetzner", true), strange);
        assert_eq!(roll.may_teach(4, "hetzner", false), Ok(()));
        // A host's successor.
        assert_eq!(roll.may_teach(4, "ovh", true), Ok(()));
        // Never under another member's id.
        assert!(matches!(
            roll.may_teach(1, "hetzner", false),
            Err(NotAdmitted::Another { .. })
        ));
        assert_eq!(Roll::default().may_teach(4, "ovh", true), Ok(()));
    }
}
