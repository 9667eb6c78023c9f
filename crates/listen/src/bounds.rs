//! What one listener and one connection may take up, and when a client is given up on.

use axum::body::{Body, Bytes, HttpBody};
use http::Response;
use http_body::{Frame, SizeHint};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep},
};

/// How much a listener takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections; another one is closed as soon as it is there.
    pub connections: usize,
    /// A client that takes on nothing of an answer for so long loses its connection; `None` for services whose
    /// streams may stand still.
    pub answer_timeout: Option<Duration>,
    /// Requests under way on one HTTP/2 connection.
    pub streams: u32,
    /// For requests that have begun, when no more are taken; sessions have no end of their own.
    pub ending: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let ending = Duration::from_millis(300);
        Self { connections: usize::MAX, answer_timeout: None, streams: 1024, ending }
    }
}

/// With so many bytes a connection is HTTP/1, whose heads have a time-out of their own, or has begun HTTP/2.
/// No head of a request is shorter.
const PREFACE_BYTES: u64 = 24;

/// Shorter bodies of known length are not looked after: the connection's own buffer takes them.
const SHORT_BYTES: u64 = 64 << 10;

/// Since when something waits for the client, in milliseconds from the connection's beginning; 0 while
/// nothing does.
#[derive(Debug, Default)]
struct Waiting(AtomicU64);

/// What a connection's watchdog looks at.
#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
    /// Bytes that came in.
    heard: AtomicU64,
    write: Waiting,
    answers: Mutex<Vec<Weak<Waiting>>>,
}

impl Progress {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            heard: AtomicU64::new(0),
            write: Waiting::default(),
            answers: Mutex::default(),
        })
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Returns when the client is to be given up on: it has said nothing within `head`, or has taken nothing
    /// on within `answer`.
    pub(crate) async fn given_up(self: Arc<Self>, head: Duration, answer: Option<Duration>) {
        let limit = answer.map(|answer| u64::try_from(answer.as_millis()).unwrap_or(u64::MAX));
        let look = answer.map_or(head, |answer| (answer / 4).clamp(Duration::from_millis(1), head));
        loop {
            sleep(look).await;
            let late = self.begun.elapsed() >= head;
            if late && self.heard.load(Ordering::Relaxed) < PREFACE_BYTES {
                tracing::debug!("a connection on which nothing came");
                return;
            }
            let Some(limit) = limit else {
                if late {
                    return std::future::pending().await;
                }
                continue;
            };
            let now = self.millis();
            let stands = |waiting: &Waiting| {
                let since = waiting.0.load(Ordering::Relaxed);
                since > 0 && now.saturating_sub(since) >= limit
            };
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.retain(|waiting| waiting.strong_count() > 0);
            let unread = answers.iter().filter_map(Weak::upgrade).any(|waiting| stands(&waiting));
            if unread || stands(&self.write) {
                tracing::debug!("a client that takes nothing on");
                return;
            }
        }
    }

    /// Looks after a long answer.
    pub(crate) fn follow(self: &Arc<Self>, response: Response<Body>) -> Response<Body> {
        let short = response.body().size_hint().upper().is_some_and(|bytes| bytes < SHORT_BYTES);
        if short {
            return response;
        }
        let waiting = Arc::new(Waiting::default());
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        // A connection that lives long must not keep a place for each answer it ever gave.
        if answers.len() == answers.capacity() {
            answers.retain(|waiting| waiting.strong_count() > 0);
        }
        answers.push(Arc::downgrade(&waiting));
        drop(answers);
        let progress = Arc::clone(self);
        response.map(|inner| Body::new(Followed { inner, progress, waiting }))
    }
}

/// A body that says whether it waits for its reader or its reader for it.
struct Followed {
    inner: Body,
    progress: Arc<Progress>,
    waiting: Arc<Waiting>,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let since = match &polled {
            Poll::Ready(Some(Ok(_))) => self.progress.millis(),
            Poll::Ready(Some(Err(_)) | None) | Poll::Pending => 0,
        };
        self.waiting.0.store(since, Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A connection that tells [`Progress`] whether the client reads and writes.
#[derive(Debug)]
pub(crate) struct Watched<I> {
    io: I,
    progress: Arc<Progress>,
}

impl<I> Watched<I> {
    pub(crate) fn new(io: I, progress: Arc<Progress>) -> Self {
        Self { io, progress }
    }

    fn wrote<T>(&self, polled: Poll<T>) -> Poll<T> {
        let waiting = &self.progress.write.0;
        match &polled {
            Poll::Ready(_) => waiting.store(0, Ordering::Relaxed),
            Poll::Pending if waiting.load(Ordering::Relaxed) == 0 => {
                waiting.store(self.progress.millis(), Ordering::Relaxed);
            }
            Poll::Pending => {}
        }
        polled
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let more = buf.filled().len().saturating_sub(before);
        self.progress.heard.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt as _, stream};
    use http::Request;
    use hyper::body::Incoming;
    use std::{convert::Infallible, net::SocketAddr};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        sync::mpsc,
        task::JoinSet,
        time::timeout,
    };
    use tokio_util::sync::CancellationToken;

    /// Ends what was waited for in vain.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Server {
        address: SocketAddr,
        /// Told when an answer without an end is given up.
        ended: mpsc::Receiver<String>,
        tasks: JoinSet<()>,
    }

    struct Tell(mpsc::Sender<String>, String);

    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.try_send(std::mem::take(&mut self.1));
        }
    }

    /// Answers `/endless` without an end, `/idle` with a piece and nothing more, anything else shortly.
    async fn server(bounds: Bounds) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, ended) = mpsc::channel(16);
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let tell = Tell(tell.clone(), request.uri().path().to_owned());
            let piece = || Ok::<_, Infallible>(Bytes::from(vec![b'x'; 32 << 10]));
            let body = match request.uri().path() {
                "/endless" => Body::from_stream(stream::repeat_with(piece).map(move |piece| {
                    let _ = &tell;
                    piece
                })),
                "/idle" => Body::from_stream(stream::iter([piece()]).chain(stream::pending()).map(
                    move |piece| {
                        let _ = &tell;
                        piece
                    },
                )),
                _ => Body::from("short"),
            };
            std::future::ready(Ok::<_, Infallible>(Response::new(body)))
        });
        let mut tasks = JoinSet::new();
        let scope = CancellationToken::new();
        tasks.spawn(crate::listen_within(bounds, listener, None, service, scope));
        Server { address, ended, tasks }
    }

    fn bounds(answer: Duration) -> Bounds {
        Bounds { answer_timeout: Some(answer), ..Bounds::default() }
    }

    async fn get(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 15];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        stream
    }

    #[tokio::test]
    async fn a_client_that_never_reads_its_answer_is_given_up_on() {
        let mut server = server(bounds(Duration::from_millis(200))).await;
        let unread = get(server.address, "/endless").await;
        timeout(PATIENCE, server.ended.recv()).await.unwrap();
        drop(unread);
        server.tasks.shutdown().await;
    }

    #[tokio::test]
    async fn a_stream_that_gets_no_room_ends_its_connection() {
        let mut server = server(bounds(Duration::from_millis(200))).await;
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = Request::get("http://x/endless").body(()).unwrap();
        let (answer, _) = sender.ready().await.unwrap().send_request(request, true).unwrap();
        // Its window is never opened again, while the connection answers pings.
        let unread = answer.await.unwrap();
        timeout(PATIENCE, server.ended.recv()).await.unwrap();
        assert!(timeout(PATIENCE, driver.join_next()).await.is_ok(), "the connection is closed");
        drop(unread);
        server.tasks.shutdown().await;
    }

    #[tokio::test]
    async fn an_answer_that_has_nothing_to_say_is_no_fault_of_its_reader() {
        let mut server = server(bounds(Duration::from_millis(100))).await;
        let idle = get(server.address, "/idle").await;
        let unread = get(server.address, "/endless").await;
        let ended = timeout(PATIENCE, server.ended.recv()).await.unwrap();
        assert_eq!(ended.as_deref(), Some("/endless"), "the one that began later");
        assert!(server.ended.try_recv().is_err());
        drop(unread);
        drop(idle);
        server.tasks.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_end_its_request_is_given_up_on() {
        let mut server = server(Bounds::default()).await;
        for begins in
            ["", "GET / HT", "GET / HTTP/1.1\r\nhost: x\r\nx-a: b\r\n", "PRI * HTTP/2.0\r\n"]
        {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(begins.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let closed = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
            assert!(closed.is_ok(), "{begins:?}");
        }
        server.tasks.shutdown().await;
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_at_once_and_has_its_place_later() {
        let mut server = server(Bounds { connections: 2, ..Bounds::default() }).await;
        let first = get(server.address, "/").await;
        let _second = get(server.address, "/").await;
        let mut third = TcpStream::connect(server.address).await.unwrap();
        let read = timeout(PATIENCE, third.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        drop(first);
        // Until the server has seen that.
        let again = async {
            loop {
                let mut stream = TcpStream::connect(server.address).await.unwrap();
                let sent = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
                let mut first = [0; 4];
                if sent.is_ok() && stream.read_exact(&mut first).await.is_ok() {
                    return first;
                }
            }
        };
        assert_eq!(&timeout(PATIENCE, again).await.unwrap(), b"HTTP");
        server.tasks.shutdown().await;
    }

    #[tokio::test]
    async fn who_begins_streams_only_to_reset_them_loses_the_connection() {
        let mut server = server(Bounds::default()).await;
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        // Far more than may wait.
        let flood = async {
            for _ in 0..10_000 {
                let Ok(ready) = sender.ready().await else { return };
                sender = ready;
                let request = Request::get("http://x/endless").body(()).unwrap();
                let Ok((_, mut stream)) = sender.send_request(request, false) else { return };
                stream.send_reset(h2::Reason::CANCEL);
                tokio::task::yield_now().await;
            }
            panic!("the connection is still there");
        };
        timeout(PATIENCE, flood).await.unwrap();
        driver.shutdown().await;
        get(server.address, "/").await;
        server.tasks.shutdown().await;
    }

    #[tokio::test]
    async fn a_connection_has_so_many_streams_and_a_head_so_many_bytes() {
        let mut server = server(Bounds { streams: 3, ..Bounds::default() }).await;
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let request = || Request::get("http://x/idle").body(()).unwrap();
        let (first, _) = sender.send_request(request(), true).unwrap();
        first.await.unwrap();
        assert_eq!(sender.current_max_send_streams(), 3);
        let mut long = TcpStream::connect(server.address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(300 << 10));
        // It may close before all is written.
        let _ = long.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, long.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
        drop(sender);
        driver.shutdown().await;
        server.tasks.shutdown().await;
    }
}
