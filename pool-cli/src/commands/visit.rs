//! `pool-cli visit`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pool_chrome::egress::Pattern;

use crate::client::{Client, RunningPoolArgs};
use crate::config::{Config, ConfigArgs, LeaseKind, lease_kind};
use crate::exit::{Failure, USAGE};
use crate::loader::{Filter, Furniture, UserAgent, Viewport, Wait, blank_path};
use crate::logging;
use crate::visit::{
    Extract, Files, Isolation, Journal, Options, Output, Place, Results, Run, Table, Take, UrlList,
    size_of,
};

/// Arguments of `visit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Results are JSON lines with url, final_url, status, title, ms, error (code and message), attempts, \
the names of the files stored, and what --script, --extract, --links, --text and --markdown take \
from the page. A page that answers with an HTTP error is a result, not a failure: check its status.

When run again with the same --out, it resumes where it stopped.

Exit codes: 0 all pages were visited, 1 some failed or something went wrong, 2 invalid arguments, \
78 invalid configuration, 130 and 143 stopped by a signal.")]
pub struct Args {
    /// URLs, files with one URL per line, or - for stdin, the default.
    #[arg(value_name = "URL|FILE")]
    urls: Vec<String>,
    /// Append the results to this file and skip the URLs that it already has; by default the
    /// results go to stdout.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Store a screenshot of each page, as PNG.
    #[arg(long, value_name = "DIR")]
    screenshots: Option<PathBuf>,
    /// Store a PDF of each page.
    #[arg(long, value_name = "DIR")]
    pdf: Option<PathBuf>,
    /// Store the HTML of each page after loading.
    #[arg(long, value_name = "DIR")]
    html: Option<PathBuf>,
    /// Store an HTTP archive (HAR 1.2, without bodies) of what each page loads.
    #[arg(long, value_name = "DIR")]
    har: Option<PathBuf>,
    /// Write the results to this file as well, as a table in CSV.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Do not load resources of these types (image, media, font, stylesheet, script and others),
    /// or of these hosts and their subdomains; separated by commas.
    #[arg(long, value_name = "TYPE|HOST", value_delimiter = ',')]
    block: Vec<String>,
    /// Wait until an element matches this selector.
    #[arg(long, value_name = "SELECTOR")]
    wait_for: Option<String>,
    /// Run the script of this file in each page, and put its value into the result as `script`.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Put the text of an element, or one of its attributes, into the result's `extract`; NAME[]
    /// collects all that match in a list.
    #[arg(long, value_name = "NAME=SELECTOR[@ATTR]")]
    extract: Vec<Extract>,
    /// Put the addresses that a page links to into the result as `links`.
    #[arg(long)]
    links: bool,
    /// Put the text that a page shows into the result as `text`.
    #[arg(long)]
    text: bool,
    /// Put the page into the result as `markdown`.
    #[arg(long)]
    markdown: bool,
    /// Take screenshots of whole pages, not only of what is in view.
    #[arg(long)]
    full_page: bool,
    /// Number of pages that load at the same time; by default the pool's maximum number of browsers.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: Option<u16>,
    /// Isolation of pages from each other.
    #[arg(long, value_name = "HOW", default_value = "context")]
    isolation: Isolation,
    /// Maximum number of pages of one host in progress at the same time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    per_host: Option<u16>,
    /// Minimum time between two pages of one host, such as 500ms.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// Visit only what each host's robots.txt allows a crawler of this name, at its crawl-delay.
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "browser-pool")]
    robots: Option<String>,
    /// Number of retries of a URL that failed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    retries: u32,
    /// Visit again the URLs that failed according to --out.
    #[arg(long, requires = "out")]
    retry_failed: bool,
    /// Timeout for loading a page.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Event after which a page counts as loaded.
    #[arg(long, value_name = "EVENT", default_value = "load")]
    wait: Wait,
    /// Visit with this profile: pages see its logins and each other's cookies.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Visit through the proxies of this region.
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Domains that pages may reach, such as example.com,*.example.org. This requires a section
    /// [egress] in the configuration.
    #[arg(long, value_name = "DOMAINS")]
    allow_domains: Option<String>,
    #[command(flatten)]
    pool: RunningPoolArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Visits many URLs, isolated from each other as requested.
///
/// # Errors
///
/// Exit code 1 if any URL failed, 128 and the signal's number if a signal stopped it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let config = args.config.load()?;
    logging::init(&logging::quiet(&config.log, "error"))?;
    let given = given(&args.urls)?;
    let list = UrlList::read(&given)?;
    let pool = args.pool.client()?;
    let options = args.options(&config, pool.as_ref())?;
    options.files.prepare()?;
    let output = match &args.out {
        Some(path) => Output::File(Journal::open(path)?),
        None => Output::Stdout,
    };
    let names = args.extract.iter().map(|extract| extract.name.clone()).collect();
    let is_done = |url: &str| match &output {
        Output::File(journal) => journal.done(url).is_some(),
        Output::Stdout => true,
    };
    let table = args.csv.as_deref().map(|path| Table::open(path, names, is_done)).transpose()?;
    let results = Results::new(output, table);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let place = pool.map_or_else(|| Place::Own(Box::new(config)), Place::Far);
    let outcome = runtime.block_on(Run::new(list, results, args.retry_failed).go(place, options));
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

impl Args {
    fn options(&self, config: &Config, pool: Option<&Client>) -> Result<Options, Failure> {
        if self.isolation == Isolation::Wiped && self.profile.is_some() {
            return Err(Failure::new("--isolation wiped would clear what the profile is for")
                .hint("leave one of them out: pages of a profile see its logins")
                .code(USAGE));
        }
        let concurrency = match (self.concurrency, pool) {
            (Some(concurrency), _) => usize::from(concurrency),
            (None, Some(pool)) => size_of(pool)?,
            // A node without browsers has none of its own, and this pool is for the call.
            (None, None) => config.pool.max_size.max(1),
        };
        // The configured kind of lease is about the clients of the gateway.
        let lease = self.config.lease.as_deref().and_then(lease_kind).unwrap_or(LeaseKind::Shared);
        Ok(Options {
            concurrency,
            retries: self.retries,
            isolation: self.isolation,
            per_host: self.per_host.map(usize::from),
            delay: self.delay,
            robots: self.robots.clone(),
            timeout: self.timeout,
            furniture: Arc::new(self.furniture(config)?),
            take: Take {
                wait_for: self.wait_for.clone(),
                script: self.script.as_deref().map(script).transpose()?,
                extracts: self.extract.clone(),
                links: self.links,
                text: self.text,
                markdown: self.markdown,
            },
            files: Files {
                screenshots: self.screenshots.clone(),
                full_page: self.full_page,
                pdf: self.pdf.clone(),
                html: self.html.clone(),
                har: self.har.clone(),
            },
            lease,
            profile: self.profile.clone(),
            region: self.region.clone(),
            allow_domains: self.allow_domains(config, pool.is_some())?,
        })
    }

    fn allow_domains(&self, config: &Config, far: bool) -> Result<Option<Vec<Pattern>>, Failure> {
        let Some(domains) = &self.allow_domains else { return Ok(None) };
        // A running pool reports by itself that it has no rules.
        if config.egress.is_none() && !far {
            let message = "--allow-domains needs a configuration with a section [egress]";
            return Err(Failure::new(message)
                .hint("add one, if only with: --set egress.private=allow")
                .code(USAGE));
        }
        let domains = Pattern::domains(domains).map_err(|error| {
            Failure::new(format!("--allow-domains is wrong: {error}"))
                .hint(error.hint())
                .code(USAGE)
        })?;
        Ok(Some(domains))
    }
}

impl Args {
    fn furniture(&self, config: &Config) -> Result<Furniture, Failure> {
        let [width, height] = config.warming.viewport;
        Ok(Furniture {
            filter: self.filter()?,
            waits: vec![self.wait],
            viewport: Viewport::new(width, height),
            user_agent: config.warming.user_agent.clone().map(UserAgent::new),
            har: self.har.is_some(),
            // An archive is made of these reports, and so is the proof that nothing is left.
            unreported: self.har.is_none() && self.isolation != Isolation::Wiped,
            blank: (self.isolation == Isolation::Wiped).then(blank_path),
            ..Furniture::default()
        })
    }

    /// Reads a filter: a word without a dot is a type of resource, or `localhost`.
    fn filter(&self) -> Result<Filter, Failure> {
        let mut filter = Filter::default();
        for word in &self.block {
            let word = word.trim().to_ascii_lowercase();
            if let Ok(kind) = serde_json::from_value(word.clone().into()) {
                filter.types.push(kind);
            } else if word == "localhost" || word.contains(['.', ':']) {
                filter.hosts.push(word.trim_start_matches("*.").to_owned());
            } else {
                return Err(Failure::new(format!("--block {word}: that is not a type of resource"))
                    .hint("types are image, media, font, stylesheet, script, xhr, fetch …; a host has a dot")
                    .code(USAGE));
            }
        }
        Ok(filter)
    }
}

fn script(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
}

/// Returns the given sources, or stdin if that is not a terminal.
fn given(urls: &[String]) -> Result<Vec<String>, Failure> {
    if !urls.is_empty() {
        return Ok(urls.to_vec());
    }
    if std::io::stdin().is_terminal() {
        return Err(Failure::new("there are no URLs to visit")
            .hint("name them, or a file of them: pool-cli visit urls.txt --out results.jsonl")
            .code(USAGE));
    }
    Ok(vec!["-".to_owned()])
}
