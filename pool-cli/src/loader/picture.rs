use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Page, Trouble};

/// The longest side of a picture in its own pixels: beyond it Chromium repeats what it has drawn.
const SIDE: f64 = 16_384.0;

/// The largest area of a picture, 4,096 by 16,384: what a shared lease may take.
const AREA: f64 = 67_108_864.0;

/// Options for a picture of a page, as Puppeteer has them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct PictureOptions {
    #[serde(rename = "type")]
    pub(crate) format: PictureFormat,
    /// 0 to 100; not for PNG.
    pub(crate) quality: Option<f64>,
    /// The whole page, and not only what is in view.
    pub(crate) full_page: bool,
    pub(crate) clip: Option<Clip>,
    /// Nothing behind the page, instead of white.
    pub(crate) omit_background: bool,
    /// Also what is outside of the view; where there is a clip, or the whole page is taken.
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

    /// Its content type.
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
    /// Refuses what contradicts itself, by the member that does.
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
            // Where that is not to be, the page itself is made as large as it is.
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

    /// Scrolls through the page, so that what is loaded when it comes into view is there.
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

    /// The place of an element on the page, and of a clip in it.
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
                why: format!("is none that the page understands: {error}"),
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

    /// The part of a clip that is in view.
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

    /// Refuses a picture that Chromium would draw wrongly, or that is too large.
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
            // The view was checked when it was made.
            None => Ok(()),
        }
    }

    /// Width and height of the whole page, and how many pixels each of its own has.
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
        let why = format!(
            "asks for a picture of {width} by {height} pixels, and Chromium draws no more than \
             {SIDE} a side and {AREA} in all: take parts of it by options.clip, or a PDF"
        );
        return unfit(member, why);
    }
    Ok(())
}

/// In whole pixels, as Puppeteer does it.
fn rounded(clip: Clip) -> Clip {
    let (x, y) = (clip.x.round(), clip.y.round());
    let width = (clip.width + clip.x - x).round();
    let height = (clip.height + clip.y - y).round();
    Clip { x, y, width, height, ..clip }
}

fn unfit<T>(member: &'static str, why: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Unfit { member, why: why.into() })
}
