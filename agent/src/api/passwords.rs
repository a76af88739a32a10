//! Hashing and trying passwords: work that is slow on purpose, kept off the threads that serve, and bounded.

use std::sync::OnceLock;

use tokio::sync::Semaphore;

use super::status::ApiError;

/// bcrypt looks at no more of a password.
const MAX_PASSWORD_BYTES: usize = 72;

/// Who waits for a turn, at most.
const WAITING: usize = 256;

#[derive(Debug)]
pub(super) struct Passwords {
    cost: u32,
    /// Held from the wish to the end.
    places: Semaphore,
    /// Held while bcrypt runs: half of the processors are left to serve.
    turns: Semaphore,
}

/// What an unknown user's password is tried against, so that no stopwatch tells users from strangers.
static NOBODYS_HASH: OnceLock<String> = OnceLock::new();

impl Passwords {
    pub(super) fn new(cost: u32) -> Passwords {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Passwords {
            cost,
            places: Semaphore::new(WAITING),
            turns: Semaphore::new(processors.div_ceil(2)),
        }
    }

    /// What is stored of a password.
    pub(super) async fn hash(&self, password: String) -> Result<String, ApiError> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(ApiError::PasswordTooLong);
        }
        let cost = self.cost;
        self.run(move || bcrypt::hash(password, cost).ok())
            .await?
            .ok_or(ApiError::PasswordTooLong)
    }

    /// Whether a password fits. `hash` `None`, or none of bcrypt's: it does not, after as much work.
    pub(super) async fn fits(&self, password: String, hash: Option<Vec<u8>>) -> Result<bool, ApiError> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Ok(false);
        }
        let cost = self.cost;
        self.run(move || {
            let hash = hash.and_then(|hash| String::from_utf8(hash).ok());
            match hash.map(|hash| bcrypt::verify(&password, &hash)) {
                Some(Ok(fits)) => fits,
                None | Some(Err(_)) => {
                    let nobodys = NOBODYS_HASH.get_or_init(|| bcrypt::hash("", cost).unwrap_or_default());
                    let _ = bcrypt::verify(&password, nobodys);
                    false
                }
            }
        })
        .await
    }

    async fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Result<R, ApiError> {
        let _place = self.places.try_acquire().map_err(|_| ApiError::TooManyRequests)?;
        let _turn = self.turns.acquire().await.map_err(|_| ApiError::Stopped)?;
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| ApiError::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_fits_its_hash() {
        let passwords = Passwords::new(4);
        let hash = passwords.hash("correct".to_owned()).await.unwrap();
        let fits = |password: &str, hash: Option<&str>| {
            let hash = hash.map(|hash| hash.as_bytes().to_vec());
            passwords.fits(password.to_owned(), hash)
        };
        assert_eq!(fits("correct", Some(&hash)).await, Ok(true));
        assert_eq!(fits("wrong", Some(&hash)).await, Ok(false));
        assert_eq!(fits("", Some("")).await, Ok(false));
        assert_eq!(fits("", None).await, Ok(false));
        assert_eq!(fits("correct", Some("no hash")).await, Ok(false));
        let long = "x".repeat(73);
        assert_eq!(passwords.hash(long.clone()).await, Err(ApiError::PasswordTooLong));
        assert_eq!(fits(&long, Some(&hash)).await, Ok(false));
    }

    #[tokio::test]
    async fn those_who_wait_are_bounded() {
        let passwords = Passwords::new(4);
        let _taken = passwords.places.acquire_many(WAITING as u32).await.unwrap();
        assert_eq!(
            passwords.hash("x".to_owned()).await,
            Err(ApiError::TooManyRequests)
        );
    }
}
