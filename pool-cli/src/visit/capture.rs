use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::{FileKind, Files, Options, StagedPage, Trouble};

/// The document as it is now, with its doctype.
const HTML: &str = "(document.doctype ? new XMLSerializer().serializeToString(document.doctype) + '\\n' : '') \
    + document.documentElement.outerHTML";

/// Files that were stored of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Captured {
    pub(crate) screenshot: Option<String>,
    pub(crate) pdf: Option<String>,
    pub(crate) html: Option<String>,
}

/// Stores what is wanted of a page that is loaded.
pub(crate) async fn capture(
    page: &mut StagedPage,
    url: &str,
    options: &Options,
) -> Result<Captured, Trouble> {
    let mut captured = Captured::default();
    for (kind, slot) in [
        (FileKind::Html, &mut captured.html),
        (FileKind::Screenshot, &mut captured.screenshot),
        (FileKind::Pdf, &mut captured.pdf),
    ] {
        let Some(directory) = options.files.directory(kind) else { continue };
        let failed = |why: String| Trouble::Capture { what: kind.name(), why };
        let bytes = take(page, kind, options).await.map_err(|trouble| match trouble {
            Trouble::Protocol(error) => failed(error.to_string()),
            trouble => trouble,
        })?;
        let (directory, url) = (directory.to_owned(), url.to_owned());
        let store = move || Files::store(&directory, kind, &url, &bytes);
        // A disk may take its time, and other pages load meanwhile.
        let stored = tokio::task::spawn_blocking(store).await;
        let stored = stored.map_err(|error| failed(error.to_string()))?;
        *slot = Some(stored.map_err(|error| failed(error.to_string()))?);
    }
    Ok(captured)
}

async fn take(
    page: &mut StagedPage,
    kind: FileKind,
    options: &Options,
) -> Result<Vec<u8>, Trouble> {
    let (method, params) = match kind {
        FileKind::Html => {
            let html = page.evaluate(HTML).await?;
            return Ok(html.as_str().unwrap_or_default().as_bytes().to_vec());
        }
        FileKind::Screenshot => {
            let params = json!({ "format": "png", "captureBeyondViewport": options.full_page });
            ("Page.captureScreenshot", params)
        }
        FileKind::Pdf => {
            let params = json!({ "printBackground": true, "preferCSSPageSize": true });
            ("Page.printToPDF", params)
        }
    };
    let answer = page.call(method, params).await?;
    let data = answer["data"].as_str().unwrap_or_default();
    BASE64_STANDARD
        .decode(data)
        .map_err(|error| Trouble::Capture { what: kind.name(), why: error.to_string() })
}
