use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// A network cable to a port of loopback, which fails as it is told.
///
/// Its drop cuts it for good.
#[derive(Debug)]
pub struct Cable {
    /// Its near end.
    pub port: u16,
    state: watch::Sender<CableState>,
    task: AbortHandle,
}

/// State of a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CableState {
    /// It carries all.
    Whole,
    /// Connections break off, and new ones do as soon as they are made.
    Cut,
    /// Nothing arrives, and nobody is told; what is under way arrives once it is whole.
    Silent,
}

impl Cable {
    /// Lays one to this port of loopback, with its near end at an address of this machine.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub async fn from(near: &str, far: u16) -> Self {
        let listener = TcpListener::bind((near, 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let (state, is) = watch::channel(CableState::Whole);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connect(client, far, is.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, state, task: task.abort_handle() }
    }

    /// Makes it so from now on.
    pub fn set(&self, state: CableState) {
        self.state.send_replace(state);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(client: TcpStream, far: u16, mut state: watch::Receiver<CableState>) {
    let mut carrying = state.clone();
    let carried = async {
        until(&mut carrying, |state| state != CableState::Silent).await;
        let server = TcpStream::connect(("127.0.0.1", far)).await?;
        // As on a cable, small messages are on their way at once.
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        let there = carry(from_client, to_server, carrying.clone());
        tokio::try_join!(there, carry(from_server, to_client, carrying)).map(drop)
    };
    tokio::select! {
        // Either end has gone, which is what the other one sees too.
        _ = carried => {}
        () = until(&mut state, |state| state == CableState::Cut) => {}
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<CableState>,
) -> io::Result<()> {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut chunk).await?;
        until(&mut state, |state| state != CableState::Silent).await;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..read]).await?;
    }
}

async fn until(state: &mut watch::Receiver<CableState>, is: fn(CableState) -> bool) {
    // Without its sender the task that waits is aborted.
    let _ = state.wait_for(|state| is(*state)).await;
}
