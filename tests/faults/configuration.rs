//! F47, F48: configurations that are wrong, at the start and later.

use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use browser_pool_tests::{Home, Setup, case, eventually, pool_cli};
use rustix::process::Signal;

use crate::support::works;

/// Each with where it is wrong, what the answer says of that, and what to write instead if the first
/// sentence does not say that. The answer shows the line as well, so that a key alone proves nothing.
#[rustfmt::skip]
const BAD: [(&str, &str, &str, &str); 40] = [
    ("[pool", "1:6", "unclosed table, expected `]`", ""),
    ("pool = 3", "1:8",
        "`pool` must be a section, not a whole number",
        "write its keys below a line [pool]"),
    ("[pol]\nmax_size = 1", "1:2", "unknown section [pol]", "did you mean [pool]?"),
    ("[pool]\nmaxsize = 1", "2:1",
        "unknown key `maxsize` in [pool]",
        "did you mean `max_size`?"),
    ("[pool]\nmax_size = \"many\"", "2:12",
        "`max_size` must be a whole number from 0 to 1000, not \"many\"",
        ""),
    ("[pool]\nmax_size = 0", "2:12",
        "a pool without browsers serves nobody: `max_size` is 0",
        "set 1 or more, or name the servers of a fleet: `nats` in [fleet]"),
    ("[pool]\nmax_size = -1", "2:12",
        "`max_size` must be a whole number from 0 to 1000",
        ""),
    ("[pool]\nmax_size = 1.5", "2:12",
        "`max_size` must be a whole number from 0 to 1000, not a number with a fraction",
        ""),
    ("[pool]\nmax_size = 100000", "2:12",
        "`max_size` must be a whole number from 0 to 1000",
        ""),
    ("[pool]\nmin_size = 5\nmax_size = 2", "2:12",
        "`min_size` is 5, more than `max_size`, which is 2",
        "raise `max_size` to 5 or more, or lower `min_size`"),
    ("[pool]\nlease = \"both\"", "2:9",
        "`lease` must be \"exclusive\" or \"shared\", not \"both\"",
        ""),
    ("[pool]\nreset = \"never\"", "2:9",
        "`reset` must be \"context\" or \"relaunch\", not \"never\"",
        ""),
    ("[pool]\nacquire_timeout = 30", "2:19",
        "`acquire_timeout` must be a duration such as \"30s\", not a whole number",
        "write \"30s\""),
    ("[pool]\nacquire_timeout = \"30\"", "2:19",
        "`30` is not a duration",
        "add a unit: \"30s\" or \"30ms\""),
    ("[pool]\nacquire_timeout = \"soon\"", "2:19",
        "`soon` is not a duration",
        "write numbers with units, such as \"30s\", \"5m\" or \"1h 30m\""),
    ("[pool]\nacquire_timeout = \"-1s\"", "2:19",
        "`-1s` is not a duration",
        "write numbers with units, such as \"30s\", \"5m\" or \"1h 30m\""),
    ("[pool]\nleases_per_browser = 0", "2:22",
        "`leases_per_browser` must be a whole number from 1 to 64",
        ""),
    ("[pool]\nmax_creating = 0", "2:16",
        "`max_creating` must be a whole number from 1 to 64",
        ""),
    ("[pool]\nmax_size = 1\nmax_size = 2", "3:1", "duplicate key", ""),
    ("[gateway]\nlisten = \"3000\"", "2:10",
        "`3000` is not an address with a port",
        "write \"127.0.0.1:3000\""),
    ("[gateway]\nlisten = \"0.0.0.0:0\"", "2:10",
        "listening on 0.0.0.0:0 without a token",
        "beyond loopback anybody could take a browser: add token = { env = \"POOL_TOKEN\" }"),
    ("[gateway]\nlisten = 3000", "2:10",
        "`listen` must be an address such as \"127.0.0.1:3000\", not a whole number",
        "write \"127.0.0.1:3000\""),
    ("[gateway]\ntoken = { env = \"NOT_SET_ANYWHERE\" }", "2:17",
        "environment variable `NOT_SET_ANYWHERE` is not set",
        "export NOT_SET_ANYWHERE=… before the start, or leave the key out"),
    ("[gateway]\ntoken = { file = \"/nowhere/token\" }", "2:18",
        "cannot read /nowhere/token: no such file or directory",
        ""),
    ("[gateway]\ntoken = { enw = \"X\" }", "2:11",
        "`token` must be a string, { env = \"NAME\" } or { file = \"PATH\" }",
        "did you mean `env`?"),
    ("[gateway]\ntoken = 5", "2:9",
        "`token` must be a string, { env = \"NAME\" } or { file = \"PATH\" }, not a whole number",
        ""),
    ("[gateway]\nexternal_url = \"pool.example\"", "2:16",
        "this is not a url",
        "write one such as \"wss://pool.example\""),
    ("[gateway]\ndrain_timeout = \"1 fortnight\"", "2:17",
        "`1 fortnight` is not a duration",
        "write numbers with units, such as \"30s\", \"5m\" or \"1h 30m\""),
    ("[chrome]\nengine = \"firefox\"", "2:10",
        "`engine` must be \"auto\", \"shell\" or \"chromium\", not \"firefox\"",
        ""),
    ("[chrome]\nargs = [\"--remote-debugging-port=9222\"]", "2:9",
        "`--remote-debugging-port` cannot be set here",
        "the pool talks to browsers over a pipe: no port is ever opened"),
    ("[chrome]\nargs = [\"--user-data-dir=/x\"]", "2:9",
        "`--user-data-dir` cannot be set here",
        "use a profile: [profiles.NAME]"),
    ("[chrome]\nargs = \"--lang=de\"", "2:8",
        "`args` must be a list, not \"--lang=de\"",
        "put it in brackets: [\"…\"]"),
    ("[chrome]\nmax_memory = \"1 GiBi\"", "2:14",
        "`1 GiBi` is not a size",
        "write a number with a unit, such as \"512MiB\" or \"1GiB\""),
    ("[profiles.\"../etc\"]", "1:11",
        "`../etc` is not a name",
        "use up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit"),
    ("[profiles.work]\nmode = \"forever\"", "2:8",
        "`mode` must be \"persistent\" or \"template\", not \"forever\"",
        ""),
    ("[profiles.work]\nregion = \"nowhere\"", "2:10",
        "there is no region `nowhere`",
        "add a section [regions.nowhere]"),
    ("[regions.eu]", "1:10",
        "region `eu` has no proxies",
        "add proxies = [\"http://proxy.example:8080\"]: without one nothing goes out"),
    ("[regions.eu]\nproxies = [\"ftp://x:1\"]", "2:12",
        "`ftp:` is not a scheme that can be used here",
        "use http:// or socks5://"),
    ("[regions.eu]\nproxies = [\"http://u:p@x:1\"]", "2:12",
        "credentials do not belong in a url",
        "write { url = \"…\", username = \"…\", password = { env = \"…\" } }"),
    ("[regions.eu]\nproxies = [\"http://x:1\"]\nfallback = [\"us\"]", "3:13",
        "there is no region `us`",
        "add a section [regions.us]"),
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
            named: "does not support extensions",
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
            named: "/dev/null is not a directory",
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
    for (toml, at, wrong, instead) in BAD {
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
        assert!(told.starts_with(&format!("error: {wrong}\n")), "{toml}\nno {wrong:?}: {told}");
        assert!(told.contains(&format!("pool.toml:{at}\n")), "{toml}\nnot at {at}: {told}");
        let hint = format!("\nhint: {instead}\n");
        let is_told =
            if instead.is_empty() { !told.contains("\nhint: ") } else { told.contains(&hint) };
        assert!(is_told, "{toml}\nno {instead:?}: {told}");
        assert!(output.stdout.is_empty(), "{toml}");
        assert!(!home.state_dir().exists(), "{toml}\nsomething was made");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f48_bad_reload() {
    case(Setup::new(), async |case| {
        let holder = case.service.connect("/").await;
        let good = fs::read_to_string(case.home.config()).expect("it was written");
        for (bad, at, wrong, _) in BAD {
            let logged = case.home.log().len();
            fs::write(case.home.config(), bad).expect("the home is ours");
            case.service.signal(Signal::HUP);
            eventually("it says what is wrong", Duration::from_secs(10), async || {
                // Quotes are escaped in it.
                let log = case.home.log().split_off(logged).replace("\\\"", "\"");
                let said = log.contains(wrong) && log.contains(&format!("pool.toml:{at}"));
                if said { Ok(()) } else { Err((bad, log)) }
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
