//! Flags are stronger than the environment, the environment than the file, the file than defaults.

use std::time::Duration;

use pool_cli::config::{Config, Findings, LeaseKind, Loader, Place};

fn only_finding(loader: &Loader) -> (String, Option<String>, Option<Place>) {
    let findings: Findings = loader.load().expect_err("it is wrong");
    let finding = findings.iter().next().expect("an error has a finding").clone();
    assert_eq!(findings.iter().count(), 1, "{findings}");
    (finding.message, finding.hint, finding.place)
}

fn origin(loader: &Loader, section: &str, key: &str) -> Place {
    let loaded = loader.load().unwrap();
    let is_it =
        |setting: &&pool_cli::config::Setting| setting.section == section && setting.key == key;
    loaded.settings.iter().find(is_it).expect("every key is listed").origin.clone()
}

#[test]
fn nothing_at_all_gives_the_defaults() {
    let loaded = Loader::new().load().unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.warnings.is_empty());
    assert_eq!(Loader::new().text("pool.toml", "").load().unwrap().config, Config::default());
}

#[test]
fn the_stronger_source_wins() {
    let file = Loader::new().text("pool.toml", "[pool]\nmax_size = 3\n");
    assert_eq!(file.load().unwrap().config.pool.max_size, 3);
    assert_eq!(
        origin(&file, "pool", "max_size"),
        Place::File { path: "pool.toml".into(), line: 2, column: 12 }
    );

    let alias = file.variable("CONCURRENT", "4");
    assert_eq!(alias.load().unwrap().config.pool.max_size, 4);

    let variable = alias.variable("POOL__POOL__MAX_SIZE", "5");
    assert_eq!(variable.load().unwrap().config.pool.max_size, 5);
    assert_eq!(
        origin(&variable, "pool", "max_size"),
        Place::Environment { name: "POOL__POOL__MAX_SIZE".into() }
    );

    let flag = variable.flag("--max-size", "pool.max_size", "6");
    assert_eq!(flag.load().unwrap().config.pool.max_size, 6);
    assert_eq!(origin(&flag, "pool", "max_size"), Place::Flag { name: "--max-size".into() });
    assert_eq!(origin(&flag, "pool", "min_size"), Place::Default);
}

#[test]
fn a_variable_is_read_as_its_setting_wants_it() {
    let config = Loader::new()
        .variable("POOL__POOL__MIN_SIZE", " 1 ")
        .variable("POOL__POOL__LEASE", "shared")
        .variable("POOL__POOL__MAX_USE_COUNT", "off")
        .variable("POOL__POOL__ACQUIRE_TIMEOUT", "1m 30s")
        .variable("POOL__CHROME__HEADLESS", "false")
        .variable("POOL__CHROME__ARGS", r#"["--lang=de", "--mute-audio"]"#)
        .variable("POOL__CHROME__MAX_MEMORY", "2GiB")
        .variable("POOL__SIZING__SCALE_DOWN_UTILIZATION", "0.5")
        .variable("POOL__GATEWAY__TOKEN", "1234")
        .variable("POOL__WARMING__VIEWPORT", "[800, 600]")
        .load()
        .unwrap()
        .config;
    assert_eq!(config.pool.min_size, 1);
    assert_eq!(config.pool.lease, LeaseKind::Shared);
    assert_eq!(config.pool.max_use_count, None);
    assert_eq!(config.pool.acquire_timeout, Duration::from_secs(90));
    assert!(!config.chrome.headless);
    assert_eq!(config.chrome.args, ["--lang=de", "--mute-audio"]);
    assert_eq!(config.chrome.max_memory.map(|size| size.as_u64()), Some(2 << 30));
    assert_eq!(config.gateway.token.unwrap().expose(), "1234");
    assert_eq!(config.warming.viewport, [800, 600]);
}

#[test]
fn a_secret_in_the_environment_needs_no_warning() {
    let loaded = Loader::new().variable("POOL__GATEWAY__TOKEN", "canary").load().unwrap();
    assert!(loaded.warnings.is_empty());
}

#[test]
fn a_variable_may_point_to_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "from a file\n").unwrap();
    let reference = format!("{{ file = {:?} }}", path.display().to_string());
    let loaded = Loader::new().variable("POOL__GATEWAY__TOKEN", reference).load().unwrap();
    assert_eq!(loaded.config.gateway.token.unwrap().expose(), "from a file");
}

#[test]
fn names_of_profiles_and_regions_are_found_whatever_a_shell_made_of_them() {
    let file =
        "[regions.eu-west]\nproxies = [\"http://a:1\"]\n[profiles.Work]\nmode = \"template\"\n";
    let config = Loader::new()
        .text("pool.toml", file)
        .variable("POOL__REGIONS__EU_WEST__MAX_SIZE", "3")
        .variable("POOL__PROFILES__WORK__MAX_SIZE", "4")
        .variable("POOL__PROFILES__OTHER__MAX_SIZE", "5")
        .load()
        .unwrap()
        .config;
    assert_eq!(config.regions["eu-west"].max_size, 3);
    assert_eq!(config.regions.len(), 1);
    assert_eq!(config.profiles.named["Work"].max_size, Some(4));
    assert_eq!(config.profiles.named["other"].max_size, Some(5));

    let dashed = Loader::new()
        .variable("POOL__REGIONS__EU-WEST__PROXIES", r#"["http://a:1"]"#)
        .variable("POOL__REGIONS__EU-WEST__MAX_SIZE", "2");
    assert_eq!(dashed.load().unwrap().config.regions["eu-west"].max_size, 2);
}

#[test]
fn a_wrong_variable_is_named() {
    let place = |name: &str| Some(Place::Environment { name: name.to_owned() });

    let (message, hint, at) = only_finding(&Loader::new().variable("POOL__POOL__MAX_SIZE", "many"));
    assert_eq!(message, "`max_size` must be a whole number from 0 to 1000, not \"many\"");
    assert_eq!((hint, at), (None, place("POOL__POOL__MAX_SIZE")));

    let (message, hint, at) = only_finding(&Loader::new().variable("POOL__POOL__MAX_SISE", "4"));
    assert_eq!(message, "there is no such setting");
    assert_eq!(hint.as_deref(), Some("did you mean `POOL__POOL__MAX_SIZE`?"));
    assert_eq!(at, place("POOL__POOL__MAX_SISE"));

    let (_, hint, _) = only_finding(&Loader::new().variable("POOL__POL__MAX_SIZE", "4"));
    assert_eq!(hint.as_deref(), Some("did you mean `POOL__POOL__MAX_SIZE`?"));

    let (_, hint, _) = only_finding(&Loader::new().variable("POOL__POOL__MAX_SIZE__X", "4"));
    assert_eq!(hint.as_deref(), Some("`max_size` has no keys"));

    let (message, _, at) = only_finding(&Loader::new().variable("CONCURRENT", "-1"));
    assert_eq!(message, "`max_size` must be a whole number from 0 to 1000");
    assert_eq!(at, place("CONCURRENT"));
}

#[test]
fn a_wrong_flag_is_named() {
    let loader = Loader::new().flag("--listen", "gateway.listen", "localhost:1");
    let (message, hint, at) = only_finding(&loader);
    assert_eq!(message, "`localhost:1` is not an address with a port");
    assert_eq!(hint.as_deref(), Some("write \"127.0.0.1:1\""));
    assert_eq!(at, Some(Place::Flag { name: "--listen".into() }));
}

#[test]
fn the_variables_of_browserless_are_understood() {
    let config = Loader::new()
        .variable("TOKEN", "canary")
        .variable("CONCURRENT", "3")
        .variable("QUEUED", "7")
        .variable("TIMEOUT", "60000")
        .variable("EXTERNAL", "https://chrome.example")
        .load()
        .unwrap()
        .config;
    assert_eq!(config.gateway.token.unwrap().expose(), "canary");
    assert_eq!(config.pool.max_size, 3);
    assert_eq!(config.pool.max_waiting, 7);
    assert_eq!(config.pool.lease_timeout, Some(Duration::from_secs(60)));
    assert_eq!(config.gateway.external_url.as_deref(), Some("https://chrome.example"));

    let empty = Loader::new().variable("TOKEN", "").variable("TIMEOUT", "").load().unwrap();
    assert_eq!(empty.config, Config::default());

    let endless = Loader::new().variable("TIMEOUT", "-1").load().unwrap().config;
    assert_eq!(endless.pool.lease_timeout, None);
}

#[test]
fn a_default_makes_room_for_what_was_written() {
    let config = Loader::new().text("pool.toml", "[pool]\nmax_size = 1").load().unwrap().config;
    assert_eq!((config.pool.min_size, config.pool.max_size), (1, 1));

    let text = "[pool]\nmax_size = 3\n[profiles.work]\nmin_size = 2";
    let config = Loader::new().text("pool.toml", text).load().unwrap().config;
    assert_eq!(config.pool.min_size, 1);
}

#[test]
fn the_listing_hides_secrets() {
    let loaded = Loader::new()
        .variable("PASSWORD", "canary")
        .variable("TOKEN", "canary")
        .text(
            "pool.toml",
            "[regions.eu]\nproxies = [{ url = \"http://a:1\", username = \"u\", password = { env = \"PASSWORD\" } }]",
        )
        .load()
        .unwrap();
    assert_eq!(
        loaded.config.regions["eu"].proxies[0].password.as_ref().unwrap().expose(),
        "canary"
    );
    let listed = format!("{:?}", loaded.settings);
    assert!(listed.contains("(hidden)") && !listed.contains("canary"), "{listed}");
    assert!(!format!("{:?}", loaded.config).contains("canary"));
}
