//! Lists of stored objects: found and selected, and not yet read.

use super::{
    ListQuery, ListResult, Registry, check_list, decode, everything, parse_revision, prefix,
    read_token,
    stored::{NAMES_AND_LABELS, SELECTABLE, Stored, shows_as_stored},
    write_token,
};
use api::{kinds::Kind, status::Status};
use serde_json::Value;
use std::sync::Arc;
use store::{KeyRange, KeyValue};

/// Bytes that are looked at before other tasks get their turn: a millisecond at most.
const LOOK_AT_BYTES: usize = 256 << 10;

/// A page of stored objects.
#[derive(Debug)]
pub(crate) struct Page {
    /// In key order.
    pub(crate) items: Vec<Stored>,
    /// The revision that the whole list is consistent at (LST-1).
    pub(crate) revision: u64,
    /// Of the next page; empty at the end.
    pub(crate) continue_token: String,
    /// Only without selectors (LST-2).
    pub(crate) remaining: Option<u64>,
}

impl Registry {
    /// One object, as [`Registry::get`].
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn get_stored(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        resource_version: &str,
    ) -> Result<Stored, Status> {
        self.reach(resource_version).await?;
        match self.store.view().get(super::key(kind, namespace, name).as_bytes()) {
            Some(kv) => self.known.examine(kind, Arc::new(kv)),
            None => Err(Status::not_found(kind, name)),
        }
    }

    /// How many objects a list or the beginning of a watch looks at, before anything is done for it: what it
    /// costs.
    pub(crate) fn cost(&self, kind: &Kind, namespace: &str, query: &ListQuery) -> u64 {
        if query.name_in(kind, namespace).is_some() {
            return 1;
        }
        let all = self.store.view().count(&KeyRange::prefix(prefix(kind, namespace)));
        let limited = query.limit > 0 && query.resource_version != "0" && !query.is_selective();
        if limited { all.min(query.limit) } else { all }
    }

    /// Objects of a kind, as [`Registry::list`].
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn page(
        &self,
        kind: &Kind,
        namespace: &str,
        query: &ListQuery,
    ) -> Result<Page, Status> {
        check_list(kind, query)?;
        let prefix = prefix(kind, namespace);
        let token = (!query.continue_token.is_empty())
            .then(|| read_token(&query.continue_token))
            .transpose()?;
        self.reach(match &token {
            Some((Some(_), _)) => "0",
            Some((None, _)) => "",
            None => &query.resource_version,
        })
        .await?;
        // A list "at any revision" is served whole, from memory.
        let limit = if query.resource_version == "0" { 0 } else { query.limit };
        let selective = query.is_selective();
        let found = self.find(kind, namespace, query, token, if selective { 0 } else { limit })?;
        let Found { kvs, more, count, revision } = found;
        let mut items = Vec::with_capacity(if selective { 0 } else { kvs.len() });
        let (mut next, mut looked_at) = (None, 0);
        let last = kvs.last().map(Arc::clone);
        for kv in kvs {
            if limit > 0 && items.len() as u64 == limit {
                next = Some(kv.key.to_vec());
                break;
            }
            looked_at += kv.value.len();
            if looked_at >= LOOK_AT_BYTES {
                looked_at = 0;
                tokio::task::yield_now().await;
            }
            if query.matches_stored(kind, &kv)? {
                items.push(self.known.examine(kind, kv)?);
            }
        }
        if let (None, true, Some(last)) = (&next, more, last) {
            next = Some([last.key.as_ref(), b"\0"].concat());
        }
        let remaining =
            (next.is_some() && !selective).then(|| count.saturating_sub(items.len() as u64));
        let continue_token = next.map_or_else(String::new, |next| {
            let next = String::from_utf8_lossy(&next);
            write_token(Some(revision), next.strip_prefix(&prefix).unwrap_or_default())
        });
        Ok(Page { items, revision: revision.get(), continue_token, remaining })
    }

    /// Objects of a kind; in all namespaces when `namespace` is empty.
    ///
    /// # Errors
    /// 400 and 422 for what cannot be asked, 410 for what is no longer kept.
    pub async fn list(
        &self,
        kind: &Kind,
        namespace: &str,
        query: &ListQuery,
    ) -> Result<ListResult, Status> {
        let Page { items, revision, continue_token, remaining } =
            self.page(kind, namespace, query).await?;
        let items = items.iter().map(|item| item.value(kind)).collect::<Result<_, _>>()?;
        Ok(ListResult { items, revision, continue_token, remaining })
    }

    /// The pairs at the revision that is asked for. The view is let go of before anything is waited for.
    fn find(
        &self,
        kind: &Kind,
        namespace: &str,
        query: &ListQuery,
        token: Option<(Option<store::Revision>, String)>,
        limit: u64,
    ) -> Result<Found, Status> {
        let prefix = prefix(kind, namespace);
        let view = self.store.view();
        let exact = query.resource_version_match == "Exact"
            || (query.resource_version_match.is_empty() && query.limit > 0);
        let rest = token.as_ref().map(|(_, start)| write_token(None, start));
        let (revision, start) = match token {
            Some((revision, start)) => {
                (revision.unwrap_or_else(|| view.revision()), format!("{prefix}{start}"))
            }
            None if !matches!(query.resource_version.as_str(), "" | "0") && exact => {
                (parse_revision(&query.resource_version)?, prefix.clone())
            }
            None => (view.revision(), prefix.clone()),
        };
        let range = match KeyRange::prefix(prefix) {
            KeyRange::Between { end, .. } => {
                let named = query.name_in(kind, namespace);
                named.unwrap_or(KeyRange::Between { start: start.into(), end })
            }
            all @ (KeyRange::One(_) | KeyRange::From(_)) => all,
        };
        if revision == view.revision() {
            let count = view.count(&range);
            let take =
                if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
            let kvs: Vec<_> = view.live(&range).take(take).map(Arc::clone).collect();
            let more = count > kvs.len() as u64;
            return Ok(Found { kvs, more, count, revision });
        }
        let found = view
            .range(&everything(range, revision, limit))
            .map_err(|_| rest.map_or_else(Status::list_expired, Status::continue_expired))?;
        let kvs = found.kvs.into_iter().map(Arc::new).collect();
        Ok(Found { kvs, more: found.more, count: found.count, revision })
    }
}

struct Found {
    kvs: Vec<Arc<KeyValue>>,
    /// The limit cut the answer.
    more: bool,
    /// In the range, whatever the limit.
    count: u64,
    revision: store::Revision,
}

impl ListQuery {
    /// Whether it asks for some objects only.
    pub(crate) fn is_selective(&self) -> bool {
        !self.labels.is_empty() || !self.fields.is_empty()
    }

    /// The one key that can be selected, if the selector names the object.
    pub(crate) fn name_in(&self, kind: &Kind, namespace: &str) -> Option<KeyRange> {
        let name = self.fields.required("metadata.name")?;
        // A name with a slash would be a key of another namespace; nothing has such a name.
        let one = !name.is_empty() && !name.contains('/') && self.continue_token.is_empty();
        let placed = namespace.is_empty() != kind.namespaced;
        (one && placed).then(|| KeyRange::One(super::key(kind, namespace, name).into()))
    }

    /// Whether the selectors accept an object.
    #[must_use]
    pub fn matches(&self, kind: &Kind, object: &Value) -> bool {
        (self.labels.is_empty() || self.labels.matches_object(object))
            && (self.fields.is_empty() || self.fields.matches(kind, object))
    }

    /// Whether it asks for nothing but names and labels, which every kind has.
    pub(crate) fn asks_names_only(&self) -> bool {
        let mut fields = self.fields.labels();
        fields.all(|label| matches!(label, "metadata.name" | "metadata.namespace"))
    }

    /// The parts of a stored object that the selectors look into: the same ones for all that ask for names
    /// only, and for all that do not.
    ///
    /// # Errors
    /// 500 for what is no object.
    pub(crate) fn selectable(&self, kind: &Kind, kv: &KeyValue) -> Result<Value, Status> {
        if !shows_as_stored(kind) {
            return decode(kind.stored(), kv);
        }
        let pick = if self.asks_names_only() {
            &NAMES_AND_LABELS
        } else if kind.group.is_empty() {
            &SELECTABLE
        } else {
            return decode(kind, kv);
        };
        // What cannot be read is said by who reads all of it.
        pick.read(&kv.value).or_else(|_| decode(kind, kv))
    }

    /// Whether the selectors accept a stored object.
    ///
    /// # Errors
    /// As [`ListQuery::selectable`].
    fn matches_stored(&self, kind: &Kind, kv: &KeyValue) -> Result<bool, Status> {
        Ok(!self.is_selective() || self.matches(kind, &self.selectable(kind, kv)?))
    }
}
