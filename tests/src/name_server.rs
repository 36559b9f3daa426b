use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use crate::{Home, Setup};

/// A name server of our own, whose answers change from one question to the next.
///
/// It is asked by whoever is started by [`Self::used_by`], and by nobody else.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

/// The answers for each name, in turn; each is all the addresses of one answer.
pub type Answers = HashMap<&'static str, Vec<Vec<Ipv4Addr>>>;

impl NameServer {
    /// Begins to answer.
    ///
    /// # Panics
    ///
    /// If there is no port 53 to be had, as without root.
    pub async fn start(answers: Answers) -> Self {
        // Ports of other tests' servers are their own: there are many addresses of this machine.
        let own = Ipv4Addr::new(127, 53, fastrand::u8(..), fastrand::u8(1..255));
        let socket = UdpSocket::bind((own, 53)).await.expect("port 53 of an address of our own");
        let address = socket.local_addr().expect("it is bound");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let remembered = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut turns = HashMap::<String, usize>::new();
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                let Some((name, kind, end)) = read(&question[..length]) else { continue };
                let mut addresses = None;
                if kind == 1 {
                    remembered.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
                    let turn = turns.entry(name.clone()).or_default();
                    addresses = answers.get(&*name).map(|turns| turns[*turn % turns.len()].clone());
                    *turn += 1;
                } else if answers.contains_key(&*name) {
                    addresses = Some(Vec::new());
                }
                // A question that is not answered is asked again.
                let _ = socket.send_to(&answer(&question[..end], addresses.as_deref()), from).await;
            }
        });
        Self { address, asked, task: task.abort_handle() }
    }

    /// The names whose addresses were asked for, in this order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the service and its Chromiums ask here.
    ///
    /// # Panics
    ///
    /// If the home cannot be written to.
    pub fn used_by(&self, setup: Setup, home: &Home) -> Setup {
        let file = home.path().join("resolv.conf");
        let text = format!("nameserver {}\noptions timeout:1 attempts:3\n", self.address.ip());
        std::fs::write(&file, text).expect("the home is ours");
        let script =
            format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", file.to_string_lossy());
        setup.wrapper(["unshare", "--mount", "--", "sh", "-c", &script, "sh"])
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The name and the type of a question, and where it ends.
fn read(question: &[u8]) -> Option<(String, u16, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(question.get(at..at + 2)?.try_into().ok()?);
    Some((labels.join("."), kind, at + 4))
}

/// The addresses, which may be remembered for no time at all; without any, that there is no such
/// name.
fn answer(question: &[u8], addresses: Option<&[Ipv4Addr]>) -> Vec<u8> {
    let mut answer = question.to_vec();
    let code = if addresses.is_some() { 0x80 } else { 0x83 };
    let addresses = addresses.unwrap_or_default();
    answer[2..12].copy_from_slice(&[0x81, code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    for address in addresses {
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend_from_slice(&address.octets());
    }
    answer
}
