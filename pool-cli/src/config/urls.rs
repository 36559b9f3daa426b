//! What is allowed of urls, origins and host names.

use url::{Host, Url};

use super::kind::{Complaint, complaint};
use super::suggest::or;

pub(super) fn public_url(text: &str) -> Result<(), Complaint> {
    const SCHEMES: [&str; 4] = ["ws", "wss", "http", "https"];
    let url = parse(text, "wss://pool.example")?;
    scheme(&url, &SCHEMES)?;
    no_credentials(&url, "clients bring their token in the query or a header")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(complaint(format!("`{text}` has a query"))
            .hint("leave it out: the query of each request is kept"));
    }
    Ok(())
}

pub(super) fn page_url(text: &str) -> Result<(), Complaint> {
    let url = parse(text, "about:blank")?;
    scheme(&url, &["http", "https", "about", "data"])
}

/// The url is in no message: it may be a secret.
pub(super) fn webhook_url(text: &str) -> Result<(), Complaint> {
    let url = parse(text, "https://hooks.example/pool")?;
    scheme(&url, &["http", "https"])
}

pub(super) fn collector_url(text: &str) -> Result<(), Complaint> {
    let url = parse(text, "http://127.0.0.1:4318")?;
    scheme(&url, &["http", "https"])?;
    no_credentials(&url, "set OTEL_EXPORTER_OTLP_HEADERS in the environment")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(complaint(format!("`{text}` has a query"))
            .hint("leave it out: /v1/traces is added to the address"));
    }
    Ok(())
}

pub(super) fn proxy_url(text: &str) -> Result<(), Complaint> {
    let url = parse(text, "http://proxy.example:8080")?;
    scheme(&url, &["http", "socks5"])?;
    no_credentials(&url, "write { url = \"…\", username = \"…\", password = { env = \"…\" } }")?;
    if url.port_or_known_default().is_none() {
        return Err(
            complaint(format!("`{text}` has no port")).hint(format!("add one: \"{text}:1080\""))
        );
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(complaint(format!("`{text}` has more than a host and a port"))
            .hint("leave out what follows the port"));
    }
    Ok(())
}

pub(super) fn origin(text: &str) -> Result<(), Complaint> {
    let url = parse(text, "https://tools.example")?;
    scheme(&url, &["http", "https"])?;
    let origin = url.origin().ascii_serialization();
    if origin == text {
        return Ok(());
    }
    Err(complaint(format!("`{text}` is not an origin")).hint(format!("write \"{origin}\"")))
}

pub(super) fn host(text: &str) -> Result<(), Complaint> {
    let bare = text
        .rsplit_once(':')
        .map_or(text, |(host, port)| if port.parse::<u16>().is_ok() { host } else { text });
    match Host::parse(text) {
        Ok(_) => Ok(()),
        Err(_) if Host::parse(bare).is_ok() => Err(complaint(format!("`{text}` has a port"))
            .hint(format!("write \"{bare}\": it holds for every port"))),
        Err(_) => {
            match Url::parse(text).ok().and_then(|url| url.host().map(|host| host.to_owned())) {
                Some(host) => Err(complaint(format!("`{text}` is not a host name"))
                    .hint(format!("write \"{host}\""))),
                None => Err(complaint(format!("`{text}` is not a host name"))
                    .hint("write a name such as \"pool.example\"")),
            }
        }
    }
}

fn parse(text: &str, example: &str) -> Result<Url, Complaint> {
    Url::parse(text).map_err(|_| {
        complaint("this is not a url").hint(format!("write one such as \"{example}\""))
    })
}

fn scheme(url: &Url, allowed: &[&str]) -> Result<(), Complaint> {
    if allowed.contains(&url.scheme()) {
        return Ok(());
    }
    // `host:8080` parses as the scheme `host`.
    let hint = if !url.has_host() {
        format!("begin with {}", list(allowed))
    } else {
        format!("use {}", list(allowed))
    };
    Err(complaint(format!("`{}:` is not a scheme that can be used here", url.scheme())).hint(hint))
}

fn list(schemes: &[&str]) -> String {
    let schemes: Vec<String> = schemes
        .iter()
        .map(|scheme| match *scheme {
            "about" | "data" => format!("{scheme}:"),
            _ => format!("{scheme}://"),
        })
        .collect();
    or(&schemes)
}

fn no_credentials(url: &Url, hint: &str) -> Result<(), Complaint> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(());
    }
    // The url is not repeated: it holds a secret.
    Err(complaint("credentials do not belong in a url").hint(hint))
}
