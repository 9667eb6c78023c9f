//! Long answers, compressed for who asks for it.

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use flate2::{Compression, write::GzEncoder};
use futures::{StreamExt as _, stream};
use std::io::{self, Write as _};

/// Shorter answers go as they are (upstream's bound).
const BYTES_MIN: usize = 128 << 10;
/// As upstream: what more would save costs more than the network.
const LEVEL: Compression = Compression::new(1);
/// Bytes that are compressed at once: under a millisecond.
const PIECE_BYTES: usize = 64 << 10;

/// An extension of an answer that is made piece by piece: how many bytes it will have, about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length(pub(super) usize);

/// Compresses what the inner service answers.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    let asked = is_asked(request.headers());
    compress(asked, next.run(request).await)
}

/// Whether a client takes gzip.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = values.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|part| {
            part.strip_prefix("q=").is_some_and(|q| q.trim_matches(['0', '.']).is_empty())
        });
        (name.eq_ignore_ascii_case("gzip") || name == "*") && !refused
    })
}

/// Compresses a long answer if that is asked for. One whose length nobody knows, such as a watch, goes as it
/// is.
pub(super) fn compress(asked: bool, response: Response) -> Response {
    let told = response.extensions().get::<Length>().map(|length| length.0);
    let exact = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let long = told.or(exact).is_some_and(|bytes| bytes >= BYTES_MIN);
    if !asked || !long || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    head.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let encoder = Some(GzEncoder::new(Vec::new(), LEVEL));
    let source = body.into_data_stream();
    let compressed = stream::unfold((source, Bytes::new(), encoder), async |state| {
        let (mut source, mut left, encoder) = state;
        let mut encoder = encoder?;
        loop {
            if left.is_empty() {
                left = match source.next().await {
                    Some(Ok(piece)) => piece,
                    Some(Err(error)) => {
                        return Some((Err(io::Error::other(error)), (source, left, None)));
                    }
                    None => {
                        let last = encoder.finish().map(Bytes::from);
                        return Some((last, (source, left, None)));
                    }
                };
            }
            let piece = left.split_to(left.len().min(PIECE_BYTES));
            if let Err(error) = encoder.write_all(&piece) {
                return Some((Err(error), (source, left, None)));
            }
            let out = std::mem::take(encoder.get_mut());
            if out.is_empty() {
                // A piece of an answer that lies in memory whole must not follow the other at once.
                tokio::task::consume_budget().await;
                continue;
            }
            return Some((Ok(out.into()), (source, left, Some(encoder))));
        }
    });
    Response::from_parts(head, Body::from_stream(compressed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use http_body_util::BodyExt as _;
    use std::io::Read as _;

    #[test]
    fn gzip_is_asked_for_by_name_or_by_a_star() {
        for (value, want) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(is_asked(&headers), want, "{value}");
        }
        assert!(!is_asked(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn only_long_answers_of_known_length_are_compressed_and_come_back_the_same() {
        let text: String = (0..60_000).map(|n| format!("{n},")).collect();
        let short = text.get(..BYTES_MIN - 1).unwrap().to_owned();
        let streamed = || Body::from_stream(stream::iter([Ok::<_, io::Error>(text.clone())]));
        let mut told = Response::new(streamed());
        told.extensions_mut().insert(Length(text.len()));
        for (name, asked, response, want) in [
            ("long", true, Response::new(Body::from(text.clone())), true),
            ("not asked for", false, Response::new(Body::from(text.clone())), false),
            ("short", true, Response::new(Body::from(short)), false),
            ("a watch", true, Response::new(streamed()), false),
            ("a list", true, told, true),
        ] {
            let answer = compress(asked, response);
            let zipped = answer.headers().get(header::CONTENT_ENCODING).is_some();
            assert_eq!(zipped, want, "{name}");
            let bytes = answer.into_body().collect().await.unwrap().to_bytes();
            if zipped {
                let mut back = String::new();
                GzDecoder::new(bytes.as_ref()).read_to_string(&mut back).unwrap();
                assert!(back == text, "{name}");
                assert!(bytes.len() < text.len() / 2, "{name}: {}", bytes.len());
            }
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_has_no_end() {
        let pieces = [Ok("a".repeat(BYTES_MIN)), Err(io::Error::other("gone"))];
        let mut response = Response::new(Body::from_stream(stream::iter(pieces)));
        response.extensions_mut().insert(Length(BYTES_MIN));
        assert!(compress(true, response).into_body().collect().await.is_err());
    }
}
