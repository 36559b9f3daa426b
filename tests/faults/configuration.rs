//! F47, F48: configurations that are wrong, at the start and later.

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
