//! `agentctl cert list`: what members show at this moment, beside what the folder has.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::agent::v1::{Certificate, ListCertificatesResponse};

use super::folder::Entry;
use super::members::Answer;
use super::{lasts, revocation};
use crate::cli::format::columns::columns;

/// Tables of what is shown, and of what is revoked.
pub(super) fn text(answers: &[Answer], entries: &[Entry], now: SystemTime) -> String {
    let mut rows = Vec::new();
    let mut silent = String::new();
    for answer in answers {
        match &answer.shown {
            Ok(shown) => rows.extend(of_member(&answer.name, shown, entries, now)),
            Err(error) => silent.push_str(&format!("{} does not say what it shows: {error}\n", answer.name)),
        }
    }
    let mut text = String::new();
    if !rows.is_empty() {
        text.push_str(&format!(
            "\n{}",
            columns(
                ["HOST", "SHOWN TO", "ISSUED BY", "LASTS", "SERIAL", "FROM"],
                &rows
            )
        ));
    }
    text.push_str(&silent);
    let answered = answers.iter().find_map(|answer| answer.shown.as_ref().ok());
    let revoked = answered.map(|shown| shown.revoked.as_slice()).unwrap_or_default();
    if !revoked.is_empty() {
        let row = |one: &proto::agent::v1::Revoked| {
            let at = UNIX_EPOCH + Duration::from_secs(one.at);
            let ago = now.duration_since(at).unwrap_or_default().as_secs() / (24 * 60 * 60);
            [revocation::whom(one), format!("{ago} days ago")]
        };
        let rows: Vec<_> = revoked.iter().map(row).collect();
        text.push_str(&format!("\n{}", columns(["REVOKED", "SINCE"], &rows)));
    }
    text
}

fn of_member(
    name: &str,
    shown: &ListCertificatesResponse,
    entries: &[Entry],
    now: SystemTime,
) -> Vec<[String; 6]> {
    let row = |to: &str, certificate: &Certificate| {
        let ends = UNIX_EPOCH + Duration::from_secs(certificate.ends);
        let file = entries
            .iter()
            .find(|entry| entry.sha256[..] == certificate.sha256[..]);
        let from = match file {
            Some(entry) => entry.file.clone(),
            None if certificate.authority_sha256.is_empty() => "another authority".to_owned(),
            None => "its member".to_owned(),
        };
        [
            name.to_owned(),
            to.to_owned(),
            certificate.issuer.clone(),
            lasts(ends, now),
            certificate.serial.clone(),
            from,
        ]
    };
    let peer = shown.peer.as_ref().map(|certificate| row("members", certificate));
    let server = shown
        .server
        .as_ref()
        .map(|certificate| row("clients", certificate));
    peer.into_iter().chain(server).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proto::agent::v1::{Revoked, revoked};

    use super::*;
    use crate::cli::error::CliError;

    #[test]
    fn members_say_what_is_in_force() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let certificate = |issuer: &str, serial: &str| Certificate {
            sha256: vec![1; 32].into(),
            serial: serial.to_owned(),
            issuer: issuer.to_owned(),
            ends: 1_000_000 + 90 * 24 * 60 * 60,
            authority_sha256: vec![2; 32].into(),
            ..Certificate::default()
        };
        let answers = [
            Answer {
                name: "ovh".into(),
                shown: Ok(ListCertificatesResponse {
                    peer: Some(certificate("prod members", "1a2b")),
                    server: Some(Certificate {
                        authority_sha256: Vec::new().into(),
                        ..certificate("Let's Encrypt", "3c")
                    }),
                    revoked: vec![Revoked {
                        what: Some(revoked::What::Client("eva".into())),
                        at: 1_000_000 - 24 * 60 * 60,
                        ..Revoked::default()
                    }],
                    ..ListCertificatesResponse::default()
                }),
            },
            Answer {
                name: "ionos".into(),
                shown: Err(CliError::failed("no answer")),
            },
        ];
        expect![[r#"

            HOST  SHOWN TO  ISSUED BY      LASTS    SERIAL  FROM
            ovh   members   prod members   90 days  1a2b    its member
            ovh   clients   Let's Encrypt  90 days  3c      another authority
            ionos does not say what it shows: no answer

            REVOKED     SINCE
            client eva  1 days ago
        "#]]
        .assert_eq(&text(&answers, &[], now));
    }
}
