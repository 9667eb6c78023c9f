//! Objects as they were, for as long as history is kept.

use super::{Registry, decode, everything, key};
use api::{kinds::Kind, meta, past::When, status::Status};
use serde_json::{Value, json};
use store::{KeyRange, Revision, Timestamp, state::View};

/// A revision that can still be read, and when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// What to read at.
    pub revision: Revision,
    /// In seconds since the Unix epoch; `None` if nobody has kept it.
    pub seconds: Option<i64>,
}

/// What is kept of one object.
#[derive(Debug)]
pub struct History {
    /// The first moment that can be read.
    pub oldest: Moment,
    /// Now.
    pub newest: Moment,
    /// The oldest first; the first may be from before `oldest`.
    pub versions: Vec<Version>,
    /// Older ones that are kept and that nobody asked for.
    pub left_out: usize,
}

/// One form of an object.
#[derive(Debug)]
pub struct Version {
    /// When it began.
    pub at: Moment,
    /// `None` from its deletion on.
    pub object: Option<Value>,
    /// It was not there before.
    pub created: bool,
}

impl Moment {
    fn of(view: &View, revision: Revision) -> Self {
        let seconds = view.time_of(revision).map(|time| time.0 / 1_000_000);
        Self { revision, seconds: seconds.and_then(|seconds| i64::try_from(seconds).ok()) }
    }

    fn oldest(view: &View) -> Self {
        Self::of(view, view.compacted().max(Revision::EMPTY))
    }

    /// For messages: `revision 7, made at 2026-01-31T03:00:00Z`.
    fn text(&self) -> String {
        match self.seconds {
            Some(seconds) => format!("revision {}, made at {}", self.revision, meta::time(seconds)),
            None => format!("revision {}", self.revision),
        }
    }

    /// As answers have it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"revision": self.revision.to_string(), "time": self.seconds.map(meta::time)})
    }
}

/// 410, with how far back one may ask.
fn too_old(view: &View, asked: &str) -> Status {
    let oldest = Moment::oldest(view);
    let message = format!("{asked} is not kept any more: history begins with {}", oldest.text());
    let status = Status::expired(message).with_detail("oldestRevision", oldest.revision.get());
    match oldest.seconds {
        Some(seconds) => status.with_detail("oldestTime", meta::time(seconds)),
        None => status,
    }
}

impl Registry {
    /// What a moment means here, and a view that can be read at it.
    ///
    /// # Errors
    /// 400 for what has not come yet, 410 for what is not kept any more, 503 without a quorum.
    pub async fn moment(&self, when: When) -> Result<(View, Moment), Status> {
        // Whoever has seen a revision elsewhere finds it here.
        self.reach("").await?;
        let view = self.store.view();
        let now = self.now();
        let seconds = match when {
            When::Revision(revision) => {
                let (asked, newest) = (Revision::new(revision), view.revision());
                if asked > newest {
                    let newest = Moment::of(&view, newest).text();
                    let message =
                        format!("revision {asked} has not come yet: the newest is {newest}");
                    return Err(Status::bad_request(message));
                }
                if asked < Moment::oldest(&view).revision {
                    return Err(too_old(&view, &format!("revision {asked}")));
                }
                let moment = Moment::of(&view, asked);
                return Ok((view, moment));
            }
            When::Time(seconds) => seconds,
            When::Ago(seconds) => now.saturating_sub(seconds),
        };
        if seconds > now {
            let (asked, now) = (meta::time(seconds), meta::time(now));
            return Err(Status::bad_request(format!("{asked} has not come yet: it is {now}")));
        }
        let micros = u64::try_from(seconds).unwrap_or_default().saturating_mul(1_000_000);
        match view.revision_at(Timestamp(micros)) {
            // The time that was asked for is what ages count from, not that of the last change before it.
            Some(revision) => Ok((view, Moment { revision, seconds: Some(seconds) })),
            None => Err(too_old(&view, &format!("what there was at {}", meta::time(seconds)))),
        }
    }

    /// One object as it was.
    ///
    /// # Errors
    /// 404 with when it came or went; as [`Registry::moment`].
    pub async fn get_at(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        when: When,
    ) -> Result<(Value, Moment), Status> {
        let (view, moment) = self.moment(when).await?;
        let key = key(kind, namespace, name);
        let one = KeyRange::One(key.clone().into());
        let found = view.range(&everything(one, moment.revision, 1));
        let found = found.map_err(|rejection| Status::expired(rejection.to_string()))?;
        if let Some(kv) = found.kvs.first() {
            return Ok((decode(kind, kv)?, moment));
        }
        let mut status = Status::not_found(kind, name);
        let versions = view.versions(key.as_bytes());
        let gone = versions.iter().rev().find(|(at, kv)| *at <= moment.revision && kv.is_none());
        let came = versions.iter().find(|(at, kv)| *at > moment.revision && kv.is_some());
        let mut hints = Vec::new();
        if let Some((at, _)) = gone {
            hints.push(format!("it was deleted with {}", Moment::of(&view, *at).text()));
        }
        if let Some((at, _)) = came {
            hints.push(format!("it came with {}", Moment::of(&view, *at).text()));
        }
        let hints =
            if hints.is_empty() { String::new() } else { format!(": {}", hints.join("; ")) };
        status.message = format!("{} at revision {}{hints}", status.message, moment.revision);
        Err(status)
    }

    /// The newest `limit` versions of one object; 0 for all that are kept.
    ///
    /// # Errors
    /// 404 if nothing is known of it; 503 without a quorum.
    pub async fn history(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        limit: usize,
    ) -> Result<History, Status> {
        self.reach("").await?;
        let view = self.store.view();
        let oldest = Moment::oldest(&view);
        let kept = view.versions(key(kind, namespace, name).as_bytes());
        if kept.is_empty() {
            let mut status = Status::not_found(kind, name);
            status.message =
                format!("{}, nor any trace of it since {}", status.message, oldest.text());
            return Err(status);
        }
        let left_out = if limit == 0 { 0 } else { kept.len().saturating_sub(limit) };
        let versions = kept.iter().skip(left_out).map(|(at, kv)| {
            let object = kv.as_ref().map(|kv| decode(kind, kv)).transpose()?;
            let created = kv.as_ref().is_some_and(|kv| kv.version == 1);
            Ok(Version { at: Moment::of(&view, *at), object, created })
        });
        let versions = versions.collect::<Result<_, Status>>()?;
        let newest = Moment::of(&view, view.revision());
        Ok(History { oldest, newest, versions, left_out })
    }
}
