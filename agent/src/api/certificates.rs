//! What a member says of certificates, and whether one may be revoked: pure, but for what the member shows.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use proto::agent::v1::{Certificate, ListCertificatesResponse, RevokeResponse, Revoked, revoked};
use proto::replicated::Revocation;
use proto::replicated::revocation::What;
use raft_store::Revocations;
use rustls::pki_types::CertificateDer;

use super::status::ApiError;
use crate::node::Node;
use crate::tls::about::{About, leads_to};
use crate::tls::own::OwnTls;
use crate::tls::peer::PeerTls;
use crate::tls::revoked::Shown;
use crate::tls::server::ServerTls;

const NAME_BYTES: usize = 255;
const SHA256_BYTES: usize = 32;

/// What the member shows and trusts.
pub(super) fn shown(host: &str, tls: &OwnTls, revocations: &Revocations) -> ListCertificatesResponse {
    let peer_authorities = tls.peer.authorities();
    let client_authorities = tls
        .server
        .as_ref()
        .map(ServerTls::authorities)
        .unwrap_or_default();
    let first = |chain: Vec<CertificateDer<'static>>| {
        let mut known = peer_authorities.iter().chain(&client_authorities);
        let authority = known.find(|one| leads_to(&chain, one)).and_then(About::of);
        Some(Certificate {
            authority_sha256: authority
                .map(|about| about.sha256.to_vec().into())
                .unwrap_or_default(),
            ..certificate(chain.first()?)?
        })
    };
    let all = |authorities: &[CertificateDer<'static>]| authorities.iter().filter_map(certificate).collect();
    let issuer = tls.peer.issuer().ok().flatten();
    let issuer = issuer.and_then(|issuer| issuer.certificate());
    ListCertificatesResponse {
        host: host.to_owned(),
        peer: first(tls.peer.chain()),
        server: tls.server.as_ref().and_then(|server| first(server.chain())),
        issuer: issuer.and_then(|issuer| first(vec![issuer])),
        peer_authorities: all(&peer_authorities),
        client_authorities: all(&client_authorities),
        revoked: revocations.iter().map(revoked).collect(),
    }
}

fn certificate(der: &CertificateDer<'static>) -> Option<Certificate> {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    About::of(der).map(|about| Certificate {
        sha256: about.sha256.to_vec().into(),
        serial: about.serial,
        holder: about.holder,
        issuer: about.issuer,
        begins: seconds(about.validity.begins),
        ends: seconds(about.validity.ends),
        ..Certificate::default()
    })
}

/// As it is shown.
pub(super) fn revoked(revocation: &Revocation) -> Revoked {
    let what = revocation.what.clone().map(|what| match what {
        What::Sha256(sha256) => revoked::What::Sha256(sha256),
        What::Member(name) => revoked::What::Member(name),
        What::Client(name) => revoked::What::Client(name),
    });
    Revoked {
        what,
        holder: revocation.holder.clone(),
        at: revocation.at,
    }
}

/// As it is proposed.
pub(super) fn revocation(revoked: Revoked, now: u64) -> Result<Revocation, ApiError> {
    let fits = |name: &str| (1..=NAME_BYTES).contains(&name.len());
    let what = match revoked.what {
        Some(revoked::What::Sha256(sha256)) if sha256.len() == SHA256_BYTES => What::Sha256(sha256),
        Some(revoked::What::Member(name)) if fits(&name) => What::Member(name),
        Some(revoked::What::Client(name)) if fits(&name) => What::Client(name),
        _ => return Err(ApiError::RevocationShape),
    };
    if revoked.holder.len() > NAME_BYTES {
        return Err(ApiError::RevocationShape);
    }
    Ok(Revocation {
        what: Some(what),
        holder: revoked.holder,
        at: now,
    })
}

/// Which voters can still talk to each other.
#[derive(Default)]
pub(super) struct Quorum {
    left: usize,
    voters: usize,
    /// Those of the ones left that do not answer the asked member now.
    silent: Vec<String>,
}

/// A voter, as far as a revocation is concerned.
#[derive(Clone, Copy)]
struct Voter<'a> {
    name: &'a str,
    answers: bool,
}

impl Quorum {
    /// Once the change is made. `answering`: `None` where nobody was asked.
    pub(super) fn with(
        node: &Node,
        change: &Revocation,
        restore: bool,
        answering: Option<&BTreeSet<u64>>,
    ) -> Quorum {
        let members = node.members();
        let voters = members.iter().filter(|member| !member.is_learner);
        let voters = voters.map(|member| Voter {
            name: &member.name,
            answers: answering.is_none_or(|answering| answering.contains(&member.id)),
        });
        Quorum::of(
            &voters.collect::<Vec<_>>(),
            &node.store().revocations(),
            change,
            restore,
        )
    }

    fn of(voters: &[Voter<'_>], revocations: &Revocations, change: &Revocation, restore: bool) -> Quorum {
        let is_out = |name: &str| match &change.what {
            Some(What::Member(changed)) if changed.eq_ignore_ascii_case(name) => !restore,
            _ => revocations.has_member(name),
        };
        let left = || voters.iter().filter(|voter| !is_out(voter.name));
        Quorum {
            left: left().count(),
            voters: voters.len(),
            silent: left()
                .filter(|voter| !voter.answers)
                .map(|voter| voter.name.to_owned())
                .collect(),
        }
    }

    /// Why there would be none without this member; `None`: there is one.
    fn lost_without(&self, name: &str) -> Option<String> {
        let Quorum { left, voters, silent } = self;
        let is_quorum = |number: usize| number * 2 > *voters;
        if !is_quorum(*left) {
            return Some(format!(
                "{left} of {voters} voters would be left, which is no quorum: remove member {name} from the cluster first \
                 (agentctl member remove)"
            ));
        }
        let answering = left.saturating_sub(silent.len());
        (!is_quorum(answering)).then(|| {
            format!(
                "{answering} of {voters} voters would be left that answer now, which is no quorum: nothing could be written \
                 until {} is back, this revocation not taken back either; bring it back first, or give --force",
                silent.join(" or ")
            )
        })
    }

    pub(super) fn answer(&self) -> RevokeResponse {
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        RevokeResponse {
            voters_left: count(self.left),
            voters: count(self.voters),
        }
    }
}

/// Why a revocation would shut out whoever asks for it, or the cluster itself. `own`: what the caller has shown.
pub(super) fn harm(
    revocation: &Revocation,
    own: Option<&Shown>,
    tls: Option<&PeerTls>,
    quorum: &Quorum,
) -> Option<String> {
    let mut own_client = own.and_then(|own| own.holder.common_name.as_deref());
    match revocation.what.as_ref()? {
        What::Sha256(sha256) => {
            if own.is_some_and(|own| own.sha256.iter().any(|one| one[..] == sha256[..])) {
                return Some(
                    "it is the certificate by which you ask, and nobody would be left to take that back: make another first \
                     (agentctl cert renew NAME --admin), and revoke the former one by that"
                        .to_owned(),
                );
            }
            let shown = tls.map(|tls| Shown::of(&tls.chain())).unwrap_or_default();
            let is_ours = shown.sha256.iter().any(|one| one[..] == sha256[..]);
            is_ours.then(|| {
                "it is one that the asked member itself depends on: to be rid of a member name its host, to be rid of an \
                 authority or an issuer use agentctl cert rotate"
                    .to_owned()
            })
        }
        What::Client(name) => own_client.take_if(|own| own == name).map(|own| {
            format!(
                "you ask as {own}, and nobody would be left to take that back: name the file of the one certificate that is \
                 to go"
            )
        }),
        What::Member(name) => quorum.lost_without(name),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::tls::holder::Holder;

    fn revocation_of(what: What) -> Revocation {
        Revocation {
            what: Some(what),
            ..Revocation::default()
        }
    }

    #[test]
    fn a_quorum_is_not_revoked() {
        let voters = ["a", "b", "c"];
        let none = Revocations::default();
        let member = |name: &str| revocation_of(What::Member(name.to_owned()));
        let quorum = |voters: &[&'static str], silent: &[&str], name: &str| {
            let voter = |name: &&'static str| Voter {
                name,
                answers: !silent.contains(name),
            };
            let voters: Vec<Voter<'_>> = voters.iter().map(voter).collect();
            Quorum::of(&voters, &none, &member(name), false)
        };
        let left = |voters: &[&'static str], name: &str| {
            let quorum = quorum(voters, &[], name);
            (quorum.left, harm(&member(name), None, None, &quorum).is_none())
        };
        assert_eq!(left(&voters, "A"), (2, true));
        assert_eq!(left(&voters[..2], "a"), (1, false));
        assert_eq!(left(&voters[..1], "a"), (0, false));
        // Whoever is no member any more takes nothing away.
        assert_eq!(left(&voters[..1], "gone"), (1, true));
        // Who is down is no part of what would be left.
        let said = |silent: &[&str]| harm(&member("a"), None, None, &quorum(&voters, silent, "a"));
        assert_eq!(said(&["a"]), None, "the stolen one itself");
        expect!["1 of 3 voters would be left that answer now, which is no quorum: nothing could be written until b is back, this revocation not taken back either; bring it back first, or give --force"].assert_eq(&said(&["b"]).unwrap());
    }

    #[test]
    fn nobody_shuts_itself_out() {
        let own = Shown {
            sha256: vec![[1; 32]],
            holder: Holder {
                member: None,
                common_name: Some("root".into()),
            },
        };
        let all = Quorum {
            left: 3,
            voters: 3,
            ..Quorum::default()
        };
        let harms = |what: What| harm(&revocation_of(what), Some(&own), None, &all).is_some();
        assert!(harms(What::Sha256(vec![1; 32].into())) && !harms(What::Sha256(vec![2; 32].into())));
        assert!(harms(What::Client("root".into())) && !harms(What::Client("eva".into())));
        assert!(revocation(Revoked::default(), 1).is_err());
    }
}
