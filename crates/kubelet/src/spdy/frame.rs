//! Frames as bytes, both ways.

use super::{
    SpdyError,
    headers::{Deflate, Headers, Inflate},
};
use bytes::{Buf as _, Bytes, BytesMut};

const VERSION: u16 = 3;
const HEAD: usize = 8;
/// Of one control frame. Data may be in frames of any length: it is passed on as it comes.
const CONTROL_BYTES_MAX: usize = 64 << 10;
const FIN: u8 = 0x01;
const UNIDIRECTIONAL: u8 = 0x02;
/// A stream's number has 31 bits.
const STREAM: u32 = 0x7fff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;
/// The setting that says how much may be under way on a stream.
const INITIAL_WINDOW: u32 = 7;

/// Why a stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Reset {
    ProtocolError = 1,
    InvalidStream = 2,
    RefusedStream = 3,
}

/// What the other side says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// Opens a stream.
    SynStream { stream: u32, fin: bool, unidirectional: bool, headers: Headers },
    /// Bytes of a stream; `fin` with the last of a frame that has it.
    Data { stream: u32, bytes: Bytes, fin: bool },
    /// No more headers are of interest, but its end may be.
    Headers { stream: u32, fin: bool },
    /// Ends a stream in both directions.
    RstStream { stream: u32 },
    /// Bytes that may be under way on each stream, if it says so.
    Settings { initial_window: Option<i32> },
    /// To be sent back if it is not ours.
    Ping { id: u32 },
    /// Opens no more streams.
    GoAway,
    /// So many more bytes may be sent; stream 0 is the connection.
    WindowUpdate { stream: u32, delta: u32 },
}

/// Takes bytes in, gives frames.
pub(super) struct Decoder {
    held: BytesMut,
    inflate: Inflate,
    /// The rest of a data frame: stream, bytes, whether it is the last.
    data: Option<(u32, usize, bool)>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { held: BytesMut::new(), inflate: Inflate::new(), data: None }
    }

    /// Where bytes that have come are to be put.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.held
    }

    /// The next frame, or `None` until more has come.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        loop {
            if let Some((stream, left, fin)) = self.data {
                if self.held.is_empty() && left > 0 {
                    return Ok(None);
                }
                let bytes = self.held.split_to(left.min(self.held.len())).freeze();
                let left = left - bytes.len();
                self.data = (left > 0).then_some((stream, left, fin));
                return Ok(Some(Frame::Data { stream, bytes, fin: fin && left == 0 }));
            }
            let Some(head) = self.held.first_chunk::<HEAD>() else { return Ok(None) };
            let [a, b, c, d, flags, len @ ..] = *head;
            let len = len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
            let first = u32::from_be_bytes([a, b, c, d]);
            if first & !STREAM == 0 {
                self.held.advance(HEAD);
                self.data = Some((first, len, flags & FIN != 0));
                continue;
            }
            if u16::from_be_bytes([a & 0x7f, b]) != VERSION {
                return Err(SpdyError::Malformed("a frame of another version"));
            }
            if len > CONTROL_BYTES_MAX {
                return Err(SpdyError::Malformed("a control frame too long"));
            }
            if self.held.len() < HEAD + len {
                return Ok(None);
            }
            self.held.advance(HEAD);
            let payload = self.held.split_to(len).freeze();
            if let Some(frame) = self.control(u16::from_be_bytes([c, d]), flags, payload)? {
                return Ok(Some(frame));
            }
        }
    }

    /// `None` for what there is nothing to be done about.
    fn control(
        &mut self,
        kind: u16,
        flags: u8,
        mut payload: Bytes,
    ) -> Result<Option<Frame>, SpdyError> {
        let short = |_| SpdyError::Malformed("a control frame too short");
        let fin = flags & FIN != 0;
        Ok(Some(match kind {
            SYN_STREAM => {
                let stream = payload.try_get_u32().map_err(short)? & STREAM;
                // Another stream that it belongs to, and its priority.
                payload.try_get_u32().map_err(short)?;
                payload.try_get_u16().map_err(short)?;
                let headers = self.inflate.block(&payload)?;
                let unidirectional = flags & UNIDIRECTIONAL != 0;
                Frame::SynStream { stream, fin, unidirectional, headers }
            }
            // Read for what follows it in the compressed stream; we open no streams.
            SYN_REPLY | HEADERS => {
                let stream = payload.try_get_u32().map_err(short)? & STREAM;
                self.inflate.block(&payload)?;
                Frame::Headers { stream, fin }
            }
            RST_STREAM => {
                Frame::RstStream { stream: payload.try_get_u32().map_err(short)? & STREAM }
            }
            SETTINGS => {
                let count = payload.try_get_u32().map_err(short)?;
                let mut initial_window = None;
                for _ in 0..count {
                    let id = payload.try_get_u32().map_err(short)? & 0x00ff_ffff;
                    let value = payload.try_get_u32().map_err(short)?;
                    if id == INITIAL_WINDOW {
                        let value = i32::try_from(value);
                        let value =
                            value.map_err(|_| SpdyError::Malformed("a window too large"))?;
                        initial_window = Some(value);
                    }
                }
                Frame::Settings { initial_window }
            }
            PING => Frame::Ping { id: payload.try_get_u32().map_err(short)? },
            GOAWAY => Frame::GoAway,
            WINDOW_UPDATE => {
                let stream = payload.try_get_u32().map_err(short)? & STREAM;
                Frame::WindowUpdate {
                    stream,
                    delta: payload.try_get_u32().map_err(short)? & STREAM,
                }
            }
            _ => return Ok(None),
        }))
    }
}

/// Gives bytes for frames.
pub(super) struct Encoder {
    deflate: Deflate,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { deflate: Deflate::new() }
    }

    /// A stream is accepted. To be sent in the order in which they are made.
    pub(super) fn syn_reply(&mut self, stream: u32) -> Vec<u8> {
        let block = self.deflate.block(&Headers::new());
        control(SYN_REPLY, 0, &[&stream.to_be_bytes(), &block])
    }

    /// Opens a stream, as a client does.
    #[cfg(test)]
    pub(super) fn syn_stream(&mut self, stream: u32, flags: u8, headers: &Headers) -> Vec<u8> {
        let block = self.deflate.block(headers);
        control(SYN_STREAM, flags, &[&stream.to_be_bytes(), &[0; 6], &block])
    }
}

/// Bytes of a stream, as many as one frame takes.
pub(super) fn data(stream: u32, fin: bool, bytes: &[u8]) -> Vec<u8> {
    let mut frame = (stream & STREAM).to_be_bytes().to_vec();
    finish(&mut frame, if fin { FIN } else { 0 }, &[bytes]);
    frame
}

pub(super) fn rst_stream(stream: u32, why: Reset) -> Vec<u8> {
    control(RST_STREAM, 0, &[&stream.to_be_bytes(), &(why as u32).to_be_bytes()])
}

pub(super) fn ping(id: u32) -> Vec<u8> {
    control(PING, 0, &[&id.to_be_bytes()])
}

/// All is well, and this was the last stream that was looked at.
pub(super) fn go_away(last: u32) -> Vec<u8> {
    control(GOAWAY, 0, &[&last.to_be_bytes(), &[0; 4]])
}

pub(super) fn window_update(stream: u32, delta: u32) -> Vec<u8> {
    control(WINDOW_UPDATE, 0, &[&stream.to_be_bytes(), &(delta & STREAM).to_be_bytes()])
}

fn control(kind: u16, flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    let mut frame = (VERSION | 0x8000).to_be_bytes().to_vec();
    frame.extend(kind.to_be_bytes());
    finish(&mut frame, flags, payload);
    frame
}

fn finish(frame: &mut Vec<u8>, flags: u8, payload: &[&[u8]]) {
    let len: usize = payload.iter().map(|part| part.len()).sum();
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    frame.push(flags);
    frame.extend(len.get(1..).unwrap_or_default());
    for part in payload {
        frame.extend_from_slice(part);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    /// As the other side writes them.
    pub(crate) fn headers(all: &[(&str, &str)]) -> Headers {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Whatever comes out until the bytes end, or an error.
    fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, SpdyError> {
        let mut decoder = Decoder::new();
        let mut frames: Vec<Frame> = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.buffer().extend_from_slice(piece);
            while let Some(frame) = decoder.next()? {
                // Data comes in whatever pieces it came in.
                match (&mut frames.last_mut(), &frame) {
                    (
                        Some(Frame::Data { stream, bytes, fin }),
                        Frame::Data { stream: same, bytes: more, fin: end },
                    ) if stream == same && !*fin => {
                        *bytes = [&bytes[..], &more[..]].concat().into();
                        *fin = *end;
                    }
                    _ => frames.push(frame),
                }
            }
        }
        Ok(frames)
    }

    fn conversation() -> (Vec<u8>, Vec<Frame>) {
        let mut encoder = Encoder::new();
        let settings = [&1u32.to_be_bytes()[..], &7u32.to_be_bytes(), &100u32.to_be_bytes()];
        let error = headers(&[("streamtype", "error"), ("port", "80")]);
        let end = headers(&[("streamtype", "data")]);
        let sent = [
            encoder.syn_stream(1, 0, &error),
            encoder.syn_stream(3, FIN | UNIDIRECTIONAL, &end),
            data(1, false, b"one"),
            data(1, true, &[7; 70_000]),
            control(SETTINGS, 0, &settings),
            ping(9),
            // Nothing that is known.
            control(77, 0, &[b"whatever"]),
            window_update(0, 5),
            rst_stream(3, Reset::RefusedStream),
            go_away(3),
        ];
        let frame = |stream, fin, unidirectional, headers| Frame::SynStream {
            stream,
            fin,
            unidirectional,
            headers,
        };
        let frames = vec![
            frame(1, false, false, error),
            frame(3, true, true, end),
            Frame::Data { stream: 1, bytes: [b"one", &[7; 70_000][..]].concat().into(), fin: true },
            Frame::Settings { initial_window: Some(100) },
            Frame::Ping { id: 9 },
            Frame::WindowUpdate { stream: 0, delta: 5 },
            Frame::RstStream { stream: 3 },
            Frame::GoAway,
        ];
        (sent.concat(), frames)
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let (sent, want) = conversation();
        for piece in [1, 2, 7, 1000, usize::MAX] {
            assert_eq!(decode(&sent, piece).unwrap(), want, "{piece}");
        }
    }

    #[test]
    fn what_is_no_frame_ends_the_connection() {
        for (name, bytes) in [
            ("another version", [0x80, 2, 0, 1, 0, 0, 0, 0].to_vec()),
            ("too long", [0x80, 3, 0, 1, 0, 1, 0, 1].to_vec()),
            ("too short", control(WINDOW_UPDATE, 0, &[&[0; 7]])),
            ("settings that are not there", control(SETTINGS, 0, &[&[0xff; 4]])),
            ("no compressed stream", control(SYN_STREAM, 0, &[&[0; 40]])),
            (
                "a window of more than 31 bits",
                control(SETTINGS, 0, &[&1u32.to_be_bytes(), &7u32.to_be_bytes(), &[0xff; 4]]),
            ),
        ] {
            assert!(matches!(decode(&bytes, 9), Err(SpdyError::Malformed(_))), "{name}");
        }
    }

    #[test]
    fn a_conversation_with_any_bytes_changed_ends_or_goes_on() {
        let (sent, _) = conversation();
        let seed: u64 = rand::rng().random();
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..2000 {
            let mut bytes = sent.clone();
            for _ in 0..random.random_range(1..6) {
                // Mostly in what is not only data.
                let at = match random.random_range(0..bytes.len()) {
                    at if at % 3 > 0 => at % 200,
                    at => at,
                };
                match random.random_range(0..3) {
                    0 => bytes[at] = random.random(),
                    1 => bytes[at] ^= 1 << random.random_range(0..8),
                    _ => drop(bytes.remove(at)),
                }
            }
            let done = std::panic::catch_unwind(|| decode(&bytes, 4096).map(|frames| frames.len()));
            assert!(done.is_ok(), "seed {seed}, round {round}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_or_go_on(bytes in prop::collection::vec(any::<u8>(), 0..400), control: bool) {
            let head: &[u8] = if control { &[0x80, 3, 0] } else { &[] };
            let _ = decode(&[head, &bytes].concat(), 64);
        }
    }
}
