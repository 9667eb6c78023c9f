//! The requests of a workload: encoded once, with the place where the key goes.

use crate::wire::{CallError, Connection, frame, path};
use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use etcd::proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, compare,
    request_op,
};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

/// Every key of a benchmark begins so.
pub(crate) const PREFIX: &str = "trireme-bench/";
/// First key after all of them.
const PREFIX_END: &str = "trireme-bench0";
/// Digits of a key's number.
const DIGITS: usize = 8;
/// Stands in a template where a key's number goes.
const PLACEHOLDER: &str = "########";
/// Keys written by one transaction while a key space is filled; etcd takes 128 operations.
pub(crate) const FILL_BATCH: u64 = 100;
/// Transactions under way while a key space is filled.
const FILL_CLIENTS: u64 = 32;

/// What a unary request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Writes a key.
    Put,
    /// Reads a key.
    Get {
        /// From the member's own state, without asking whether it is the latest.
        serializable: bool,
    },
    /// Reads a page.
    Page {
        /// Keys of a page.
        limit: u32,
        /// Only how many keys there are from the page's first to the end.
        count_only: bool,
    },
    /// Reads a key and writes it if it is there, in one transaction.
    Txn,
}

/// The keys that a workload touches, and how large their values are.
#[derive(Debug, Clone, Copy)]
pub struct KeySpace {
    /// How many keys.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
}

/// The number `index` as it stands in a key.
fn digits(index: u64) -> [u8; DIGITS] {
    let mut text = [b'0'; DIGITS];
    let mut left = index;
    for place in text.iter_mut().rev() {
        *place = b'0' + u8::try_from(left % 10).unwrap_or_default();
        left /= 10;
    }
    text
}

/// A key of the space.
pub(crate) fn key(index: u64) -> Bytes {
    let mut key = BytesMut::from(PREFIX.as_bytes());
    key.extend_from_slice(&digits(index));
    key.freeze()
}

/// Bytes that do not compress, the same in each run.
pub(crate) fn value(bytes: usize) -> Bytes {
    let mut rng = SmallRng::seed_from_u64(256);
    // Letters, so that a template's placeholder cannot be among them.
    (0..bytes).map(|_| rng.random_range(b'a'..=b'z')).collect::<Vec<u8>>().into()
}

fn placeholder_key() -> Bytes {
    Bytes::from(format!("{PREFIX}{PLACEHOLDER}"))
}

/// An encoded request in which only the key changes.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    frame: Bytes,
    /// Offsets of the key's number.
    at: Vec<usize>,
}

impl Template {
    fn new(message: &impl prost::Message) -> Self {
        let frame = frame(message);
        let windows = frame.windows(DIGITS).enumerate();
        let at = windows.filter(|(_, w)| *w == PLACEHOLDER.as_bytes()).map(|(at, _)| at).collect();
        Self { frame, at }
    }

    /// The request for one key.
    pub(crate) fn with(&self, index: u64) -> Bytes {
        let mut bytes = BytesMut::from(&*self.frame);
        for at in &self.at {
            if let Some(place) = bytes.get_mut(*at..at + DIGITS) {
                place.copy_from_slice(&digits(index));
            }
        }
        bytes.freeze()
    }
}

/// One kind of request over a key space.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) kind: Kind,
    pub(crate) path: &'static str,
    template: Template,
    /// Key numbers are drawn from below this.
    choices: u64,
    /// What a drawn number is multiplied with: pages begin at their first keys.
    stride: u64,
}

impl Operation {
    pub(crate) fn new(kind: Kind, space: KeySpace) -> Self {
        let key = placeholder_key();
        let put = || PutRequest {
            key: key.clone(),
            value: value(space.value_bytes),
            ..PutRequest::default()
        };
        let get = || RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let (path, template, stride) = match kind {
            Kind::Put => (path::PUT, Template::new(&put()), 1),
            Kind::Get { serializable } => {
                (path::RANGE, Template::new(&RangeRequest { serializable, ..get() }), 1)
            }
            Kind::Page { limit, count_only } => {
                let page = RangeRequest {
                    range_end: PREFIX_END.into(),
                    limit: i64::from(limit),
                    count_only,
                    ..get()
                };
                (path::RANGE, Template::new(&page), u64::from(limit.max(1)))
            }
            Kind::Txn => {
                let there = Compare {
                    result: compare::CompareResult::Greater.into(),
                    target: compare::CompareTarget::Version.into(),
                    key: key.clone(),
                    target_union: Some(compare::TargetUnion::Version(0)),
                    ..Compare::default()
                };
                let op = |request| RequestOp { request: Some(request) };
                let txn = TxnRequest {
                    compare: vec![there],
                    success: vec![
                        op(request_op::Request::RequestRange(get())),
                        op(request_op::Request::RequestPut(put())),
                    ],
                    failure: Vec::new(),
                };
                (path::TXN, Template::new(&txn), 1)
            }
        };
        let choices = (space.keys / stride).max(1);
        Self { kind, path, template, choices, stride }
    }

    /// A request for a random key of the space.
    pub(crate) fn draw(&self, rng: &mut SmallRng) -> Bytes {
        self.template.with(rng.random_range(0..self.choices) * self.stride)
    }

    /// Makes one request and holds its answer against what it must be.
    ///
    /// # Errors
    /// It fails, or answers something else.
    pub(crate) async fn prove(
        &self,
        connection: &Connection,
        space: KeySpace,
    ) -> anyhow::Result<()> {
        use prost::Message as _;
        let middle = self.choices / 2 * self.stride;
        let answer = connection
            .route(self.path)
            .call(self.template.with(middle))
            .await
            .with_context(|| format!("{:?}", self.kind))?;
        match self.kind {
            Kind::Put => {}
            Kind::Get { .. } => {
                let got = RangeResponse::decode(answer)?;
                let value = got.kvs.first().map(|kv| kv.value.len());
                ensure!(value == Some(space.value_bytes), "a get answered {:?} bytes", value);
            }
            Kind::Page { limit, count_only } => {
                let got = RangeResponse::decode(answer)?;
                let left = space.keys - middle;
                let page = if count_only { 0 } else { left.min(u64::from(limit)) };
                ensure!(
                    got.kvs.len() as u64 == page && u64::try_from(got.count) == Ok(left),
                    "a page of {page} of {left} keys answered {} of {}",
                    got.kvs.len(),
                    got.count
                );
            }
            Kind::Txn => {
                let got = TxnResponse::decode(answer)?;
                ensure!(
                    got.succeeded && got.responses.len() == 2,
                    "a transaction over a key that is there answered {} and {} results",
                    got.succeeded,
                    got.responses.len()
                );
            }
        }
        Ok(())
    }
}

/// How many keys of benchmarks there are.
pub(crate) async fn count(connection: &Connection) -> Result<u64, CallError> {
    let all = RangeRequest {
        key: PREFIX.into(),
        range_end: PREFIX_END.into(),
        count_only: true,
        ..RangeRequest::default()
    };
    let answer: RangeResponse = connection.unary(path::RANGE, &all).await?;
    Ok(u64::try_from(answer.count).unwrap_or_default())
}

/// Writes the keys of the space, if they are not there.
///
/// # Errors
/// More keys than these are there: pages of another length would be measured.
pub(crate) async fn fill(connections: &[Connection], space: KeySpace) -> anyhow::Result<()> {
    let first = connections.first().context("no connection")?;
    let there = count(first).await.context("count the keys that are there")?;
    if there == space.keys {
        return Ok(());
    }
    ensure!(
        there < space.keys,
        "{there} keys below {PREFIX} and not {}: another benchmark left them; delete them with \
         `etcdctl del --prefix {PREFIX}` or ask for as many",
        space.keys
    );
    let mut tasks = tokio::task::JoinSet::new();
    for (client, connection) in (0..FILL_CLIENTS).zip(connections.iter().cycle()) {
        let connection = connection.clone();
        tasks.spawn_local(async move { fill_share(client, &connection, space).await });
    }
    while let Some(result) = tasks.join_next().await {
        result?.context("fill the key space")?;
    }
    Ok(())
}

/// One client's share of [`fill`].
async fn fill_share(
    client: u64,
    connection: &Connection,
    space: KeySpace,
) -> Result<(), CallError> {
    let value = value(space.value_bytes);
    let route = connection.route(path::TXN);
    let batches = space.keys.div_ceil(FILL_BATCH);
    for batch in (client..batches).step_by(usize::try_from(FILL_CLIENTS).unwrap_or(1)) {
        let keys = batch * FILL_BATCH..((batch + 1) * FILL_BATCH).min(space.keys);
        let put = |index| {
            let put = PutRequest { key: key(index), value: value.clone(), ..PutRequest::default() };
            RequestOp { request: Some(request_op::Request::RequestPut(put)) }
        };
        let txn = TxnRequest { success: keys.map(put).collect(), ..TxnRequest::default() };
        route.call_blind(frame(&txn)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PREFIX_BYTES;
    use prost::Message;

    const SPACE: KeySpace = KeySpace { keys: 1000, value_bytes: 256 };

    fn decoded<M: Message + Default>(kind: Kind, index: u64) -> M {
        let frame = Operation::new(kind, SPACE).template.with(index);
        M::decode(frame.slice(PREFIX_BYTES..)).unwrap()
    }

    #[test]
    fn a_template_with_a_number_is_the_request_for_that_key() {
        for index in [0, 7, 12_345_678] {
            let want = key(index);
            assert_eq!(want, format!("trireme-bench/{index:08}"));
            let put: PutRequest = decoded(Kind::Put, index);
            assert_eq!((&put.key, put.value.len()), (&want, 256));
            let get: RangeRequest = decoded(Kind::Get { serializable: true }, index);
            assert_eq!((&get.key, get.serializable, get.range_end.len()), (&want, true, 0));
            let page: RangeRequest = decoded(Kind::Page { limit: 100, count_only: false }, index);
            assert_eq!((&page.key, page.limit), (&want, 100));
            assert!(page.range_end > page.key);
            let txn: TxnRequest = decoded(Kind::Txn, index);
            assert_eq!(txn.compare.first().unwrap().key, want);
            let keys: Vec<Bytes> = txn
                .success
                .into_iter()
                .map(|op| match op.request.unwrap() {
                    request_op::Request::RequestRange(range) => range.key,
                    request_op::Request::RequestPut(put) => put.key,
                    request_op::Request::RequestDeleteRange(_)
                    | request_op::Request::RequestTxn(_) => panic!("neither get nor put"),
                })
                .collect();
            assert_eq!(keys, [want.clone(), want]);
        }
    }

    #[test]
    fn pages_begin_at_their_first_keys() {
        let pages = Operation::new(Kind::Page { limit: 100, count_only: false }, SPACE);
        let mut rng = SmallRng::seed_from_u64(1);
        for _ in 0..100 {
            let page = RangeRequest::decode(pages.draw(&mut rng).slice(PREFIX_BYTES..)).unwrap();
            let text = String::from_utf8(page.key.to_vec()).unwrap();
            let number: u64 = text.strip_prefix(PREFIX).unwrap().parse().unwrap();
            assert!(number.is_multiple_of(100) && number < 1000, "{number}");
        }
    }
}
