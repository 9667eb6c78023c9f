//! Long lists as JSON text, cut into pieces. Who asks for the same while others wait for it gets the same one:
//! it is read when the first of them has a seat, which is after all of them have asked.

use super::{
    Query,
    answer::Form,
    list::{PIECE_BYTES, head},
};
use crate::registry::{Page, Stored, shows_as_stored};
use api::{
    kinds::{Kind, KindRef},
    status::Status,
};
use axum::body::Bytes;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::sync::OnceCell;

/// Bytes of pieces that are kept for others at most. Beyond that each list makes its own.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// A list as text.
#[derive(Debug)]
pub(super) struct Text {
    kind: KindRef,
    form: Form,
    /// What stands before the items.
    head: Vec<u8>,
    /// In key order.
    items: Vec<Stored>,
    /// The first item of each piece.
    cuts: Vec<usize>,
    /// Those that are kept.
    pieces: Vec<OnceLock<Bytes>>,
    /// Bytes of all of it, about.
    pub(super) length: usize,
    kept: Kept,
}

/// A share of what all texts keep.
#[derive(Debug, Default)]
struct Kept {
    all: Arc<AtomicUsize>,
    own: AtomicUsize,
}

impl Kept {
    /// Whether there is room for so much more.
    fn take(&self, bytes: usize) -> bool {
        let before = self.all.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > KEPT_BYTES_MAX {
            self.all.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.own.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    fn give_back(&self, bytes: usize) {
        self.all.fetch_sub(bytes, Ordering::Relaxed);
        self.own.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.all.fetch_sub(*self.own.get_mut(), Ordering::Relaxed);
    }
}

impl Text {
    /// Of objects or of their metadata.
    pub(super) fn new(kind: KindRef, form: Form, page: Page) -> Self {
        Self::sharing(kind, form, page, Arc::default())
    }

    fn sharing(kind: KindRef, form: Form, page: Page, all: Arc<AtomicUsize>) -> Self {
        let head = head(&kind, form, &page);
        let items = page.items;
        let (mut cuts, mut bytes, mut length) = (vec![0], head.len(), head.len());
        for (place, item) in items.iter().enumerate() {
            if bytes >= PIECE_BYTES {
                cuts.push(place);
                bytes = 0;
            }
            bytes += item.len();
            length += item.len();
        }
        let pieces = cuts.iter().map(|_| OnceLock::new()).collect();
        Self {
            kind,
            form,
            head,
            items,
            cuts,
            pieces,
            length,
            kept: Kept { all, own: AtomicUsize::new(0) },
        }
    }

    /// One of its pieces, kept if others will want it; `None` behind the last.
    ///
    /// # Errors
    /// An item that cannot be read; each has been before.
    pub(super) fn piece(&self, at: usize, keep: bool) -> Result<Option<Bytes>, Status> {
        let Some(place) = self.pieces.get(at) else { return Ok(None) };
        if let Some(piece) = place.get() {
            return Ok(Some(piece.clone()));
        }
        let piece = Bytes::from(self.write(at)?);
        if keep && self.kept.take(piece.len()) && place.set(piece.clone()).is_err() {
            // Another list has made it meanwhile.
            self.kept.give_back(piece.len());
        }
        Ok(Some(piece))
    }

    fn write(&self, at: usize) -> Result<Vec<u8>, Status> {
        let from = self.cuts.get(at).copied().unwrap_or_default();
        let to = self.cuts.get(at + 1).copied().unwrap_or(self.items.len());
        let items = self.items.get(from..to).unwrap_or_default();
        let bytes: usize = items.iter().map(|item| item.len() + 1).sum();
        let mut out = Vec::with_capacity(bytes + self.head.len() + 4);
        if at == 0 {
            out.extend_from_slice(&self.head);
        }
        for (place, item) in items.iter().enumerate() {
            if from + place > 0 {
                out.push(b',');
            }
            match self.form {
                Form::Metadata => {
                    item.write_metadata_at(&self.kind, item.kv().mod_revision, &mut out)?;
                }
                Form::Object | Form::Table(_) => item.write(&self.kind, &mut out)?,
            }
        }
        if at + 1 == self.cuts.len() {
            out.extend_from_slice(b"]}\n");
        }
        Ok(out)
    }
}

/// What is asked for: the kind's group, version and plural, the namespace, the parameters, and whether only
/// metadata is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    kind: (&'static str, &'static str, &'static str),
    namespace: String,
    query: Query,
    metadata: bool,
}

/// Those who have asked for the same.
#[derive(Debug, Default)]
struct Group {
    text: OnceCell<Text>,
}

/// The long lists that are waited for.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    waiting: Mutex<BTreeMap<Asked, Arc<Group>>>,
    kept: Arc<AtomicUsize>,
    made: AtomicU64,
    sent: AtomicU64,
}

/// One of those who wait for a text.
pub(super) struct Joined<'a> {
    group: Arc<Group>,
    /// Dropped behind it.
    place: Place<'a>,
}

/// Where those who ask for the same meet.
struct Place<'a> {
    texts: &'a Texts,
    asked: Asked,
}

/// One list of a text that several may send.
#[derive(Debug)]
pub(super) struct Sent {
    group: Arc<Group>,
    at: usize,
}

impl Texts {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Asked, Arc<Group>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a list beside all who ask for the same; `None` for what is made for each. To be called
    /// before anything is waited for: what is read then is at least as new as when this was called.
    pub(super) fn join(
        &self,
        kind: &Kind,
        namespace: &str,
        query: &Query,
        form: Form,
    ) -> Option<Joined<'_>> {
        let metadata = match form {
            Form::Object => false,
            Form::Metadata => true,
            Form::Table(_) => return None,
        };
        // A definition may have changed what its name means.
        if !shows_as_stored(kind) {
            return None;
        }
        let asked = Asked {
            kind: (kind.group, kind.version, kind.plural),
            namespace: namespace.to_owned(),
            query: query.clone(),
            metadata,
        };
        let group = Arc::clone(self.waiting().entry(asked.clone()).or_default());
        Some(Joined { group, place: Place { texts: self, asked } })
    }

    /// What is counted, in Prometheus' text form.
    pub(crate) fn render(&self) -> String {
        let mut page = String::new();
        for (name, help, value) in [
            ("made", "Texts of long lists that were made.", &self.made),
            ("sent", "Long lists that were sent from these.", &self.sent),
        ] {
            let value = value.load(Ordering::Relaxed);
            let _ = writeln!(
                page,
                "# HELP trireme_list_texts_{name}_total {help}\n\
                 # TYPE trireme_list_texts_{name}_total counter\n\
                 trireme_list_texts_{name}_total {value}"
            );
        }
        page
    }
}

impl Joined<'_> {
    /// The text, made by whoever comes to this first.
    ///
    /// # Errors
    /// Those of `read`; the next one then reads again.
    pub(super) async fn text(
        self,
        kind: &KindRef,
        form: Form,
        read: impl Future<Output = Result<Page, Status>>,
    ) -> Result<Sent, Status> {
        let Self { place, group } = &self;
        let make = move || async move {
            // From here on, who asks may have seen more than what is read.
            place.close(group);
            let page = read.await?;
            place.texts.made.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Status>(Text::sharing(kind.clone(), form, page, Arc::clone(&place.texts.kept)))
        };
        group.text.get_or_try_init(make).await?;
        place.texts.sent.fetch_add(1, Ordering::Relaxed);
        Ok(Sent { group: Arc::clone(group), at: 0 })
    }
}

impl Place<'_> {
    /// Nobody else joins.
    fn close(&self, group: &Arc<Group>) {
        let mut waiting = self.texts.waiting();
        if waiting.get(&self.asked).is_some_and(|found| Arc::ptr_eq(found, group)) {
            waiting.remove(&self.asked);
        }
    }
}

impl Drop for Place<'_> {
    /// Behind the group's own: where nobody waits, nothing is kept.
    fn drop(&mut self) {
        let mut waiting = self.texts.waiting();
        if waiting.get(&self.asked).is_some_and(|group| Arc::strong_count(group) == 1) {
            waiting.remove(&self.asked);
        }
    }
}

impl Sent {
    /// Bytes of all of it, about.
    pub(super) fn length(&self) -> usize {
        self.group.text.get().map_or(0, |text| text.length)
    }

    /// The next piece; `None` behind the last.
    ///
    /// # Errors
    /// As [`Text::piece`].
    pub(super) fn piece(&mut self) -> Result<Option<Bytes>, Status> {
        let others = Arc::strong_count(&self.group) > 1;
        let piece = self.group.text.get().map_or(Ok(None), |text| text.piece(self.at, others))?;
        self.at += 1;
        Ok(piece)
    }
}
