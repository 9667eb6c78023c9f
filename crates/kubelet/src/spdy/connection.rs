//! A connection whose streams the other side opens.
//!
//! What comes for a stream waits in a pipe of a bounded size until it is read; then the whole connection
//! waits, as it does at `kubectl`'s own end. What goes out takes the other side's windows into account as
//! soon as it has spoken of any: the library in `kubectl` never does, and would wait for ever.

use super::{
    SpdyError,
    frame::{Decoder, Encoder, Frame, Reset, data, go_away, ping, rst_stream, window_update},
    headers::Headers,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadHalf,
        WriteHalf, duplex, split,
    },
    sync::{Notify, mpsc},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Bytes of a stream that wait, in each direction: the window that everybody begins with.
const WINDOW: usize = 64 << 10;
/// Bytes in one frame of ours.
const PIECE: usize = 16 << 10;
/// Frames on their way out.
const QUEUE: usize = 16;
/// At once. A port that is forwarded takes two for each of its connections.
const STREAMS_MAX: usize = 1024;
/// A connection that nobody reads any more is noticed by what is sent.
const PING_EVERY: Duration = Duration::from_secs(10);
/// For the other side to close a connection after the last word.
const LINGER: Duration = Duration::from_secs(5);

/// One that the other side has opened, and that was accepted.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Unique in the connection.
    pub(crate) id: u32,
    /// What it was opened with.
    pub(crate) headers: Headers,
    /// Its bytes. Shutting it down ends what goes out, dropping it ends it.
    pub(crate) io: DuplexStream,
    /// The other side has ended it in both directions.
    pub(crate) reset: CancellationToken,
}

/// Counts what the other side of a connection has taken, signs of life left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken(Arc<AtomicU64>);

impl Taken {
    /// It has taken something more.
    pub(crate) fn more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Grows whenever it takes something.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves a connection until the other side closes it, or until `done` and then everything that
/// streams were given is on its way. New streams come out at `streams`.
///
/// # Errors
/// The other side does not keep to the protocol, or is gone.
pub(crate) async fn serve(
    io: impl AsyncRead + AsyncWrite + Send,
    streams: mpsc::Sender<Stream>,
    done: CancellationToken,
    taken: Taken,
) -> Result<(), SpdyError> {
    let (mut reader, mut writer) = split(io);
    let (out, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
    let alive = CancellationToken::new();
    let _end_with_this = alive.clone().drop_guard();
    let flow = Arc::new(Flow::default());
    let pumps = TaskTracker::new();
    let mut session = Session {
        out: out.clone(),
        flow,
        streams,
        pumps: pumps.clone(),
        taken,
        alive,
        encoder: Encoder::new(),
        open: BTreeMap::new(),
        last: 0,
        unacknowledged: 0,
    };
    let read = async {
        let mut decoder = Decoder::new();
        loop {
            while let Some(frame) = decoder.next()? {
                session.take(frame).await?;
            }
            decoder.buffer().reserve(PIECE);
            if reader.read_buf(decoder.buffer()).await? == 0 {
                return Ok(());
            }
        }
    };
    let write = async {
        while let Some(bytes) = queue.recv().await {
            writer.write_all(&bytes).await?;
            if queue.is_empty() {
                writer.flush().await?;
            }
        }
        Ok(())
    };
    let beat = async {
        let mut id = 2u32;
        while out.send(ping(id)).await.is_ok() {
            sleep(PING_EVERY).await;
            id = id.wrapping_add(2);
        }
    };
    let end = async {
        done.cancelled().await;
        pumps.close();
        pumps.wait().await;
        let _ = out.send(go_away(0)).await;
        sleep(LINGER).await;
    };
    tokio::select! {
        read = read => read,
        written = write => written,
        () = beat => Ok(()),
        () = end => Ok(()),
    }
}

struct Session {
    out: mpsc::Sender<Vec<u8>>,
    flow: Arc<Flow>,
    streams: mpsc::Sender<Stream>,
    pumps: TaskTracker,
    taken: Taken,
    alive: CancellationToken,
    encoder: Encoder,
    open: BTreeMap<u32, Open>,
    /// The last stream that was opened.
    last: u32,
    /// Came in on all streams since the other side was last told that it may send more.
    unacknowledged: usize,
}

/// What is kept of a stream.
struct Open {
    /// `None` after the other side's end.
    input: Option<WriteHalf<DuplexStream>>,
    /// Nothing goes out any more when it is cancelled.
    reset: CancellationToken,
    /// Ours has ended.
    sent: CancellationToken,
    unacknowledged: usize,
}

impl Session {
    async fn take(&mut self, frame: Frame) -> Result<(), SpdyError> {
        match frame {
            Frame::SynStream { stream, fin, unidirectional, headers } => {
                self.opened(stream, fin, unidirectional, headers).await?;
            }
            Frame::Data { stream, bytes, fin } => self.data(stream, &bytes, fin).await,
            Frame::Headers { stream, fin } => self.data(stream, &[], fin).await,
            Frame::RstStream { stream } => {
                if let Some(open) = self.open.remove(&stream) {
                    open.reset.cancel();
                    self.flow.forget(stream);
                }
            }
            Frame::Settings { initial_window: Some(window) } => self.flow.begin_with(window),
            Frame::WindowUpdate { stream, delta } => self.flow.grant(stream, delta),
            // Ours are even.
            Frame::Ping { id } if id % 2 == 1 => self.send(ping(id)).await,
            Frame::Settings { initial_window: None } | Frame::Ping { .. } | Frame::GoAway => {}
        }
        Ok(())
    }

    /// A connection that takes nothing any more ends on its own.
    async fn send(&self, frame: Vec<u8>) {
        let _ = self.out.send(frame).await;
    }

    async fn opened(
        &mut self,
        stream: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    ) -> Result<(), SpdyError> {
        if stream.is_multiple_of(2) || stream <= self.last {
            return Err(SpdyError::Malformed("a stream opened out of turn"));
        }
        self.last = stream;
        self.open.retain(|_, open| open.input.is_some() || !open.sent.is_cancelled());
        if self.open.len() >= STREAMS_MAX {
            self.send(rst_stream(stream, Reset::RefusedStream)).await;
            return Ok(());
        }
        let (ours, io) = duplex(WINDOW);
        let (output, mut input) = split(ours);
        let reset = self.alive.child_token();
        let sent = CancellationToken::new();
        let reply = self.encoder.syn_reply(stream);
        self.send(reply).await;
        if fin {
            let _ = input.shutdown().await;
        }
        // Nothing goes out on a stream of one direction: it has no window.
        let pump = (!unidirectional).then(|| {
            self.flow.open(stream);
            let (out, flow, taken) = (self.out.clone(), Arc::clone(&self.flow), self.taken.clone());
            Pump { stream, out, flow, taken }
        });
        let (stopped, ended) = (reset.clone(), sent.clone().drop_guard());
        self.pumps.spawn(async move {
            let _ended = ended;
            let Some(pump) = pump else { return };
            tokio::select! {
                () = pump.run(output) => {}
                () = stopped.cancelled() => {}
            }
        });
        let input = (!fin).then_some(input);
        self.open.insert(stream, Open { input, reset: reset.clone(), sent, unacknowledged: 0 });
        let told = self.streams.send(Stream { id: stream, headers, io, reset }).await;
        if told.is_err() {
            if let Some(open) = self.open.remove(&stream) {
                open.reset.cancel();
            }
            self.send(rst_stream(stream, Reset::RefusedStream)).await;
        }
        Ok(())
    }

    async fn data(&mut self, stream: u32, bytes: &[u8], fin: bool) {
        let Some(open) = self.open.get_mut(&stream) else {
            if !bytes.is_empty() && stream > self.last {
                self.send(rst_stream(stream, Reset::InvalidStream)).await;
            }
            return self.acknowledge(bytes.len()).await;
        };
        let mut wrong = false;
        match &mut open.input {
            Some(input) => {
                let taken = tokio::select! {
                    taken = input.write_all(bytes) => taken.is_ok(),
                    () = open.reset.cancelled() => false,
                };
                if fin {
                    let _ = input.shutdown().await;
                }
                if fin || !taken {
                    open.input = None;
                }
            }
            None => wrong = fin,
        }
        open.unacknowledged += bytes.len();
        let enough = open.unacknowledged >= WINDOW / 2 && open.input.is_some();
        let delta = if enough { std::mem::take(&mut open.unacknowledged) } else { 0 };
        if delta > 0 {
            self.send(window_update(stream, u32::try_from(delta).unwrap_or(u32::MAX))).await;
        }
        if wrong {
            self.send(rst_stream(stream, Reset::ProtocolError)).await;
        }
        self.acknowledge(bytes.len()).await;
    }

    /// Of the whole connection.
    async fn acknowledge(&mut self, bytes: usize) {
        self.unacknowledged += bytes;
        if self.unacknowledged >= WINDOW / 2 {
            let delta = std::mem::take(&mut self.unacknowledged);
            self.send(window_update(0, u32::try_from(delta).unwrap_or(u32::MAX))).await;
        }
    }
}

/// What goes out on a stream.
struct Pump {
    stream: u32,
    out: mpsc::Sender<Vec<u8>>,
    flow: Arc<Flow>,
    taken: Taken,
}

impl Pump {
    async fn run(self, mut from: ReadHalf<DuplexStream>) {
        let mut piece = vec![0; PIECE];
        loop {
            let read = from.read(&mut piece).await.unwrap_or(0);
            let mut rest = piece.get(..read).unwrap_or_default();
            let fin = rest.is_empty();
            loop {
                let bytes = if fin { 0 } else { self.flow.take(self.stream, rest.len()).await };
                let (now, later) = rest.split_at_checked(bytes).unwrap_or((rest, &[]));
                if self.out.send(data(self.stream, fin, now)).await.is_err() {
                    return;
                }
                self.taken.more();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            if fin {
                return;
            }
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.flow.forget(self.stream);
    }
}

/// What the other side will take.
#[derive(Default)]
struct Flow {
    windows: Mutex<Windows>,
    changed: Notify,
}

#[derive(Debug)]
struct Windows {
    /// The other side keeps such windows.
    kept: bool,
    initial: i64,
    connection: i64,
    streams: BTreeMap<u32, i64>,
}

impl Default for Windows {
    fn default() -> Self {
        let window = i64::try_from(WINDOW).unwrap_or(i64::MAX);
        Self { kept: false, initial: window, connection: window, streams: BTreeMap::new() }
    }
}

impl Flow {
    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, stream: u32) {
        let mut windows = self.windows();
        let initial = windows.initial;
        windows.streams.insert(stream, initial);
    }

    fn forget(&self, stream: u32) {
        self.windows().streams.remove(&stream);
    }

    /// How many of so many bytes may be sent, at least one; they count as sent.
    async fn take(&self, stream: u32, wanted: usize) -> usize {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(bytes) = self.windows().take(stream, wanted) {
                return bytes;
            }
            changed.await;
        }
    }

    fn grant(&self, stream: u32, delta: u32) {
        let mut windows = self.windows();
        windows.kept = true;
        if stream == 0 {
            windows.connection = windows.connection.saturating_add(delta.into());
        } else if let Some(window) = windows.streams.get_mut(&stream) {
            *window = window.saturating_add(delta.into());
        }
        drop(windows);
        self.changed.notify_waiters();
    }

    /// Of every stream, those that are open included.
    fn begin_with(&self, window: i32) {
        let mut windows = self.windows();
        windows.kept = true;
        let more = i64::from(window) - windows.initial;
        windows.initial = window.into();
        for window in windows.streams.values_mut() {
            *window = window.saturating_add(more);
        }
        drop(windows);
        self.changed.notify_waiters();
    }
}

impl Windows {
    fn take(&mut self, stream: u32, wanted: usize) -> Option<usize> {
        // Of one that was reset nothing goes out any more.
        let window = self.streams.get_mut(&stream)?;
        let allowed = usize::try_from((*window).min(self.connection)).unwrap_or(0);
        let bytes = if self.kept { wanted.min(allowed) } else { wanted };
        if bytes == 0 {
            return None;
        }
        let taken = i64::try_from(bytes).unwrap_or(i64::MAX);
        *window = window.saturating_sub(taken);
        self.connection = self.connection.saturating_sub(taken);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::frame::tests::headers, *};
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
    use tokio::{task::JoinSet, time::timeout};

    const SOON: Duration = Duration::from_secs(20);

    /// A client of a connection that is served.
    struct Peer {
        io: DuplexStream,
        encoder: Encoder,
        decoder: Decoder,
        streams: mpsc::Receiver<Stream>,
        done: CancellationToken,
        served: JoinSet<Result<(), SpdyError>>,
    }

    impl Peer {
        fn new() -> Self {
            let (io, theirs) = duplex(8 << 10);
            let (sender, streams) = mpsc::channel(16);
            let done = CancellationToken::new();
            let mut served = JoinSet::new();
            served.spawn(serve(theirs, sender, done.clone(), Taken::default()));
            let (encoder, decoder) = (Encoder::new(), Decoder::new());
            Self { io, encoder, decoder, streams, done, served }
        }

        async fn send(&mut self, bytes: &[u8]) {
            timeout(SOON, self.io.write_all(bytes)).await.unwrap().unwrap();
        }

        async fn open(&mut self, id: u32) -> Stream {
            let frame = self.encoder.syn_stream(id, 0, &headers(&[("streamtype", "data")]));
            self.send(&frame).await;
            timeout(SOON, self.streams.recv()).await.unwrap().unwrap()
        }

        /// The next frame but pings; `None` at the end.
        async fn next(&mut self) -> Option<Frame> {
            loop {
                match self.decoder.next().unwrap() {
                    Some(Frame::Ping { id }) if id % 2 == 0 => {}
                    Some(frame) => return Some(frame),
                    None => {
                        let read = self.io.read_buf(self.decoder.buffer());
                        if timeout(SOON, read).await.expect("more comes").unwrap() == 0 {
                            return None;
                        }
                    }
                }
            }
        }

        /// How many bytes come on a stream until its end, or until nothing more comes.
        async fn count(&mut self, id: u32, most: usize) -> usize {
            let mut count = 0;
            while count < most {
                match timeout(Duration::from_millis(100), self.next()).await {
                    Ok(Some(Frame::Data { stream, bytes, fin })) if stream == id => {
                        count += bytes.len();
                        if fin {
                            return count;
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return count,
                }
            }
            count
        }

        async fn result(mut self) -> Result<(), SpdyError> {
            drop(self.io);
            timeout(SOON, self.served.join_next()).await.unwrap().unwrap().unwrap()
        }
    }

    #[tokio::test]
    async fn a_stream_is_accepted_before_its_bytes_go_out_and_each_direction_ends_alone() {
        let mut peer = Peer::new();
        let mut stream = peer.open(1).await;
        assert_eq!(stream.headers, headers(&[("streamtype", "data")]));
        assert_eq!(peer.next().await, Some(Frame::Headers { stream: 1, fin: false }));
        peer.send(&data(1, false, b"he")).await;
        peer.send(&data(1, true, b"llo")).await;
        let mut text = String::new();
        stream.io.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        stream.io.write_all(b"world").await.unwrap();
        let want = Frame::Data { stream: 1, bytes: "world".into(), fin: false };
        assert_eq!(peer.next().await, Some(want));
        stream.io.shutdown().await.unwrap();
        let end = Frame::Data { stream: 1, bytes: "".into(), fin: true };
        assert_eq!(peer.next().await, Some(end));
        peer.send(&ping(5)).await;
        assert_eq!(peer.next().await, Some(Frame::Ping { id: 5 }));
        peer.result().await.unwrap();
    }

    #[tokio::test]
    async fn all_that_was_written_is_sent_before_a_connection_says_goodbye() {
        let mut peer = Peer::new();
        let mut stream = peer.open(1).await;
        stream.io.write_all(&[1; 50_000]).await.unwrap();
        drop(stream);
        peer.done.cancel();
        assert_eq!(peer.count(1, usize::MAX).await, 50_000);
        assert_eq!(peer.next().await, Some(Frame::GoAway));
        peer.result().await.unwrap();
    }

    #[tokio::test]
    async fn windows_are_kept_by_once_they_are_spoken_of() {
        let mut peer = Peer::new();
        let stream = peer.open(1).await;
        let settings = [&[0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 7][..], &[0, 0, 0, 9]];
        peer.send(&settings.concat()).await;
        peer.send(&ping(1)).await;
        while peer.next().await != Some(Frame::Ping { id: 1 }) {}
        let mut io = stream.io;
        let mut writer = JoinSet::new();
        writer.spawn(async move { io.write_all(&vec![0; 200_000]).await.map(|()| io) });
        for (grant, want) in [
            (None, 9),
            (Some((1, 41)), 41),
            // As much as the connection begins with.
            (Some((1, 1 << 20)), WINDOW - 50),
            (Some((0, 1 << 20)), 200_000 - WINDOW),
        ] {
            if let Some((stream, delta)) = grant {
                peer.send(&window_update(stream, delta)).await;
            }
            assert_eq!(peer.count(1, usize::MAX).await, want, "{grant:?}");
        }
        peer.result().await.unwrap();
    }

    #[tokio::test]
    async fn who_never_speaks_of_windows_gets_everything() {
        // As kubectl.
        let mut peer = Peer::new();
        let mut io = peer.open(1).await.io;
        let mut writer = JoinSet::new();
        writer.spawn(async move { io.write_all(&vec![0; 1 << 20]).await });
        assert_eq!(peer.count(1, usize::MAX).await, 1 << 20);
        peer.result().await.unwrap();
    }

    #[tokio::test]
    async fn a_reset_ends_both_directions() {
        let mut peer = Peer::new();
        let mut stream = peer.open(1).await;
        peer.send(&data(1, false, b"x")).await;
        peer.send(&rst_stream(1, Reset::ProtocolError)).await;
        timeout(SOON, stream.reset.cancelled()).await.unwrap();
        let mut text = String::new();
        timeout(SOON, stream.io.read_to_string(&mut text)).await.unwrap().unwrap();
        // Others go on.
        let _other = peer.open(3).await;
        peer.result().await.unwrap();
    }

    #[tokio::test]
    async fn a_stream_that_is_over_leaves_no_window() {
        let (out, mut queue) = mpsc::channel(QUEUE);
        let (streams, mut incoming) = mpsc::channel(16);
        let pumps = TaskTracker::new();
        let mut session = Session {
            out,
            flow: Arc::default(),
            streams,
            pumps: pumps.clone(),
            taken: Taken::default(),
            alive: CancellationToken::new(),
            encoder: Encoder::new(),
            open: BTreeMap::new(),
            last: 0,
            unacknowledged: 0,
        };
        let flow = Arc::clone(&session.flow);
        let mut drain = JoinSet::new();
        drain.spawn(async move { while queue.recv().await.is_some() {} });
        let opened = |stream, unidirectional| Frame::SynStream {
            stream,
            fin: false,
            unidirectional,
            headers: headers(&[]),
        };
        for (id, unidirectional) in [(1, true), (3, false), (5, false)] {
            session.take(opened(id, unidirectional)).await.unwrap();
        }
        let of = |flow: &Flow| flow.windows().streams.keys().copied().collect::<Vec<_>>();
        assert_eq!(of(&flow), [3, 5]);
        let held: Vec<Stream> =
            [incoming.recv().await, incoming.recv().await].into_iter().flatten().collect();
        session.take(Frame::RstStream { stream: 3 }).await.unwrap();
        assert_eq!(flow.windows().take(3, 1), None, "it is not opened again");
        assert_eq!(of(&flow), [5]);
        // Nobody takes any streams any more: the next one is refused.
        drop((held, incoming));
        session.take(opened(7, false)).await.unwrap();
        pumps.close();
        timeout(SOON, pumps.wait()).await.expect("all of them end");
        assert_eq!(of(&flow), [0u32; 0]);
    }

    #[tokio::test]
    async fn what_is_not_read_keeps_the_other_side_waiting() {
        let mut peer = Peer::new();
        let stream = peer.open(1).await;
        let piece = data(1, false, &[0; 4096]);
        let mut sent = 0;
        while timeout(Duration::from_millis(100), peer.io.write_all(&piece)).await.is_ok() {
            sent += 4096;
            assert!(sent < 1 << 20, "nobody reads it");
        }
        assert!(sent >= WINDOW, "{sent}");
        // It is noticed all the same that nobody wants it.
        drop(stream);
        peer.served.shutdown().await;
    }

    #[tokio::test]
    async fn streams_out_of_turn_end_a_connection() {
        for ids in [vec![2], vec![5, 3], vec![1, 1]] {
            let mut peer = Peer::new();
            for id in &ids {
                let frame = peer.encoder.syn_stream(*id, 0, &headers(&[]));
                let _ = peer.io.write_all(&frame).await;
            }
            let ended = peer.served.join_next();
            let ended = timeout(SOON, ended).await.unwrap().unwrap().unwrap();
            assert!(matches!(ended, Err(SpdyError::Malformed(_))), "{ids:?}: {ended:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_with_any_bytes_changed_ends_or_goes_on() {
        let seed: u64 = rand::rng().random();
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..300 {
            let mut encoder = Encoder::new();
            let mut sent = Vec::new();
            for id in [1, 3, 5] {
                sent.extend(encoder.syn_stream(id, 0, &headers(&[("a", "b")])));
                sent.extend(data(id, id == 3, b"data"));
                sent.extend(window_update(id, 7));
            }
            sent.extend(rst_stream(5, Reset::InvalidStream));
            for _ in 0..random.random_range(1..5) {
                let at = random.random_range(0..sent.len());
                sent[at] = random.random();
            }
            let (mut ours, theirs) = duplex(1 << 10);
            let (sender, mut streams) = mpsc::channel::<Stream>(1);
            let mut tasks = JoinSet::new();
            tasks.spawn(async move {
                let mut held = Vec::new();
                while let Some(mut stream) = streams.recv().await {
                    let _ = stream.io.write_all(b"answer").await;
                    held.push(stream);
                }
            });
            tasks.spawn(async move {
                let _ = serve(theirs, sender, CancellationToken::new(), Taken::default()).await;
            });
            let talk = async {
                let (mut from, mut to) = split(&mut ours);
                let drain = async {
                    let mut all = Vec::new();
                    let _ = from.read_to_end(&mut all).await;
                };
                let _ = tokio::join!(drain, async {
                    let _ = to.write_all(&sent).await;
                    let _ = to.shutdown().await;
                });
            };
            timeout(SOON, talk).await.unwrap_or_else(|_| panic!("seed {seed}, round {round}"));
            drop(ours);
            while let Some(ended) = timeout(SOON, tasks.join_next()).await.unwrap() {
                assert!(ended.is_ok(), "seed {seed}, round {round}: {ended:?}");
            }
        }
    }
}
