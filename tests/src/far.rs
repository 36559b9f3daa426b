use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// A machine of its own for a client or a node, as far as the network is concerned: a network namespace at
/// the other end of a cable, which can be cut without either side being told.
///
/// Its drop removes it.
#[derive(Debug)]
pub struct FarMachine {
    namespace: String,
    cable: String,
    /// The address of this end, for the service to listen on.
    pub near: String,
    /// The address of the other end.
    pub far: String,
}

/// Networks that are set aside for documentation: others hardly have them.
const NETWORKS: [&str; 2] = ["198.51.100", "192.0.2"];

/// The number of blocks of four addresses in them.
const BLOCKS: u8 = 2 * 64;

/// The block of the next machine. Two that are there at once have different ones; those of another program
/// begin somewhere else.
static NEXT: LazyLock<AtomicU8> = LazyLock::new(|| AtomicU8::new(fastrand::u8(..BLOCKS)));

impl FarMachine {
    /// Lays the cable; `None`, with the reason printed, where this user or kernel may not.
    #[must_use]
    pub fn connect() -> Option<Self> {
        let number = fastrand::u16(..);
        let mut pairs = std::iter::repeat_with(next_pair).take(BLOCKS.into());
        let (near, far) = pairs.find(|(near, far)| !is_near(near) && !is_near(far))?;
        let (namespace, cable) = (format!("pool-far-{number}"), format!("pool{number}"));
        ip(&["netns", "add", &namespace])?;
        let machine = Self { namespace, cable, near, far };
        let (namespace, cable) = (machine.namespace.as_str(), machine.cable.as_str());
        const HARDWARE: &str = "02:00:c0:00:02:02";
        let pair = ["type", "veth", "peer", "name", "far", "address", HARDWARE, "netns", namespace];
        ip(&[&["link", "add", cable], &pair[..]].concat())?;
        ip(&["addr", "add", &format!("{}/30", machine.near), "dev", cable])?;
        ip(&["link", "set", cable, "up"])?;
        ip(&["-n", namespace, "addr", "add", &format!("{}/30", machine.far), "dev", "far"])?;
        ip(&["-n", namespace, "link", "set", "far", "up"])?;
        ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        // Or the kernel would find out by itself that nobody answers there any more.
        let neighbour = ["lladdr", HARDWARE, "dev", cable, "nud", "permanent"];
        ip(&[&["neigh", "replace", &machine.far], &neighbour[..]].concat())?;
        Some(machine)
    }

    /// What starts a program there.
    #[must_use]
    pub fn starter(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.namespace]
    }

    /// Drops everything in both directions from now on. Nobody is told.
    ///
    /// # Panics
    ///
    /// If it cannot be done.
    pub fn cut(&self) {
        let address = format!("{}/30", self.far);
        let cut = ip(&["-n", &self.namespace, "addr", "del", &address, "dev", "far"]);
        cut.expect("what was laid can be cut");
    }

    /// Carries everything again.
    ///
    /// # Panics
    ///
    /// If it cannot be done.
    pub fn mend(&self) {
        let address = format!("{}/30", self.far);
        let mended = ip(&["-n", &self.namespace, "addr", "add", &address, "dev", "far"]);
        mended.expect("what was cut can be mended");
    }
}

impl Drop for FarMachine {
    fn drop(&mut self) {
        ip(&["link", "del", &self.cable]);
        ip(&["netns", "del", &self.namespace]);
    }
}

/// Returns the next two addresses of a block.
fn next_pair() -> (String, String) {
    let block = NEXT.fetch_add(1, Ordering::Relaxed) % BLOCKS;
    let (network, first) = (NETWORKS[usize::from(block / 64)], 4 * (block % 64));
    (format!("{network}.{}", first + 1), format!("{network}.{}", first + 2))
}

/// Returns `true` if this machine has an address, or reaches it without a router: then it is somebody's.
fn is_near(address: &str) -> bool {
    match Command::new("ip").args(["route", "get", address]).output() {
        Ok(output) => {
            output.status.success() && !String::from_utf8_lossy(&output.stdout).contains(" via ")
        }
        Err(_) => false,
    }
}

/// Runs `ip`; `None`, with what it says printed, if it fails.
fn ip(words: &[&str]) -> Option<()> {
    match Command::new("ip").args(words).output() {
        Ok(output) if output.status.success() => Some(()),
        Ok(output) => {
            println!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            println!("ip: {error}");
            None
        }
    }
}
