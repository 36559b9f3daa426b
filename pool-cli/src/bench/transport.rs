use std::io;

use futures_util::{SinkExt, StreamExt};
use pool_chrome::process::{Pipe, PipeReader, PipeWriter};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

/// A transport for messages to a browser and from it.
#[derive(Debug)]
pub(crate) enum Transport {
    /// A WebSocket: to a lease, or to a debugging port.
    WebSocket(Box<WebSocketStream<TcpStream>>),
    /// The pipe of a Chromium that was launched.
    Pipe(BufReader<PipeReader>, PipeWriter),
}

impl Transport {
    /// Opens a WebSocket.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] with the answer, if it was refused.
    pub(crate) async fn open(request: Request) -> Result<(Self, Response), Error> {
        let uri = request.uri();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, response) =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
        Ok((Self::WebSocket(Box::new(socket)), response))
    }

    /// Sends one message.
    pub(crate) async fn send(&mut self, mut message: String) -> io::Result<()> {
        match self {
            Self::WebSocket(socket) => {
                socket.send(Message::text(message)).await.map_err(io::Error::other)
            }
            Self::Pipe(_, writer) => {
                message.push('\0');
                writer.write_all(message.as_bytes()).await
            }
        }
    }

    /// The next message; an error when none comes any more.
    pub(crate) async fn recv(&mut self) -> io::Result<Vec<u8>> {
        let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
        match self {
            Self::WebSocket(socket) => loop {
                match socket.next().await.ok_or_else(ended)?.map_err(io::Error::other)? {
                    Message::Text(text) => return Ok(text.as_bytes().to_vec()),
                    Message::Close(Some(frame)) => return Err(io::Error::other(frame.to_string())),
                    Message::Close(None) => return Err(ended()),
                    _ => {}
                }
            },
            Self::Pipe(reader, _) => {
                let mut message = Vec::new();
                reader.read_until(0, &mut message).await?;
                message.pop().map(|_| message).ok_or_else(ended)
            }
        }
    }

    /// Says goodbye, as clients do.
    pub(crate) async fn close(self) -> io::Result<()> {
        match self {
            Self::WebSocket(mut socket) => {
                socket.as_mut().close(None).await.map_err(io::Error::other)
            }
            Self::Pipe(_, mut writer) => writer.shutdown().await,
        }
    }
}

impl From<Pipe> for Transport {
    fn from(pipe: Pipe) -> Self {
        Self::Pipe(BufReader::new(pipe.reader), pipe.writer)
    }
}
