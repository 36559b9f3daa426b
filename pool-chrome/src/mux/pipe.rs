//! The two tasks on the pipe of a Chromium.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::EndReason;
use super::framing::FrameReader;
use super::multiplexer::Shared;

/// How much is written to Chromium at once. Commands of our own wait for this much at most.
const BATCH: usize = 64 * 1024;

/// Takes what Chromium writes until it ends. One lock for all frames of one read.
pub(super) async fn read_frames<R: AsyncRead + Unpin>(shared: Arc<Shared>, reader: R) {
    let mut frames = FrameReader::new(reader);
    loop {
        tokio::select! {
            filled = frames.fill() => match filled {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "the pipe from Chromium broke");
                    break;
                }
            },
            () = ended(&shared) => return,
        }
        shared.hear();
        let mut next = frames.next_frame();
        if next.is_none() {
            continue;
        }
        shared.update(|state| {
            while let Some(frame) = next {
                state.browser_message(frame);
                next = frames.next_frame();
            }
        });
    }
    shared.update(|state| state.end_all(EndReason::Crashed));
}

async fn ended(shared: &Shared) {
    let mut ended = shared.look(|state| state.ended.subscribe());
    let _ = ended.wait_for(Option::is_some).await;
}

/// Writes what is queued until the end, then closes the pipe.
pub(super) async fn write_frames<W: AsyncWrite + Unpin>(shared: Arc<Shared>, mut writer: W) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let over = shared.take_batch(&mut batch, BATCH);
        if over {
            break;
        }
        if batch.is_empty() {
            shared.work().await;
            continue;
        }
        if let Err(error) = write_all(&shared, &mut writer, &batch).await {
            // The reader sees the end of the stream as well, after what Chromium said last.
            tracing::debug!(%error, "the pipe to Chromium broke");
            break;
        }
        batch.clear();
        // A large frame must not keep its memory for ever.
        batch.shrink_to(BATCH);
    }
    let _ = writer.shutdown().await;
}

/// Writes a batch, unless the end comes first: a Chromium that hangs does not read.
async fn write_all<W: AsyncWrite + Unpin>(
    shared: &Shared,
    writer: &mut W,
    batch: &[u8],
) -> io::Result<()> {
    tokio::select! {
        written = async { writer.write_all(batch).await?; writer.flush().await } => written,
        () = ended(shared) => Ok(()),
    }
}
