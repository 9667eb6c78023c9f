//! What can go wrong between asking and being answered.

use api::status::Status;

/// One endpoint that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Such as `http://127.0.0.1:6443`.
    pub endpoint: String,
    /// Why it gave no answer.
    pub error: String,
}

/// Why a call gave no object.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The API refused.
    #[error("{0}")]
    Api(Status),
    /// No endpoint answered; nothing was sent, or it was safe to send again.
    #[error("no endpoint answered: {}", render(attempts))]
    Unreachable {
        /// Every one that was tried, in order.
        attempts: Vec<Attempt>,
    },
    /// A write was sent and its answer lost: it may have been carried out (FEN-31).
    #[error("outcome unknown: {endpoint} did not answer: {error}")]
    Unknown {
        /// Where it was sent.
        endpoint: String,
        /// How the answer was lost.
        error: String,
    },
    /// The answer is not what was asked for.
    #[error("{endpoint} answered what cannot be read: {error}")]
    Decode {
        /// Who.
        endpoint: String,
        /// What is wrong with it.
        error: String,
    },
}

fn render(attempts: &[Attempt]) -> String {
    attempts.iter().map(|a| format!("{} ({})", a.endpoint, a.error)).collect::<Vec<_>>().join(", ")
}
