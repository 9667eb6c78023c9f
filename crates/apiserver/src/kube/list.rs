//! Lists, written piece by piece as they are read: a reader that is slow costs one piece and no more.

use super::{
    Kube, Query, Target,
    answer::{self, Form, Format},
    gzip::Length,
    selection,
};
use crate::{
    flow::{Asker, Seat},
    registry::{Page, Stored},
};
use api::{
    field::{FieldError, Path},
    kinds::{Kind, KindRef},
    status::Status,
    table::{IncludeObject, table},
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use futures::stream;
use serde_json::{Value, json};
use std::io;

/// Bytes of a piece, about: some 50 µs of work.
pub(super) const PIECE_BYTES: usize = 64 << 10;
/// Rows of a table in a piece: each must be read as a value, some 30 µs.
const PIECE_ROWS: usize = 32;

pub(super) async fn answer(
    kube: &Kube,
    target: &Target,
    query: &Query,
    format: Format,
    asker: &Asker,
) -> Result<Response, Status> {
    let selection = selection(target, query)?;
    let (kind, registry) = (&target.kind, &kube.registry);
    if query.contains_key("sendInitialEvents") {
        let path = Path::new("sendInitialEvents");
        let error = FieldError::forbidden(&path, "sendInitialEvents is forbidden for list");
        return Err(Status::invalid_named("meta.k8s.io", "ListOptions", "", &[error]));
    }
    let cost = registry.cost(kind, &target.namespace, &selection);
    let seat = kube.flow.list(asker, cost).await?;
    let page = registry.page(kind.stored(), &target.namespace, &selection).await?;
    let list = Listing::new(kind.clone(), format.form, page, registry.now(), seat);
    if format.yaml {
        return in_yaml(list).await;
    }
    let length = list.length;
    let body = if length <= PIECE_BYTES { list.whole()?.into() } else { list.in_pieces() };
    let mut response = Response::new(body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response.extensions_mut().insert(Length(length));
    Ok(response)
}

/// A list on its way out.
struct Listing {
    kind: KindRef,
    form: Form,
    now: i64,
    /// What stands before the items, until it is written.
    head: Option<Vec<u8>>,
    items: std::vec::IntoIter<Stored>,
    /// An item has been written.
    begun: bool,
    done: bool,
    seat: Option<Seat>,
    /// Bytes of all of it, about.
    length: usize,
}

impl Listing {
    fn new(kind: KindRef, form: Form, page: Page, now: i64, seat: Option<Seat>) -> Self {
        let length = page.items.iter().map(Stored::len).sum();
        let head = Some(head(&kind, form, &page));
        let items = page.items.into_iter();
        Self { kind, form, now, head, items, begun: false, done: false, seat, length }
    }

    /// The next piece; `None` behind the last.
    fn piece(&mut self) -> Result<Option<Vec<u8>>, Status> {
        if self.done {
            return Ok(None);
        }
        let mut out = self.head.take().unwrap_or_default();
        out.reserve(PIECE_BYTES.min(self.length) + 1024);
        if let Form::Table(include) = self.form {
            let rows = self.items.by_ref().take(PIECE_ROWS);
            let rows = rows.map(|item| item.value(&self.kind)).collect::<Result<Vec<_>, _>>()?;
            self.done = rows.len() < PIECE_ROWS;
            for row in table_rows(self.kind.stored(), &rows, include, self.now) {
                if std::mem::replace(&mut self.begun, true) {
                    out.push(b',');
                }
                serde_json::to_writer(&mut out, &row).map_err(Status::internal)?;
            }
        } else {
            while out.len() < PIECE_BYTES {
                let Some(item) = self.items.next() else {
                    self.done = true;
                    break;
                };
                if std::mem::replace(&mut self.begun, true) {
                    out.push(b',');
                }
                match self.form {
                    Form::Metadata => {
                        item.write_metadata_at(&self.kind, item.kv().mod_revision, &mut out)?;
                    }
                    Form::Object | Form::Table(_) => item.write(&self.kind, &mut out)?,
                }
            }
        }
        if self.done {
            out.extend_from_slice(b"]}\n");
        }
        Ok(Some(out))
    }

    fn whole(mut self) -> Result<Vec<u8>, Status> {
        let mut all = self.piece()?.unwrap_or_default();
        while let Some(piece) = self.piece()? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    fn in_pieces(self) -> Body {
        Body::from_stream(stream::unfold(self, async |mut list| {
            if let Some(seat) = &mut list.seat {
                seat.go_on().await;
            }
            match list.piece() {
                Ok(piece) => Some((Ok(Bytes::from(piece?)), list)),
                Err(status) => {
                    // Every item has been read before; the client sees an answer without an end.
                    tracing::error!(%status, "a list that had begun");
                    list.done = true;
                    Some((Err(io::Error::other(status)), list))
                }
            }
        }))
    }
}

/// What stands before the items; the list's name is the first that a reader needs.
fn head(kind: &Kind, form: Form, page: &Page) -> Vec<u8> {
    let mut list_meta = json!({"resourceVersion": page.revision.to_string()});
    if let Some(fields) = list_meta.as_object_mut() {
        if !page.continue_token.is_empty() {
            fields.insert("continue".to_owned(), page.continue_token.clone().into());
        }
        if let Some(remaining) = page.remaining {
            fields.insert("remainingItemCount".to_owned(), remaining.into());
        }
    }
    let (name, version, columns) = match form {
        Form::Object => (kind.list_kind(), kind.api_version(), None),
        Form::Metadata => {
            ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned(), None)
        }
        Form::Table(include) => {
            let empty = table(kind.stored(), [], include, Value::Null, 0);
            let columns = empty.get("columnDefinitions").cloned().unwrap_or_default();
            ("Table".to_owned(), "meta.k8s.io/v1".to_owned(), Some(columns))
        }
    };
    let (name, version) = (Value::from(name), Value::from(version));
    let mut head = format!("{{\"kind\":{name},\"apiVersion\":{version},\"metadata\":{list_meta}");
    match columns {
        Some(columns) => head += &format!(",\"columnDefinitions\":{columns},\"rows\":["),
        None => head += ",\"items\":[",
    }
    head.into_bytes()
}

fn table_rows(kind: &Kind, objects: &[Value], include: IncludeObject, now: i64) -> Vec<Value> {
    match table(kind, objects, include, Value::Null, now).get_mut("rows").map(Value::take) {
        Some(Value::Array(rows)) => rows,
        Some(_) | None => Vec::new(),
    }
}

/// Made in one piece, and therefore not among those who serve others.
async fn in_yaml(list: Listing) -> Result<Response, Status> {
    let made = world::blocking(move || {
        let value: Value = serde_json::from_slice(&list.whole()?).map_err(Status::internal)?;
        serde_yaml_ng::to_string(&value).map_err(Status::internal)
    });
    let text = made.await.map_err(Status::internal)??;
    Ok(answer::yaml(StatusCode::OK, text))
}
