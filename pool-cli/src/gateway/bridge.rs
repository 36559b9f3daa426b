//! Frames both ways between a client's WebSocket and its browser. Nothing is parsed here.

use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Utf8Bytes};

use super::LeaseEnd;
use super::session::{Attached, Session};
use crate::metrics::Metrics;
use crate::pool::{BrowserEnd, Commands, Events, Wire};

/// The longest message of a client. Chromium itself drops a WebSocket at a command of about
/// 100 MB, so that nothing that works without the pool fails here.
pub(super) const MAX_MESSAGE: usize = 100 * 1024 * 1024;

/// How much is written at once while more is there already.
const BATCH: usize = 64 * 1024;

/// A client that takes nothing for this long is ended, however little waits for it. One that
/// takes too little is ended by the browser's end of the connection, whose queue is bounded.
const STALL: Duration = Duration::from_secs(30);

/// How often a write that waits looks whether too much waits behind it.
const LOOK: Duration = Duration::from_millis(250);

/// How long a client has to answer a close frame before its socket is closed.
const CLOSING: Duration = Duration::from_secs(1);

pub(super) type Socket = WebSocketStream<TcpStream>;

/// The settings of a client's WebSocket.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(32 * 1024)
        .write_buffer_size(BATCH)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// Bridges until either side ends or the session does, says goodbye, and returns why.
pub(super) async fn bridge(
    socket: Socket,
    wire: Wire,
    attached: Attached,
    metrics: &Metrics,
) -> LeaseEnd {
    let session = attached.session().clone();
    let Wire { mut commands, mut events } = wire;
    let (mut sink, mut stream) = socket.split();
    let end = tokio::select! {
        end = down(&mut *events, &mut sink, &session, metrics) => end,
        end = up(&mut stream, &mut *commands, &session, metrics) => end,
        end = session.ended() => end,
    };
    // The lease ends here: the client's goodbye below must not keep a browser from the next one.
    let end = attached.detach(end);
    if matches!(end, LeaseEnd::ClientGone | LeaseEnd::SlowReader) {
        return end;
    }
    let goodbye = async {
        // What the browser said before the end, such as the answer to `Browser.close`.
        while let Some(message) = events.try_next() {
            sink.feed(Message::Text(message)).await?;
        }
        let frame = CloseFrame { code: end.close_code().into(), reason: end.to_string().into() };
        sink.send(Message::Close(Some(frame))).await?;
        while let Some(Ok(_)) = stream.next().await {}
        Ok::<_, Error>(())
    };
    drop(commands);
    // Whether it was heard changes nothing any more.
    let _ = timeout(CLOSING, goodbye).await;
    end
}

/// From the client to the browser.
async fn up(
    stream: &mut SplitStream<Socket>,
    commands: &mut dyn Commands,
    session: &Session,
    metrics: &Metrics,
) -> LeaseEnd {
    loop {
        let message = match stream.next().await {
            Some(Ok(Message::Text(message))) => message,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Binary(_))) => return LeaseEnd::NotText,
            Some(Ok(Message::Close(_))) => return LeaseEnd::Released,
            Some(Err(Error::Capacity(_))) => return LeaseEnd::TooLong,
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                return LeaseEnd::ClientGone;
            }
            Some(Err(Error::Protocol(_) | Error::Utf8(_))) => return LeaseEnd::BadFrame,
            Some(Err(_)) | None => return LeaseEnd::ClientGone,
        };
        session.traffic.heard(session, message.len());
        metrics.message_in(message.len());
        if commands.send(&message).await.is_err() {
            // The other direction learns why, once it has delivered what came before.
            return std::future::pending().await;
        }
    }
}

/// From the browser to the client.
async fn down(
    events: &mut dyn Events,
    sink: &mut SplitSink<Socket, Message>,
    session: &Session,
    metrics: &Metrics,
) -> LeaseEnd {
    let mut batch = Vec::new();
    loop {
        match events.next().await {
            Ok(message) => batch.push(message),
            Err(end) => return end.into(),
        }
        let mut bytes = batch[0].len();
        while bytes < BATCH
            && let Some(message) = events.try_next()
        {
            bytes += message.len();
            batch.push(message);
        }
        let messages = batch.len();
        if let Err(end) = write(&mut batch, events, sink).await {
            return end;
        }
        session.traffic.told(messages as u64, bytes as u64);
        metrics.messages_out(messages as u64, bytes as u64);
    }
}

/// Writes messages with one flush for all of them, while the client takes them.
async fn write(
    batch: &mut Vec<Utf8Bytes>,
    events: &dyn Events,
    sink: &mut SplitSink<Socket, Message>,
) -> Result<(), LeaseEnd> {
    let began = Instant::now();
    let writing = async {
        for message in batch.drain(..) {
            sink.feed(Message::Text(message)).await?;
        }
        sink.flush().await
    };
    tokio::pin!(writing);
    loop {
        tokio::select! {
            biased;
            written = &mut writing => return written.map_err(|_| LeaseEnd::ClientGone),
            () = sleep(LOOK) => {
                let too_much = events.end() == Some(BrowserEnd::SlowReader);
                if too_much || began.elapsed() > STALL {
                    return Err(LeaseEnd::SlowReader);
                }
            }
        }
    }
}
