//! `agentctl cert rotate`: another authority in the place of a cluster's, while it runs.
//!
//! Three steps, in each of which every member is handed what it needs and asked until it has that in force. A step that
//! was cut off is done again from its beginning; what was made is not made anew. Which step comes next follows from the
//! folder: `next.pem` is there from the first step to the end of the second, and `ca.pem` holds two authorities from
//! the first to the end of the third.

use std::time::SystemTime;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use proto::agent::v1::{Certificate, EntrustRequest, ListCertificatesResponse};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Place;
use super::folder::{CA, CA_KEY, CA_LIFETIME, Folder, ISSUER, failed};
use super::members::Members;
use crate::cli::error::CliError;
use crate::cli::format;
use crate::cli::options::GlobalOptions;
use crate::tls::about::About;
use crate::tls::authority::Authority;
use crate::tls::own::pem;

/// The next authority, and the present one's word for it.
const NEXT: &str = "next.pem";
const NEXT_KEY: &str = "next.key";
const APPROVAL: &str = "approval.pem";

#[derive(Args, Debug)]
#[command(
    after_help = "Three steps, in this order: trust, issue, forget. Each hands every member what it needs over \
                  TLS, waits until all have it in force, and says what comes next; given again it does nothing \
                  twice. No request fails meanwhile. What the former authority has issued is good until the last \
                  step is done. The way to the members is taken from the cluster's folder, where no option says \
                  otherwise.\n\n\
                  Examples:\n  agentctl cert rotate prod trust\n  agentctl cert rotate prod issue\n  agentctl cert rotate prod forget"
)]
pub(in crate::cli) struct RotateArgs {
    /// The cluster's name
    #[arg(value_name = "NAME")]
    cluster: String,
    /// What is to be done now
    #[arg(value_enum, value_name = "STEP")]
    step: Step,
    #[command(flatten)]
    place: Place,
}

/// Of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Step {
    /// Make the next authority, and have it trusted beside the present one
    Trust,
    /// Have every certificate from the next one; both stay trusted
    Issue,
    /// Trust the former authority no longer
    Forget,
}

/// The two authorities of a rotation, as far as it has come.
struct Pair {
    /// The one that issues, first.
    trusted: Vec<CertificateDer<'static>>,
    /// Made, and not issuing everywhere yet.
    next: Option<CertificateDer<'static>>,
}

impl RotateArgs {
    pub(super) async fn run(self, options: GlobalOptions) -> Result<(), CliError> {
        let folder = self.place.folder(&self.cluster)?;
        let pair = Pair::of(&folder)?;
        pair.allows(self.step, &self.cluster)?;
        let site = folder.site()?;
        let session = options.of_cluster(&site.endpoints(), folder.path()).session()?;
        let members = Members::of(&session).await?;
        let text = match self.step {
            Step::Trust => trust(&folder, &members).await?,
            Step::Issue => issue(&folder, &members).await?,
            Step::Forget => forget(&folder, &members).await?,
        };
        format::write(text.as_bytes())
    }
}

async fn trust(folder: &Folder, members: &Members<'_>) -> Result<String, CliError> {
    // A member that is not there should be known before anything is made.
    members.check(|_| None).await?;
    let now = SystemTime::now();
    if folder.read_if_there(NEXT)?.is_none() {
        let text = folder.read(CA)?;
        let present = Authority::open(&text, &folder.read(CA_KEY)?).map_err(failed)?;
        let name = next_name(&about(&certificates(CA, &text)?[0])?.holder);
        let next = Authority::found(&name, now, CA_LIFETIME).map_err(failed)?;
        let approval = present.approve(&next, now, CA_LIFETIME).map_err(failed)?;
        folder.write(APPROVAL, &approval)?;
        folder.write(NEXT_KEY, &next.key)?;
        // What says that it is made comes last.
        folder.write(NEXT, &next.certificate)?;
    }
    let Pair { trusted, next } = Pair::of(folder)?;
    let [Some(former), Some(next)] = [trusted.first(), next.as_ref()] else {
        return Err(CliError::failed("the folder has changed meanwhile"));
    };
    let both = [former.clone(), next.clone()];
    folder.set_trusted(&both)?;
    members
        .entrust(&EntrustRequest {
            authorities: both.iter().map(bytes_of).collect(),
            approval: bytes_of(&certificates(APPROVAL, &folder.read(APPROVAL)?)?[0]),
            issuer: String::new(),
        })
        .await?;
    members.until(|shown| lacks_trust(shown, &both)).await?;
    let (former, next) = (about(former)?.holder, about(next)?.holder);
    Ok(format!(
        "{former} and {next} are trusted by every member: {names}\n\
         clients and hosts to come need both before the next step: they are in {path}/{CA}\n\
         then:  agentctl cert rotate {cluster} issue\n",
        names = members.names(),
        path = folder.path().display(),
        cluster = folder.name(),
    ))
}

async fn issue(folder: &Folder, members: &Members<'_>) -> Result<String, CliError> {
    let Pair { trusted, next } = Pair::of(folder)?;
    let next = next.or_else(|| trusted.first().cloned());
    let next = next.ok_or_else(|| CliError::failed("no authority is there"))?;
    let former = trusted.into_iter().find(|one| *one != next);
    let former = former.ok_or_else(|| CliError::failed("no former authority is there"))?;
    let both = [next, former];
    members.check(|shown| lacks_trust(shown, &both)).await?;
    if folder.read_if_there(NEXT)?.is_some() {
        folder.write(CA_KEY, &folder.read(NEXT_KEY)?)?;
        folder.set_trusted(&both)?;
        folder.issue_all(SystemTime::now())?;
    }
    members
        .entrust(&EntrustRequest {
            authorities: both.iter().map(bytes_of).collect(),
            approval: Bytes::new(),
            issuer: folder.read(ISSUER)?,
        })
        .await?;
    let sha256 = about(&both[0])?.sha256;
    members
        .until(|shown| {
            let is_next =
                |one: &Option<Certificate>| one.as_ref().is_none_or(|one| one.authority_sha256 == sha256[..]);
            match is_next(&shown.peer) && is_next(&shown.server) && is_next(&shown.issuer) {
                true => None,
                false => Some("shows a certificate of the former authority"),
            }
        })
        .await?;
    for file in [APPROVAL, NEXT_KEY, NEXT] {
        folder.remove(file)?;
    }
    let (next, former) = (about(&both[0])?.holder, about(&both[1])?.holder);
    Ok(format!(
        "certificates of {next} are shown by every member: {names}\n\
         your own (admin.pem) is new, too; other clients need new ones, and join tokens made before are useless\n\
         then {former} can go:  agentctl cert rotate {cluster} forget\n",
        names = members.names(),
        cluster = folder.name(),
    ))
}

async fn forget(folder: &Folder, members: &Members<'_>) -> Result<String, CliError> {
    let trusted = Pair::of(folder)?.trusted;
    let (next, former) = trusted
        .split_first()
        .ok_or_else(|| CliError::failed("no authority is there"))?;
    let next_about = about(next)?;
    let former: Vec<About> = former.iter().map(about).collect::<Result<_, _>>()?;
    let is_former = |sha256: &[u8]| former.iter().any(|one| one.sha256[..] == *sha256);
    members
        .check(|shown| {
            let shows =
                |one: &Option<Certificate>| one.as_ref().is_some_and(|one| is_former(&one.authority_sha256));
            (shows(&shown.peer) || shows(&shown.server))
                .then_some("shows a certificate of the former authority")
        })
        .await?;
    members
        .entrust(&EntrustRequest {
            authorities: vec![bytes_of(next)],
            ..EntrustRequest::default()
        })
        .await?;
    members
        .until(|shown| {
            let mut all = shown.peer_authorities.iter().chain(&shown.client_authorities);
            all.any(|one| is_former(&one.sha256))
                .then_some("trusts the former authority")
        })
        .await?;
    folder.set_trusted(std::slice::from_ref(next))?;
    Ok(format!(
        "{next} alone is trusted by every member: {names}\nits key is {path}/{CA_KEY}: back it up\n",
        next = next_about.holder,
        names = members.names(),
        path = folder.path().display(),
    ))
}

/// What a member lacks that should trust all of these.
fn lacks_trust(shown: &ListCertificatesResponse, all: &[CertificateDer<'static>]) -> Option<&'static str> {
    let trusts = |by: &[Certificate]| {
        let mut all = all.iter().filter_map(About::of);
        all.all(|about| by.iter().any(|one| one.sha256 == about.sha256[..]))
    };
    if !trusts(&shown.peer_authorities) {
        return Some("does not trust both authorities yet");
    }
    let ours = |one: &Certificate| {
        shown
            .peer_authorities
            .iter()
            .any(|peer| peer.sha256 == one.sha256)
    };
    // Clients may have authorities of their own.
    let clients = &shown.client_authorities;
    let foreign = clients.is_empty() || !clients.iter().all(ours);
    (!foreign && !trusts(clients)).then_some("does not trust clients of both authorities yet")
}

impl Pair {
    fn of(folder: &Folder) -> Result<Pair, CliError> {
        let next = folder.read_if_there(NEXT)?;
        let next = next.map(|text| certificates(NEXT, &text)).transpose()?;
        Ok(Pair {
            trusted: certificates(CA, &folder.read(CA)?)?,
            next: next.and_then(|found| found.into_iter().next()),
        })
    }

    /// Whether a step may be taken now.
    fn allows(&self, step: Step, cluster: &str) -> Result<(), CliError> {
        let issuing = self
            .next
            .as_ref()
            .is_some_and(|next| self.trusted.first() == Some(next));
        let (allowed, next): (&[Step], _) = match (&self.next, self.trusted.len()) {
            (None, 0 | 1) => (&[Step::Trust], "trust"),
            (Some(_), _) if issuing => (&[Step::Issue], "issue"),
            (Some(_), _) => (&[Step::Trust, Step::Issue], "issue"),
            (None, _) => (&[Step::Issue, Step::Forget], "forget"),
        };
        if allowed.contains(&step) {
            return Ok(());
        }
        let state = match self.next.is_some() || self.trusted.len() > 1 {
            true => "a rotation is under way",
            false => "no rotation is under way",
        };
        Err(CliError::failed(format!("{state}: the next step is {next}"))
            .hint(format!("agentctl cert rotate {cluster} {next}")))
    }
}

impl Folder {
    /// The authorities that everybody trusts from now on, the one that issues first.
    fn set_trusted(&self, authorities: &[CertificateDer<'static>]) -> Result<(), CliError> {
        let text: String = authorities.iter().map(|one| pem(one)).collect();
        for host in &self.site()?.hosts {
            self.write(&format!("hosts/{}/{CA}", host.name), &text)?;
        }
        self.write(CA, &text)
    }
}

/// `prod`, `prod 2`, `prod 3`: authorities that are trusted at once are told apart.
fn next_name(present: &str) -> String {
    let numbered = present.rsplit_once(' ');
    match numbered.and_then(|(name, number)| Some((name, number.parse::<u32>().ok()?))) {
        Some((name, number)) => format!("{name} {}", number.saturating_add(1)),
        None => format!("{present} 2"),
    }
}

/// At least one.
fn certificates(file: &str, text: &str) -> Result<Vec<CertificateDer<'static>>, CliError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(CliError::failed(format!("{file}: holds no certificate"))),
    }
}

fn about(certificate: &CertificateDer<'_>) -> Result<About, CliError> {
    About::of(certificate).ok_or_else(|| CliError::failed("an authority's certificate is unreadable"))
}

fn bytes_of(certificate: &CertificateDer<'static>) -> Bytes {
    certificate.to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_in_order() {
        let der = |text: &str| CertificateDer::from(text.as_bytes().to_vec());
        let check = |trusted: &[&str], next: Option<&str>, allowed: &[Step]| {
            let pair = Pair {
                trusted: trusted.iter().map(|one| der(one)).collect(),
                next: next.map(der),
            };
            for step in [Step::Trust, Step::Issue, Step::Forget] {
                assert_eq!(
                    pair.allows(step, "prod").is_ok(),
                    allowed.contains(&step),
                    "{step:?}"
                );
            }
        };
        check(&["a"], None, &[Step::Trust]);
        // The next one is made, and not trusted yet; and then it is.
        check(&["a"], Some("b"), &[Step::Trust, Step::Issue]);
        check(&["a", "b"], Some("b"), &[Step::Trust, Step::Issue]);
        // Its issuing has begun: there is no way back.
        check(&["b", "a"], Some("b"), &[Step::Issue]);
        check(&["b", "a"], None, &[Step::Issue, Step::Forget]);
        check(&["b"], None, &[Step::Trust]);
    }

    #[test]
    fn authorities_are_numbered() {
        for (present, next) in [("prod", "prod 2"), ("prod 2", "prod 3"), ("a b", "a b 2")] {
            assert_eq!(next_name(present), next);
        }
    }
}
