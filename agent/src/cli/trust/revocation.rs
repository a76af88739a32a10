//! `agentctl cert revoke`: certificates that are accepted no more, everywhere and at once.

use std::path::{Path, PathBuf};

use clap::Args;
use proto::agent::v1::{RevokeRequest, RevokeResponse, Revoked, revoked};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Place;
use crate::cli::error::CliError;
use crate::cli::format;
use crate::cli::options::GlobalOptions;
use crate::tls::about::About;

#[derive(Args, Debug)]
#[command(
    after_help = "WHOM is a certificate's file (FILE.pem), a host (all certificates of its member, also new ones), or client:NAME \
                  (all of that client). Connections that are open are cut, and it lasts: until --undo. Whose machine was \
                  stolen had the members' issuer on it: replace the authority, too (agentctl cert rotate).\n\n\
                  A host is refused whose revocation would leave no quorum, or none that answers the member that is asked: \
                  nothing could be written then.\n\n\
                  Examples:\n  agentctl cert revoke prod eva.pem\n  agentctl cert revoke prod client:eva\n  agentctl cert revoke prod ovh\n  \
                  agentctl cert revoke prod ovh --undo"
)]
pub(in crate::cli) struct RevokeArgs {
    /// The cluster's name
    #[arg(value_name = "NAME")]
    cluster: String,
    /// Whose certificates
    #[arg(value_name = "WHOM")]
    whom: String,
    /// They are accepted again
    #[arg(long)]
    undo: bool,
    /// Of a host: also when too few of the other voters answer now
    #[arg(long, conflicts_with = "undo")]
    force: bool,
    #[command(flatten)]
    place: Place,
}

impl RevokeArgs {
    pub(super) async fn run(self, options: GlobalOptions) -> Result<(), CliError> {
        let folder = self.place.folder(&self.cluster)?;
        let site = folder.site()?;
        let session = options.of_cluster(&site.endpoints(), folder.path()).session()?;
        let revoked = read(&self.whom)?;
        if let Some(revoked::What::Member(name)) = &revoked.what {
            // A misspelt host would be a revocation that does nothing.
            let listed = session.client.member_list().await?.members;
            let is_known = listed.iter().any(|member| member.name.eq_ignore_ascii_case(name));
            if !is_known && site.host(name).is_none() && !self.undo {
                return Err(CliError::usage(format!("there is no host {name}"))
                    .hint("a certificate's file ends in .pem, a client is written client:NAME"));
            }
        }
        let request = RevokeRequest {
            revoked: Some(revoked.clone()),
            restore: self.undo,
            force: self.force,
        };
        let answer = session.client.revoke_certificates(request).await?;
        format::write(text(&revoked, self.undo, &answer, &self.cluster).as_bytes())
    }
}

/// A file, `client:NAME`, or a host.
fn read(whom: &str) -> Result<Revoked, CliError> {
    if let Some(name) = whom.strip_prefix("client:") {
        return Ok(Revoked {
            what: Some(revoked::What::Client(name.to_owned())),
            ..Revoked::default()
        });
    }
    let is_file = Path::new(whom)
        .extension()
        .is_some_and(|extension| extension == "pem");
    if !is_file && !whom.contains('/') {
        return Ok(Revoked {
            what: Some(revoked::What::Member(whom.to_owned())),
            ..Revoked::default()
        });
    }
    let path = PathBuf::from(whom);
    let text = std::fs::read(&path).map_err(|error| CliError::io(path.display(), &error))?;
    let about = CertificateDer::from_pem_slice(&text)
        .ok()
        .as_ref()
        .and_then(About::of);
    let about = about.ok_or_else(|| CliError::failed(format!("{}: holds no certificate", path.display())))?;
    Ok(Revoked {
        what: Some(revoked::What::Sha256(about.sha256.to_vec().into())),
        holder: about.holder,
        at: 0,
    })
}

/// Of whom, for a sentence and for a table.
pub(super) fn whom(revoked: &Revoked) -> String {
    match &revoked.what {
        Some(revoked::What::Member(name)) => format!("member {name}"),
        Some(revoked::What::Client(name)) => format!("client {name}"),
        Some(revoked::What::Sha256(sha256)) => {
            let hex: String = sha256.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("{} (sha256 {hex}...)", revoked.holder)
        }
        None => "nobody".to_owned(),
    }
}

fn text(revoked: &Revoked, undo: bool, answer: &RevokeResponse, cluster: &str) -> String {
    let whom = whom(revoked);
    let single = matches!(revoked.what, Some(revoked::What::Sha256(_)));
    let what = match single {
        true => format!("the certificate of {whom} is"),
        false => format!("certificates of {whom} are"),
    };
    if undo {
        return format!("{what} accepted again\n");
    }
    let mut text = format!("{what} accepted no more\n");
    if let Some(revoked::What::Member(name)) = &revoked.what {
        text.push_str(&format!(
            "{left} of {all} voters are left to each other. The members' issuer was on that host, too: replace the authority\n  \
             agentctl cert rotate {cluster} trust\nits successor, once this is taken back:  agentctl token create --host {name} --replace\n",
            left = answer.voters_left,
            all = answer.voters,
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_is_read() {
        let what = |text: &str| read(text).unwrap().what;
        assert_eq!(what("client:eva"), Some(revoked::What::Client("eva".into())));
        assert_eq!(what("ovh"), Some(revoked::What::Member("ovh".into())));
        for missing in ["eva.pem", "./eva"] {
            assert!(
                read(missing).unwrap_err().to_string().contains("no such file"),
                "{missing}"
            );
        }
    }
}
