//! What went wrong with TLS, for the person at the end that was refused.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// The words for an error of a connection that speaks TLS; an error of another kind stays what it is.
#[must_use]
pub fn explained(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner.and_then(words) {
        Some(words) => io::Error::new(error.kind(), words),
        None => error,
    }
}

fn words(error: &Error) -> Option<String> {
    let words = match error {
        Error::AlertReceived(alert) => return alerted(*alert).map(ToOwned::to_owned),
        Error::InvalidCertificate(error) => return certificate(error),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the other side does not speak TLS: give it certificates, or say http:// where the network is private"
        }
        Error::NoCertificatesPresented => "the other side shows no certificate",
        _ => return None,
    };
    Some(words.to_owned())
}

/// What the other side thinks of our certificate.
fn alerted(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::UnknownCA => {
            "the other side refuses this side's certificate: its authority is none that it trusts"
        }
        AlertDescription::CertificateExpired => {
            "the other side refuses this side's certificate: it has expired, or is not valid yet"
        }
        AlertDescription::CertificateRevoked => {
            "the other side refuses this side's certificate: it has been revoked"
        }
        AlertDescription::CertificateRequired => {
            "the other side asks for a certificate, and this side has none"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => "the other side refuses this side's certificate",
        AlertDescription::ProtocolVersion => "the other side does not speak TLS 1.3",
        _ => return None,
    })
}

/// What this side thinks of the other's certificate.
fn certificate(error: &CertificateError) -> Option<String> {
    let words = match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the other side's certificate is of an authority that this side does not trust"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the other side's certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the other side's certificate is not valid yet: are the clocks right?"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the other side's certificate is not made for this use"
        }
        CertificateError::ApplicationVerificationFailure => {
            "the authority at the other end is not the one that the token names (its pin differs)"
        }
        CertificateError::Revoked => "the other side's certificate has been revoked",
        _ => return None,
    };
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_can_mend_is_said() {
        let said = |error: Error| explained(io::Error::new(io::ErrorKind::InvalidData, error)).to_string();
        assert!(said(Error::AlertReceived(AlertDescription::UnknownCA)).ends_with("none that it trusts"));
        assert!(said(Error::InvalidCertificate(CertificateError::Expired)).ends_with("has expired"));
        assert!(said(Error::InvalidMessage(InvalidMessage::InvalidContentType)).contains("http://"));
        // What has no words of ours keeps its own.
        assert_eq!(said(Error::DecryptError), Error::DecryptError.to_string());
        let other = explained(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(other.kind(), io::ErrorKind::ConnectionRefused);
    }
}
