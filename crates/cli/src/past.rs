//! `history`, `diff` and `undelete`: what objects were, as long as the API keeps it.

use crate::{
    failure::Failure,
    get::unreadable,
    target::{Object, Target},
};
use api::{
    difference::{Change, difference},
    field::Path,
    kinds::{self, Kind},
    meta,
    past::{REVISION_HEADER, Revived, TIME_HEADER, When, forget_owners, revive},
    status::Status,
};
use bytes::Bytes;
use client::{ClientError, refuse};
use http::{HeaderValue, Method, Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

/// Changes of one version that are shown unless all are asked for.
const CHANGES_SHOWN: usize = 20;
/// Characters of one value that are shown unless all are asked for.
const VALUE_CHARS: usize = 120;

/// The moment that an answer shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Moment {
    revision: String,
    time: String,
}

impl Moment {
    fn of(headers: &http::HeaderMap) -> Self {
        let text = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        Self { revision: text(REVISION_HEADER), time: text(TIME_HEADER) }
    }

    /// From a part of an `ObjectHistory`.
    fn read(value: &Value) -> Self {
        let revision = text(value, "/revision").to_owned();
        Self { revision, time: text(value, "/time").to_owned() }
    }

    fn to_json(&self) -> Value {
        let time = Some(&self.time).filter(|time| !time.is_empty());
        json!({"revision": self.revision, "time": time})
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "revision {}", self.revision)?;
        if self.time.is_empty() { Ok(()) } else { write!(f, " ({})", self.time) }
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A moment as a user writes it, or what is wrong with it.
pub(crate) fn checked(option: &str, written: &str) -> Result<(), Failure> {
    When::parse(written).map(drop).map_err(|wrong| Failure::Input(format!("{option}: {wrong}")))
}

/// Reads something, and says which moment it shows.
pub(crate) async fn read(
    target: &Target,
    path: &str,
    accept: &'static str,
) -> Result<(Value, Moment), Failure> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = path.parse().map_err(|e| Failure::Input(format!("{path}: {e}")))?;
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
    let answer = refuse(target.client.request(request).await?).await?;
    let moment = Moment::of(answer.headers());
    let bytes = answer.into_body().collect().await.map_err(unreadable)?.to_bytes();
    Ok((serde_json::from_slice(&bytes).map_err(unreadable)?, moment))
}

fn path(target: &Target, object: &Object) -> String {
    let namespace = if object.kind.namespaced { object.namespace.as_str() } else { "" };
    target.path(object.kind, namespace, &object.name)
}

fn title(object: &Object) -> String {
    let own = format!("{}/{}", object.kind.singular, object.name);
    if object.kind.namespaced { format!("{own} in {}", object.namespace) } else { own }
}

/// An object at some moment, and what the API says if it was not there.
async fn at(
    target: &Target,
    object: &Object,
    when: &str,
) -> Result<Result<(Value, Moment), Status>, Failure> {
    let query = client::encode(&[("at", when)]);
    match read(target, &format!("{}{query}", path(target, object)), "application/json").await {
        Ok(found) => Ok(Ok(found)),
        Err(Failure::Client(ClientError::Api(status))) if status.is_not_found() => Ok(Err(status)),
        Err(failure) => Err(failure),
    }
}

/// How values are shown.
#[derive(Debug, Clone, Copy)]
struct Style {
    /// What is secret is not for a screen.
    secret: bool,
    full: bool,
}

fn value_text(value: &Value, path: &str, style: Style) -> String {
    let data = path == "data" || path.starts_with("data.") || path.starts_with("data[");
    if style.secret && data {
        return match (value.as_str(), value.as_object()) {
            (Some(text), _) => format!("{} bytes", text.trim_end_matches('=').len() * 3 / 4),
            (None, keys) => format!("{} keys", keys.map_or(0, serde_json::Map::len)),
        };
    }
    let text = value.to_string();
    if style.full || text.chars().count() <= VALUE_CHARS {
        return text;
    }
    let cut: String = text.chars().take(VALUE_CHARS).collect();
    format!("{cut}… ({} bytes)", text.len())
}

fn line(change: &Change, style: Style) -> String {
    let path = if change.path.is_empty() { "(all of it)" } else { change.path.as_str() };
    let shown = |value: &Value| value_text(value, &change.path, style);
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => {
            let (before, after) = (shown(old), shown(new));
            // Two secrets of one length are two all the same.
            let same = if before == after { ", otherwise" } else { "" };
            format!("{path}: {before} → {after}{same}")
        }
        (None, Some(new)) => format!("{path}: + {}", shown(new)),
        (Some(old), None) => format!("{path}: - {}", shown(old)),
        (None, None) => path.to_owned(),
    }
}

fn lines(changes: &[Change], style: Style) -> Vec<String> {
    let shown = if style.full { changes.len() } else { CHANGES_SHOWN };
    let mut lines: Vec<String> = changes.iter().take(shown).map(|c| line(c, style)).collect();
    let more = changes.len().saturating_sub(shown);
    if more > 0 {
        lines.push(format!("… and {more} more (--full)"));
    }
    lines
}

fn changes_json(changes: &[Change]) -> Value {
    let one = |c: &Change| json!({"path": c.path, "old": c.old, "new": c.new});
    changes.iter().map(one).collect()
}

fn style(kind: &Kind, full: bool) -> Style {
    Style { secret: kind.kind == "Secret", full }
}

/// Prints text, or an object as JSON.
fn put(output: &str, text: String, json: &Value) -> Result<(), Failure> {
    match output {
        "" => print!("{text}"),
        "json" => println!("{}", serde_json::to_string_pretty(json).map_err(unreadable)?),
        other => return Err(Failure::Input(format!("-o {other}: there is json"))),
    }
    Ok(())
}

/// `diff`
pub(crate) async fn diff(
    target: &Target,
    object: &Object,
    from: &str,
    to: Option<&str>,
    full: bool,
    output: &str,
) -> Result<(), Failure> {
    let (text, json) = compared(target, object, from, to, full).await?;
    put(output, text, &json)
}

async fn compared(
    target: &Target,
    object: &Object,
    from: &str,
    to: Option<&str>,
    full: bool,
) -> Result<(String, Value), Failure> {
    checked("--from", from)?;
    // Without another moment, as it is now; the same call tells which revision that is.
    let to = to.unwrap_or("0s");
    checked("--to", to)?;
    let old = at(target, object, from).await?;
    let new = at(target, object, to).await?;
    let title = title(object);
    let (summary, changes, moments) = match (old, new) {
        (Err(then), Err(now)) if then.message == now.message => {
            return Err(Failure::Refused(then.message));
        }
        (Err(then), Err(now)) => {
            return Err(Failure::Refused(format!("{}; {}", then.message, now.message)));
        }
        (Err(then), Ok((new, moment))) => {
            let change = Change { path: String::new(), old: None, new: Some(new) };
            (then.message, vec![change], (Moment::default(), moment))
        }
        (Ok((old, moment)), Err(then)) => {
            let change = Change { path: String::new(), old: Some(old), new: None };
            (then.message, vec![change], (moment, Moment::default()))
        }
        (Ok((old, before)), Ok((new, after))) => {
            let replaced = meta::uid(&old) != meta::uid(&new);
            let changes = difference(&old, &new);
            let what = match changes.len() {
                0 => "nothing differs".to_owned(),
                1 => "1 field differs".to_owned(),
                count => format!("{count} fields differ"),
            };
            let replaced = if replaced { ", and it is another object of that name" } else { "" };
            (format!("{before} → {after}: {what}{replaced}"), changes, (before, after))
        }
    };
    let mut screen = format!("{title}: {summary}\n");
    for line in lines(&changes, style(object.kind, full)) {
        screen.push_str(&format!("  {line}\n"));
    }
    let json = json!({
        "object": format!("{}/{}", object.kind.singular, object.name),
        "from": moments.0.to_json(), "to": moments.1.to_json(), "changes": changes_json(&changes),
    });
    Ok((screen, json))
}

async fn fetch_history(target: &Target, object: &Object, limit: &str) -> Result<Value, Failure> {
    let query = client::encode(&[("history", "true"), ("limit", limit)]);
    let path = format!("{}{query}", path(target, object));
    Ok(target.client.call::<Value>(Method::GET, &path, None).await?)
}

/// `history`
pub(crate) async fn history(
    target: &Target,
    object: &Object,
    limit: u32,
    full: bool,
    output: &str,
) -> Result<(), Failure> {
    // One more, so that the first that is shown can be compared with what was before.
    let found = fetch_history(target, object, &limit.saturating_add(1).to_string()).await?;
    let shown = versions(&found, usize::try_from(limit).unwrap_or(usize::MAX));
    put(output, told(object, &found, &shown, full), &as_json(object, &found, &shown))
}

/// One version, and what it changed.
struct Shown {
    at: Moment,
    /// `created`, `changed`, `deletion asked for`, `deleted`, or that it is from before what is kept.
    what: &'static str,
    by: Vec<String>,
    changes: Vec<Change>,
}

fn versions(history: &Value, limit: usize) -> Vec<Shown> {
    let all = history.get("versions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut before: Option<&Value> = None;
    let mut shown = Vec::new();
    for version in all {
        let object = version.get("object").filter(|object| !object.is_null());
        let created = version.get("created") == Some(&Value::Bool(true));
        let (what, by, changes) = match (before, object) {
            (_, None) => ("deleted", Vec::new(), Vec::new()),
            (_, Some(new)) if created => ("created", writers(&Value::Null, new), Vec::new()),
            (None, Some(new)) => {
                ("the first form that is kept", writers(&Value::Null, new), Vec::new())
            }
            (Some(old), Some(new)) => {
                let asked = meta::is_terminating(new) && !meta::is_terminating(old);
                let what = if asked { "deletion asked for" } else { "changed" };
                (what, writers(old, new), difference(old, new))
            }
        };
        shown.push(Shown { at: Moment::read(version), what, by, changes });
        before = object;
    }
    let first = shown.len().saturating_sub(limit);
    shown.drain(..first);
    shown
}

/// The managers who wrote: whose time is another, or who have fields that they had not. Whose fields became fewer
/// was only overwritten.
fn writers(old: &Value, new: &Value) -> Vec<String> {
    let entries = |object: &Value| {
        let list = object.pointer("/metadata/managedFields").and_then(Value::as_array).cloned();
        list.unwrap_or_default()
    };
    let before = entries(old);
    let none = Value::Null;
    let own = ["/manager", "/operation", "/subresource"];
    let is_same = |a: &Value, b: &Value| own.iter().all(|part| text(a, part) == text(b, part));
    let wrote = |entry: &Value| {
        before.iter().find(|old| is_same(old, entry)).is_none_or(|old| {
            text(old, "/time") != text(entry, "/time")
                || gained(
                    old.get("fieldsV1").unwrap_or(&none),
                    entry.get("fieldsV1").unwrap_or(&none),
                )
        })
    };
    let named = entries(new).into_iter().filter(wrote).map(|entry| {
        let operation = text(&entry, "/operation").to_lowercase();
        match text(&entry, "/subresource") {
            "" => format!("{} ({operation})", text(&entry, "/manager")),
            subresource => format!("{} ({operation} of {subresource})", text(&entry, "/manager")),
        }
    });
    named.collect()
}

/// Whether a set of fields has one that the other has not.
fn gained(old: &Value, new: &Value) -> bool {
    let fields = new.as_object().into_iter().flatten();
    fields.into_iter().any(|(name, inner)| old.get(name).is_none_or(|old| gained(old, inner)))
}

fn told(object: &Object, history: &Value, shown: &[Shown], full: bool) -> String {
    let oldest = Moment::read(history.get("oldest").unwrap_or(&Value::Null));
    let mut screen = format!("{}: history is kept since {oldest}\n", title(object));
    let style = style(object.kind, full);
    let left_out = left_out(history, shown);
    if left_out > 0 {
        screen.push_str(&format!("({left_out} older versions are kept: --limit)\n"));
    }
    for Shown { at, what, by, changes } in shown {
        let by = match by.as_slice() {
            // What scheduler, controllers and nodes write is tracked for nobody.
            [] if *what == "deleted" => String::new(),
            [] => ", by a part of Trireme or somebody who is not recorded".to_owned(),
            names => format!(", by {}", names.join(" and ")),
        };
        screen.push_str(&format!("\n{at}: {what}{by}\n"));
        for line in lines(changes, style) {
            screen.push_str(&format!("  {line}\n"));
        }
    }
    screen
}

fn left_out(history: &Value, shown: &[Shown]) -> u64 {
    let sent = history.get("versions").and_then(Value::as_array).map_or(0, Vec::len);
    let older = history.get("leftOut").and_then(Value::as_u64).unwrap_or_default();
    older.saturating_add(sent.saturating_sub(shown.len()) as u64)
}

fn as_json(object: &Object, history: &Value, shown: &[Shown]) -> Value {
    let versions = shown.iter().map(|version| {
        let mut json = version.at.to_json();
        if let Some(fields) = json.as_object_mut() {
            fields.insert("what".to_owned(), version.what.into());
            fields.insert("by".to_owned(), version.by.clone().into());
            fields.insert("changes".to_owned(), changes_json(&version.changes));
        }
        json
    });
    json!({
        "object": format!("{}/{}", object.kind.singular, object.name),
        "oldest": history.get("oldest"), "leftOut": left_out(history, shown),
        "versions": versions.collect::<Vec<_>>(),
    })
}

/// `undelete`
pub(crate) async fn undelete(
    target: &Target,
    object: &Object,
    when: Option<&str>,
    dry_run: bool,
    output: &str,
) -> Result<(), Failure> {
    let (text, json) = made_again(target, object, when, dry_run).await?;
    put(output, text, &json)
}

async fn made_again(
    target: &Target,
    object: &Object,
    when: Option<&str>,
    dry_run: bool,
) -> Result<(String, Value), Failure> {
    let (last, moment) = match when {
        None => last_form(target, object).await?,
        Some(when) => {
            checked("--at", when)?;
            at(target, object, when).await?.map_err(|status| Failure::Refused(status.message))?
        }
    };
    let mut revived = revive(object.kind, &last);
    let there = owners_there(target, &last).await?;
    forget_owners(&mut revived, |owner| there.contains(&text(owner, "/uid").to_owned()));
    let created = create(target, object, &mut revived, dry_run).await?;
    let name = format!("{}/{}", object.kind.singular, object.name);
    let done = if dry_run { "would be made again" } else { "is made again" };
    let uid = if dry_run { String::new() } else { format!(", with uid {}", meta::uid(&created)) };
    let mut screen = format!("{name} {done} as it was at {moment}{uid}\n");
    screen.push_str("what does not come back:\n");
    for lost in &revived.lost {
        screen.push_str(&format!("  {lost}\n"));
    }
    let json = json!({
        "object": name, "from": moment.to_json(), "dryRun": dry_run, "lost": revived.lost,
        "created": created,
    });
    Ok((screen, json))
}

/// The last form of an object that is gone, before its deletion was asked for if that is kept.
async fn last_form(target: &Target, object: &Object) -> Result<(Value, Moment), Failure> {
    let history = fetch_history(target, object, "0").await?;
    let name = format!("{}/{}", object.kind.singular, object.name);
    let versions = history.get("versions").and_then(Value::as_array).cloned().unwrap_or_default();
    let form = |version: &Value| version.get("object").filter(|o| !o.is_null()).cloned();
    if let Some(now) = versions.last().and_then(form) {
        return Err(Failure::Refused(if meta::is_terminating(&now) {
            format!("{name} is still on its way out: trireme why-terminating {name}")
        } else {
            format!(
                "{name} is there; to bring an earlier form back: trireme get {} {} --at WHEN -o yaml",
                object.kind.singular, object.name
            )
        }));
    }
    let forms: Vec<(Value, Moment)> = versions
        .iter()
        .filter_map(|version| Some((form(version)?, Moment::read(version))))
        .collect();
    let last = forms.last().map(|(last, _)| meta::uid(last).to_owned()).unwrap_or_default();
    // Not of a namesake that was there before.
    let whole =
        |(form, _): &&(Value, Moment)| meta::uid(form) == last && !meta::is_terminating(form);
    let best = forms.iter().rev().find(whole).or_else(|| forms.last());
    best.cloned().ok_or_else(|| {
        let oldest = Moment::read(history.get("oldest").unwrap_or(&Value::Null));
        Failure::Refused(format!("{name} was deleted before {oldest}, since when history is kept"))
    })
}

/// UIDs of the owners that are there.
async fn owners_there(target: &Target, object: &Value) -> Result<Vec<String>, Failure> {
    let mut there = Vec::new();
    for owner in meta::owner_references(object) {
        let Some(kind) = kinds::by_kind(text(owner, "/apiVersion"), text(owner, "/kind")) else {
            continue;
        };
        let namespace = if kind.namespaced { meta::namespace(object) } else { "" };
        let path = target.path(kind, namespace, text(owner, "/name"));
        match target.client.call::<Value>(Method::GET, &path, None).await {
            Ok(found) if meta::uid(&found) == text(owner, "/uid") => {
                there.push(meta::uid(&found).to_owned());
            }
            Ok(_) => {}
            Err(ClientError::Api(status)) if status.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(there)
}

/// Creates it; a Service whose address somebody else has by now, with another one.
async fn create(
    target: &Target,
    object: &Object,
    revived: &mut Revived,
    dry_run: bool,
) -> Result<Value, Failure> {
    let namespace = if object.kind.namespaced { object.namespace.as_str() } else { "" };
    let dry = if dry_run { "All" } else { "" };
    let query = client::encode(&[("fieldManager", "trireme-undelete"), ("dryRun", dry)]);
    let path = format!("{}{query}", target.path(object.kind, namespace, ""));
    let send = async |object: &Value| {
        let body = object.to_string().into_bytes();
        target.client.call::<Value>(Method::POST, &path, Some(body)).await
    };
    let address = Path::new("spec").child("clusterIPs").index(0).to_string();
    match send(&revived.object).await {
        Err(ClientError::Api(status))
            if object.kind.kind == "Service"
                && status.is_invalid()
                && status.message.contains(&address) =>
        {
            let old = text(&revived.object, "/spec/clusterIP").to_owned();
            if let Some(spec) = revived.object.get_mut("spec").and_then(Value::as_object_mut) {
                spec.remove("clusterIP");
                spec.remove("clusterIPs");
            }
            revived.lost.push(format!("its address {old}, which another Service has by now"));
            Ok(send(&revived.object).await?)
        }
        created => Ok(created?),
    }
}

#[cfg(test)]
mod tests;
