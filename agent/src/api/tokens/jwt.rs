//! JSON web tokens with the claims that etcd gives: `username`, `revision` and `exp`.
//!
//! They are good for the auth revision that they were made at: after any change of users a client has to log in again,
//! as with etcd.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use raft_store::auth::Auth;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Rejected;
use super::proven::Proven;
use crate::api::interceptor::Identity;

/// Keys and method, as `--auth-token jwt,...` names them.
#[derive(Clone)]
pub struct JwtOptions {
    algorithm: Algorithm,
    /// `None`: this member only verifies.
    signing: Option<Arc<EncodingKey>>,
    verifying: Arc<DecodingKey>,
    ttl: Duration,
}

/// What is wrong with `--auth-token jwt,...`.
#[derive(Debug, Error)]
pub enum JwtOptionsError {
    #[error("{0:?} is not NAME=VALUE of pub-key, priv-key, sign-method and ttl")]
    Option(String),
    #[error("sign-method=METHOD is missing, like sign-method=RS256")]
    MethodMissing,
    #[error("sign-method={0}: use one of HS256, RS256, PS256, ES256, EdDSA, or their longer kin")]
    Method(String),
    #[error("ttl={0}: a number with its unit, like 10m")]
    Ttl(String),
    #[error("{name} is needed for sign-method={method}")]
    KeyMissing { name: &'static str, method: String },
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: std::io::Error },
    #[error(
        "{path} holds {found} bytes: a secret has at least {SECRET_BYTES} (openssl rand -hex 32 > {path})"
    )]
    Secret { path: PathBuf, found: usize },
    #[error(
        "{path} holds no key for sign-method={method}: a PEM file is needed, and PKCS #8 of a private key"
    )]
    Key { path: PathBuf, method: String },
}

impl fmt::Debug for JwtOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtOptions")
            .field("algorithm", &self.algorithm)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// What a shared secret has at least, blanks around it not counted: whoever guesses it is any user.
const SECRET_BYTES: usize = 16;

const DEFAULT_TTL: Duration = Duration::from_secs(300);

impl JwtOptions {
    /// Reads what follows `jwt` in the flag, and the files that it names.
    ///
    /// # Errors
    /// See [`JwtOptionsError`].
    pub fn parse<'a>(options: impl Iterator<Item = &'a str>) -> Result<JwtOptions, JwtOptionsError> {
        let (mut public, mut private, mut method, mut ttl) = (None, None, None, DEFAULT_TTL);
        for option in options {
            let unknown = || JwtOptionsError::Option(option.to_owned());
            let (name, value) = option.split_once('=').ok_or_else(unknown)?;
            match name {
                "pub-key" => public = Some(PathBuf::from(value)),
                "priv-key" => private = Some(PathBuf::from(value)),
                "sign-method" => method = Some(value.to_owned()),
                "ttl" => ttl = duration(value).ok_or_else(|| JwtOptionsError::Ttl(value.to_owned()))?,
                _ => return Err(unknown()),
            }
        }
        let method = method.ok_or(JwtOptionsError::MethodMissing)?;
        let algorithm = Algorithm::from_str(&method).map_err(|_| JwtOptionsError::Method(method.clone()))?;
        let keys = Keys { algorithm, method };
        let (signing, verifying) = if keys.is_secret() {
            let path = private.ok_or_else(|| keys.missing("priv-key"))?;
            let secret = read(&path)?;
            let found = secret.trim_ascii().len();
            if found < SECRET_BYTES {
                return Err(JwtOptionsError::Secret { path, found });
            }
            (
                Some(EncodingKey::from_secret(&secret)),
                DecodingKey::from_secret(&secret),
            )
        } else {
            let public = public.ok_or_else(|| keys.missing("pub-key"))?;
            let signing = private.map(|path| keys.private(&path)).transpose()?;
            (signing, keys.public(&public)?)
        };
        Ok(JwtOptions {
            algorithm,
            signing: signing.map(Arc::new),
            verifying: Arc::new(verifying),
            ttl,
        })
    }
}

/// Reads keys for one method.
struct Keys {
    algorithm: Algorithm,
    method: String,
}

impl Keys {
    fn is_secret(&self) -> bool {
        matches!(
            self.algorithm,
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
        )
    }

    fn private(&self, path: &PathBuf) -> Result<EncodingKey, JwtOptionsError> {
        let pem = read(path)?;
        match self.algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(&pem),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(&pem),
            _ => EncodingKey::from_rsa_pem(&pem),
        }
        .map_err(|_| self.unfit(path))
    }

    fn public(&self, path: &PathBuf) -> Result<DecodingKey, JwtOptionsError> {
        let pem = read(path)?;
        match self.algorithm {
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(&pem),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(&pem),
            _ => DecodingKey::from_rsa_pem(&pem),
        }
        .map_err(|_| self.unfit(path))
    }

    fn missing(&self, name: &'static str) -> JwtOptionsError {
        JwtOptionsError::KeyMissing {
            name,
            method: self.method.clone(),
        }
    }

    fn unfit(&self, path: &Path) -> JwtOptionsError {
        JwtOptionsError::Key {
            path: path.to_owned(),
            method: self.method.clone(),
        }
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, JwtOptionsError> {
    std::fs::read(path).map_err(|reason| JwtOptionsError::File {
        path: path.clone(),
        reason,
    })
}

/// A whole number of seconds, minutes or hours, as Go writes it.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?)).filter(|ttl| !ttl.is_zero())
}

#[derive(Debug, Deserialize, Serialize)]
struct Claims {
    username: String,
    revision: u64,
    /// Seconds since the epoch.
    exp: u64,
}

#[derive(Debug)]
pub(in crate::api) struct Jwt {
    options: JwtOptions,
    proven: Proven<Claims>,
}

impl Jwt {
    pub(super) fn new(options: JwtOptions) -> Jwt {
        let proven = Proven::new(options.ttl);
        Jwt { options, proven }
    }

    pub(super) fn issue(&self, name: &str, auth: &Auth, now: Duration) -> Option<String> {
        let claims = Claims {
            username: name.to_owned(),
            revision: auth.revision(),
            exp: (now + self.options.ttl).as_secs(),
        };
        let key = self.options.signing.as_deref()?;
        jsonwebtoken::encode(&Header::new(self.options.algorithm), &claims, key)
            .inspect_err(|error| tracing::error!(%error, "cannot sign a token"))
            .ok()
    }

    pub(super) fn verify(&self, token: &str, auth: &Auth, now: Duration) -> Result<Identity, Rejected> {
        let claims = match self.proven.show(token, now) {
            Some(claims) => claims,
            None => self.prove(token, now)?,
        };
        if claims.exp <= now.as_secs() {
            return Err(Rejected::Invalid);
        }
        if claims.revision > auth.revision() {
            return Err(Rejected::Newer);
        }
        let changed_revision = auth
            .user(&claims.username)
            .map_or(0, raft_store::auth::User::changed_revision);
        if changed_revision > claims.revision {
            return Err(Rejected::Invalid);
        }
        Ok(Identity {
            user: claims.username.clone(),
            changed_revision,
            auth_revision: claims.revision,
        })
    }

    /// Verifies the signature of a token that is new here.
    fn prove(&self, token: &str, now: Duration) -> Result<Arc<Claims>, Rejected> {
        let mut validation = Validation::new(self.options.algorithm);
        // Looked at with every call, by the clock that is given there.
        validation.validate_exp = false;
        let proved = jsonwebtoken::decode::<Claims>(token, &self.options.verifying, &validation);
        let claims = Arc::new(proved.map_err(|_| Rejected::Invalid)?.claims);
        self.proven.remember(token, &claims, now);
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn with_secret(ttl: &str) -> Jwt {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a secret of the operator's").unwrap();
        let key = format!("priv-key={}", file.path().display());
        let ttl = format!("ttl={ttl}");
        let options = ["sign-method=HS256", key.as_str(), ttl.as_str()];
        Jwt::new(JwtOptions::parse(options.into_iter()).unwrap())
    }

    #[test]
    fn a_token_says_who_and_since_which_revision_until_it_ends() {
        let auth = Auth::default();
        let jwt = with_secret("10m");
        let token = jwt.issue("ann", &auth, NOW).unwrap();
        let identity = jwt.verify(&token, &auth, NOW + Duration::from_secs(599)).unwrap();
        assert_eq!((identity.user.as_str(), identity.auth_revision), ("ann", 1));
        let late = NOW + Duration::from_secs(600);
        assert_eq!(jwt.verify(&token, &auth, late), Err(Rejected::Invalid));
        let (signed, _) = token.rsplit_once('.').unwrap();
        for forged in [format!("{signed}."), format!("{token}x"), "x".to_owned()] {
            assert_eq!(jwt.verify(&forged, &auth, NOW), Err(Rejected::Invalid));
        }
        // Unsigned, which some libraries took for signed.
        let none = "eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6InJvb3QiLCJyZXZpc2lvbiI6MSwiZXhwIjo5OTk5OTk5OTk5fQ.";
        assert_eq!(jwt.verify(none, &auth, NOW), Err(Rejected::Invalid));
    }

    #[test]
    fn the_flag_names_what_is_wrong_with_it() {
        let error = |options: &[&str]| {
            JwtOptions::parse(options.iter().copied())
                .unwrap_err()
                .to_string()
        };
        assert!(error(&["sign-method=none"]).starts_with("sign-method=none: use one of"));
        assert!(error(&[]).starts_with("sign-method=METHOD is missing"));
        assert!(error(&["sign-method=RS256"]).starts_with("pub-key is needed"));
        assert!(error(&["sign-method=HS256"]).starts_with("priv-key is needed"));
        assert!(error(&["ttl=5"]).starts_with("ttl=5: a number with its unit"));
        assert!(error(&["nonsense"]).contains("\"nonsense\" is not NAME=VALUE"));
        assert!(error(&["sign-method=RS256", "pub-key=/nowhere/key"]).contains("/nowhere/key"));
    }
}
