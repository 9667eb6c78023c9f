//! Lets in clients that send a URL where HTTP/2 wants an authority.
//!
//! gRPC libraries of some years ago send their target as it was given, so that `:authority` reads
//! `http://127.0.0.1:2379`. The HTTP/2 library below answers that with a reset stream. This stands
//! between it and the socket: it looks at the first request of a connection, and if that has a scheme
//! in its authority, takes the scheme away there and in all requests that follow. Any other connection
//! is passed on as it is, and no longer looked at.

use crate::hpack::{self, Decoder, Field};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// Of one frame: what a server takes that does not say otherwise.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Of one header block, as sent and as decoded; the library below takes no more either.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// Frames that one block may be in: an empty one costs the sender next to nothing.
const BLOCK_FRAMES_MAX: usize = 64;
const READ_BYTES: usize = 8 << 10;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A byte stream whose reader never sees a scheme in an `:authority`.
#[derive(Debug)]
pub struct Authority<I> {
    io: I,
    /// `None` once the connection needs no more looking at.
    repair: Option<Box<Repair>>,
    /// Read by nobody yet, from `out_at` on.
    out: Vec<u8>,
    out_at: usize,
}

impl<I> Authority<I> {
    /// Looks at what comes in on a connection that has just begun.
    pub fn new(io: I) -> Self {
        Self { io, repair: Some(Box::new(Repair::new())), out: Vec::new(), out_at: 0 }
    }
}

#[derive(Debug)]
struct Repair {
    /// Came in and is not understood yet: less than a frame's head, or a part of a header block.
    held: Vec<u8>,
    state: State,
    decoder: Decoder,
    /// The first request had a scheme.
    rewrites: bool,
}

#[derive(Debug)]
enum State {
    Preface,
    Head,
    /// The rest of a frame that is passed on as it is.
    Payload {
        bytes_left: usize,
    },
    Block(Block),
}

/// A header block under way; its frames are still in `held`.
#[derive(Debug)]
struct Block {
    stream: [u8; 4],
    flags: u8,
    priority: Vec<u8>,
    fragments: Vec<u8>,
    frames: usize,
    /// The last frame has not been read so far in `held`.
    frame_at: usize,
}

/// What to do with a connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Ask again when more has come.
    More,
    /// Pass on what is held and everything after it.
    StepAside,
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("HTTP/2 header block: {what}"))
}

impl Repair {
    fn new() -> Self {
        Self { held: Vec::new(), state: State::Preface, decoder: Decoder::new(), rewrites: false }
    }

    /// Takes what came in, puts out what may be read.
    ///
    /// # Errors
    /// A header block of a connection whose requests are rewritten cannot be decoded.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<Verdict> {
        self.held.extend_from_slice(bytes);
        loop {
            match &mut self.state {
                State::Preface => {
                    let seen = self.held.len().min(PREFACE.len());
                    if self.held.get(..seen) != PREFACE.get(..seen) {
                        return Ok(Verdict::StepAside);
                    }
                    if seen < PREFACE.len() {
                        return Ok(Verdict::More);
                    }
                    out.extend(self.held.drain(..seen));
                    self.state = State::Head;
                }
                State::Payload { bytes_left } => {
                    let bytes = self.held.len().min(*bytes_left);
                    out.extend(self.held.drain(..bytes));
                    *bytes_left -= bytes;
                    if *bytes_left > 0 {
                        return Ok(Verdict::More);
                    }
                    self.state = State::Head;
                }
                State::Head => {
                    let Some(head) = FrameHead::read(&self.held) else { return Ok(Verdict::More) };
                    if head.kind == HEADERS {
                        self.state = State::Block(Block {
                            stream: head.stream,
                            flags: head.flags & (END_STREAM | PRIORITY),
                            priority: Vec::new(),
                            fragments: Vec::new(),
                            frames: 0,
                            frame_at: 0,
                        });
                    } else {
                        out.extend(self.held.drain(..FRAME_HEAD));
                        self.state = State::Payload { bytes_left: head.len };
                    }
                }
                State::Block(block) => {
                    let Some(rest) = self.held.get(block.frame_at..) else {
                        return Ok(Verdict::More);
                    };
                    let ended = match block.frame(rest) {
                        Ok(None) => return Ok(Verdict::More),
                        Ok(Some(ended)) => ended,
                        // The library below says what is wrong with it.
                        Err(_) if !self.rewrites => return Ok(Verdict::StepAside),
                        Err(error) => return Err(error),
                    };
                    if !ended {
                        continue;
                    }
                    let decoded = self.decoder.decode(&block.fragments, BLOCK_BYTES_MAX);
                    let mut fields = match decoded {
                        Ok(fields) => fields,
                        Err(_) if !self.rewrites => return Ok(Verdict::StepAside),
                        Err(_) => return Err(malformed("cannot be decoded")),
                    };
                    self.rewrites |= strip_scheme(&mut fields);
                    if !self.rewrites {
                        return Ok(Verdict::StepAside);
                    }
                    block.write(&hpack::encode(&fields), out);
                    let bytes = block.frame_at;
                    self.held.drain(..bytes);
                    self.state = State::Head;
                }
            }
        }
    }
}

struct FrameHead {
    len: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl FrameHead {
    fn read(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; FRAME_HEAD] = bytes.first_chunk()?;
        let [len @ .., kind, flags, a, b, c, d] = *head;
        let len = len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        Some(Self { len, kind, flags, stream: [a & 0x7f, b, c, d] })
    }
}

impl Block {
    /// Takes the next frame of the block; whether it was the last, `None` if it is not whole yet.
    ///
    /// # Errors
    /// It is not one, or the block becomes too large.
    fn frame(&mut self, bytes: &[u8]) -> io::Result<Option<bool>> {
        let Some(head) = FrameHead::read(bytes) else { return Ok(None) };
        let first = self.frames == 0;
        let expected = if first { HEADERS } else { CONTINUATION };
        if head.kind != expected || head.stream != self.stream {
            return Err(malformed("another frame within it"));
        }
        if head.len > FRAME_BYTES_MAX
            || self.fragments.len() + head.len > BLOCK_BYTES_MAX
            || self.frames == BLOCK_FRAMES_MAX
        {
            return Err(malformed("too large"));
        }
        let Some(mut payload) = bytes.get(FRAME_HEAD..FRAME_HEAD + head.len) else {
            return Ok(None);
        };
        if first {
            let too_short = || malformed("shorter than its padding or priority");
            if head.flags & PADDED != 0 {
                let (padding, rest) = payload.split_first().ok_or_else(too_short)?;
                let len = rest.len().checked_sub(usize::from(*padding)).ok_or_else(too_short)?;
                payload = rest.get(..len).unwrap_or_default();
            }
            if head.flags & PRIORITY != 0 {
                let (priority, rest) = payload.split_at_checked(5).ok_or_else(too_short)?;
                self.priority = priority.to_vec();
                payload = rest;
            }
        }
        self.fragments.extend_from_slice(payload);
        self.frames += 1;
        self.frame_at += FRAME_HEAD + head.len;
        Ok(Some(head.flags & END_HEADERS != 0))
    }

    /// The block in frames of its own, without padding.
    fn write(&self, block: &[u8], out: &mut Vec<u8>) {
        let whole = [&self.priority, block].concat();
        let mut rest = whole.as_slice();
        let mut kind = HEADERS;
        let mut flags = self.flags;
        loop {
            let (payload, behind) = rest.split_at(rest.len().min(FRAME_BYTES_MAX));
            if behind.is_empty() {
                flags |= END_HEADERS;
            }
            let len = u32::try_from(payload.len()).expect("at most 16 KiB").to_be_bytes();
            out.extend_from_slice(len.get(1..).unwrap_or_default());
            out.extend([kind, flags]);
            out.extend(self.stream);
            out.extend_from_slice(payload);
            if behind.is_empty() {
                return;
            }
            (rest, kind, flags) = (behind, CONTINUATION, 0);
        }
    }
}

/// Whether there was one.
fn strip_scheme(fields: &mut [Field]) -> bool {
    let mut stripped = false;
    for field in fields.iter_mut().filter(|field| field.name == b":authority") {
        let scheme = field.value.windows(3).position(|text| text == b"://");
        if let Some(scheme) = scheme {
            field.value.drain(..scheme + 3);
            stripped = true;
        }
    }
    stripped
}

impl<I: AsyncRead + Unpin> AsyncRead for Authority<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let waiting = this.out.get(this.out_at..).unwrap_or_default();
            if !waiting.is_empty() {
                let bytes = waiting.len().min(buf.remaining());
                buf.put_slice(waiting.get(..bytes).unwrap_or_default());
                this.out_at += bytes;
                if this.out_at == this.out.len() {
                    this.out_at = 0;
                    this.out.clear();
                    if this.repair.is_none() {
                        this.out = Vec::new();
                    }
                }
                return Poll::Ready(Ok(()));
            }
            let Some(repair) = &mut this.repair else {
                return Pin::new(&mut this.io).poll_read(cx, buf);
            };
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            let ended = read.filled().is_empty();
            let verdict = match repair.take(read.filled(), &mut this.out) {
                Ok(verdict) if !ended => verdict,
                // What was sent of a frame is shown, so that the reader can say what is missing.
                Ok(_) => Verdict::StepAside,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if verdict == Verdict::StepAside {
                this.out.append(&mut repair.held);
                this.repair = None;
                if ended && this.out.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Authority<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test's runtime ends what it has started")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn field(name: &str, value: &str) -> Field {
        Field { name: name.into(), value: value.into(), never_indexed: false }
    }

    fn request(authority: &str) -> Vec<Field> {
        vec![field(":method", "POST"), field(":authority", authority), field(":path", "/x")]
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        [PREFACE.to_vec(), frame(4, 0, &[]), frames.concat()].concat()
    }

    /// What a reader sees of what a client sends, in pieces of so many bytes.
    async fn through(sent: &[u8], piece: usize) -> io::Result<Vec<u8>> {
        let (mut client, server) = tokio::io::duplex(piece);
        let sent = sent.to_vec();
        let writer = tokio::spawn(async move { client.write_all(&sent).await });
        let mut seen = Vec::new();
        let read = Authority::new(server).read_to_end(&mut seen).await;
        let _ = writer.await;
        read.map(|_| seen)
    }

    #[tokio::test]
    async fn a_scheme_is_taken_from_every_request_of_a_connection() {
        let blocks = [
            hpack::encode(&request("http://127.0.0.1:2379")),
            hpack::encode(&request("https://[::1]:2379")),
            hpack::encode(&request("plain:1")),
        ];
        let [first, second, third] = blocks;
        // In two frames, padded, with a priority; then data; then whole ones.
        let (start, rest) = first.split_at(7);
        let padded = [&[3], &[9, 9, 9, 9, 16][..], start, &[0; 3]].concat();
        let sent = connection(&[
            frame(HEADERS, PADDED | PRIORITY | END_STREAM, &padded),
            frame(CONTINUATION, END_HEADERS, rest),
            frame(0, 0, b"data"),
            frame(HEADERS, END_HEADERS, &second),
            frame(HEADERS, END_HEADERS, &third),
        ]);
        let whole = [&[9, 9, 9, 9, 16][..], &hpack::encode(&request("127.0.0.1:2379"))].concat();
        let want = connection(&[
            frame(HEADERS, PRIORITY | END_STREAM | END_HEADERS, &whole),
            frame(0, 0, b"data"),
            frame(HEADERS, END_HEADERS, &hpack::encode(&request("[::1]:2379"))),
            frame(HEADERS, END_HEADERS, &third),
        ]);
        for piece in [1, 2, 7, 100, 10_000] {
            assert_eq!(through(&sent, piece).await.unwrap(), want, "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn what_the_client_has_put_into_its_table_is_known_later() {
        // With indexing, and then by its index.
        let mut first = hpack::encode(&request("http://a:1"));
        let authority = hpack::encode(&request("http://a:1")[..1]).len();
        first[authority] = 0x40;
        let second = [0xbe, 0x83];
        let sent = connection(&[
            frame(HEADERS, END_HEADERS, &first),
            frame(HEADERS, END_HEADERS, &second),
        ]);
        let want = connection(&[
            frame(HEADERS, END_HEADERS, &hpack::encode(&request("a:1"))),
            frame(
                HEADERS,
                END_HEADERS,
                &hpack::encode(&[field(":authority", "a:1"), field(":method", "POST")]),
            ),
        ]);
        assert_eq!(through(&sent, 64).await.unwrap(), want);
    }

    #[tokio::test]
    async fn any_other_connection_is_passed_on_as_it_is() {
        let plain = connection(&[
            frame(HEADERS, END_HEADERS, &hpack::encode(&request("127.0.0.1:2379"))),
            frame(HEADERS, END_HEADERS, &hpack::encode(&request("http://late:1"))),
        ]);
        let broken = connection(&[frame(HEADERS, END_HEADERS, &[0x80])]);
        let torn = connection(&[frame(HEADERS, 0, b"")]);
        let http1 = b"POST /v3/kv/range HTTP/1.1\r\nhost: http://x\r\n\r\n".to_vec();
        for sent in [plain, broken, torn, http1, b"PRI".to_vec(), Vec::new()] {
            for piece in [1, 3, 1000] {
                assert_eq!(through(&sent, piece).await.unwrap(), sent, "in pieces of {piece}");
            }
        }
    }

    #[tokio::test]
    async fn a_block_that_cannot_be_rewritten_ends_the_connection() {
        let first = frame(HEADERS, END_HEADERS, &hpack::encode(&request("http://a:1")));
        let endless = vec![frame(CONTINUATION, 0, &[]); BLOCK_FRAMES_MAX + 1].concat();
        for bad in [
            frame(HEADERS, END_HEADERS, &[0x80]),
            [frame(HEADERS, 0, &[]), frame(0, 0, b"data")].concat(),
            [frame(HEADERS, 0, &[]), endless].concat(),
            frame(HEADERS, END_HEADERS | PADDED, &[5, 1]),
            frame(HEADERS, END_HEADERS, &vec![0; FRAME_BYTES_MAX + 1]),
        ] {
            let error = through(&connection(&[first.clone(), bad]), 100).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn large_blocks_go_out_in_several_frames() {
        let long = field("x", &"v".repeat(40_000));
        let fields = [request("http://a:1"), vec![long]].concat();
        let block = hpack::encode(&fields);
        let (a, rest) = block.split_at(16_000);
        let (b, c) = rest.split_at(16_000);
        let sent = connection(&[
            frame(HEADERS, END_STREAM, a),
            frame(CONTINUATION, 0, b),
            frame(CONTINUATION, END_HEADERS, c),
        ]);
        let mut out = Vec::new();
        Repair::new().take(&sent, &mut out).unwrap();
        let mut rest = &out[PREFACE.len() + FRAME_HEAD..];
        let mut frames = Vec::new();
        while let Some(head) = FrameHead::read(rest) {
            frames.push((head.kind, head.flags, head.len));
            rest = &rest[FRAME_HEAD + head.len..];
        }
        let last = block.len() - "http://".len() - 2 * FRAME_BYTES_MAX;
        assert_eq!(
            frames,
            [
                (HEADERS, END_STREAM, FRAME_BYTES_MAX),
                (CONTINUATION, 0, FRAME_BYTES_MAX),
                (CONTINUATION, END_HEADERS, last),
            ]
        );
    }

    proptest! {
        /// However it is cut, and whatever comes, what is held stays bounded and nothing panics.
        #[test]
        fn arbitrary_bytes_do_no_harm(
            begins_well in any::<bool>(),
            frames in proptest::collection::vec(
                (0_u8..11, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..64)), 0..12),
            noise in any::<Vec<u8>>(),
            piece in 1_usize..40,
        ) {
            let mut sent = PREFACE.to_vec();
            if begins_well {
                let block = hpack::encode(&request("http://a:1"));
                sent.extend(frame(HEADERS, END_HEADERS, &block));
            }
            for (kind, flags, payload) in frames {
                sent.extend(frame(kind, flags, &payload));
            }
            sent.extend(noise);
            let mut repair = Repair::new();
            let mut out = Vec::new();
            for bytes in sent.chunks(piece) {
                let most = BLOCK_BYTES_MAX + BLOCK_FRAMES_MAX * FRAME_HEAD + FRAME_BYTES_MAX;
                prop_assert!(repair.held.len() <= most);
                if !matches!(repair.take(bytes, &mut out), Ok(Verdict::More)) {
                    break;
                }
            }
        }
    }
}
