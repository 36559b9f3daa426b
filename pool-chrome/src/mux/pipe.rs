//! The two tasks on the pipe of a Chromium.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::EndReason;
use super::framing::{FrameReader, Taken};
use super::multiplexer::Shared;

/// Bytes written to Chromium at once. Commands of our own wait for this much at most, and
/// for one large frame.
const BATCH: usize = 64 * 1024;

/// Takes what Chromium writes until it ends. One lock for all frames of one read.
pub(super) async fn read_frames<R: AsyncRead + Unpin>(shared: Arc<Shared>, reader: R) {
    let (mut ended, gate, budget) = shared
        .look(|state| (state.ended.subscribe(), Arc::clone(&state.gate), state.budget.clone()));
    let mut frames = FrameReader::new(reader, &budget);
    loop {
        if gate.is_shut() {
            tracing::debug!("the clients of a browser take nothing: it is held back");
            tokio::select! {
                () = gate.opened() => {}
                () = over(&mut ended) => return,
            }
            // It was not listened to, so its silence says nothing.
            shared.hear();
        }
        tokio::select! {
            filled = frames.fill() => match filled {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "the pipe from Chromium broke");
                    break;
                }
            },
            () = over(&mut ended) => return,
        }
        shared.hear();
        let mut next = frames.next_frame();
        if next.is_none() {
            continue;
        }
        shared.update(|state| {
            while let Some(taken) = next {
                match taken {
                    Taken::Frame(frame) => state.browser_message(frame),
                    Taken::End(end) => state.lost_message(&end),
                }
                next = frames.next_frame();
            }
        });
    }
    let reason = shared.cause_of_death();
    shared.update(|state| state.end_all(reason));
}

async fn over(ended: &mut watch::Receiver<Option<EndReason>>) {
    // An error means that the state is gone, and with it everybody who could ask.
    let _ = ended.wait_for(Option::is_some).await;
}

/// Writes bytes, and notes when some were taken that had to wait: what fits into the pipe goes
/// there whether anybody reads or not.
async fn write<W: AsyncWrite + Unpin>(
    shared: &Shared,
    writer: &mut W,
    mut bytes: &[u8],
) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut waited = false;
        let written = poll_fn(|cx| {
            let written = Pin::new(&mut *writer).poll_write(cx, bytes);
            waited |= written.is_pending();
            written
        });
        let written = written.await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if waited {
            shared.take_notice();
        }
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Writes what is queued until the end, then closes the pipe.
pub(super) async fn write_frames<W: AsyncWrite + Unpin>(shared: Arc<Shared>, mut writer: W) {
    let mut ended = shared.look(|state| state.ended.subscribe());
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let (large, is_over) = shared.take_batch(&mut batch, BATCH);
        if is_over {
            break;
        }
        if batch.is_empty() && large.is_none() {
            shared.work().await;
            continue;
        }
        let parts = large.as_ref().map_or([&[][..]; 3], |large| large.parts());
        let write = async {
            write(&shared, &mut writer, &batch).await?;
            for part in parts {
                write(&shared, &mut writer, part).await?;
            }
            writer.flush().await
        };
        // A Chromium that hangs does not read.
        let written: io::Result<()> = tokio::select! {
            written = write => written,
            () = over(&mut ended) => Ok(()),
        };
        if let Err(error) = written {
            // The reader sees the end of the stream as well, after what Chromium said last.
            tracing::debug!(%error, "the pipe to Chromium broke");
            break;
        }
        batch.clear();
        // What came together once must not keep its memory for ever.
        batch.shrink_to(BATCH);
    }
    let _ = writer.shutdown().await;
}
