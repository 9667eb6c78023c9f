//! Answers to a watch as they go out. Their events are encoded once, however many watches they go to.

use crate::{convert, proto::etcdserverpb::ResponseHeader};
use bytes::{Bytes, BytesMut};
use prost::Message as _;
use std::sync::OnceLock;
use store::{EventKind, watch::WatchBatch};

/// `etcdserverpb.WatchResponse`, with events that are bytes already: on the wire a message within a message
/// looks the same.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    pub(crate) watch_id: i64,
    #[prost(bool, tag = "3")]
    pub(crate) created: bool,
    #[prost(bool, tag = "4")]
    pub(crate) canceled: bool,
    #[prost(int64, tag = "5")]
    pub(crate) compact_revision: i64,
    #[prost(string, tag = "6")]
    pub(crate) cancel_reason: String,
    #[prost(bool, tag = "7")]
    pub(crate) fragment: bool,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    pub(crate) events: Vec<Bytes>,
}

/// Which events of a batch a watch wants, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) prev_kv: bool,
    pub(super) no_put: bool,
    pub(super) no_delete: bool,
}

/// The events of a batch, once somebody has asked for them.
#[derive(Debug, Default)]
struct Encoded {
    plain: OnceLock<Vec<Bytes>>,
    with_prev: OnceLock<Vec<Bytes>>,
}

impl Wanted {
    /// Those events of a batch.
    pub(super) fn of(self, batch: &WatchBatch) -> Vec<Bytes> {
        let Some(encoded) = batch.memo.get_or_make(Encoded::default) else {
            return self.filter(batch, &encode(batch, self.prev_kv));
        };
        let events = if self.prev_kv { &encoded.with_prev } else { &encoded.plain };
        self.filter(batch, events.get_or_init(|| encode(batch, self.prev_kv)))
    }

    fn filter(self, batch: &WatchBatch, encoded: &[Bytes]) -> Vec<Bytes> {
        let events = batch.events.iter().zip(encoded);
        let wanted = events.filter(|(event, _)| match event.kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        });
        wanted.map(|(_, bytes)| bytes.clone()).collect()
    }
}

fn encode(batch: &WatchBatch, prev_kv: bool) -> Vec<Bytes> {
    let events: Vec<_> = batch.events.iter().map(|event| convert::event(event, prev_kv)).collect();
    let lengths: Vec<usize> = events.iter().map(prost::Message::encoded_len).collect();
    let mut buffer = BytesMut::with_capacity(lengths.iter().sum());
    for event in &events {
        event.encode_raw(&mut buffer);
    }
    let mut all = buffer.freeze();
    lengths.into_iter().map(|len| all.split_to(len)).collect()
}

/// A response in pieces that are no larger than `bytes_max`, unless one event alone is.
pub(super) fn fragments(response: WatchResponse, bytes_max: usize) -> Vec<WatchResponse> {
    if response.events.len() < 2 || response.encoded_len() < bytes_max {
        return vec![response];
    }
    let WatchResponse { events, .. } = response;
    let rest = WatchResponse { events: Vec::new(), ..response };
    let empty = rest.encoded_len();
    let mut pieces: Vec<WatchResponse> = Vec::new();
    let mut bytes = 0;
    for event in events {
        // A tag, a length of up to five bytes, itself.
        let more = event.len() + 6;
        match pieces.last_mut() {
            Some(piece) if bytes + more <= bytes_max => piece.events.push(event),
            Some(_) | None => {
                bytes = empty;
                pieces.push(WatchResponse { events: vec![event], fragment: true, ..rest.clone() });
            }
        }
        bytes += more;
    }
    if let Some(last) = pieces.last_mut() {
        last.fragment = false;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::etcdserverpb;
    use std::sync::Arc;
    use store::{
        Command, KeyRange, LeaseId, Op, Origin, Put, RequestId, Revision, Timestamp, Txn, TxnOp,
        state::State,
    };

    /// A put of a key that was there, and a deletion of another.
    fn batch() -> WatchBatch {
        let mut state = State::default();
        let put = |key: &'static str| {
            TxnOp::Put(Put {
                key: Bytes::from_static(key.as_bytes()),
                value: Bytes::from_static(b"value"),
                lease: LeaseId::NONE,
                prev_kv: false,
                ignore_value: false,
                ignore_lease: false,
            })
        };
        let range = KeyRange::One(Bytes::from_static(b"b"));
        let delete = TxnOp::DeleteRange(store::DeleteRange { range, prev_kv: false });
        let mut events = Vec::new();
        for (sequence, success) in (1..).zip([vec![put("a"), put("b")], vec![put("a"), delete]]) {
            let request = RequestId { client: 1, sequence };
            let op = Op::Txn(Txn { success, ..Txn::default() });
            let command = Command { at: Timestamp(1), request, origin: Origin::Client, op };
            events = state.apply(&command).events;
        }
        let events: Arc<[_]> = events.into();
        WatchBatch { revision: Revision::new(3), events, memo: Arc::default() }
    }

    fn response(events: Vec<Bytes>) -> WatchResponse {
        WatchResponse {
            header: Some(ResponseHeader { revision: 3, ..ResponseHeader::default() }),
            watch_id: 7,
            cancel_reason: "why".to_owned(),
            events,
            ..WatchResponse::default()
        }
    }

    #[test]
    fn it_looks_as_etcd_describes_it() {
        let batch = batch();
        for prev_kv in [false, true] {
            let wanted = Wanted { prev_kv, no_put: false, no_delete: false };
            let response = response(wanted.of(&batch));
            let bytes = response.encode_to_vec();
            let read = etcdserverpb::WatchResponse::decode(&*bytes).unwrap();
            let events: Vec<_> =
                batch.events.iter().map(|event| convert::event(event, prev_kv)).collect();
            assert_eq!(events.iter().all(|event| event.prev_kv.is_some()), prev_kv);
            let want = etcdserverpb::WatchResponse {
                header: response.header,
                watch_id: 7,
                cancel_reason: "why".to_owned(),
                events,
                ..etcdserverpb::WatchResponse::default()
            };
            assert_eq!(read, want);
        }
    }

    #[test]
    fn who_shares_a_batch_shares_what_was_encoded() {
        let batch = batch();
        let all = Wanted { prev_kv: false, no_put: false, no_delete: false };
        let (first, second) = (all.of(&batch), all.of(&batch.clone()));
        assert_eq!(
            first.iter().map(|b| b.as_ptr()).collect::<Vec<_>>(),
            second.iter().map(|b| b.as_ptr()).collect::<Vec<_>>()
        );
        let deletions = Wanted { no_put: true, ..all }.of(&batch);
        assert_eq!(deletions, first.get(1..).unwrap());
        let puts = Wanted { no_delete: true, ..all }.of(&batch);
        assert_eq!(puts, first.get(..1).unwrap());
    }

    #[test]
    fn a_large_answer_goes_in_pieces() {
        let event = Bytes::from(vec![1; 100]);
        let pieces = fragments(response(vec![event.clone(); 10]), 400);
        assert!(pieces.iter().all(|piece| piece.encoded_len() <= 400));
        assert_eq!(pieces.iter().map(|piece| piece.events.len()).sum::<usize>(), 10);
        let marks: Vec<bool> = pieces.iter().map(|piece| piece.fragment).collect();
        assert_eq!(marks, [true, true, true, false]);
        assert_eq!(fragments(response(vec![event]), 50).len(), 1, "one event is not cut");
    }
}
