//! `pool-cli content`, `screenshot`, `pdf` and `scrape`: one call of the route of that name.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

use crate::client::{Client, PATIENCE, RunningPoolArgs};
use crate::config::ConfigArgs;
use crate::exit::{self, Failure, Signals, USAGE};
use crate::logging;
use crate::pool::RunDirectory;
use crate::service::Service;
use crate::work::WorkKind;

/// Arguments that all four commands have.
#[derive(Debug, clap::Args)]
struct Common {
    /// Address of the page, or - for HTML from stdin.
    #[arg(value_name = "URL")]
    target: String,
    /// Write to this file; by default to stdout.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Further members of the request, as the route of the same name accepts them.
    #[arg(long, value_name = "JSON", value_parser = object)]
    body: Option<Map<String, Value>>,
    /// Event after which the page counts as loaded: load, domcontentloaded, networkidle0 or
    /// networkidle2.
    #[arg(long, value_name = "EVENT")]
    wait: Option<String>,
    /// Wait until an element matches this selector.
    #[arg(long, value_name = "SELECTOR")]
    wait_for: Option<String>,
    /// Size of the page, such as 1280x720.
    #[arg(long, value_name = "WxH", value_parser = viewport)]
    viewport: Option<(u32, u32)>,
    /// Timeout of the whole call once there is a browser.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Profile of the browser.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Region of the browser.
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    #[command(flatten)]
    pool: RunningPoolArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Arguments of `content`.
#[derive(Debug, clap::Args)]
pub struct ContentArgs {
    #[command(flatten)]
    common: Common,
}

/// Arguments of `screenshot`.
#[derive(Debug, clap::Args)]
pub struct ScreenshotArgs {
    #[command(flatten)]
    common: Common,
    /// Take the whole page, not only what is in view.
    #[arg(long)]
    full_page: bool,
    /// Take only the element that matches this selector.
    #[arg(long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Format: png, jpeg or webp; by default that of the file name.
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Quality of a JPEG or WebP, 0 to 100.
    #[arg(long, value_name = "N")]
    quality: Option<u8>,
}

/// Arguments of `pdf`.
#[derive(Debug, clap::Args)]
pub struct PdfArgs {
    #[command(flatten)]
    common: Common,
    /// Paper format, such as A4.
    #[arg(long, value_name = "PAPER")]
    format: Option<String>,
    /// Print in landscape.
    #[arg(long)]
    landscape: bool,
    /// Print backgrounds.
    #[arg(long)]
    background: bool,
    /// Margin on all sides, such as 1cm.
    #[arg(long, value_name = "LENGTH")]
    margin: Option<String>,
}

/// Arguments of `scrape`.
#[derive(Debug, clap::Args)]
pub struct ScrapeArgs {
    #[command(flatten)]
    common: Common,
    /// Selectors of the elements to take.
    #[arg(value_name = "SELECTOR", required = true)]
    selectors: Vec<String>,
}

/// Time that a page and its browser have to end when the command is stopped.
const GRACE: Duration = Duration::ZERO;

/// Writes the HTML of a page.
///
/// # Errors
///
/// If there is no browser, or the page fails.
pub fn content(args: &ContentArgs) -> Result<(), Failure> {
    args.common.run(WorkKind::Content, json!({}))
}

/// Writes a picture of a page.
///
/// # Errors
///
/// As [`content`].
pub fn screenshot(args: &ScreenshotArgs) -> Result<(), Failure> {
    let of_name = args.common.out.as_deref().and_then(Path::extension);
    let of_name = of_name.and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    let format = args
        .format
        .clone()
        .or(of_name.filter(|extension| ["jpg", "jpeg", "webp"].contains(&extension.as_str())));
    let mut options = json!({ "fullPage": args.full_page });
    set(&mut options, "type", format);
    set(&mut options, "quality", args.quality);
    let mut body = json!({ "options": options });
    set(&mut body, "selector", args.selector.clone());
    args.common.run(WorkKind::Screenshot, body)
}

/// Writes a PDF of a page.
///
/// # Errors
///
/// As [`content`].
pub fn pdf(args: &PdfArgs) -> Result<(), Failure> {
    let mut options = json!({ "landscape": args.landscape, "printBackground": args.background });
    set(&mut options, "format", args.format.clone());
    if let Some(margin) = &args.margin {
        options["margin"] =
            json!({ "top": margin, "bottom": margin, "left": margin, "right": margin });
    }
    args.common.run(WorkKind::Pdf, json!({ "options": options }))
}

/// Writes the contents of some elements of a page, as JSON.
///
/// # Errors
///
/// As [`content`].
pub fn scrape(args: &ScrapeArgs) -> Result<(), Failure> {
    let element = |selector: &String| json!({ "selector": selector });
    let elements: Vec<Value> = args.selectors.iter().map(element).collect();
    args.common.run(WorkKind::Scrape, json!({ "elements": elements }))
}

impl Common {
    fn run(&self, kind: WorkKind, body: Value) -> Result<(), Failure> {
        let to_terminal = self.out.is_none() && std::io::stdout().is_terminal();
        if to_terminal && matches!(kind, WorkKind::Screenshot | WorkKind::Pdf) {
            let name = if kind == WorkKind::Pdf { "page.pdf" } else { "page.png" };
            return Err(Failure::new("the result is binary, and stdout is a terminal")
                .hint(format!("name a file: -o {name}"))
                .code(USAGE));
        }
        let body = self.body(body)?;
        let path = self.path(kind);
        let runtime = tokio::runtime::Runtime::new()?;
        let outcome = match self.pool.client()? {
            Some(client) => self.call(&client, &path, &body),
            None => runtime.block_on(self.call_own(path, body)),
        };
        runtime.shutdown_timeout(Duration::from_millis(200));
        outcome
    }

    /// Carries out the call in a pool of its own.
    async fn call_own(&self, path: String, body: Value) -> Result<(), Failure> {
        let mut config = self.config.load()?;
        logging::init(&logging::quiet(&config.log, "error"))?;
        // Before anything is launched: a signal must not leave browsers behind.
        let mut signals = Signals::listen()?;
        // Profiles are in the configured directory, which only one pool can have at a time.
        let directory =
            self.profile.is_none().then(|| RunDirectory::choose(&config.pool.state_dir, "calls"));
        if let Some(directory) = &directory {
            directory.path().clone_into(&mut config.pool.state_dir);
        }
        let service = Service::start_private(config, 0).await?;
        let client = service.client()?;
        let (out, address) = (self.out.clone(), path);
        let call =
            tokio::task::spawn_blocking(move || write(&client, &address, &body, out.as_deref()));
        let outcome = tokio::select! {
            outcome = call => outcome?,
            signal = signals.next() => Err(Failure::silent(exit::code_of(signal))),
        };
        service.stop(GRACE).await;
        drop(service);
        drop(directory);
        outcome
    }

    fn call(&self, client: &Client, path: &str, body: &Value) -> Result<(), Failure> {
        write(client, path, body, self.out.as_deref())
    }

    /// Returns the body of the call: the given JSON, on top of the flags.
    fn body(&self, mut body: Value) -> Result<Value, Failure> {
        if self.target == "-" {
            let mut html = String::new();
            std::io::stdin().read_to_string(&mut html)?;
            body["html"] = html.into();
        } else {
            body["url"] = self.target.clone().into();
        }
        if let Some(wait) = &self.wait {
            body["gotoOptions"] = json!({ "waitUntil": wait });
        }
        if let Some(selector) = &self.wait_for {
            body["waitForSelector"] = json!({ "selector": selector });
        }
        if let Some((width, height)) = self.viewport {
            body["viewport"] = json!({ "width": width, "height": height });
        }
        for (member, value) in self.body.iter().flatten() {
            match (&mut body[member], value) {
                (Value::Object(held), Value::Object(more)) => held.extend(more.clone()),
                (held, value) => *held = value.clone(),
            }
        }
        Ok(body)
    }

    fn path(&self, kind: WorkKind) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("timeout", &self.timeout.as_millis().to_string());
        for (name, value) in [("profile", &self.profile), ("region", &self.region)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        format!("/{}?{}", kind.word(), query.finish())
    }
}

/// Calls a route, and writes the answer: a file is either complete or not there at all.
fn write(client: &Client, path: &str, body: &Value, out: Option<&Path>) -> Result<(), Failure> {
    let mut answer = client.fetch(path, body, PATIENCE)?;
    let Some(out) = out else {
        let mut stdout = std::io::stdout().lock();
        std::io::copy(&mut answer, &mut stdout)?;
        return Ok(stdout.flush()?);
    };
    let failed =
        |error: &std::io::Error| Failure::new(format!("cannot write {}: {error}", out.display()));
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let mut file = NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
    std::io::copy(&mut answer, &mut file).map_err(|error| failed(&error))?;
    // Temporary files are private; results are for everybody who may read the directory.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable).map_err(|error| failed(&error))?;
    file.persist(out).map_err(|error| failed(&error.error))?;
    Ok(())
}

fn set<T: Into<Value>>(object: &mut Value, member: &str, value: Option<T>) {
    if let Some(value) = value {
        object[member] = value.into();
    }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn viewport(text: &str) -> Result<(u32, u32), &'static str> {
    let sides = text
        .split_once('x')
        .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides.ok_or("it must be such as 1280x720")
}
