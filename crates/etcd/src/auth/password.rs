//! Passwords are slow to hash on purpose: beside the threads that serve, and a few at a time.

use crate::error;
use std::thread::available_parallelism;
use store::PasswordHash;
use tokio::sync::Semaphore;
use tonic::Status;

/// bcrypt does not look at what comes behind.
const BYTES_MAX: usize = 72;

#[derive(Debug)]
pub(crate) struct Passwords {
    cost: u32,
    /// As many as there are cores: more would only hold up the rest of the replica.
    permits: Semaphore,
}

impl Passwords {
    pub(super) fn new(cost: u32) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self { cost, permits: Semaphore::new(cores) }
    }

    /// # Errors
    /// It is too long.
    pub(super) async fn hash(&self, password: String) -> Result<PasswordHash, Status> {
        if password.len() > BYTES_MAX {
            return Err(error::unknown::password_too_long());
        }
        let cost = self.cost;
        self.beside(move || bcrypt::hash(password, cost)).await.map(PasswordHash)
    }

    pub(super) async fn verify(
        &self,
        password: String,
        hash: PasswordHash,
    ) -> Result<bool, Status> {
        let fits = password.len() <= BYTES_MAX;
        Ok(self.beside(move || bcrypt::verify(password, &hash.0)).await? && fits)
    }

    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, bcrypt::BcryptError> + Send + 'static,
    ) -> Result<T, Status> {
        let _permit = self.permits.acquire().await.map_err(|_| error::stopped())?;
        match world::blocking(work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Status::internal(format!("hash a password: {error}"))),
            Err(_) => Err(error::stopped()),
        }
    }
}
