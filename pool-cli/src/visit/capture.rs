use super::{FileKind, Files, Options};
use crate::loader::{Page, PdfOptions, Trouble};

/// Files that were stored of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Captured {
    pub(crate) screenshot: Option<String>,
    pub(crate) pdf: Option<String>,
    pub(crate) html: Option<String>,
}

/// Stores what is wanted of a page that is loaded.
pub(crate) async fn capture(
    page: &mut Page,
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

async fn take(page: &mut Page, kind: FileKind, options: &Options) -> Result<Vec<u8>, Trouble> {
    match kind {
        FileKind::Html => Ok(page.html().await?.into_bytes()),
        FileKind::Screenshot => Ok(page.picture(&options.picture(), None).await?.bytes),
        FileKind::Pdf => page.whole_pdf(&PdfOptions::as_styled()).await,
    }
}
