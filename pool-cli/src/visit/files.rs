use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use url::Url;

use crate::exit::Failure;
use crate::loader::{Page, PdfOptions, PictureOptions, Trouble};

/// Number of characters of a URL in the names of its files.
const READABLE: usize = 60;

/// The files that are stored of a page in addition to its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    /// An image of it, as PNG.
    Screenshot,
    /// A print of it.
    Pdf,
    /// Its document as it was after loading.
    Html,
    /// An archive of what it loaded.
    Har,
}

/// The directories that files go to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    /// Where screenshots go, if they are wanted.
    pub(crate) screenshots: Option<PathBuf>,
    /// Screenshots show the whole page, not only what is in view.
    pub(crate) full_page: bool,
    /// Where PDFs go, if they are wanted.
    pub(crate) pdf: Option<PathBuf>,
    /// Where HTML goes, if it is wanted.
    pub(crate) html: Option<PathBuf>,
    /// Where archives of what pages load go, if they are wanted.
    pub(crate) har: Option<PathBuf>,
}

/// Files that were stored of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Captured {
    pub(crate) screenshot: Option<String>,
    pub(crate) pdf: Option<String>,
    pub(crate) html: Option<String>,
    pub(crate) har: Option<String>,
}

impl FileKind {
    fn extension(self) -> &'static str {
        match self {
            Self::Screenshot => "png",
            Self::Pdf => "pdf",
            Self::Html => "html",
            Self::Har => "har",
        }
    }

    /// Returns its name for people.
    fn name(self) -> &'static str {
        match self {
            Self::Screenshot => "screenshot",
            Self::Pdf => "PDF",
            Self::Html => "HTML",
            Self::Har => "HAR",
        }
    }
}

impl Files {
    /// Makes the directories.
    ///
    /// # Errors
    ///
    /// If one cannot be made.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        for directory in [&self.screenshots, &self.pdf, &self.html, &self.har].into_iter().flatten()
        {
            fs::create_dir_all(directory).map_err(|error| {
                Failure::new(format!("cannot create {}: {error}", directory.display()))
            })?;
        }
        Ok(())
    }

    /// Returns where files of a kind go, if they are wanted.
    fn directory(&self, kind: FileKind) -> Option<&Path> {
        match kind {
            FileKind::Screenshot => self.screenshots.as_deref(),
            FileKind::Pdf => self.pdf.as_deref(),
            FileKind::Html => self.html.as_deref(),
            FileKind::Har => self.har.as_deref(),
        }
    }

    /// Stores the requested files of a loaded page.
    pub(crate) async fn capture(
        &self,
        page: &mut Page,
        url: &str,
        title: &str,
    ) -> Result<Captured, Trouble> {
        let mut captured = Captured::default();
        for (kind, slot) in [
            (FileKind::Html, &mut captured.html),
            (FileKind::Screenshot, &mut captured.screenshot),
            (FileKind::Pdf, &mut captured.pdf),
            (FileKind::Har, &mut captured.har),
        ] {
            let Some(directory) = self.directory(kind) else { continue };
            let failed = |why: String| Trouble::Capture { what: kind.name(), why };
            let bytes = self.take(page, kind, title).await.map_err(|trouble| match trouble {
                Trouble::Protocol(error) => failed(error.to_string()),
                trouble => trouble,
            })?;
            let (directory, url) = (directory.to_owned(), url.to_owned());
            let store = move || Self::store(&directory, kind, &url, &bytes);
            // A disk may be slow, and other pages load in the meantime.
            let stored = tokio::task::spawn_blocking(store).await;
            let stored = stored.map_err(|error| failed(error.to_string()))?;
            *slot = Some(stored.map_err(|error| failed(error.to_string()))?);
        }
        Ok(captured)
    }

    async fn take(&self, page: &mut Page, kind: FileKind, title: &str) -> Result<Vec<u8>, Trouble> {
        match kind {
            FileKind::Html => Ok(page.html().await?.into_bytes()),
            FileKind::Screenshot => {
                let options =
                    PictureOptions { full_page: self.full_page, ..PictureOptions::default() };
                Ok(page.picture(&options, None).await?.bytes)
            }
            FileKind::Pdf => page.whole_pdf(&PdfOptions::as_styled()).await,
            FileKind::Har => Ok(page.har(title).unwrap_or_default().to_string().into_bytes()),
        }
    }

    /// Stores a file of a page and returns its path. The file is either complete or not there at
    /// all; one from an earlier run is replaced.
    ///
    /// # Errors
    ///
    /// Errors of the operating system.
    fn store(directory: &Path, kind: FileKind, url: &str, bytes: &[u8]) -> std::io::Result<String> {
        let path = directory.join(file_name(url, kind.extension()));
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(bytes)?;
        // Temporary files are private; results are for everybody who may read the directory.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(readable)?;
        file.persist(&path)?;
        Ok(path.to_string_lossy().into_owned())
    }
}

/// Returns a name that is unique to the URL, safe on any file system, and as readable as possible.
fn file_name(url: &str, extension: &str) -> String {
    let readable = match Url::parse(url) {
        Ok(parsed) if parsed.has_host() => {
            format!("{}{}", parsed.host_str().unwrap_or_default(), parsed.path())
        }
        _ => url.split(':').next().unwrap_or_default().to_owned(),
    };
    let mut name = String::with_capacity(READABLE);
    for char in readable.chars() {
        if name.len() == READABLE {
            break;
        }
        match char {
            'a'..='z' | '0'..='9' => name.push(char),
            'A'..='Z' => name.push(char.to_ascii_lowercase()),
            // No name begins with a dot or a dash, or contains two dots in a row.
            _ if name.is_empty() || name.ends_with(['-', '.']) => {}
            '.' => name.push('.'),
            _ => name.push('-'),
        }
    }
    let name = name.trim_end_matches(['-', '.']);
    let digest = Sha256::digest(url);
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let dash = if name.is_empty() { "" } else { "-" };
    format!("{name}{dash}{hash}.{extension}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files_are_named_after_their_url() {
        let name = file_name("https://Example.org/a/b.html?q=1#x", "png");
        assert!(name.starts_with("example.org-a-b.html-") && name.ends_with(".png"), "{name}");
        assert_ne!(name, file_name("https://example.org/a/b.html?q=2", "png"));
    }

    proptest! {
        #[test]
        fn no_url_names_a_file_elsewhere_or_a_hidden_one(url in "\\PC{0,300}") {
            for url in [url.clone(), format!("http://h/{url}"), format!("data:{url}")] {
                let name = file_name(&url, "pdf");
                let safe = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
                prop_assert!(name.chars().all(safe), "{name}");
                prop_assert!(name.len() <= READABLE + 22 && !name.starts_with(['.', '-']));
                prop_assert!(!name.contains(".."));
            }
        }
    }

    #[test]
    fn a_stored_file_is_whole_readable_and_alone() {
        let directory = tempfile::tempdir().unwrap();
        for bytes in [b"first".as_slice(), b"second"] {
            let path = Files::store(directory.path(), FileKind::Html, "http://a/", bytes).unwrap();
            assert_eq!(std::fs::read(path).unwrap(), bytes);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
