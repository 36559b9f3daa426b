use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Page, Trouble};

/// Bytes of a PDF that are taken at a time.
const CHUNK: u32 = 256 * 1024;

/// Options for printing a page, as Puppeteer has them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct PdfOptions {
    scale: f64,
    display_header_footer: bool,
    header_template: String,
    footer_template: String,
    print_background: bool,
    landscape: bool,
    page_ranges: String,
    format: Option<Paper>,
    width: Option<Length>,
    height: Option<Length>,
    #[serde(rename = "preferCSSPageSize")]
    prefer_css_page_size: bool,
    margin: Margin,
    omit_background: bool,
    tagged: bool,
    outline: bool,
    wait_for_fonts: bool,
}

impl Default for PdfOptions {
    fn default() -> Self {
        Self {
            scale: 1.0,
            display_header_footer: false,
            header_template: String::new(),
            footer_template: String::new(),
            print_background: false,
            landscape: false,
            page_ranges: String::new(),
            format: None,
            width: None,
            height: None,
            prefer_css_page_size: false,
            margin: Margin::default(),
            omit_background: false,
            tagged: true,
            outline: false,
            wait_for_fonts: true,
        }
    }
}

/// A size of paper, in any case of its letters.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Paper {
    width: f64,
    height: f64,
}

/// Inches, as Puppeteer has them.
const PAPERS: [(&str, f64, f64); 11] = [
    ("letter", 8.5, 11.0),
    ("legal", 8.5, 14.0),
    ("tabloid", 11.0, 17.0),
    ("ledger", 17.0, 11.0),
    ("a0", 33.1102, 46.811),
    ("a1", 23.3858, 33.1102),
    ("a2", 16.5354, 23.3858),
    ("a3", 11.6929, 16.5354),
    ("a4", 8.2677, 11.6929),
    ("a5", 5.8268, 8.2677),
    ("a6", 4.1339, 5.8268),
];

impl TryFrom<String> for Paper {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let known = PAPERS.into_iter().find(|(known, ..)| name.eq_ignore_ascii_case(known));
        known.map(|(_, width, height)| Self { width, height }).ok_or_else(|| {
            let names: Vec<&str> = PAPERS.iter().map(|(name, ..)| *name).collect();
            format!("unknown paper {name:?}, expected one of {}", names.join(", "))
        })
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Margin {
    top: Option<Length>,
    bottom: Option<Length>,
    left: Option<Length>,
    right: Option<Length>,
}

/// Inches, read from a number of pixels or a text with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
struct Length(f64);

impl TryFrom<Value> for Length {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        const UNITS: [(&str, f64); 4] = [("px", 1.0), ("in", 96.0), ("cm", 37.8), ("mm", 3.78)];
        let wrong = || {
            let shown: String = value.to_string().chars().take(40).collect();
            format!("{shown} is no length: write a number of pixels, or one with px, in, cm or mm")
        };
        let (number, pixels) = match &value {
            Value::Number(number) => (number.as_f64(), 1.0),
            Value::String(text) => {
                let text = text.trim().to_ascii_lowercase();
                let unit = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit));
                let (digits, pixels) = match unit {
                    Some((unit, pixels)) => (&text[..text.len() - unit.len()], pixels),
                    None => (&*text, 1.0),
                };
                (digits.trim().parse().ok(), pixels)
            }
            _ => (None, 1.0),
        };
        let number = number.filter(|number: &f64| number.is_finite() && *number >= 0.0);
        number.map(|number| Self(number * pixels / 96.0)).ok_or_else(wrong)
    }
}

impl PdfOptions {
    /// As the page's own stylesheets have it.
    pub(crate) fn as_styled() -> Self {
        Self { print_background: true, prefer_css_page_size: true, ..Self::default() }
    }

    fn params(&self) -> Value {
        let paper = self.format.unwrap_or(Paper { width: 8.5, height: 11.0 });
        let side = |length: Option<Length>, of_paper| match (self.format, length) {
            (None, Some(Length(inches))) => inches,
            _ => of_paper,
        };
        let margin = |length: Option<Length>| length.map_or(0.0, |Length(inches)| inches);
        json!({
            "transferMode": "ReturnAsStream",
            "landscape": self.landscape,
            "displayHeaderFooter": self.display_header_footer,
            "headerTemplate": self.header_template,
            "footerTemplate": self.footer_template,
            "printBackground": self.print_background,
            "scale": self.scale,
            "paperWidth": side(self.width, paper.width),
            "paperHeight": side(self.height, paper.height),
            "marginTop": margin(self.margin.top),
            "marginBottom": margin(self.margin.bottom),
            "marginLeft": margin(self.margin.left),
            "marginRight": margin(self.margin.right),
            "pageRanges": self.page_ranges,
            "preferCSSPageSize": self.prefer_css_page_size,
            "generateTaggedPDF": self.tagged || self.outline,
            "generateDocumentOutline": self.outline,
        })
    }
}

/// A PDF that the browser holds, to be taken piece by piece.
#[derive(Debug)]
pub(crate) struct Pdf {
    page: Page,
    handle: String,
    ended: bool,
}

impl Page {
    /// Prints the page.
    pub(crate) async fn pdf(mut self, options: &PdfOptions) -> Result<Pdf, Trouble> {
        let handle = self.print(options).await?;
        Ok(Pdf { page: self, handle, ended: false })
    }

    /// Prints the page, and takes the whole of it.
    pub(crate) async fn whole_pdf(&mut self, options: &PdfOptions) -> Result<Vec<u8>, Trouble> {
        let handle = self.print(options).await?;
        let mut pdf = Vec::new();
        while let Some(piece) = self.read(&handle).await? {
            pdf.extend_from_slice(&piece);
        }
        Ok(pdf)
    }

    /// Returns the handle of the PDF.
    async fn print(&mut self, options: &PdfOptions) -> Result<String, Trouble> {
        if options.omit_background {
            let color = json!({ "color": { "r": 0, "g": 0, "b": 0, "a": 0 } });
            self.call("Emulation.setDefaultBackgroundColorOverride", color).await?;
        }
        if options.wait_for_fonts {
            self.evaluate("document.fonts.ready.then(() => 0)").await?;
        }
        let answer = self.call("Page.printToPDF", options.params()).await.map_err(unfit)?;
        let handle = answer["stream"].as_str();
        handle.map(str::to_owned).ok_or_else(|| failed("Chromium gave no stream"))
    }

    /// The next piece of a PDF.
    async fn read(&mut self, handle: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let answer = self.call("IO.read", json!({ "handle": handle, "size": CHUNK })).await?;
        let data = answer["data"].as_str().unwrap_or_default();
        if data.is_empty() && answer["eof"] == true {
            return Ok(None);
        }
        let piece = if answer["base64Encoded"] == true {
            BASE64_STANDARD.decode(data).map_err(|error| failed(&error.to_string()))?
        } else {
            data.as_bytes().to_vec()
        };
        Ok(Some(piece))
    }
}

impl Pdf {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the browser is gone.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        if self.ended {
            return Ok(None);
        }
        let piece = self.page.read(&self.handle).await?;
        self.ended = piece.is_none();
        Ok(piece)
    }
}

/// The page's range, its margins or its paper were such that nothing is left to print.
fn unfit(trouble: Trouble) -> Trouble {
    use pool_chrome::cdp::CdpError;
    match trouble {
        Trouble::Protocol(CdpError::Refused { message, .. }) => {
            Trouble::Unfit { member: "options", why: format!("cannot be printed by: {message}") }
        }
        trouble => trouble,
    }
}

fn failed(why: &str) -> Trouble {
    Trouble::Capture { what: "PDF", why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: Value) -> Result<Value, String> {
        let options = serde_json::from_value::<PdfOptions>(json);
        options.map(|options| options.params()).map_err(|error| error.to_string())
    }

    #[test]
    fn lengths_have_units_and_paper_has_a_name() {
        let params = options(json!({
            "width": "10in", "height": 96, "margin": { "top": "37.8 mm", "left": "1CM" },
        }));
        let params = params.expect("they are right");
        assert_eq!((&params["paperWidth"], &params["paperHeight"]), (&json!(10.0), &json!(1.0)));
        assert_eq!(params["marginLeft"], json!(37.8 / 96.0));
        let params = options(json!({ "format": "A4", "width": "1in" })).expect("it is right");
        assert_eq!(params["paperWidth"], json!(8.2677), "a format goes before a width");
    }

    #[test]
    fn what_is_no_length_or_paper_is_refused_with_what_to_write() {
        for (wrong, says) in [
            (json!({ "format": "a12" }), "a12"),
            (json!({ "width": "wide" }), "px, in, cm or mm"),
            (json!({ "margin": { "top": -1 } }), "-1"),
            (json!({ "margins": {} }), "margins"),
        ] {
            let error = options(wrong).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }
}
