use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Job;
use crate::loader::{Page, Trouble};

/// The result of a URL: one line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The URL as it was given.
    pub(crate) url: String,
    /// The final address of the page, after redirects.
    pub(crate) final_url: Option<String>,
    /// The HTTP status of the page; `None` for a `data:` URL.
    pub(crate) status: Option<u16>,
    /// The page's title.
    pub(crate) title: Option<String>,
    /// Duration of the last attempt, from the first request until the page was loaded, in
    /// milliseconds.
    pub(crate) ms: u64,
    /// The reason why it could not be visited.
    pub(crate) error: Option<RecordError>,
    /// Number of attempts.
    pub(crate) attempts: u32,
    /// The file with its screenshot, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) screenshot: Option<String>,
    /// The file with its PDF, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pdf: Option<String>,
    /// The file with its HTML, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) html: Option<String>,
    /// The file with the archive of what it loaded, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) har: Option<String>,
    /// Data taken from it, as far as requested.
    #[serde(flatten)]
    pub(crate) taken: Taken,
}

/// Reason why a URL could not be visited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordError {
    /// A stable word, in snake case.
    pub(crate) code: String,
    /// A sentence for people.
    pub(crate) message: String,
}

impl Record {
    /// Returns the record of a URL that is given up.
    pub(crate) fn failed(job: &Job, ms: u64, trouble: &Trouble) -> Self {
        let error = RecordError { code: trouble.code().into_owned(), message: trouble.to_string() };
        Self {
            url: job.url.clone(),
            ms,
            error: Some(error),
            attempts: job.attempts,
            ..Self::default()
        }
    }

    /// Returns the record of a URL that is not visited, for a reason given by its host.
    pub(crate) fn refused(job: &Job, code: &str, why: &str) -> Self {
        let error = RecordError { code: code.to_owned(), message: why.to_owned() };
        let (url, attempts) = (job.url.clone(), job.attempts);
        Self { url, error: Some(error), attempts, ..Self::default() }
    }

    /// Returns the line, including its end.
    pub(crate) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("a record is made of texts and numbers");
        line.push('\n');
        line
    }
}

/// Maximum number of links that are taken from a page.
const LINKS: usize = 10_000;

/// Script that returns the document as HTML, in which links and images have absolute addresses.
const WITH_WHOLE_LINKS: &str = "(() => { \
    const copy = document.documentElement.cloneNode(true); \
    for (const [selector, name] of [['a[href], area[href]', 'href'], ['img[src]', 'src']]) { \
        const whole = [...document.documentElement.querySelectorAll(selector)]; \
        [...copy.querySelectorAll(selector)].forEach((element, i) => \
            element.setAttribute(name, whole[i][name])); \
    } \
    return copy.outerHTML; })()";

/// Elements that show nothing.
const INVISIBLE: [&str; 6] = ["head", "script", "style", "noscript", "template", "svg"];

fn markdown(html: &str) -> std::io::Result<String> {
    let converter = htmd::HtmlToMarkdown::builder().skip_tags(INVISIBLE.to_vec()).build();
    converter.convert(html)
}

/// Data to take from each page in addition to files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Take {
    /// A selector that must match something first.
    pub(crate) wait_for: Option<String>,
    /// A script to run.
    pub(crate) script: Option<String>,
    /// Values of some elements.
    pub(crate) extracts: Vec<Extract>,
    /// The addresses that it links to.
    pub(crate) links: bool,
    /// The text that it shows.
    pub(crate) text: bool,
    /// The page as Markdown.
    pub(crate) markdown: bool,
}

/// A value that is taken from a page: `NAME=SELECTOR[@ATTR]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extract {
    /// Without the `[]` that asks for a list of all matches.
    pub(crate) name: String,
    all: bool,
    selector: String,
    attribute: Option<String>,
}

/// Data taken from a page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// The value of the script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) script: Option<Value>,
    /// The extracted values, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) extract: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) links: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) markdown: Option<String>,
}

impl FromStr for Extract {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it must be NAME=SELECTOR or NAME=SELECTOR@ATTRIBUTE".to_owned();
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (name, all) = match name.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let is_name = |part: &str| {
            !part.is_empty()
                && part.chars().all(|char| char.is_alphanumeric() || "-_:".contains(char))
        };
        // An @ within quotes or brackets is part of the selector.
        let (selector, attribute) = match rest.rsplit_once('@') {
            Some((selector, attribute)) if is_name(attribute) => (selector, Some(attribute)),
            _ => (rest, None),
        };
        if !is_name(name) || selector.trim().is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            all,
            selector: selector.to_owned(),
            attribute: attribute.map(str::to_owned),
        })
    }
}

impl Extract {
    fn expression(&self) -> String {
        let selector = json!(self.selector);
        let value = match &self.attribute {
            Some(attribute) => format!("element.getAttribute({})", json!(attribute)),
            None => "(element.innerText ?? element.textContent).trim()".to_owned(),
        };
        if self.all {
            format!("[...document.querySelectorAll({selector})].map(element => {value})")
        } else {
            format!(
                "(element => element === null ? null : {value})(document.querySelector({selector}))"
            )
        }
    }
}

impl Take {
    /// Waits for whatever must be there first.
    ///
    /// # Errors
    ///
    /// [`Trouble::Script`] if the page does not understand the selector.
    pub(crate) async fn wait(&self, page: &mut Page) -> Result<(), Trouble> {
        let Some(selector) = &self.wait_for else { return Ok(()) };
        page.until(&format!("document.querySelector({}) !== null", json!(selector))).await
    }

    /// Returns the trouble of a page on which that did not appear.
    pub(crate) fn missing(&self, waited: Duration) -> Trouble {
        let selector = self.wait_for.as_deref().unwrap_or_default();
        Trouble::Wait { what: format!("nothing matched {selector:?}"), waited }
    }

    /// Takes the requested data from a loaded page.
    ///
    /// # Errors
    ///
    /// [`Trouble::Script`] if the script throws, or the page does not understand a selector.
    pub(crate) async fn take(&self, page: &mut Page) -> Result<Taken, Trouble> {
        let mut taken = Taken::default();
        if let Some(script) = &self.script {
            taken.script = Some(page.evaluate(script).await?);
        }
        if !self.extracts.is_empty() {
            let mut values = Map::new();
            for extract in &self.extracts {
                let value = page.evaluate(&extract.expression()).await?;
                values.insert(extract.name.clone(), value);
            }
            taken.extract = Some(values);
        }
        if self.links {
            let links = format!(
                "[...new Set(Array.from(document.links, link => link.href))].slice(0, {LINKS})"
            );
            let links = page.evaluate(&links).await?;
            taken.links = Some(serde_json::from_value(links).unwrap_or_default());
        }
        if self.text {
            let text = page.evaluate("document.body ? document.body.innerText : ''").await?;
            taken.text = Some(text.as_str().unwrap_or_default().to_owned());
        }
        if self.markdown {
            let html = page.evaluate(WITH_WHOLE_LINKS).await?;
            let html = html.as_str().unwrap_or_default().to_owned();
            // A long page takes its time, and other pages load in the meantime.
            let text = tokio::task::spawn_blocking(move || markdown(&html)).await;
            let failed = |why: String| Trouble::Capture { what: "Markdown", why };
            let text = text.map_err(|error| failed(error.to_string()))?;
            taken.markdown = Some(text.map_err(|error| failed(error.to_string()))?);
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_extracted_has_a_name_a_selector_and_maybe_an_attribute() {
        let extract = |text: &str| {
            let Extract { name, all, selector, attribute } = text.parse().ok()?;
            Some((name, all, selector, attribute))
        };
        let of = |name: &str, all, selector: &str, attribute: Option<&str>| {
            Some((name.to_owned(), all, selector.to_owned(), attribute.map(str::to_owned)))
        };
        assert_eq!(extract("a=h1"), of("a", false, "h1", None));
        assert_eq!(extract("a[]=a.b@href"), of("a", true, "a.b", Some("href")));
        assert_eq!(extract("a=[x='@y']"), of("a", false, "[x='@y']", None));
        for wrong in ["a", "=h1", "a=", "a b=h1"] {
            assert_eq!(extract(wrong), None, "{wrong}");
        }
    }
}
