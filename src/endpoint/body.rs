//! Reads the body of an answer within bounds of size and time.
//!
//! Rules: R23.

use std::pin::pin;
use std::time::Duration;

use bytes::Buf;
use futures_util::future::{Either, select};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::client::ErasedBody;
use crate::attempt::{Attempt, READS_BODY};
use crate::error::BoxError;
use crate::runtime::timer;

/// An answer, with as much of its body as was read.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Zeroizing<Vec<u8>>,
    pub(super) end: End,
}

/// How the reading of a body ended.
pub(super) enum End {
    Whole,
    /// Reset, or shorter than announced.
    Torn(BoxError),
    TooLarge,
    /// Not waited for, or no longer.
    None,
}

impl Answer {
    pub(super) async fn read(response: Response<ErasedBody>, attempt: Option<&Attempt>) -> Self {
        attempt
            .into_iter()
            .for_each(|attempt| attempt.now(READS_BODY));
        let (parts, body) = response.into_parts();
        let mut bytes = Zeroizing::default();
        let end = match parts.status {
            // These have no body (RFC 9110 §15.3.5, §15.3.6).
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => End::None,
            status if status.is_success() => collect(body, &mut bytes).await,
            status if status.is_client_error() || status.is_server_error() => {
                briefly(collect(body, &mut bytes), attempt).await
            }
            // The status decides.
            _ => End::None,
        };
        Self {
            status: parts.status,
            headers: parts.headers,
            body: bytes,
            end,
        }
    }
}

/// Reads into `bytes`, which keeps what has arrived when the reading is given up.
async fn collect(mut body: ErasedBody, bytes: &mut Zeroizing<Vec<u8>>) -> End {
    let expected = usize::try_from(body.size_hint().lower());
    reserve(bytes, expected.map_or(MAX_BODY, |size| size.min(MAX_BODY)));
    while let Some(frame) = body.frame().await {
        let mut data = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => data,
            Ok(Err(_trailers)) => continue,
            Err(error) => return End::Torn(error),
        };
        if bytes.len() + data.remaining() > MAX_BODY {
            return End::TooLarge;
        }
        reserve(bytes, data.remaining());
        while data.has_remaining() {
            let chunk = data.chunk();
            bytes.extend_from_slice(chunk);
            let read = chunk.len();
            data.advance(read);
        }
    }
    End::Whole
}

/// Makes room for `more` bytes without leaving a copy of the others behind in freed memory.
fn reserve(bytes: &mut Zeroizing<Vec<u8>>, more: usize) {
    let needed = bytes.len() + more;
    if needed > bytes.capacity() {
        let size = needed.max(2 * bytes.capacity());
        let mut larger = Zeroizing::new(Vec::with_capacity(size));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
}

/// Waits for the body of an answer whose head says enough by itself: a server that stalls here must
/// not turn a rejection into a timeout.
async fn briefly(reading: impl Future<Output = End>, attempt: Option<&Attempt>) -> End {
    // Not all that the attempt has left, or it would end by its own time limit.
    let left = attempt.map(|attempt| attempt.time_left() * 9 / 10);
    let limit = left.map_or(BODY_OF_A_REJECTION, |left| left.min(BODY_OF_A_REJECTION));
    // A source may be called by hand, on another executor or on a runtime without timers.
    let Some(limit) = timer(Instant::now() + limit) else {
        return reading.await;
    };
    match select(pin!(reading), pin!(limit)).await {
        Either::Left((end, _)) => end,
        Either::Right(_) => End::None,
    }
}

/// The largest answer that is read. Real ones are a few kilobytes.
const MAX_BODY: usize = 1 << 20;

/// How long an error code in the body of a rejection is waited for.
const BODY_OF_A_REJECTION: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use http_body_util::{Full, StreamBody};

    use super::super::client::erased;
    use super::*;

    async fn read<B>(body: B) -> (End, Zeroizing<Vec<u8>>)
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let mut bytes = Zeroizing::default();
        (collect(erased(body), &mut bytes).await, bytes)
    }

    #[tokio::test]
    async fn a_body_of_known_length_is_read_into_memory_of_that_length() {
        let (end, bytes) = read(Full::new(Bytes::from(vec![1; 5000]))).await;
        assert!(matches!(end, End::Whole));
        assert_eq!((bytes.len(), bytes.capacity()), (5000, 5000));
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together() {
        let pieces: Vec<_> = (0..100u8).map(|n| vec![n; 1 + usize::from(n)]).collect();
        let frames = pieces
            .clone()
            .into_iter()
            .map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from(piece))));
        let (end, bytes) = read(StreamBody::new(stream::iter(frames))).await;
        assert!(matches!(end, End::Whole));
        assert_eq!(*bytes, pieces.concat());
    }
}
