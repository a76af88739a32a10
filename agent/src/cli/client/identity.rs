//! Who the user is: name and password once, a token with every request after. The token lives in memory only and is
//! never shown.

use std::fmt;

use parking_lot::Mutex;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::auth_client::AuthClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// The header that etcd reads a token from.
const TOKEN_HEADER: &str = "token";

/// Something that must not be seen.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A user's name and password.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) name: String,
    pub(crate) password: Secret,
}

/// What a request carries: a token, or nothing.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(Option<MetadataValue<Ascii>>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Token(secret)"
        } else {
            "Token(none)"
        })
    }
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert(TOKEN_HEADER, token.clone());
        }
        Ok(request)
    }
}

/// The user, and the token it was given last: one for all members.
#[derive(Debug)]
pub(super) struct Identity {
    credentials: Option<Credentials>,
    token: Mutex<Option<Token>>,
}

impl Identity {
    pub(super) fn new(credentials: Option<Credentials>) -> Self {
        Self {
            credentials,
            token: Mutex::new(None),
        }
    }

    /// The token at hand, else a new one from the member at the other end of `channel`. A cluster that wants no login
    /// is no error: the request then goes without a token.
    pub(super) async fn token(&self, channel: Channel) -> Result<Token, Status> {
        let Some(credentials) = &self.credentials else {
            return Ok(Token(None));
        };
        if let Some(token) = self.token.lock().clone() {
            return Ok(token);
        }
        let request = pb::AuthenticateRequest {
            name: credentials.name.clone(),
            password: credentials.password.expose().to_owned(),
        };
        let token = match AuthClient::new(channel).authenticate(request).await {
            Ok(answer) => {
                let token = MetadataValue::try_from(answer.into_inner().token)
                    .map_err(|_| Status::internal("the member's token is no header"))?;
                Token(Some(token))
            }
            Err(status) if wants_no_login(&status) => Token(None),
            Err(status) => return Err(status),
        };
        *self.token.lock() = Some(token.clone());
        Ok(token)
    }

    /// Was the request refused for its token alone, and is there a password to get another? Then `token` is forgotten.
    pub(super) fn may_renew(&self, token: &Token, status: &Status) -> bool {
        let stale = [
            "etcdserver: invalid auth token",
            "etcdserver: revision of auth store is old",
            // Authentication was enabled after we had asked without.
            "etcdserver: user name is empty",
        ];
        if self.credentials.is_none() || !stale.contains(&status.message()) {
            return false;
        }
        let mut known = self.token.lock();
        if known.as_ref() == Some(token) {
            *known = None;
        }
        true
    }
}

fn wants_no_login(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
        && status.message() == "etcdserver: authentication is not enabled"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials {
            name: "root".into(),
            password: Secret::new("hunter2"),
        };
        let token = Token(Some(MetadataValue::from_static("abc.123")));
        let shown = format!("{credentials:?} {token:?}");
        assert_eq!(
            shown,
            r#"Credentials { name: "root", password: (secret) } Token(secret)"#
        );
    }

    #[test]
    fn only_a_stale_token_is_renewed() {
        let credentials = Credentials {
            name: "root".into(),
            password: Secret::new("pw"),
        };
        let identity = Identity::new(Some(credentials));
        let token = Token(Some(MetadataValue::from_static("old")));
        *identity.token.lock() = Some(token.clone());
        assert!(!identity.may_renew(
            &token,
            &Status::permission_denied("etcdserver: permission denied")
        ));
        assert_eq!(identity.token.lock().as_ref(), Some(&token));
        assert!(identity.may_renew(&token, &Status::unauthenticated("etcdserver: invalid auth token")));
        assert_eq!(*identity.token.lock(), None);
        assert!(
            !Identity::new(None)
                .may_renew(&token, &Status::unauthenticated("etcdserver: invalid auth token"))
        );
    }
}
