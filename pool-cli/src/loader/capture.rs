use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pool_chrome::cdp::CdpError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::load::LoadEnd;
use super::page::{Paused, odd};
use super::trouble::{AREA, SIDE};
use super::{Page, Trouble};

/// Options for a picture of a page, as in Puppeteer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct PictureOptions {
    #[serde(rename = "type")]
    pub(crate) format: PictureFormat,
    /// 0 to 100; not for PNG.
    pub(crate) quality: Option<f64>,
    /// The whole page, not only what is in view.
    pub(crate) full_page: bool,
    pub(crate) clip: Option<Clip>,
    /// A transparent background instead of white.
    pub(crate) omit_background: bool,
    /// Also what is outside of the view; only with a clip, or if the whole page is taken.
    pub(crate) capture_beyond_viewport: bool,
    pub(crate) encoding: Encoding,
    pub(crate) from_surface: bool,
    pub(crate) optimize_for_speed: bool,
}

impl Default for PictureOptions {
    fn default() -> Self {
        Self {
            format: PictureFormat::Png,
            quality: None,
            full_page: false,
            clip: None,
            omit_background: false,
            capture_beyond_viewport: true,
            encoding: Encoding::Binary,
            from_surface: true,
            optimize_for_speed: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PictureFormat {
    Png,
    #[serde(alias = "jpg")]
    Jpeg,
    Webp,
}

impl PictureFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }

    /// Returns its content type.
    pub(crate) fn mime(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    Binary,
    Base64,
}

/// A part of a page, in CSS pixels.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Clip {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
    #[serde(default = "one")]
    pub(crate) scale: f64,
}

fn one() -> f64 {
    1.0
}

/// A picture that was taken.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) bytes: Vec<u8>,
    pub(crate) format: PictureFormat,
}

impl PictureOptions {
    /// Refuses options that contradict each other, and names the member at fault.
    pub(crate) fn check(&self) -> Result<(), Trouble> {
        match (self.quality, &self.clip) {
            (Some(_), _) if self.format == PictureFormat::Png => {
                unfit("options.quality", "has no meaning for png: leave it out, or take jpeg")
            }
            (Some(quality), _) if !(0.0..=100.0).contains(&quality) => {
                unfit("options.quality", "must be 0 to 100")
            }
            (_, Some(_)) if self.full_page => {
                unfit("options.clip", "and fullPage exclude each other")
            }
            (_, Some(clip)) if !(clip.width > 0.0 && clip.height > 0.0 && clip.scale > 0.0) => {
                unfit("options.clip", "must have a width, a height and a scale above 0")
            }
            _ => Ok(()),
        }
    }
}

impl Page {
    /// Takes a picture of the page, or of the first element that a selector matches.
    pub(crate) async fn picture(
        &mut self,
        options: &PictureOptions,
        selector: Option<&str>,
    ) -> Result<Picture, Trouble> {
        let clip = match selector {
            Some(selector) => Some(self.element_clip(selector, options.clip).await?),
            None => options.clip.map(rounded),
        };
        let mut beyond = options.capture_beyond_viewport;
        let clip = match clip {
            Some(clip) if beyond => Some(clip),
            Some(clip) => Some(self.in_view(clip).await?),
            // If that is not allowed, the view is made as large as the page.
            None if options.full_page && !beyond => {
                self.unfold().await?;
                None
            }
            None => {
                beyond = options.full_page;
                None
            }
        };
        self.check_size(options, clip).await?;
        if options.omit_background && options.format != PictureFormat::Jpeg {
            let color = json!({ "color": { "r": 0, "g": 0, "b": 0, "a": 0 } });
            self.call("Emulation.setDefaultBackgroundColorOverride", color).await?;
        }
        let mut params = json!({
            "format": options.format.name(),
            "fromSurface": options.from_surface,
            "optimizeForSpeed": options.optimize_for_speed,
            "captureBeyondViewport": beyond,
        });
        if let Some(quality) = options.quality {
            params["quality"] = json!(quality.round());
        }
        if let Some(Clip { x, y, width, height, scale }) = clip {
            params["clip"] =
                json!({ "x": x, "y": y, "width": width, "height": height, "scale": scale });
        }
        let answer = self.call("Page.captureScreenshot", params).await?;
        let data = answer["data"].as_str().unwrap_or_default();
        let bytes = BASE64_STANDARD
            .decode(data)
            .map_err(|error| Trouble::Capture { what: "screenshot", why: error.to_string() })?;
        Ok(Picture { bytes, format: options.format })
    }

    /// Scrolls through the page, so that content that loads when it comes into view is there.
    pub(crate) async fn scroll_through(&mut self) -> Result<(), Trouble> {
        const STEPS: usize = 200;
        for _ in 0..STEPS {
            let more = self
                .evaluate(
                    "(() => { const at = scrollY; scrollBy(0, innerHeight); return scrollY > at })()",
                )
                .await?;
            if more != true {
                break;
            }
            self.pause(std::time::Duration::from_millis(100)).await?;
        }
        self.evaluate("scrollTo(0, 0)").await?;
        Ok(())
    }

    /// Returns the place of an element on the page, or of a clip within it.
    async fn element_clip(
        &mut self,
        selector: &str,
        within: Option<Clip>,
    ) -> Result<Clip, Trouble> {
        let selector = json!(selector);
        let expression = format!(
            "(() => {{ const element = document.querySelector({selector}); if (!element) return null; \
             element.scrollIntoView({{ block: 'center', inline: 'center', behavior: 'instant' }}); \
             const box = element.getBoundingClientRect(); \
             return [box.x + visualViewport.pageLeft, box.y + visualViewport.pageTop, box.width, \
             box.height]; }})()"
        );
        let place = self.evaluate(&expression).await.map_err(|trouble| match trouble {
            Trouble::Script { error } => Trouble::Unfit {
                member: "selector",
                why: format!("is not understood by the page: {error}"),
            },
            trouble => trouble,
        })?;
        let side = |i: usize| place[i].as_f64().unwrap_or_default();
        if place.is_null() {
            return unfit("selector", "matches no element of the page");
        }
        let mut clip = Clip { x: side(0), y: side(1), width: side(2), height: side(3), scale: 1.0 };
        if clip.width <= 0.0 || clip.height <= 0.0 {
            return unfit("selector", "matches an element that is not visible");
        }
        if let Some(Clip { x, y, width, height, scale }) = within {
            clip = Clip { x: clip.x + x, y: clip.y + y, width, height, scale };
        }
        Ok(rounded(clip))
    }

    /// Returns the part of a clip that is in view.
    async fn in_view(&mut self, clip: Clip) -> Result<Clip, Trouble> {
        const VIEW: &str = "(({ pageLeft, pageTop, width, height }) => \
             [pageLeft, pageTop, width, height])(visualViewport)";
        let view = self.evaluate(VIEW).await?;
        let side = |i: usize| view[i].as_f64().unwrap_or_default();
        let (x, y) = (clip.x.max(side(0)), clip.y.max(side(1)));
        let width = (clip.x + clip.width).min(side(0) + side(2)) - x;
        let height = (clip.y + clip.height).min(side(1) + side(3)) - y;
        if width <= 0.0 || height <= 0.0 {
            return unfit("options.clip", "is not in view: set captureBeyondViewport");
        }
        Ok(Clip { x, y, width, height, ..clip })
    }

    /// Makes the view as large as the page.
    async fn unfold(&mut self) -> Result<(), Trouble> {
        let [width, height, density] = self.extent().await?;
        check_area(width * density, height * density, "options.fullPage")?;
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 0, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics).await?;
        Ok(())
    }

    /// Refuses a picture that Chromium would draw incorrectly, or that is too large.
    async fn check_size(
        &mut self,
        options: &PictureOptions,
        clip: Option<Clip>,
    ) -> Result<(), Trouble> {
        match clip {
            Some(clip) => {
                let density = self.extent().await?[2] * clip.scale;
                let member = "options.clip";
                check_area(clip.width * density, clip.height * density, member)
            }
            None if options.full_page => {
                let [width, height, density] = self.extent().await?;
                check_area(width * density, height * density, "options.fullPage")
            }
            // The view was checked when it was set.
            None => Ok(()),
        }
    }

    /// Returns the width and height of the whole page, and the number of device pixels per page
    /// pixel.
    async fn extent(&mut self) -> Result<[f64; 3], Trouble> {
        let layout = self.call("Page.getLayoutMetrics", json!({})).await?;
        let density = self.evaluate("devicePixelRatio").await?;
        let size = &layout["cssContentSize"];
        let number = |value: &Value| value.as_f64().unwrap_or(1.0);
        Ok([number(&size["width"]), number(&size["height"]), number(&density)])
    }
}

fn check_area(width: f64, height: f64, member: &'static str) -> Result<(), Trouble> {
    let (width, height) = (width.round(), height.round());
    if width.max(height) > SIDE || width * height > AREA {
        return Err(Trouble::TooLarge { member, width, height });
    }
    Ok(())
}

/// Rounds to whole pixels, as Puppeteer does.
fn rounded(clip: Clip) -> Clip {
    let (x, y) = (clip.x.round(), clip.y.round());
    let width = (clip.width + clip.x - x).round();
    let height = (clip.height + clip.y - y).round();
    Clip { x, y, width, height, ..clip }
}

fn unfit<T>(member: &'static str, why: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Unfit { member, why: why.into() })
}

/// Number of bytes of a PDF that are taken at a time.
const CHUNK: u32 = 256 * 1024;

/// Options for printing a page, as in Puppeteer.
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

/// A paper size, whose name may be in upper or lower case.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Paper {
    width: f64,
    height: f64,
}

/// Sizes in inches, as in Puppeteer.
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
            format!(
                "{shown} is not a length: write a number of pixels, or one with px, in, cm or mm"
            )
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
    /// Returns the options that follow the page's own stylesheets.
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
        let answer = self.call("Page.printToPDF", options.params()).await.map_err(unprintable)?;
        let handle = answer["stream"].as_str();
        handle.map(str::to_owned).ok_or_else(|| failed("Chromium gave no stream"))
    }

    /// Returns the next piece of a PDF.
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
    /// Returns the next piece; `None` at the end.
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

/// Converts the error for a page range, margins or paper that leave nothing to print.
fn unprintable(trouble: Trouble) -> Trouble {
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

/// A resource as its server sent it, whatever its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) status: u16,
    /// Its content; empty if the status says that there is none, or that the request failed.
    pub(crate) bytes: Vec<u8>,
}

impl Page {
    /// Takes the resource at the page's address instead of showing it. A download, or a type that
    /// cannot be shown as a page, is taken like any other. No more than `most` bytes are read.
    ///
    /// The page cannot be used afterwards.
    ///
    /// # Errors
    ///
    /// [`Trouble::Net`] if no server answers.
    pub(crate) async fn resource(&mut self, most: usize) -> Result<Resource, Trouble> {
        self.paused = Paused::Kept(None);
        let document =
            json!({ "urlPattern": "*", "resourceType": "Document", "requestStage": "Response" });
        self.session.send("Fetch.enable", json!({ "patterns": [document] })).await?;
        self.depart().await?;
        let answer = loop {
            if let Paused::Kept(Some(answer)) = &self.paused {
                break Arc::clone(answer);
            }
            if let Some(LoadEnd::Failed(error)) = self.load.end() {
                return Err(Trouble::Net { error: error.clone() });
            }
            self.next().await?;
        };
        let status = answer["responseStatusCode"].as_u64().unwrap_or_default();
        let status = u16::try_from(status).unwrap_or_default();
        let bytes = match status {
            204 | 205 => Vec::new(),
            200..=299 => self.content(&answer["requestId"], most).await?,
            _ => Vec::new(),
        };
        Ok(Resource { status, bytes })
    }

    /// Reads the beginning of the content of a request that is paused at its answer.
    async fn content(&mut self, request: &Value, most: usize) -> Result<Vec<u8>, Trouble> {
        const READ: &str = "IO.read";
        let request = json!({ "requestId": request });
        let taken = self.call("Fetch.takeResponseBodyAsStream", request).await?;
        let mut bytes = Vec::new();
        while bytes.len() < most {
            let next = json!({ "handle": taken["stream"], "size": most - bytes.len() });
            let read = self.call(READ, next).await?;
            let data = read["data"].as_str().unwrap_or_default();
            if read["base64Encoded"] == true {
                let decoded = BASE64_STANDARD.decode(data);
                bytes.extend(decoded.map_err(|error| odd(READ, &error.to_string()))?);
            } else {
                bytes.extend_from_slice(data.as_bytes());
            }
            if read["eof"] == true {
                break;
            }
        }
        Ok(bytes)
    }
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
