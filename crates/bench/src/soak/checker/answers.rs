//! What an answer says, held against what may be.

use super::{Checker, Outcome, RECENT};
use crate::soak::{
    keys::{Change, Found, KEYS, Key, Revision, State},
    ledger::Quiet,
    request::{Answer, Asked, Request},
    violation::Violation,
};
use etcd::proto::mvccpb::KeyValue;
use tokio::time::Instant;

impl Checker {
    pub(super) fn answered(&mut self, request: &Request, answer: &Answer, now: Instant) -> Outcome {
        let (key, header, seen) = (request.key, answer.header, request.seen);
        let what = request.kind().label();
        if request.is_linearizable() {
            if header < seen {
                self.violated(Violation::WentBack { what, header, seen });
            } else if answer.changed && header == seen {
                let (revision, before) = (header, seen);
                self.violated(Violation::NotLater { what, key, revision, before });
            }
            self.seen = self.seen.max(header);
        }
        let mut outcome = Outcome::Done;
        match &request.asked {
            Asked::Put { write } | Asked::LeasedPut { write, .. } => {
                self.account(key).put(*write, header);
                outcome = self.acknowledged(key, Change::Put(*write), header);
            }
            Asked::Delete if answer.changed => {
                let deleted = self.account(key).deleted(key, header);
                self.hold(deleted);
                outcome = self.acknowledged(key, Change::Delete, header);
            }
            Asked::Delete => {
                let found = self.account(key).found(key, State::Absent, header);
                self.hold(found);
                let refused = self.history.refused(key, Change::Delete);
                self.hold(refused);
            }
            Asked::Txn { write, .. } if answer.changed => {
                self.account(key).put(*write, header);
                outcome = self.acknowledged(key, Change::Put(*write), header);
            }
            Asked::Txn { write, compared } => {
                let found = self.read_one(request, answer);
                let refused = self.history.refused(key, Change::Put(*write));
                self.hold(refused);
                let compared = *compared;
                let held = match found {
                    Some(State::Absent) => compared == Revision::default(),
                    Some(State::Present { mod_revision, .. }) => compared == mod_revision,
                    None => false,
                };
                if let Some(found) = found.filter(|_| held) {
                    let at = header;
                    self.violated(Violation::Contradiction { key, at, compared, found });
                }
            }
            Asked::Get { .. } => {
                self.read_one(request, answer);
            }
            Asked::Page { quiet } => self.read_page(request, answer, quiet.as_deref()),
            Asked::Grant { .. } => {}
            Asked::Revoke { .. } => {
                // Which revision it was, the answer does not say; at the latest its own.
                let unknown = self.history.unknown(key, Change::Delete, now);
                self.hold(unknown);
                let gone = self.history.gone_by(key, header);
                self.hold(gone);
                self.account(key).lease_ended(header);
            }
        }
        if key.is_leased() {
            self.lease(key).answered(request);
        }
        outcome
    }

    fn acknowledged(&mut self, key: Key, change: Change, revision: Revision) -> Outcome {
        let acknowledged = self.history.acknowledged(key, change, revision);
        self.hold(acknowledged);
        self.acknowledged += 1;
        self.recent.push_back(key);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        Outcome::Wrote
    }

    pub(super) fn read(&mut self, kv: &KeyValue, header: Revision) -> Option<Found> {
        let found = match self.values.read(kv) {
            Ok(found) => found,
            Err(violation) => {
                self.violated(violation);
                return None;
            }
        };
        if header < found.mod_revision {
            let (key, mod_revision) = (found.key, found.mod_revision);
            self.violated(Violation::Future { key, header, mod_revision });
        }
        Some(found)
    }

    /// What an answer says of one key; none if that cannot be understood.
    fn read_one(&mut self, request: &Request, answer: &Answer) -> Option<State> {
        let (key, header) = (request.key, answer.header);
        let found = match answer.kvs.as_slice() {
            [] => State::Absent,
            [kv, ..] => {
                let found = self.read(kv, header)?;
                if found.key != key {
                    let (what, key) = (request.kind().label(), found.key);
                    self.violated(Violation::Disorder { what, key });
                    return None;
                }
                found.state()
            }
        };
        if request.is_linearizable() {
            let explained = self.account(key).found(key, found, header);
            self.hold(explained);
        }
        Some(found)
    }

    fn read_page(&mut self, request: &Request, answer: &Answer, quiet: Option<&[(Key, Quiet)]>) {
        let (header, what) = (answer.header, request.kind().label());
        let kvs = answer.kvs.iter();
        let page: Vec<Found> = kvs.filter_map(|kv| self.read(kv, header)).collect();
        let mut from = request.key;
        for found in &page {
            if found.key < from {
                self.violated(Violation::Disorder { what, key: found.key });
            }
            from = Key(found.key.0 + 1);
        }
        let end = if answer.more { from } else { Key(KEYS) };
        for (key, quiet) in quiet.unwrap_or_default().iter().filter(|(key, _)| *key < end) {
            let found = page.binary_search_by_key(key, |found| found.key).ok();
            let found = found.and_then(|index| page.get(index));
            let found = found.map_or(State::Absent, Found::state);
            if self.account(*key).is_still(*quiet) {
                let explained = self.account(*key).found(*key, found, header);
                self.hold(explained);
            }
        }
    }
}
