//! F47, F48: configurations that are wrong, at the start and later.

use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use browser_pool_tests::{Home, Setup, case, eventually, pool_cli};
use rustix::process::Signal;

use crate::support::works;

/// Each with what the answer must name.
const BAD: [(&str, &str); 40] = [
    ("[pool", "pool.toml:1"),
    ("pool = 3", "pool"),
    ("[pol]\nmax_size = 1", "pool"),
    ("[pool]\nmaxsize = 1", "max_size"),
    ("[pool]\nmax_size = \"many\"", "max_size"),
    ("[pool]\nmax_size = 0", "max_size"),
    ("[pool]\nmax_size = -1", "max_size"),
    ("[pool]\nmax_size = 1.5", "max_size"),
    ("[pool]\nmax_size = 100000", "max_size"),
    ("[pool]\nmin_size = 5\nmax_size = 2", "min_size"),
    ("[pool]\nlease = \"both\"", "shared"),
    ("[pool]\nreset = \"never\"", "relaunch"),
    ("[pool]\nacquire_timeout = 30", "30s"),
    ("[pool]\nacquire_timeout = \"30\"", "30s"),
    ("[pool]\nacquire_timeout = \"soon\"", "acquire_timeout"),
    ("[pool]\nacquire_timeout = \"-1s\"", "acquire_timeout"),
    ("[pool]\nleases_per_browser = 0", "leases_per_browser"),
    ("[pool]\nmax_creating = 0", "max_creating"),
    ("[pool]\nmax_size = 1\nmax_size = 2", "max_size"),
    ("[gateway]\nlisten = \"3000\"", "127.0.0.1"),
    ("[gateway]\nlisten = \"0.0.0.0:0\"", "token"),
    ("[gateway]\nlisten = 3000", "listen"),
    ("[gateway]\ntoken = { env = \"NOT_SET_ANYWHERE\" }", "NOT_SET_ANYWHERE"),
    ("[gateway]\ntoken = { file = \"/nowhere/token\" }", "/nowhere/token"),
    ("[gateway]\ntoken = { enw = \"X\" }", "env"),
    ("[gateway]\ntoken = 5", "token"),
    ("[gateway]\nexternal_url = \"pool.example\"", "external_url"),
    ("[gateway]\ndrain_timeout = \"1 fortnight\"", "drain_timeout"),
    ("[chrome]\nengine = \"firefox\"", "shell"),
    ("[chrome]\nargs = [\"--remote-debugging-port=9222\"]", "remote-debugging-port"),
    ("[chrome]\nargs = [\"--user-data-dir=/x\"]", "user-data-dir"),
    ("[chrome]\nargs = \"--lang=de\"", "args"),
    ("[chrome]\nmax_memory = \"1 GiBi\"", "max_memory"),
    ("[profiles.\"../etc\"]", "profiles"),
    ("[profiles.work]\nmode = \"forever\"", "template"),
    ("[profiles.work]\nregion = \"nowhere\"", "nowhere"),
    ("[regions.eu]", "proxies"),
    ("[regions.eu]\nproxies = [\"ftp://x:1\"]", "proxies"),
    ("[regions.eu]\nproxies = [\"http://u:p@x:1\"]", "username"),
    ("[regions.eu]\nproxies = [\"http://x:1\"]\nfallback = [\"us\"]", "us"),
];

/// Settings that are fine by themselves and hopeless on this machine: the wrapper that makes the
/// machine so, the variables, the configuration, and what the answer must name.
struct Hopeless {
    wrapper: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
    toml: &'static str,
    named: &'static str,
}

const PLAIN: Hopeless = Hopeless { wrapper: &[], variables: &[], toml: "", named: "" };

const READ_ONLY: &str =
    "mkdir \"$HOME/ro\" && mount -t tmpfs -o ro tmpfs \"$HOME/ro\" && exec \"$0\" \"$@\"";

fn hopeless() -> Vec<Hopeless> {
    let mut all = vec![
        Hopeless {
            toml: "[chrome]\nengine = \"shell\"\nexecutable = \"/usr/bin/chromium\"",
            named: "is a Chromium browser, but `engine` is",
            ..PLAIN
        },
        Hopeless {
            toml: "[chrome]\nengine = \"chromium\"\nexecutable = \"/usr/bin/chromium-headless-shell\"",
            named: "is a headless shell",
            ..PLAIN
        },
        Hopeless {
            variables: &[("CHROME", "/nowhere/chromium")],
            named: "/nowhere/chromium (from the environment variable CHROME)",
            ..PLAIN
        },
        Hopeless {
            variables: &[("CHROME", "/usr/bin/chromium")],
            toml: "[chrome]\nengine = \"shell\"",
            named: "CHROME",
            ..PLAIN
        },
        Hopeless {
            toml: "[chrome]\nengine = \"shell\"\nargs = [\"--load-extension=/x\"]",
            named: "has no extensions",
            ..PLAIN
        },
        Hopeless { toml: "[chrome]\nheadless = false", named: "DISPLAY", ..PLAIN },
        Hopeless {
            toml: "[chrome]\nheadless = false\nexecutable = \"/usr/bin/chromium-headless-shell\"",
            named: "has no window",
            ..PLAIN
        },
        Hopeless {
            toml: "[gateway]\nlisten = \"203.0.113.7:3000\"\ntoken = { env = \"HOME\" }",
            named: "this machine has no such address",
            ..PLAIN
        },
        Hopeless {
            variables: &[("POOL__POOL__STATE_DIR", "/dev/null/pool")],
            named: "/dev/null is no directory",
            ..PLAIN
        },
        Hopeless {
            wrapper: &["prlimit", "--nofile=60:60"],
            toml: "[pool]\nmax_size = 8",
            named: "open files",
            ..PLAIN
        },
    ];
    if rustix::process::geteuid().is_root() {
        all.push(Hopeless {
            toml: "[chrome]\nsandbox = \"on\"",
            named: "refuses to sandbox when it is run by root",
            ..PLAIN
        });
        all.push(Hopeless {
            wrapper: &["unshare", "--mount", "sh", "-c", READ_ONLY],
            variables: &[("POOL__POOL__STATE_DIR", "ro/state")],
            named: "read-only",
            ..PLAIN
        });
    }
    all
}

/// Refused at the start with a sentence, and by `check` with the same: nothing listens and tries
/// for ever.
#[test]
fn f47_settings_that_can_never_work() {
    for Hopeless { wrapper, variables, toml, named } in hopeless() {
        let told = ["run", "check"].map(|command| {
            let home = Home::new();
            fs::write(home.config(), toml).expect("the home is ours");
            let words: Vec<&OsStr> = wrapper
                .iter()
                .map(OsStr::new)
                .chain([pool_cli().as_os_str(), command.as_ref(), "--config".as_ref()])
                .collect();
            // One that does not refuse would serve until it is ended.
            let output = std::process::Command::new("timeout")
                .args(["--kill-after=5", "20"])
                .args(words)
                .arg(home.config())
                .current_dir(home.user_home())
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("HOME", home.user_home())
                .env("XDG_STATE_HOME", home.state_dir())
                .envs(variables.iter().copied())
                .output()
                .expect("timeout is there");
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(78), "{command}: {toml} {variables:?}\n{told}");
            assert!(told.contains(named), "{command}: {toml}\nno {named:?}: {told}");
            assert!(output.stdout.is_empty(), "{command}: {toml}: it listened");
            assert!(!home.state_dir().exists(), "{command}: {toml}\nsomething was made");
            told.replace(&*home.path().to_string_lossy(), "HOME")
        });
        assert_eq!(told[0], told[1], "`run` and `check` say the same: {toml}");
    }
}

/// What stands in the way of a launch and can be gone round is gone round.
#[tokio::test(flavor = "multi_thread")]
async fn f47_shared_memory_that_cannot_be_written() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tested: only root can mount over /dev/shm");
        return;
    }
    let mount = "mount -t tmpfs -o ro tmpfs /dev/shm && exec \"$0\" \"$@\"";
    let setup = Setup::new().wrapper(["unshare", "--mount", "sh", "-c", mount]);
    case(setup, async |case| {
        works(&case.service.connect("/").await).await.expect("it does without");
    })
    .await;
}

/// Refused with the file and what is to be written, before anything was started or made.
#[test]
fn f47_forty_bad_configurations() {
    for (toml, named) in BAD {
        let home = Home::new();
        fs::write(home.config(), toml).expect("the home is ours");
        let output = std::process::Command::new(pool_cli())
            .args(["run", "--config"])
            .arg(home.config())
            .env("HOME", home.user_home())
            .env("XDG_STATE_HOME", home.state_dir())
            .env("NO_COLOR", "1")
            .output()
            .expect("it is executable");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{toml}\n{told}");
        assert!(told.contains("pool.toml"), "{toml}\nnot where: {told}");
        assert!(told.contains(named), "{toml}\nno {named:?}: {told}");
        assert!(output.stdout.is_empty(), "{toml}");
        assert!(!home.state_dir().exists(), "{toml}\nsomething was made");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f48_bad_reload() {
    case(Setup::new(), async |case| {
        let holder = case.service.connect("/").await;
        let good = fs::read_to_string(case.home.config()).expect("it was written");
        for (bad, named) in BAD {
            let logged = case.home.log().len();
            fs::write(case.home.config(), bad).expect("the home is ours");
            case.service.signal(Signal::HUP);
            eventually("it says what is wrong", Duration::from_secs(10), async || {
                let log = case.home.log().split_off(logged);
                if log.contains(named) { Ok(()) } else { Err((bad, log)) }
            })
            .await;
            assert!(case.service.is_running(), "{bad}");
        }
        works(&holder).await.expect("leases go on");
        let load = case.service.state().await["load"].clone();
        assert_eq!(load["max_size"], 2, "the old configuration stays: {load}");
        holder.close().await;

        fs::write(case.home.config(), good.replace("max_size = 2", "max_size = 3")).expect("ours");
        case.service.signal(Signal::HUP);
        eventually("a good one is taken", Duration::from_secs(10), async || {
            let load = case.service.state().await["load"].clone();
            if load["max_size"] == 3 { Ok(()) } else { Err(load) }
        })
        .await;
    })
    .await;
}
