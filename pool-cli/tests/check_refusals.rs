//! Bad configurations: each is refused at its line and column, with what to write instead.

use pool_cli::config::{Finding, FleetConfig, Loader, Place, PrivateAddresses};

/// One bad file: what is in it, where it is wrong, what is said, what is suggested.
type Case = (&'static str, (usize, usize), &'static str, &'static str);

const SYNTAX: &[Case] = &[
    ("[pool", (1, 6), "unclosed table, expected `]`", ""),
    ("[pool]\nmax_size =\n", (2, 11), "string values must be quoted, expected literal string", ""),
    ("[pool]\nmax_size = 4\nmax_size = 5", (3, 1), "duplicate key", ""),
    ("[pool]\nlease = shared", (2, 9), "string values must be quoted, expected literal string", ""),
    ("[log]\nfilter = \"info", (2, 15), "invalid basic string, expected `\"`", ""),
];

const UNKNOWN: &[Case] = &[
    (
        "[pool]\nmax_sise = 4",
        (2, 1),
        "unknown key `max_sise` in [pool]",
        "did you mean `max_size`?",
    ),
    ("[pool]\nmaxSize = 4", (2, 1), "unknown key `maxSize` in [pool]", "did you mean `max_size`?"),
    (
        "[pool]\nmax-size = 4",
        (2, 1),
        "unknown key `max-size` in [pool]",
        "did you mean `max_size`?",
    ),
    (
        "[pool]\ncolour = 4",
        (2, 1),
        "unknown key `colour` in [pool]",
        "known keys: name, min_size, max_size, lease, lease_choice, leases_per_browser, reset, \
         acquire_timeout, max_waiting, max_idle_time, max_lifetime, max_use_count, max_creating, \
         health_check_interval, lease_timeout, lease_idle_timeout, keep_limit, state_dir",
    ),
    (
        "max_waiting = 4",
        (1, 1),
        "unknown key `max_waiting` outside of any section",
        "it belongs in [pool] or [tenants.NAME]",
    ),
    (
        "[gateway]\nmax_size = 4",
        (2, 1),
        "unknown key `max_size` in [gateway]",
        "it belongs in [pool], [profiles.NAME] or [regions.NAME]",
    ),
    (
        "[pool]\nheadless = true",
        (2, 1),
        "unknown key `headless` in [pool]",
        "it belongs in [chrome]",
    ),
    ("[chrom]\nheadless = true", (1, 2), "unknown section [chrom]", "did you mean [chrome]?"),
    ("[profile.work]", (1, 2), "unknown section [profile]", "did you mean [profiles]?"),
    (
        "[zebra]",
        (1, 2),
        "unknown section [zebra]",
        "known sections: [gateway], [pool], [chrome], [egress], [profiles], [priority], [tenants], [regions], [sizing], \
         [warming], [fleet], [alerts], [telemetry], [log]",
    ),
    (
        "[profiles.work]\nmod = \"template\"",
        (2, 1),
        "unknown key `mod` in [profiles.work]",
        "did you mean `mode`?",
    ),
    (
        "[regions.eu]\nproxies = [{ url = \"http://a:1\", user = \"x\" }]",
        (2, 34),
        "unknown key `user` in [regions.eu.proxies]",
        "did you mean `username`?",
    ),
];

const TYPES: &[Case] = &[
    (
        "[pool]\nmax_size = \"8\"",
        (2, 12),
        "`max_size` must be a whole number from 0 to 1000, not \"8\"",
        "write 8, without quotes",
    ),
    (
        "[pool]\nmax_size = 2.5",
        (2, 12),
        "`max_size` must be a whole number from 0 to 1000, not a number with a fraction",
        "",
    ),
    ("[pool]\nmin_size = -1", (2, 12), "`min_size` must be a whole number, 0 or more", ""),
    ("[pool]\nmax_size = 1001", (2, 12), "`max_size` must be a whole number from 0 to 1000", ""),
    ("[pool]\nmax_creating = 0", (2, 16), "`max_creating` must be a whole number from 1 to 64", ""),
    (
        "[pool]\nmax_use_count = 0",
        (2, 17),
        "`max_use_count` must be a whole number, 1 or more, or \"off\"",
        "",
    ),
    (
        "[chrome]\nheadless = \"true\"",
        (2, 12),
        "`headless` must be true or false, not \"true\"",
        "write true, without quotes",
    ),
    (
        "[sizing]\nenabled = 1",
        (2, 11),
        "`enabled` must be true or false, not a whole number",
        "write true",
    ),
    (
        "[chrome]\nargs = \"--lang=de\"",
        (2, 8),
        "`args` must be a list, not \"--lang=de\"",
        "put it in brackets: [\"…\"]",
    ),
    (
        "pool = 4",
        (1, 8),
        "`pool` must be a section, not a whole number",
        "write its keys below a line [pool]",
    ),
    ("[warming]\nviewport = [1280]", (2, 12), "`viewport` must have 2 items, not 1", ""),
    (
        "[warming]\nviewport = [1280, 0]",
        (2, 19),
        "`viewport` must be a whole number from 1 to 16384",
        "",
    ),
    (
        "[warming]\nurl = 1979-05-27",
        (2, 7),
        "`url` must be a url such as \"about:blank\", not a date",
        "",
    ),
    ("[priority]\ndefault = 11", (2, 11), "`default` must be a whole number from 1 to 10", ""),
    (
        "[sizing]\nscale_down_utilization = 30",
        (2, 26),
        "`scale_down_utilization` must be a number from 0.0 to 1.0",
        "",
    ),
    (
        "[gateway]\ntoken = 1234",
        (2, 9),
        "`token` must be a string, { env = \"NAME\" } or { file = \"PATH\" }, not a whole number",
        "",
    ),
];

const WORDS: &[Case] = &[
    (
        "[pool]\nlease = \"share\"",
        (2, 9),
        "`lease` must be \"exclusive\" or \"shared\", not \"share\"",
        "did you mean \"shared\"?",
    ),
    (
        "[chrome]\nengine = \"chrome\"",
        (2, 10),
        "`engine` must be \"auto\", \"shell\" or \"chromium\", not \"chrome\"",
        "did you mean \"chromium\"?",
    ),
    (
        "[chrome]\nsandbox = false",
        (2, 11),
        "`sandbox` must be \"auto\", \"on\" or \"off\", not false",
        "",
    ),
    (
        "[log]\nformat = \"JSON\"",
        (2, 10),
        "`format` must be \"auto\", \"human\" or \"json\", not \"JSON\"",
        "did you mean \"json\"?",
    ),
    (
        "[profiles.work]\nmode = \"persist\"",
        (2, 8),
        "`mode` must be \"persistent\" or \"template\", not \"persist\"",
        "did you mean \"persistent\"?",
    ),
    (
        "[log]\nfilter = \"inof\"",
        (2, 10),
        "`inof` is not a level of the log",
        "did you mean `info`?",
    ),
];

const UNITS: &[Case] = &[
    (
        "[pool]\nacquire_timeout = 30",
        (2, 19),
        "`acquire_timeout` must be a duration such as \"30s\", not a whole number",
        "write \"30s\"",
    ),
    (
        "[pool]\nacquire_timeout = \"30\"",
        (2, 19),
        "`30` is not a duration",
        "add a unit: \"30s\" or \"30ms\"",
    ),
    (
        "[pool]\nacquire_timeout = \"soon\"",
        (2, 19),
        "`soon` is not a duration",
        "write numbers with units, such as \"30s\", \"5m\" or \"1h 30m\"",
    ),
    (
        "[pool]\nacquire_timeout = \"0s\"",
        (2, 19),
        "a duration must be longer than zero",
        "write numbers with units, such as \"30s\", \"5m\" or \"1h 30m\"",
    ),
    (
        "[gateway]\ndrain_timeout = \"off\"",
        (2, 17),
        "`off` is not a duration",
        "write numbers with units, such as \"30s\", \"5m\" or \"1h 30m\"",
    ),
    (
        "[pool]\nmax_lifetime = false",
        (2, 16),
        "`max_lifetime` must be a duration such as \"30s\", or \"off\", not false",
        "write \"off\"",
    ),
    (
        "[pool]\nmax_idle_time = 0",
        (2, 17),
        "`max_idle_time` must be a duration such as \"30s\", or \"off\", not a whole number",
        "write \"off\"",
    ),
    ("[chrome]\nmax_memory = \"512\"", (2, 14), "`512` is not a size", "add a unit: \"512MiB\""),
    (
        "[chrome]\nmax_memory = 512",
        (2, 14),
        "`max_memory` must be a size such as \"512MiB\", or \"off\", not a whole number",
        "write \"512MiB\"",
    ),
    (
        "[chrome]\nmax_memory = \"lots\"",
        (2, 14),
        "`lots` is not a size",
        "write a number with a unit, such as \"512MiB\" or \"1GiB\"",
    ),
];

const ADDRESSES: &[Case] = &[
    (
        "[gateway]\nlisten = 3000",
        (2, 10),
        "`listen` must be an address such as \"127.0.0.1:3000\", not a whole number",
        "write \"127.0.0.1:3000\"",
    ),
    (
        "[gateway]\nlisten = \"localhost:3000\"",
        (2, 10),
        "`localhost:3000` is not an address with a port",
        "write \"127.0.0.1:3000\"",
    ),
    (
        "[gateway]\nlisten = \":3000\"",
        (2, 10),
        "`:3000` is not an address with a port",
        "write \"0.0.0.0:3000\"; beyond loopback a token is required",
    ),
    (
        "[gateway]\nlisten = \"127.0.0.1\"",
        (2, 10),
        "`127.0.0.1` is not an address with a port",
        "add a port: \"127.0.0.1:3000\"",
    ),
    (
        "[gateway]\nlisten = \"127.0.0.1:70000\"",
        (2, 10),
        "`127.0.0.1:70000` is not an address with a port",
        "write an IP address and a port, such as \"127.0.0.1:3000\"",
    ),
    (
        "[gateway]\nexternal_url = \"pool.example\"",
        (2, 16),
        "this is not a url",
        "write one such as \"wss://pool.example\"",
    ),
    (
        "[gateway]\nexternal_url = \"ftp://pool.example\"",
        (2, 16),
        "`ftp:` is not a scheme that can be used here",
        "use ws://, wss://, http:// or https://",
    ),
    (
        "[gateway]\nexternal_url = \"wss://pool.example/?token=x\"",
        (2, 16),
        "`wss://pool.example/?token=x` has a query",
        "leave it out: the query of each request is kept",
    ),
    (
        "[alerts]\nerror_url = { env = \"SECRET\" }",
        (2, 13),
        "`error_url`: this is not a url",
        "write one such as \"https://hooks.example/pool\"",
    ),
    (
        "[telemetry]\notlp_endpoint = \"grpc://127.0.0.1:4317\"",
        (2, 17),
        "`grpc:` is not a scheme that can be used here",
        "use http:// or https://",
    ),
    (
        "[telemetry]\notlp_endpoint = \"https://me:s3cret@otlp.example\"",
        (2, 17),
        "credentials do not belong in a url",
        "set OTEL_EXPORTER_OTLP_HEADERS in the environment",
    ),
    (
        "[gateway]\nallowed_origins = [\"https://tools.example/\"]",
        (2, 20),
        "`https://tools.example/` is not an origin",
        "write \"https://tools.example\"",
    ),
    (
        "[gateway]\nallowed_hosts = [\"https://pool.internal\"]",
        (2, 18),
        "`https://pool.internal` is not a host name",
        "write \"pool.internal\"",
    ),
    (
        "[gateway]\nallowed_hosts = [\"pool.internal:80\"]",
        (2, 18),
        "`pool.internal:80` has a port",
        "write \"pool.internal\": it applies to every port",
    ),
    (
        "[warming]\nurl = \"file:///etc/passwd\"",
        (2, 7),
        "`file:` is not a scheme that can be used here",
        "begin with http://, https://, about: or data:",
    ),
    (
        "[regions.eu]\nproxies = [\"eu-1.example:8080\"]",
        (2, 12),
        "`eu-1.example:` is not a scheme that can be used here",
        "begin with http:// or socks5://",
    ),
    (
        "[regions.eu]\nproxies = [\"socks5://eu-1.example\"]",
        (2, 12),
        "`socks5://eu-1.example` has no port",
        "add one: \"socks5://eu-1.example:1080\"",
    ),
    (
        "[regions.eu]\nproxies = [\"http://eu-1.example:8080/path\"]",
        (2, 12),
        "`http://eu-1.example:8080/path` has more than a host and a port",
        "leave out what follows the port",
    ),
    (
        "[regions.eu]\nproxies = [\"http://me:secret@eu-1.example:8080\"]",
        (2, 12),
        "credentials do not belong in a url",
        "write { url = \"…\", username = \"…\", password = { env = \"…\" } }",
    ),
    (
        "[regions.eu]\nproxies = [{ username = \"me\" }]",
        (2, 12),
        "`url` is missing",
        "add url = \"…\"",
    ),
    (
        "[regions.eu]\nproxies = [{ url = \"http://a:1\", password = { env = \"SECRET\" } }]",
        (2, 12),
        "a `password` without a `username`",
        "add username = \"…\"",
    ),
];

const PATTERNS: &[Case] = &[
    (
        "[egress]\nprivate = \"none\"",
        (2, 11),
        "`private` must be \"allow\" or \"deny\", not \"none\"",
        "",
    ),
    (
        "[egress]\nprivat = \"deny\"",
        (2, 1),
        "unknown key `privat` in [egress]",
        "did you mean `private`?",
    ),
    (
        "[egress]\ndeny = [\"*:25\", \"https://ads.example/x\"]",
        (2, 17),
        "`https://ads.example/x` is a URL",
        "write \"ads.example\"",
    ),
    (
        "[egress]\nallow = [\"10.1.2.3/24\"]",
        (2, 10),
        "`10.1.2.3/24` names an address and not its network",
        "write \"10.1.2.0/24\"",
    ),
    (
        "[egress]\ndeny = [\"ads.*\"]",
        (2, 9),
        "`ads.*` cannot be matched",
        "a `*` may stand only before the first dot: \"*.ads.example\"",
    ),
    (
        "[egress]\nclient_proxies = [\"proxy.example:http\"]",
        (2, 19),
        "`http` is not a port",
        "write a number from 1 to 65535, or `*` for every port",
    ),
    (
        "[egress]\ndeny = \"*:25\"",
        (2, 8),
        "`deny` must be a list, not \"*:25\"",
        "put it in brackets: [\"…\"]",
    ),
];

const PATHS: &[Case] = &[
    ("[pool]\nstate_dir = \"\"", (2, 13), "a path must not be empty", ""),
    (
        "[pool]\nstate_dir = \"~/pool\"",
        (2, 13),
        "`~/pool` begins with `~`",
        "a shell would expand it, but the pool does not: write the whole path",
    ),
];

const DIRECTORIES: &[Case] = &[
    (
        "[pool]\nlease = \"shared\"\n[chrome]\ndirectories = [\"/tmp\", \"uploads\"]",
        (4, 24),
        "uploads is not an absolute path",
        "begin it with a slash",
    ),
    (
        "[pool]\nlease = \"shared\"\n[chrome]\ndirectories = [\"/nowhere\"]",
        (4, 16),
        "there is no directory /nowhere",
        "make it, or leave it out",
    ),
    (
        "[pool]\nlease = \"shared\"\n[chrome]\ndirectories = [\"~/uploads\"]",
        (4, 16),
        "`~/uploads` begins with `~`",
        "a shell would expand it, but the pool does not: write the whole path",
    ),
];

const SECRETS: &[Case] = &[
    (
        "[gateway]\ntoken = { env = \"ABSENT\" }",
        (2, 17),
        "environment variable `ABSENT` is not set",
        "export ABSENT=… before the start, or leave the key out",
    ),
    (
        "[gateway]\ntoken = { file = \"/nonexistent/token\" }",
        (2, 18),
        "cannot read /nonexistent/token: no such file or directory",
        "",
    ),
    (
        "[gateway]\ntoken = { evn = \"SECRET\" }",
        (2, 11),
        "`token` must be a string, { env = \"NAME\" } or { file = \"PATH\" }",
        "did you mean `env`?",
    ),
    ("[gateway]\ntoken = \"\"", (2, 9), "`token` is empty", "leave the key out if there is none"),
];

const FLAGS: &[Case] = &[
    (
        "[chrome]\nargs = [\"--lang=de\", \"--remote-debugging-port=9222\"]",
        (2, 22),
        "`--remote-debugging-port` cannot be set here",
        "the pool talks to browsers over a pipe: no port is ever opened",
    ),
    (
        "[chrome]\nargs = [\"--no-sandbox\"]",
        (2, 9),
        "`--no-sandbox` cannot be set here",
        "use `sandbox = \"off\"` in [chrome]",
    ),
    (
        "[chrome]\nargs = [\"-lang=de\"]",
        (2, 9),
        "`-lang=de` is not a flag",
        "flags begin with two dashes: \"--lang=de\"",
    ),
];

const NAMES: &[Case] = &[
    (
        "[profiles.\"../../etc\"]",
        (1, 11),
        "`../../etc` is not a name",
        "use up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit",
    ),
    (
        "[regions.\"eu west\"]\nproxies = [\"http://a:1\"]",
        (1, 10),
        "`eu west` is not a name",
        "use up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit",
    ),
];

const CONTRADICTIONS: &[Case] = &[
    (
        "[pool]\nmax_size = 0",
        (2, 12),
        "a pool without browsers serves nobody: `max_size` is 0",
        "set 1 or more, or name the servers of a fleet: `nats` in [fleet]",
    ),
    (
        "[gateway]\nlisten = \"0.0.0.0:3000\"",
        (2, 10),
        "listening on 0.0.0.0:3000 without a token",
        "beyond loopback anybody could take a browser: add token = { env = \"POOL_TOKEN\" }",
    ),
    (
        "[pool]\nmin_size = 5\nmax_size = 2",
        (2, 12),
        "`min_size` is 5, more than `max_size`, which is 2",
        "raise `max_size` to 5 or more, or lower `min_size`",
    ),
    (
        "[profiles.work]\nmin_size = 3",
        (2, 12),
        "`min_size` is 3, more than `max_size`, which is 2",
        "raise `max_size` to 3 or more, or lower `min_size`",
    ),
    (
        "[pool]\nmin_size = 2\nmax_size = 3\n[profiles.work]\nmin_size = 2",
        (3, 12),
        "the minimums of the pool, its profiles and regions add up to 4, but `max_size` is 3",
        "set `max_size` in [pool] to 4 or more",
    ),
    (
        "[chrome]\nengine = \"shell\"\nheadless = false",
        (3, 12),
        "engine = \"shell\" has no windows, but `headless` is false",
        "set engine = \"chromium\" or leave `headless` out",
    ),
    (
        "[chrome]\nexecutable = \"/nonexistent/chromium\"",
        (2, 14),
        "there is no /nonexistent/chromium",
        "leave `executable` out to look on PATH, and see `pool-cli doctor`",
    ),
    (
        "[chrome]\nexecutable = \"/etc/passwd\"",
        (2, 14),
        "/etc/passwd cannot be executed",
        "leave `executable` out to look on PATH, and see `pool-cli doctor`",
    ),
    (
        "[profiles.work]\nregion = \"eu\"",
        (2, 10),
        "there is no region `eu`",
        "add a section [regions.eu]",
    ),
    (
        "[regions.eu-west]\nproxies = [\"http://a:1\"]\n[profiles.work]\nregion = \"eu-wst\"",
        (4, 10),
        "there is no region `eu-wst`",
        "did you mean `eu-west`?",
    ),
    (
        "[regions.eu]\nproxies = [\"http://a:1\"]\nfallback = [\"us\"]",
        (3, 13),
        "there is no region `us`",
        "add a section [regions.us]",
    ),
    (
        "[regions.eu]\nproxies = [\"http://a:1\"]\nfallback = [\"eu\"]",
        (3, 13),
        "region `eu` falls back to itself",
        "leave it out: a region's proxies are all tried first",
    ),
    (
        "[regions.eu]\nmax_size = 2",
        (1, 10),
        "region `eu` has no proxies",
        "add proxies = [\"http://proxy.example:8080\"]: without one nothing goes out",
    ),
];

const TENANTS: &[Case] = &[
    (
        "[tenants.ada]\ntoken = { env = \"SECRET\" }",
        (1, 2),
        "there are tenants, but the operator has no token",
        "a request without a token would count as the operator's: add token = \
         { env = \"POOL_TOKEN\" } to [gateway]",
    ),
    (
        "[gateway]\ntoken = { env = \"SECRET\" }\n[tenants.ada]\nshare = 2",
        (3, 10),
        "tenant `ada` has no token, so nobody can use it",
        "add token = { file = \"PATH\" } or { env = \"NAME\" }",
    ),
    (
        "[gateway]\ntoken = { env = \"SECRET\" }\n[tenants.ada]\ntoken = { env = \"SECRET\" }",
        (4, 9),
        "a token of tenant `ada` is also that of [gateway]",
        "a token identifies the sender: give each its own",
    ),
    (
        "[gateway]\ntoken = { env = \"SECRET\" }\n[tenants.ada]\ntoken = { env = \"OTHER\" }\n\
         [tenants.ben]\ntokens = [{ env = \"OTHER\" }]",
        (6, 10),
        "a token of tenant `ben` is also that of tenant `ada`",
        "a token identifies the sender: give each its own",
    ),
    (
        "[gateway]\ntoken = { env = \"SECRET\" }\n[tenants.ada]\ntoken = { env = \"OTHER\" }\n\
         priority = { default = 2, highest = 3 }",
        (5, 12),
        "the `default` priority of tenant `ada` is above its `highest`, 3",
        "1 is the most urgent: raise the number of `default`",
    ),
    (
        "[gateway]\ntoken = { env = \"SECRET\" }\n[tenants.ada]\ntoken = { env = \"OTHER\" }\n\
         leases = [\"shared\"]",
        (5, 10),
        "tenant `ada` may have none of the leases that this pool offers",
        "set lease_choice = true in [pool], or allow the kind in `lease` there",
    ),
    (
        "[gateway]\ntoken = { env = \"SECRET\" }\n[tenants.ada]\ntoken = { env = \"OTHER\" }\n\
         share = 0",
        (5, 9),
        "`share` must be a number from 0.001 to 1000.0",
        "",
    ),
];

const FLEETS: &[Case] = &[
    (
        "[fleet]\nnats = \"nats://a:4222\"\nsecret = { env = \"LONG\" }",
        (2, 8),
        "`nats` must be a list, not \"nats://a:4222\"",
        "put it in brackets: [\"…\"]",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\", \"http://127.0.0.1\"]\nsecret = { env = \"LONG\" }",
        (2, 29),
        "an address of a NATS server is not like nats://host:port",
        "write one such as \"nats://10.0.0.5:4222\", and credentials in keys of their own",
    ),
    (
        "[fleet]\nnats = [\"nats://me:canary@127.0.0.1\"]\nsecret = { env = \"LONG\" }",
        (2, 9),
        "an address of a NATS server contains a user or a password; set these separately",
        "write one such as \"nats://10.0.0.5:4222\", and credentials in keys of their own",
    ),
    (
        "[fleet]\nsecret = { env = \"LONG\" }",
        (1, 2),
        "[fleet] names no NATS servers",
        "name them, nats = [\"nats://10.0.0.5:4222\"], or leave the section out",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]",
        (1, 2),
        "[fleet] has no `secret`",
        "add secret = { env = \"FLEET_SECRET\" }, the same at every node",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"SECRET\" }",
        (3, 10),
        "`secret` has fewer than 16 characters",
        "make one: openssl rand -hex 32",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\nname = \"a.b\"",
        (4, 8),
        "\"a.b\" is not a name for a fleet: use 1 to 32 of the characters A-Z, a-z, 0-9, '_' and \
         '-'",
        "write one such as name = \"production\"",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\nnode = \"a/b\"",
        (4, 8),
        "\"a/b\" is not a name for a node: use 1 to 128 characters, none of them a space, a control \
         character or one of / ? # %",
        "write one such as node = \"worker-7\"",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         labels = { \"a b\" = \"c\" }",
        (4, 12),
        "`a b` is not a name",
        "use up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         [profiles.work]\nmin_size = 1",
        (5, 12),
        "profile `work` travels between the nodes of the fleet, so no node can keep 1 of its \
         browsers",
        "leave `min_size` out, or keep the profile on one node: home = \"worker-7\"",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         [profiles.work]\nhome = \"a/b\"",
        (5, 8),
        "\"a/b\" is not a name for a node: use 1 to 128 characters, none of them a space, a control \
         character or one of / ? # %",
        "write the name of a node, such as home = \"worker-7\"",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\nreplicas = 6",
        (4, 12),
        "`replicas` must be a whole number from 1 to 5",
        "",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         token = { env = \"OTHER\" }\nuser = \"pool\"\npassword = { env = \"OTHER\" }",
        (4, 1),
        "there is more than one way to authenticate: `user`, `token`",
        "keep one of them",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         nkey = { env = \"OTHER\" }\ncredentials = \"/dev/null\"",
        (5, 1),
        "there is more than one way to authenticate: `nkey`, `credentials`",
        "keep one of them",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\nuser = \"pool\"",
        (4, 1),
        "a `user` without a `password`",
        "add `password`",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         password = { env = \"OTHER\" }",
        (4, 1),
        "a `password` without a `user`",
        "add `user`",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         client_certificate = \"/dev/null\"",
        (4, 1),
        "a `client_certificate` without a `client_key`",
        "add `client_key`",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         client_key = \"/dev/null\"",
        (4, 1),
        "a `client_key` without a `client_certificate`",
        "add `client_certificate`",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         root_certificates = \"/nowhere/ca.pem\"",
        (4, 21),
        "cannot read /nowhere/ca.pem: no such file or directory",
        "",
    ),
    (
        "[gateway]\ntoken = { env = \"SECRET\" }\n\
         [fleet]\nnats = [\"tls://10.0.0.5:4222\"]\nsecret = { env = \"LONG\" }\n\
         advertise = \"wss://pool.example\"",
        (4, 8),
        "there are no credentials for the NATS server 10.0.0.5:4222, which is not on loopback: use \
         tls:// and credentials, or set allow_insecure",
        "",
    ),
    (
        "[gateway]\nlisten = \"0.0.0.0:3000\"\ntoken = { env = \"SECRET\" }\n\
         [fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }",
        (2, 10),
        "the other nodes cannot reach 0.0.0.0:3000",
        "add advertise = \"wss://worker-7.example:3000\" to [fleet], with the address of this machine",
    ),
    (
        "[gateway]\nlisten = \"[::]:3000\"\ntoken = { env = \"SECRET\" }\n\
         [fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }",
        (2, 10),
        "the other nodes cannot reach [::]:3000",
        "add advertise = \"wss://worker-7.example:3000\" to [fleet], with the address of this machine",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         advertise = \"http://10.0.1.7:3000\"",
        (4, 13),
        "`http:` is not a scheme that can be used here",
        "use ws:// or wss://",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         advertise = \"wss://pool.example/node\"",
        (4, 13),
        "`wss://pool.example/node` must be a host and a port, and nothing else",
        "write \"wss://pool.example\"",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         advertise = \"ws://0.0.0.0:3000\"",
        (4, 13),
        "`ws://0.0.0.0:3000` is not an address that another node can reach",
        "write the address of this machine, such as \"wss://worker-7.example:3000\"",
    ),
    (
        "[gateway]\ntoken = { env = \"SECRET\" }\n\
         [fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         advertise = \"ws://10.0.1.7:3000\"",
        (6, 13),
        "what nodes and clients send to ws://10.0.1.7:3000 travels without TLS",
        "put TLS before it and set advertise = \"wss://…\"; allow_insecure = true is for a network \
         whose traffic nobody else can read",
    ),
    (
        "[gateway]\nlisten = \"10.0.1.7:3000\"\ntoken = { env = \"SECRET\" }\n\
         [fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }",
        (2, 10),
        "what nodes and clients send to ws://10.0.1.7:3000 travels without TLS",
        "put TLS before it and set advertise = \"wss://…\"; allow_insecure = true is for a network \
         whose traffic nobody else can read",
    ),
    (
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\n\
         advertise = \"wss://pool.example\"",
        (4, 13),
        "wss://pool.example can be reached from elsewhere, without a token",
        "anybody could take a browser: add token = { env = \"POOL_TOKEN\" } to [gateway]",
    ),
    (
        "[pool]\nmax_size = 0\nmin_size = 1\n\
         [fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }",
        (3, 12),
        "`min_size` is 1, more than `max_size`, which is 0",
        "raise `max_size` to 1 or more, or lower `min_size`",
    ),
    (
        "[pool]\nmax_size = 0\n[fleet]\nnats = []",
        (2, 12),
        "a pool without browsers serves nobody: `max_size` is 0",
        "set 1 or more, or name the servers of a fleet: `nats` in [fleet]",
    ),
];

fn load(text: &str) -> Vec<Finding> {
    let loader = Loader::new().text("pool.toml", text).variable("SECRET", "s3cret");
    let loader = loader.variable("OTHER", "an0ther").variable("LONG", "sixteen letters!");
    match loader.load() {
        Ok(loaded) => panic!("accepted, with {:?}:\n{text}", loaded.warnings),
        Err(findings) => findings.iter().cloned().collect(),
    }
}

fn refused_as_expected(cases: &[Case]) {
    let mut wrong = String::new();
    for (text, (line, column), message, hint) in cases {
        let findings = load(text);
        let place = Place::File { path: "pool.toml".into(), line: *line, column: *column };
        let [finding] = findings.as_slice() else {
            wrong += &format!("{} findings for\n{text}\n{findings:#?}\n", findings.len());
            continue;
        };
        let is_as_expected = finding.message == *message
            && finding.hint.as_deref().unwrap_or_default() == *hint
            && finding.place.as_ref() == Some(&place);
        if !is_as_expected {
            wrong += &format!("expected {line}:{column} {message} ({hint}), got\n{finding}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

macro_rules! refused {
    ($($name:ident: $cases:ident;)*) => { $(
        #[test]
        fn $name() {
            refused_as_expected($cases);
        }
    )* };
}

refused! {
    what_is_not_toml_is_refused: SYNTAX;
    unknown_keys_and_sections_are_refused_with_the_one_that_was_meant: UNKNOWN;
    wrong_types_and_ranges_are_refused: TYPES;
    words_outside_of_a_closed_set_are_refused: WORDS;
    durations_and_sizes_want_a_unit: UNITS;
    addresses_and_urls_that_cannot_be_used_are_refused: ADDRESSES;
    paths_that_mean_nothing_are_refused: PATHS;
    rules_of_the_guard_that_mean_nothing_are_refused: PATTERNS;
    directories_of_shared_leases_that_are_none_are_refused: DIRECTORIES;
    secrets_that_are_not_there_are_refused: SECRETS;
    flags_that_the_pool_sets_itself_are_refused: FLAGS;
    names_that_could_leave_their_directory_are_refused: NAMES;
    settings_that_contradict_each_other_are_refused: CONTRADICTIONS;
    tenants_that_nobody_or_anybody_could_be_are_refused: TENANTS;
    fleets_that_could_not_work_or_that_anybody_could_read_are_refused: FLEETS;
}

#[test]
fn two_regions_may_fall_back_on_each_other() {
    let text = "[regions.a]\nproxies = [\"http://a:1\"]\nfallback = [\"b\"]\n\
                [regions.b]\nproxies = [\"http://b:1\"]\nfallback = [\"a\"]";
    let loaded = Loader::new().text("pool.toml", text).load().unwrap();
    assert!(loaded.warnings.is_empty());
}

#[test]
fn everything_that_is_wrong_is_said_at_once_and_in_order() {
    let findings = load(
        "[pool]\nmax_sise = 4\nmin_size = \"2\"\n[chrome]\nengine = \"x\"\n[profiles.work]\nregion = \"eu\"\n",
    );
    let lines: Vec<usize> = findings
        .iter()
        .filter_map(|finding| match finding.place {
            Some(Place::File { line, .. }) => Some(line),
            _ => None,
        })
        .collect();
    assert_eq!(lines, [2, 3, 5, 7]);
}

#[test]
fn one_mistake_does_not_bring_forth_others() {
    for text in [
        // Not also "no proxies", "no token" or "more than `max_size`".
        "[regions.eu]\nproxies = [\"eu-1.example\"]",
        "[gateway]\nlisten = \"0.0.0.0:3000\"\ntoken = { env = \"ABSENT\" }",
        "[pool]\nmin_size = 900\nmax_size = 1001",
        // Not also "no NATS servers", "no credentials" or "serves nobody".
        "[fleet]\nnats = [\"nats://a b\"]\nsecret = { env = \"LONG\" }\n[pool]\nmax_size = 0",
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"ABSENT\" }",
        "[gateway]\ntoken = { env = \"SECRET\" }\n[fleet]\nnats = [\"tls://a\"]\n\
         secret = { env = \"LONG\" }\ntoken = { env = \"ABSENT\" }\nadvertise = \"wss://pool.example\"",
        "[gateway]\ntoken = { env = \"SECRET\" }\n[fleet]\nnats = [\"tls://a\"]\n\
         secret = { env = \"LONG\" }\nuser = \"pool\"\nadvertise = \"wss://pool.example\"",
        "[gateway]\nlisten = \"0.0.0.0:3000\"\ntoken = { env = \"SECRET\" }\n\
         [fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = { env = \"LONG\" }\nadvertise = \"a\"",
    ] {
        assert_eq!(load(text).len(), 1, "{text}");
    }
}

#[test]
fn the_message_shows_the_line_with_a_caret_under_the_mistake() {
    let findings = load("# häßlich\n[pool]\n\tmax_sise = 4 # ü\n");
    assert_eq!(
        findings[0].to_string(),
        "\
error: unknown key `max_sise` in [pool]
 --> pool.toml:3:2
  |
3 | \tmax_sise = 4 # ü
  | \t^^^^^^^^
hint: did you mean `max_size`?
"
    );
}

#[test]
fn the_message_never_shows_a_secret() {
    for text in [
        "[gateway]\ntoken = \"canary\" x",
        "[gateway]\ntoken = \"canary",
        "[gateway]\ntokn = \"canary\"",
        "[gateway]\ntoken = [\"canary\"]",
        "[regions.eu]\nproxies = [\"http://me:canary@a:1\"]",
        "[regions.eu]\nproxies = [{ url = \"http://a:1\", usrname = \"me\", password = \"canary\" }]",
        "[regions.eu]\nproxies = [{ url = \"x\", password = \"canary\" }]",
        "[fleet]\nnats = [\"nats://pool:canary@127.0.0.1:4222\"]",
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = \"canary\"\npassword = \"canary\"",
        "[fleet]\nnats = [\"nats://127.0.0.1\"]\nnkey = \"canary\"\ntoken = \"canary\"",
    ] {
        for finding in load(text) {
            assert!(!finding.to_string().contains("canary"), "{finding}");
            assert!(!format!("{finding:?}").contains("canary"), "{finding:?}");
        }
    }
}

#[test]
fn a_secret_that_stands_in_the_file_is_a_warning() {
    let loaded = Loader::new().text("pool.toml", "[gateway]\ntoken = \"canary\"").load().unwrap();
    assert_eq!(loaded.config.gateway.token.unwrap().expose(), "canary");
    let warning = loaded.warnings[0].to_string();
    assert!(warning.starts_with("warning: `token` can be read by anybody"), "{warning}");
    assert!(!warning.contains("canary"), "{warning}");
}

#[test]
fn a_secret_on_the_command_line_is_a_warning() {
    let loader = Loader::new().flag("--set gateway.token", "gateway.token", "canary");
    let warning = loader.load().unwrap().warnings[0].to_string();
    assert!(warning.contains("in the list of processes"), "{warning}");
    assert!(!warning.contains("canary") && !format!("{loader:?}").contains("canary"));
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let warning = |text| {
        let loaded = Loader::new().text("pool.toml", text).load().unwrap();
        loaded.warnings.iter().map(ToString::to_string).collect::<String>()
    };
    let shown = warning("[chrome]\ndirectories = [\"/tmp\"]");
    assert!(shown.contains("`directories` has no effect on exclusive leases"), "{shown}");
    assert_eq!(warning("[pool]\nlease_choice = true\n[chrome]\ndirectories = [\"/tmp\"]"), "");
    let shown = warning("[pool]\nlease = \"shared\"\nmax_size = 4\nleases_per_browser = 8");
    assert!(shown.contains("no Chromium ever has 8 leases"), "{shown}");
    let shown = warning("[pool]\nlease_timeout = \"2m\"\nlease_idle_timeout = \"3m\"");
    assert!(shown.contains("`lease_idle_timeout` has no effect"), "{shown}");
    assert_eq!(warning("[pool]\nlease_timeout = \"2m\""), "", "it was not written");
    let shown = warning("[pool]\nlease = \"shared\"\nreset = \"relaunch\"");
    assert!(shown.contains("`reset` has no effect on shared leases"), "{shown}");
    let shown = warning("[egress]\nallow = [\"a.example\"]");
    assert!(shown.contains("`allow` has no effect where everything may be visited"), "{shown}");
    assert_eq!(warning("[egress]\nprivate = \"deny\"\nallow = [\"a.example\"]"), "");
}

#[test]
fn a_guard_is_there_as_soon_as_its_section_is() {
    let load = |text: &str| Loader::new().text("pool.toml", text).load().unwrap().config.egress;
    assert!(load("").is_none());
    assert!(load("[egress]").is_some());
    let set = Loader::new().variable("POOL__EGRESS__PRIVATE", "deny").load().unwrap();
    assert_eq!(set.config.egress.unwrap().private, PrivateAddresses::Deny);
    assert!(!set.settings.iter().all(|setting| setting.section != "egress"));
    let none = Loader::new().load().unwrap().settings;
    assert!(none.iter().all(|setting| setting.section != "egress"), "what is printed can be read");
}

/// Returns a fleet on loopback with more lines in its section, and what is said about it.
fn fleet(more: &str) -> (Option<FleetConfig>, String) {
    let text = format!(
        "[fleet]\nnats = [\"nats://127.0.0.1:4222\"]\nsecret = {{ env = \"LONG\" }}\n{more}"
    );
    let loader = Loader::new().text("pool.toml", text).variable("LONG", "sixteen letters!");
    let loaded = loader.variable("OTHER", "an0ther").load().unwrap_or_else(|it| panic!("{it}"));
    (loaded.config.fleet, loaded.warnings.iter().map(ToString::to_string).collect())
}

#[test]
fn a_fleet_on_loopback_requires_its_servers_and_a_secret() {
    let (config, warnings) = fleet("");
    let config = config.unwrap();
    assert_eq!(warnings, "");
    assert_eq!((config.name.as_str(), config.replicas), ("default", 1));
    assert_eq!(config.secret.unwrap().expose(), "sixteen letters!");
}

#[test]
fn a_fleet_without_a_server_is_none() {
    for text in ["[fleet]", "[fleet]\nnats = []"] {
        let loaded = Loader::new().text("pool.toml", text).load().unwrap();
        assert_eq!((loaded.config.fleet, loaded.warnings.len()), (None, 0), "{text}");
    }
    let (config, warnings) = {
        let loader = Loader::new().text("pool.toml", "[fleet]\nnats = []\nnode = \"worker-7\"");
        let loaded = loader.load().unwrap();
        (loaded.config.fleet, loaded.warnings)
    };
    assert_eq!(config, None);
    assert_eq!(warnings[0].message, "`nats` is empty, so this pool is not in a fleet");
}

#[test]
fn the_environment_can_name_a_fleet() {
    let loader = Loader::new()
        .variable("POOL__FLEET__NATS", "[\"nats://127.0.0.1:4222\"]")
        .variable("POOL__FLEET__SECRET", "sixteen letters!")
        .variable("POOL__FLEET__LABELS", "{ zone = \"eu-1a\" }")
        .flag("--set fleet.labels.rack", "fleet.labels.rack", "7")
        .flag("--set fleet.node", "fleet.node", "worker-7");
    let loaded = loader.load().unwrap_or_else(|findings| panic!("{findings}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let config = loaded.config.fleet.unwrap();
    assert_eq!((config.nats.len(), config.node_name().as_str()), (1, "worker-7"));
    let labels: Vec<_> = config.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(labels, [("rack", "7"), ("zone", "eu-1a")]);
    let shown: String = loaded.settings.iter().map(|setting| setting.line() + "\n").collect();
    assert!(shown.contains("secret = \"(hidden)\"\n"), "{shown}");
    assert!(shown.contains("labels = { rack = \"7\", zone = \"eu-1a\" }\n"), "{shown}");
}

#[test]
fn a_gateway_without_browsers_is_of_a_fleet_and_requires_no_chromium() {
    let more = "[pool]\nmax_size = 0\nlease = \"shared\"\nleases_per_browser = 4\n\
                [chrome]\nexecutable = \"/nonexistent/chromium\"\n";
    let text =
        format!("[fleet]\nnats = [\"nats://127.0.0.1\"]\nsecret = {{ env = \"LONG\" }}\n{more}");
    let loader = Loader::new().text("pool.toml", text).variable("LONG", "sixteen letters!");
    let loader = loader.flag("--listen", "gateway.listen", "127.0.0.1:0");
    for loader in [loader.clone(), loader.for_this_machine()] {
        let loaded = loader.load().unwrap_or_else(|findings| panic!("{findings}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let config = loaded.config;
        assert_eq!((config.pool.min_size, config.pool.max_size), (0, 0));
        assert_eq!(config.warming.min_idle, 0);
    }
}

#[test]
fn a_fleet_that_others_could_read_is_allowed_by_name_and_warned_of() {
    let token = "[gateway]\ntoken = { env = \"OTHER\" }";
    let (config, warnings) =
        fleet(&format!("advertise = \"ws://10.0.1.7:3000\"\nallow_insecure = true\n{token}"));
    assert!(config.is_some());
    assert!(warnings.contains("ws://10.0.1.7:3000 travels without TLS"), "{warnings}");
    assert_eq!(fleet(&format!("advertise = \"wss://10.0.1.7:3000\"\n{token}")).1, "");

    let text = "[fleet]\nnats = [\"nats://10.0.0.5:4222\"]\nsecret = { env = \"LONG\" }\n\
                allow_insecure = true";
    let loader = Loader::new().text("pool.toml", text).variable("LONG", "sixteen letters!");
    let warnings = loader.load().unwrap_or_else(|findings| panic!("{findings}")).warnings;
    let messages: Vec<&str> = warnings.iter().map(|warning| &*warning.message).collect();
    assert_eq!(
        messages,
        [
            "nodes on other machines cannot reach ws://127.0.0.1:3000",
            "neither TLS nor credentials are set for the NATS server 10.0.0.5:4222: whoever reads the \
             traffic can take leases",
        ]
    );
}

#[test]
fn what_works_badly_is_a_warning() {
    for (text, shown) in [
        ("[chrome]\nmax_memory = \"64MiB\"", "replaced after each lease"),
        ("[chrome]\nlaunch_timeout = \"300ms\"", "on a busy machine a launch takes longer"),
    ] {
        let loaded = Loader::new().text("pool.toml", text).load().unwrap();
        assert_eq!(loaded.warnings.len(), 1, "{text}");
        assert!(loaded.warnings[0].to_string().contains(shown), "{}", loaded.warnings[0]);
    }
}
