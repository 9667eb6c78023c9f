//! Answers to earlier requests, so that a repeat changes nothing (FEN-33).

use crate::types::{Applied, Rejection, RequestId, Revision};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Answers kept for each client. A client has at most this many requests under way at a time.
const ANSWERS_PER_CLIENT: u64 = 1024;
/// Clients remembered; the one that was silent longest goes first.
const CLIENTS: usize = 1024;

/// The table. Part of the state, so that every member repeats the same answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests {
    clients: OrdMap<u64, ClientAnswers>,
    answers: OrdMap<(u64, u64), Arc<Applied>>,
    /// Client by the tick of its last request, oldest first.
    ticks: OrdMap<u64, u64>,
    tick: u64,
}

/// What is known of one client beside its answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAnswers {
    /// When it last asked, counted in requests of all clients.
    tick: u64,
    /// Answers kept.
    kept: u64,
    /// The largest sequence answered.
    highest: u64,
    /// Sequences at or below it have no answer any more.
    forgotten: u64,
}

impl Requests {
    /// The first answer to a request that was carried out before.
    pub(crate) fn look_up(&self, request: RequestId) -> Option<Applied> {
        let client = self.clients.get(&request.client)?;
        if request.sequence > client.highest {
            return None;
        }
        if let Some(applied) = self.answers.get(&(request.client, request.sequence)) {
            return Some((**applied).clone());
        }
        let sequence = request.sequence;
        (sequence <= client.forgotten).then_some(Applied {
            revision: Revision::ZERO,
            outcome: Err(Rejection::Forgotten { sequence }),
        })
    }

    pub(crate) fn record(&mut self, request: RequestId, applied: &Applied) {
        self.tick += 1;
        let mut client = self.clients.get(&request.client).copied().unwrap_or_default();
        self.ticks.remove(&client.tick);
        client.tick = self.tick;
        client.highest = client.highest.max(request.sequence);
        client.kept += 1;
        self.answers.insert((request.client, request.sequence), Arc::new(applied.clone()));
        if client.kept > ANSWERS_PER_CLIENT
            && let Some(oldest) = self.oldest_answer(request.client)
        {
            self.answers.remove(&(request.client, oldest));
            client.kept -= 1;
            client.forgotten = client.forgotten.max(oldest);
        }
        self.ticks.insert(self.tick, request.client);
        self.clients.insert(request.client, client);
        if self.clients.len() > CLIENTS
            && let Some((tick, silent)) = self.ticks.get_min().copied()
        {
            self.ticks.remove(&tick);
            self.clients.remove(&silent);
            while let Some(sequence) = self.oldest_answer(silent) {
                self.answers.remove(&(silent, sequence));
            }
        }
    }

    fn oldest_answer(&self, client: u64) -> Option<u64> {
        self.answers.range((client, 0)..=(client, u64::MAX)).next().map(|((_, s), _)| *s)
    }

    /// Every client with its answers, for a snapshot.
    pub(crate) fn export(&self) -> impl Iterator<Item = (u64, ClientAnswers, Vec<(u64, Applied)>)> {
        self.clients.iter().map(|(id, client)| {
            let answers = self.answers.range((*id, 0)..=(*id, u64::MAX));
            (*id, *client, answers.map(|((_, s), a)| (*s, (**a).clone())).collect())
        })
    }

    pub(crate) fn restore(&mut self, id: u64, client: ClientAnswers, answers: Vec<(u64, Applied)>) {
        self.tick = self.tick.max(client.tick);
        self.ticks.insert(client.tick, id);
        self.clients.insert(id, client);
        for (sequence, applied) in answers {
            self.answers.insert((id, sequence), Arc::new(applied));
        }
    }
}
