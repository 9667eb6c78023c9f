//! A connection inside two streams of messages.

use futures::{Stream, StreamExt as _};
use std::{io, pin::pin};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
};

/// Bytes that wait in each direction, and of one message at most.
const BYTES: usize = 32 << 10;
/// Messages that wait to be sent.
pub const MESSAGES: usize = 4;

/// The two ends of a connection of which one is to be carried: what is written to one is read from the other.
#[must_use]
pub fn ends() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(BYTES)
}

/// Carries `end` inside messages, until both directions are at their ends. A message without bytes is the end of
/// its direction; a stream of messages that stops before one has lost the rest.
///
/// # Errors
/// The connection has broken; its other end is told so by reading its end, and by failing to write.
pub async fn carry<M>(
    end: DuplexStream,
    incoming: impl Stream<Item = io::Result<Vec<u8>>>,
    outgoing: mpsc::Sender<M>,
    message: fn(Vec<u8>) -> M,
) -> io::Result<()> {
    let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
    let (mut reader, mut writer) = tokio::io::split(end);
    let out = async {
        loop {
            let mut bytes = Vec::with_capacity(BYTES);
            let read = reader.read_buf(&mut bytes).await?;
            outgoing.send(message(bytes)).await.map_err(|_| broken())?;
            if read == 0 {
                return Ok(());
            }
        }
    };
    let mut incoming = pin!(incoming);
    let back = async {
        loop {
            let bytes = incoming.next().await.ok_or_else(broken)??;
            if bytes.is_empty() {
                return writer.shutdown().await;
            }
            writer.write_all(&bytes).await?;
        }
    };
    futures::future::try_join(out, back).await?;
    drop(outgoing);
    // Who gives up what comes in may take what is still on its way out with it.
    while incoming.next().await.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use tokio::task::JoinSet;

    /// A connection carried both ways over two channels; the channels' ends are kept by `tasks`.
    fn carried(tasks: &mut JoinSet<io::Result<()>>) -> (DuplexStream, DuplexStream) {
        let ((near, one), (far, other)) = (ends(), ends());
        let (there, at_far) = mpsc::channel(MESSAGES);
        let (back, at_near) = mpsc::channel(MESSAGES);
        let stream = |receiver: mpsc::Receiver<Vec<u8>>| {
            stream::unfold(receiver, async |mut receiver| {
                Some((Ok(receiver.recv().await?), receiver))
            })
        };
        tasks.spawn(carry(one, stream(at_near), there, |bytes| bytes));
        tasks.spawn(carry(other, stream(at_far), back, |bytes| bytes));
        (near, far)
    }

    #[tokio::test]
    async fn everything_comes_through_and_each_direction_ends_alone() {
        let mut tasks = JoinSet::new();
        let (mut near, mut far) = carried(&mut tasks);
        let sent: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
        let write = async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let mut seen = Vec::new();
        let (_, read) = tokio::join!(write, far.read_to_end(&mut seen));
        read.unwrap();
        assert!(seen == sent);
        far.write_all(b"last").await.unwrap();
        drop(far);
        let mut last = String::new();
        near.read_to_string(&mut last).await.unwrap();
        assert_eq!(last, "last");
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_stream_that_stops_has_broken_the_connection() {
        let (near, carried) = ends();
        let (outgoing, mut sent) = mpsc::channel(MESSAGES);
        let incoming = stream::iter([Ok(b"half".to_vec())]);
        let ended = carry(carried, incoming, outgoing, |bytes| bytes).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(sent.recv().await, None);
        let mut near = near;
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "half");
        assert!(near.write_all(b"x").await.is_err());
    }
}
