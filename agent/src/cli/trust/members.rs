//! The members of a running cluster, asked one by one for the certificates that they show and trust.

use std::time::Duration;

use futures::future::join_all;
use proto::agent::v1::{EntrustRequest, ListCertificatesResponse};
use tokio::time::{Instant, sleep};

use super::super::Session;
use crate::cli::error::CliError;

/// How long members may take to have in force what they were given: they look at their files several times a second, and renew one after the other.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

/// All members, each with the way to it.
pub(super) struct Members<'a> {
    session: &'a Session,
    /// Name and client URL; empty where the member has not said where it is reached.
    known: Vec<(String, String)>,
}

/// What one member answered.
pub(super) struct Answer {
    pub(super) name: String,
    pub(super) shown: Result<ListCertificatesResponse, CliError>,
}

impl<'a> Members<'a> {
    pub(super) async fn of(session: &'a Session) -> Result<Members<'a>, CliError> {
        let listed = session.client.member_list().await?.members.into_iter();
        let mut known: Vec<(String, String)> = listed
            .map(|member| {
                let mut urls = member.client_ur_ls.into_iter();
                let url = urls.find(|url| url.starts_with("https://")).unwrap_or_default();
                let name = match member.name.is_empty() {
                    true => format!("{:x}", member.id),
                    false => member.name,
                };
                (name, url)
            })
            .collect();
        known.sort_unstable();
        Ok(Members { session, known })
    }

    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.known.iter().map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    }

    /// What each shows now.
    pub(super) async fn look(&self) -> Vec<Answer> {
        let looks = self.known.iter().map(async |(name, url)| {
            let shown = match self.reach(url) {
                Ok(client) => client.list_certificates().await,
                Err(error) => Err(error),
            };
            Answer {
                name: name.clone(),
                shown,
            }
        });
        join_all(looks).await
    }

    /// Hands each the same, and stops at the first that does not take it.
    pub(super) async fn entrust(&self, request: &EntrustRequest) -> Result<(), CliError> {
        for (name, url) in &self.known {
            let taken = self.reach(url)?.entrust(request.clone()).await;
            taken.map_err(|error| not_everywhere(&[format!("{name}: {error}")]))?;
        }
        Ok(())
    }

    /// Asks until every member is as it should be; `lacks` says what one lacks.
    pub(super) async fn until(
        &self,
        lacks: impl Fn(&ListCertificatesResponse) -> Option<&'static str>,
    ) -> Result<(), CliError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let missing = lacking(&self.look().await, &lacks);
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(not_everywhere(&missing));
            }
            sleep(PAUSE).await;
        }
    }

    /// The same, asked once, before anything is changed.
    pub(super) async fn check(
        &self,
        lacks: impl Fn(&ListCertificatesResponse) -> Option<&'static str>,
    ) -> Result<(), CliError> {
        match lacking(&self.look().await, &lacks) {
            missing if missing.is_empty() => Ok(()),
            missing => Err(not_everywhere(&missing)),
        }
    }

    fn reach(&self, url: &str) -> Result<crate::cli::client::Client, CliError> {
        match url {
            "" => Err(CliError::failed("it has not started yet")),
            url => self.session.client.only(url),
        }
    }
}

fn lacking(
    answers: &[Answer],
    lacks: impl Fn(&ListCertificatesResponse) -> Option<&'static str>,
) -> Vec<String> {
    let missing = answers.iter().filter_map(|answer| match &answer.shown {
        Ok(shown) => lacks(shown).map(|what| format!("{} {what}", answer.name)),
        Err(error) => Some(format!("{}: {error}", answer.name)),
    });
    missing.collect()
}

fn not_everywhere(missing: &[String]) -> CliError {
    CliError::failed(format!("not done on every member: {}", missing.join("; "))).hint(
        "bring it back, or remove it (`agentctl member remove`), and give the same command again: nothing is done twice",
    )
}
