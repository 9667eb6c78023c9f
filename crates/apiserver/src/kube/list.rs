//! Lists, written piece by piece as they are read: a reader that is slow costs one piece and no more.

use super::{
    Kube, Query, Target,
    answer::{self, Form, Format},
    gzip::Length,
    selection,
    texts::{Sent, Text},
};
use crate::{
    flow::{Asker, Flow, Seat, Turns},
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
    // Before anything is waited for: what is waited for together is read once.
    let shares = Flow::is_long(cost) && !format.yaml;
    let joined =
        if shares { kube.texts.join(kind, &target.namespace, query, format.form) } else { None };
    let seat = kube.flow.list(asker, cost).await?;
    let page = registry.page(kind.stored(), &target.namespace, &selection);
    let pieces = match (joined, format.form) {
        (Some(joined), form) => Pieces::Shared(joined.text(kind, form, page).await?),
        (None, Form::Table(include)) => {
            Pieces::Rows(Rows::new(kind.clone(), include, page.await?, registry.now()))
        }
        (None, form) => Pieces::Own(Text::new(kind.clone(), form, page.await?), 0),
    };
    let list = Listing { pieces, seat, turns: kube.flow.turns() };
    if format.yaml {
        return in_yaml(list).await;
    }
    let length = list.pieces.length();
    let body = if length <= PIECE_BYTES { list.whole()?.into() } else { list.in_pieces() };
    let mut response = Response::new(body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response.extensions_mut().insert(Length(length));
    Ok(response)
}

/// A list on its way out.
struct Listing {
    pieces: Pieces,
    seat: Option<Seat>,
    turns: Turns,
}

/// What a list is made of.
enum Pieces {
    /// Text that is for others, too.
    Shared(Sent),
    /// Text of its own, and the next piece.
    Own(Text, usize),
    Rows(Rows),
}

impl Pieces {
    /// Bytes of all of it, about.
    fn length(&self) -> usize {
        match self {
            Self::Shared(sent) => sent.length(),
            Self::Own(text, _) => text.length,
            Self::Rows(rows) => rows.length,
        }
    }

    /// The next; `None` behind the last.
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        match self {
            Self::Shared(sent) => sent.piece(),
            Self::Own(text, at) => {
                let piece = text.piece(*at, false)?;
                *at += 1;
                Ok(piece)
            }
            Self::Rows(rows) => Ok(rows.piece()?.map(Bytes::from)),
        }
    }
}

impl Listing {
    fn whole(mut self) -> Result<Vec<u8>, Status> {
        let mut all = Vec::new();
        while let Some(piece) = self.pieces.next()? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    fn in_pieces(self) -> Body {
        Body::from_stream(stream::unfold(Some(self), async |list| {
            let mut list = list?;
            list.turns.next().await;
            if let Some(seat) = &mut list.seat {
                seat.go_on().await;
            }
            match list.pieces.next() {
                Ok(piece) => Some((Ok(piece?), Some(list))),
                Err(status) => {
                    // Every item has been read before; the client sees an answer without an end.
                    tracing::error!(%status, "a list that had begun");
                    Some((Err(io::Error::other(status)), None))
                }
            }
        }))
    }
}

/// A list as a table.
struct Rows {
    kind: KindRef,
    include: IncludeObject,
    now: i64,
    /// What stands before the rows, until it is written.
    head: Option<Vec<u8>>,
    items: std::vec::IntoIter<Stored>,
    /// A row has been written.
    begun: bool,
    done: bool,
    /// Bytes of all of it, about.
    length: usize,
}

impl Rows {
    fn new(kind: KindRef, include: IncludeObject, page: Page, now: i64) -> Self {
        let length = page.items.iter().map(Stored::len).sum();
        let head = Some(head(&kind, Form::Table(include), &page));
        let items = page.items.into_iter();
        Self { kind, include, now, head, items, begun: false, done: false, length }
    }

    /// The next piece; `None` behind the last.
    fn piece(&mut self) -> Result<Option<Vec<u8>>, Status> {
        if self.done {
            return Ok(None);
        }
        let mut out = self.head.take().unwrap_or_default();
        out.reserve(PIECE_BYTES.min(self.length) + 1024);
        let rows = self.items.by_ref().take(PIECE_ROWS);
        let rows = rows.map(|item| item.value(&self.kind)).collect::<Result<Vec<_>, _>>()?;
        self.done = rows.len() < PIECE_ROWS;
        for row in table_rows(self.kind.stored(), &rows, self.include, self.now) {
            if std::mem::replace(&mut self.begun, true) {
                out.push(b',');
            }
            serde_json::to_writer(&mut out, &row).map_err(Status::internal)?;
        }
        if self.done {
            out.extend_from_slice(b"]}\n");
        }
        Ok(Some(out))
    }
}

/// What stands before the items; the list's name is the first that a reader needs.
pub(super) fn head(kind: &Kind, form: Form, page: &Page) -> Vec<u8> {
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
