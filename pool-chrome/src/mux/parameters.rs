//! Parameters of commands that a shared lease may only send within bounds.
//!
//! Contexts keep the contents of pages apart, but all leases of a Chromium share one browser
//! process, one compositor and one network service: a window of ten million pixels, or a buffer of
//! two gigabytes, affects everybody. What a row bounds was seen to hurt a neighbour, or would in a
//! Chromium that does not check it. The other parameters of the protocol are listed in `tests.rs`
//! with the reason why they are harmless; the test there fails for a parameter that is in neither
//! table.

use std::fmt;

use serde_json::{Map, Value};

/// The bound of a parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// A number, from the first to the second.
    Number(f64, f64),
    /// A text with at most this many characters.
    Length(usize),
    /// One of these words.
    Word(&'static [&'static str]),
    /// An address that a page of the lease may be sent to.
    Address,
}

use Bound::*;

/// A parameter of one command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    pub(crate) method: &'static str,
    /// Its name, with dots if it is inside of others.
    pub(crate) path: &'static str,
    pub(crate) bound: Bound,
}

const fn parameter(method: &'static str, path: &'static str, bound: Bound) -> Parameter {
    Parameter { method, path, bound }
}

/// A side of a window, in pixels: 8,192 for both is slow, but does not crash.
const WINDOW: Bound = Number(0.0, 8_192.0);
/// A place on the display.
const PLACE: Bound = Number(-32_768.0, 32_768.0);
/// Other states affect the display, which a shared lease does not have to itself.
const STATE: Bound = Word(&["normal", "minimized"]);
/// A side of a viewport or of a part of a page. [`AREAS`] bounds their product.
const SIDE: Bound = Number(0.0, 1_000_000.0);
const POINT: Bound = Number(-1_000_000.0, 1_000_000.0);
const SCALE: Bound = Number(0.0, 1_000.0);
const QUALITY: Bound = Number(0.0, 100.0);
/// Inches of paper. Smaller sheets turn a page into thousands.
const PAPER: Bound = Number(0.1, 200.0);
const MARGIN: Bound = Number(0.0, 200.0);
/// Bytes that are kept for a session.
const BUFFER: Bound = Number(-1.0, 268_435_456.0);
const COUNT: Bound = Number(0.0, 1_000_000.0);
/// A place in a text.
const TEXT: Bound = Number(0.0, 1_000_000_000.0);

#[rustfmt::skip]
pub(crate) static PARAMETERS: &[Parameter] = &[
    parameter("Target.createTarget",               "left",                    PLACE),
    parameter("Target.createTarget",               "top",                     PLACE),
    parameter("Target.createTarget",               "width",                   WINDOW),
    parameter("Target.createTarget",               "height",                  WINDOW),
    parameter("Target.createTarget",               "windowState",             STATE),
    parameter("Browser.setWindowBounds",           "bounds.left",             PLACE),
    parameter("Browser.setWindowBounds",           "bounds.top",              PLACE),
    parameter("Browser.setWindowBounds",           "bounds.width",            WINDOW),
    parameter("Browser.setWindowBounds",           "bounds.height",           WINDOW),
    parameter("Browser.setWindowBounds",           "bounds.windowState",      STATE),
    parameter("Browser.setContentsSize",           "width",                   WINDOW),
    parameter("Browser.setContentsSize",           "height",                  WINDOW),

    parameter("Emulation.setDeviceMetricsOverride", "width",                  SIDE),
    parameter("Emulation.setDeviceMetricsOverride", "height",                 SIDE),
    parameter("Emulation.setDeviceMetricsOverride", "deviceScaleFactor",      SCALE),
    parameter("Emulation.setDeviceMetricsOverride", "scale",                  SCALE),
    parameter("Emulation.setDeviceMetricsOverride", "screenWidth",            SIDE),
    parameter("Emulation.setDeviceMetricsOverride", "screenHeight",           SIDE),
    parameter("Emulation.setDeviceMetricsOverride", "positionX",              POINT),
    parameter("Emulation.setDeviceMetricsOverride", "positionY",              POINT),
    parameter("Emulation.setDeviceMetricsOverride", "viewport.x",             POINT),
    parameter("Emulation.setDeviceMetricsOverride", "viewport.y",             POINT),
    parameter("Emulation.setDeviceMetricsOverride", "viewport.width",         SIDE),
    parameter("Emulation.setDeviceMetricsOverride", "viewport.height",        SIDE),
    parameter("Emulation.setDeviceMetricsOverride", "viewport.scale",         SCALE),
    parameter("Emulation.setDeviceMetricsOverride", "displayFeature.offset",  SIDE),
    parameter("Emulation.setDeviceMetricsOverride", "displayFeature.maskLength", SIDE),
    parameter("Page.setDeviceMetricsOverride",     "width",                   SIDE),
    parameter("Page.setDeviceMetricsOverride",     "height",                  SIDE),
    parameter("Page.setDeviceMetricsOverride",     "deviceScaleFactor",       SCALE),
    parameter("Page.setDeviceMetricsOverride",     "scale",                   SCALE),
    parameter("Page.setDeviceMetricsOverride",     "screenWidth",             SIDE),
    parameter("Page.setDeviceMetricsOverride",     "screenHeight",            SIDE),
    parameter("Page.setDeviceMetricsOverride",     "positionX",               POINT),
    parameter("Page.setDeviceMetricsOverride",     "positionY",               POINT),
    parameter("Page.setDeviceMetricsOverride",     "viewport.x",              POINT),
    parameter("Page.setDeviceMetricsOverride",     "viewport.y",              POINT),
    parameter("Page.setDeviceMetricsOverride",     "viewport.width",          SIDE),
    parameter("Page.setDeviceMetricsOverride",     "viewport.height",         SIDE),
    parameter("Page.setDeviceMetricsOverride",     "viewport.scale",          SCALE),
    parameter("Emulation.setVisibleSize",          "width",                   SIDE),
    parameter("Emulation.setVisibleSize",          "height",                  SIDE),
    parameter("Emulation.setPageScaleFactor",      "pageScaleFactor",         SCALE),
    parameter("Emulation.setEmulatedOSTextScale",  "scale",                   SCALE),
    parameter("Emulation.setCPUThrottlingRate",    "rate",                    SCALE),
    parameter("Emulation.setSafeAreaInsetsOverride", "insets.top",            SIDE),
    parameter("Emulation.setSafeAreaInsetsOverride", "insets.topMax",         SIDE),
    parameter("Emulation.setSafeAreaInsetsOverride", "insets.left",           SIDE),
    parameter("Emulation.setSafeAreaInsetsOverride", "insets.leftMax",        SIDE),
    parameter("Emulation.setSafeAreaInsetsOverride", "insets.bottom",         SIDE),
    parameter("Emulation.setSafeAreaInsetsOverride", "insets.bottomMax",      SIDE),
    parameter("Emulation.setSafeAreaInsetsOverride", "insets.right",          SIDE),
    parameter("Emulation.setSafeAreaInsetsOverride", "insets.rightMax",       SIDE),
    parameter("Emulation.setVirtualKeyboardGeometryOverride", "keyboardRect.x", POINT),
    parameter("Emulation.setVirtualKeyboardGeometryOverride", "keyboardRect.y", POINT),
    parameter("Emulation.setVirtualKeyboardGeometryOverride", "keyboardRect.width", SIDE),
    parameter("Emulation.setVirtualKeyboardGeometryOverride", "keyboardRect.height", SIDE),
    parameter("Emulation.setSmallViewportHeightDifferenceOverride", "difference", SIDE),

    parameter("Page.captureScreenshot",            "quality",                 QUALITY),
    parameter("Page.captureScreenshot",            "clip.x",                  POINT),
    parameter("Page.captureScreenshot",            "clip.y",                  POINT),
    parameter("Page.captureScreenshot",            "clip.width",              SIDE),
    parameter("Page.captureScreenshot",            "clip.height",             SIDE),
    parameter("Page.captureScreenshot",            "clip.scale",              SCALE),
    parameter("Page.startScreencast",              "quality",                 QUALITY),
    parameter("Page.startScreencast",              "maxWidth",                SIDE),
    parameter("Page.startScreencast",              "maxHeight",               SIDE),
    parameter("Page.startScreencast",              "everyNthFrame",           COUNT),
    parameter("Page.startScreencast",              "maxFramesInFlight",       Number(0.0, 100.0)),
    parameter("Page.startScreenRecording",         "maxWidth",                WINDOW),
    parameter("Page.startScreenRecording",         "maxHeight",               WINDOW),
    parameter("Page.startScreenRecording",         "frameRate",               Number(0.0, 120.0)),
    parameter("Page.printToPDF",                   "scale",                   SCALE),
    parameter("Page.printToPDF",                   "paperWidth",              PAPER),
    parameter("Page.printToPDF",                   "paperHeight",             PAPER),
    parameter("Page.printToPDF",                   "marginTop",               MARGIN),
    parameter("Page.printToPDF",                   "marginBottom",            MARGIN),
    parameter("Page.printToPDF",                   "marginLeft",              MARGIN),
    parameter("Page.printToPDF",                   "marginRight",             MARGIN),
    parameter("Page.printToPDF",                   "pageRanges",              Length(65_536)),
    parameter("LayerTree.replaySnapshot",          "fromStep",                COUNT),
    parameter("LayerTree.replaySnapshot",          "toStep",                  COUNT),
    parameter("LayerTree.replaySnapshot",          "scale",                   Number(0.0, 16.0)),
    parameter("LayerTree.profileSnapshot",         "minRepeatCount",          COUNT),
    parameter("LayerTree.profileSnapshot",         "minDuration",             Number(0.0, 60.0)),
    parameter("LayerTree.profileSnapshot",         "clipRect.x",              POINT),
    parameter("LayerTree.profileSnapshot",         "clipRect.y",              POINT),
    parameter("LayerTree.profileSnapshot",         "clipRect.width",          SIDE),
    parameter("LayerTree.profileSnapshot",         "clipRect.height",         SIDE),

    // A value of -1 crashes the whole browser.
    parameter("Input.imeSetComposition",           "selectionStart",          TEXT),
    parameter("Input.imeSetComposition",           "selectionEnd",            TEXT),
    parameter("Input.imeSetComposition",           "replacementStart",        TEXT),
    parameter("Input.imeSetComposition",           "replacementEnd",          TEXT),
    parameter("Input.synthesizePinchGesture",      "scaleFactor",             SCALE),
    parameter("Input.synthesizePinchGesture",      "relativeSpeed",           COUNT),
    parameter("Input.synthesizeScrollGesture",     "xDistance",               POINT),
    parameter("Input.synthesizeScrollGesture",     "yDistance",               POINT),
    parameter("Input.synthesizeScrollGesture",     "xOverscroll",             POINT),
    parameter("Input.synthesizeScrollGesture",     "yOverscroll",             POINT),
    parameter("Input.synthesizeScrollGesture",     "speed",                   COUNT),
    parameter("Input.synthesizeScrollGesture",     "repeatCount",             Number(0.0, 1_000.0)),
    parameter("Input.synthesizeScrollGesture",     "repeatDelayMs",           Number(0.0, 60_000.0)),
    parameter("Input.synthesizeTapGesture",        "duration",                Number(0.0, 60_000.0)),
    // The browser makes them all at once: 65,536 block everybody for 8 s.
    parameter("Input.synthesizeTapGesture",        "tapCount",                Number(0.0, 100.0)),

    parameter("IO.read",                           "size",                    Number(0.0, 104_857_600.0)),
    parameter("Network.enable",                    "maxTotalBufferSize",      BUFFER),
    parameter("Network.enable",                    "maxResourceBufferSize",   BUFFER),
    parameter("Network.enable",                    "maxPostDataSize",         BUFFER),
    parameter("Network.configureDurableMessages",  "maxTotalBufferSize",      BUFFER),
    parameter("Network.configureDurableMessages",  "maxResourceBufferSize",   BUFFER),
    parameter("Network.loadNetworkResource",       "url",                     Address),
    parameter("CacheStorage.requestEntries",       "skipCount",               COUNT),
    parameter("CacheStorage.requestEntries",       "pageSize",                COUNT),
    parameter("IndexedDB.requestData",             "skipCount",               COUNT),
    parameter("IndexedDB.requestData",             "pageSize",                COUNT),
    // Data stored by a context off the record is in the browser's memory. A value of -1 crashes it.
    parameter("Storage.overrideQuotaForOrigin",    "quotaSize",               Number(0.0, 1_073_741_824.0)),

    parameter("HeapProfiler.startSampling",        "samplingInterval",        Number(1_024.0, 2_147_483_647.0)),
    parameter("HeapProfiler.startSampling",        "stackDepth",              Number(1.0, 1_000.0)),
    parameter("Profiler.setSamplingInterval",      "interval",                Number(100.0, 1_000_000.0)),
    parameter("Memory.startSampling",              "samplingInterval",        Number(1_024.0, 2_147_483_647.0)),
];

/// Sides whose product is bounded, in pixels of the device.
#[derive(Clone, Copy, Debug)]
struct Area {
    method: &'static str,
    sides: [&'static str; 2],
    /// Factor by which both sides are multiplied.
    scale: Option<&'static str>,
    density: Density,
    most: f64,
}

/// Ways in which the pixel density of an emulated screen enters into an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Density {
    /// The command sets it, or it plays no role.
    Set,
    /// The page's density multiplies both sides.
    Page,
    /// Pages in the window may multiply its sides.
    Window,
}

const fn area(
    method: &'static str,
    sides: [&'static str; 2],
    scale: Option<&'static str>,
    density: Density,
    most: f64,
) -> Area {
    Area { method, sides, scale, density, most }
}

/// 8K: a window twice as large is slow for everybody in `chromium`, one eight times as large
/// crashes it.
const SCREEN: f64 = 7_680.0 * 4_320.0;
/// 4,096 by 16,384, the limit for pictures: one four times as large blocks the compositor for 10 s.
const PICTURE: f64 = 67_108_864.0;

/// Pixels of a window whose size was never set.
pub(crate) const USUAL: f64 = 1_920.0 * 1_080.0;

#[rustfmt::skip]
static AREAS: &[Area] = &[
    area("Target.createTarget",     ["width", "height"], None, Density::Window, SCREEN),
    area("Browser.setWindowBounds", ["bounds.width", "bounds.height"], None, Density::Window, SCREEN),
    area("Browser.setContentsSize", ["width", "height"], None, Density::Window, SCREEN),
    area("Emulation.setVisibleSize", ["width", "height"], None, Density::Page, PICTURE),
    area("Emulation.setDeviceMetricsOverride", ["width", "height"], Some("deviceScaleFactor"), Density::Set, PICTURE),
    area("Emulation.setDeviceMetricsOverride", ["viewport.width", "viewport.height"], Some("viewport.scale"), Density::Set, PICTURE),
    area("Page.setDeviceMetricsOverride", ["width", "height"], Some("deviceScaleFactor"), Density::Set, PICTURE),
    area("Page.setDeviceMetricsOverride", ["viewport.width", "viewport.height"], Some("viewport.scale"), Density::Set, PICTURE),
    area("Page.captureScreenshot",  ["clip.width", "clip.height"], Some("clip.scale"), Density::Page, PICTURE),
    area("Page.startScreencast",    ["maxWidth", "maxHeight"], None, Density::Set, PICTURE),
    area("Page.startScreenRecording", ["maxWidth", "maxHeight"], None, Density::Set, SCREEN),
];

/// Reason why a command may not be sent unchanged.
#[derive(Debug)]
pub(crate) struct OutOfBounds(String);

impl fmt::Display for OutOfBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in a shared browser lease", self.0)
    }
}

/// The screen of a lease's pages, as its clients have set it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// Physical pixels for each of the page's own, per side: for the command's page, or for the
    /// densest one if a command is about a window.
    pub(crate) density: f64,
    /// Pixels of the largest window.
    pub(crate) window: f64,
}

/// Returns `true` if a command sets the size of a window.
pub(crate) fn names_window(method: &str) -> bool {
    AREAS.iter().any(|row| row.method == method && row.density == Density::Window)
}

/// Judges the parameters of a command; `allows` is the lease's rule for addresses. Returns the
/// maximum number of pixels that it is about.
pub(crate) fn judge(
    method: &str,
    params: &Map<String, Value>,
    screen: Screen,
    allows: impl Fn(&str) -> bool,
) -> Result<f64, OutOfBounds> {
    for Parameter { path, bound, .. } in PARAMETERS.iter().filter(|row| row.method == method) {
        let Some(value) = at(params, path) else { continue };
        match (bound, value) {
            (_, Value::Null) => {}
            (Number(least, most), Value::Number(number)) => {
                let within = number.as_f64().is_some_and(|it| (*least..=*most).contains(&it));
                if !within {
                    let bounds = format!("`{path}` is {number}, but must be {least} to {most}");
                    return Err(OutOfBounds(bounds));
                }
            }
            (Length(most), Value::String(text)) => {
                if text.len() > *most {
                    return Err(OutOfBounds(format!(
                        "`{path}` may have at most {most} characters"
                    )));
                }
            }
            (Word(words), Value::String(word)) => {
                if !words.contains(&word.as_str()) {
                    let allowed = words.join(" or ");
                    return Err(OutOfBounds(format!("`{path}` may be {allowed}, not {word},")));
                }
            }
            (Address, Value::String(address)) => {
                if !allows(address) {
                    return Err(OutOfBounds(format!("`{path}` is not a web address")));
                }
            }
            (Number(..) | Length(_) | Word(_) | Address, _) => {
                return Err(OutOfBounds(format!("`{path}` has the wrong type")));
            }
        }
    }
    let mut largest: f64 = 0.0;
    for Area { sides, scale, density, most, .. } in AREAS.iter().filter(|row| row.method == method)
    {
        // A side of 0 leaves that side unchanged, as if it were not named.
        let number = |path: &str| at(params, path).and_then(Value::as_f64).filter(|it| *it > 0.0);
        let [width, height] = sides.map(number);
        // If only one side is named, the other stays as it is, which may be as large as this one.
        let named = width.or(height).zip(height.or(width));
        let area = named.map(|(width, height)| width * height);
        let area = match density {
            // Commands that set them leave the window as it is.
            Density::Set => area.unwrap_or(screen.window),
            Density::Page | Density::Window => match area {
                Some(area) => area,
                None => continue,
            },
        };
        let scale = scale.and_then(number).unwrap_or(1.0);
        let (scale, most) = match density {
            Density::Set => (scale, *most),
            Density::Page => (scale * screen.density, *most),
            Density::Window => {
                // The result in the window's pages must be within bounds as well.
                (scale, most.min(PICTURE / (screen.density * screen.density)))
            }
        };
        let pixels = area * scale * scale;
        if pixels > most {
            let sides = sides.join("` by `");
            let sizes = format!("`{sides}` are {pixels} pixels, but may be at most {most}");
            return Err(OutOfBounds(sizes));
        }
        largest = largest.max(pixels);
    }
    Ok(largest)
}

/// Returns the parameter with this name, which may be inside of others.
pub(crate) fn at<'a>(params: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut names = path.split('.');
    let first = params.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The screen of a lease that has set nothing.
    const SCREEN_OF_NONE: Screen = Screen { density: 1.0, window: USUAL };

    fn judged(method: &str, params: &Value) -> Result<(), String> {
        let params = params.as_object().expect("a test writes an object");
        judge(method, params, SCREEN_OF_NONE, |address| address.starts_with("http"))
            .map(drop)
            .map_err(|why| why.to_string())
    }

    #[test]
    fn what_clients_send_is_within_the_bounds() {
        for (method, params) in [
            ("Target.createTarget", json!({ "url": "about:blank" })),
            (
                "Target.createTarget",
                json!({ "url": "", "width": 7680, "height": 4320, "left": null }),
            ),
            ("Browser.setWindowBounds", json!({ "bounds": { "windowState": "normal" } })),
            ("Browser.setWindowBounds", json!({ "bounds": { "width": 1280, "height": 720 } })),
            (
                "Emulation.setDeviceMetricsOverride",
                json!({ "width": 390, "height": 844, "deviceScaleFactor": 3, "mobile": true,
                    "screenOrientation": { "angle": 90, "type": "landscapePrimary" } }),
            ),
            (
                "Emulation.setDeviceMetricsOverride",
                json!({ "width": 0, "height": 0, "deviceScaleFactor": 0, "mobile": false }),
            ),
            (
                "Page.captureScreenshot",
                json!({ "clip": { "x": 0, "y": 0, "width": 1280, "height": 16384, "scale": 1 } }),
            ),
            ("Page.printToPDF", json!({ "paperWidth": 8.5, "paperHeight": 11, "scale": 0.5 })),
            ("Runtime.evaluate", json!({ "timeout": 1e300 })),
        ] {
            assert_eq!(judged(method, &params), Ok(()), "{method} {params}");
        }
    }

    #[test]
    fn a_refusal_names_the_parameter_and_its_bounds() {
        for (method, params, message) in [
            (
                "Target.createTarget",
                json!({ "width": 10_000_000 }),
                "`width` is 10000000, but must be 0 to 8192 in a shared browser lease",
            ),
            (
                "Target.createTarget",
                json!({ "windowState": "fullscreen" }),
                "`windowState` may be normal or minimized, not fullscreen, in a shared browser lease",
            ),
            (
                "Network.loadNetworkResource",
                json!({ "url": "file:///etc/passwd" }),
                "`url` is not a web address in a shared browser lease",
            ),
        ] {
            assert_eq!(judged(method, &params), Err(message.to_owned()), "{method} {params}");
        }
    }

    #[test]
    fn sides_are_bounded_by_their_product_as_well() {
        let bounds = |width: Value, height: Value| {
            let bounds = json!({ "bounds": { "width": width, "height": height } });
            judged("Browser.setWindowBounds", &bounds).is_ok()
        };
        assert!(bounds(json!(8192), json!(4000)));
        assert!(!bounds(json!(8192), json!(8192)));
        // Setting one after the other would have the same effect.
        assert!(!bounds(json!(8192), Value::Null) && !bounds(Value::Null, json!(8192)));
        assert!(bounds(json!(5000), Value::Null));
        let clip = |side: u32, scale: f64, density: f64| {
            let clip = json!({ "clip": { "x": 0, "y": 0, "width": side, "height": side, "scale": scale } });
            let clip = clip.as_object().expect("an object");
            let screen = Screen { density, ..SCREEN_OF_NONE };
            judge("Page.captureScreenshot", clip, screen, |_| true).is_ok()
        };
        // A side of 0 keeps the present size, whatever the density.
        let as_it_is = |density: u32| {
            let metrics = json!({ "width": 0, "height": 0, "deviceScaleFactor": density });
            judged("Emulation.setDeviceMetricsOverride", &metrics).is_ok()
        };
        assert!(as_it_is(0) && as_it_is(3) && !as_it_is(1000));
        // In a window of 8K it is too much, and so is such a window for a page of that density.
        let metrics = json!({ "width": 0, "height": 0, "deviceScaleFactor": 3 });
        let bounds = json!({ "bounds": { "width": 7680, "height": 4320 } });
        let large = Screen { window: 7680.0 * 4320.0, ..SCREEN_OF_NONE };
        let dense = Screen { density: 3.0, ..SCREEN_OF_NONE };
        let allowed = |method: &str, params: &Value, screen: Screen| {
            judge(method, params.as_object().expect("an object"), screen, |_| true).is_ok()
        };
        assert!(!allowed("Emulation.setDeviceMetricsOverride", &metrics, large));
        assert!(allowed("Browser.setWindowBounds", &bounds, SCREEN_OF_NONE));
        assert!(!allowed("Browser.setWindowBounds", &bounds, dense));
        assert!(clip(8192, 1.0, 1.0) && clip(100, 10.0, 3.0));
        assert!(!clip(100, 100.0, 1.0), "the scale counts twice");
        assert!(!clip(8192, 1.0, 2.0), "and so does the screen's own");
    }

    #[test]
    fn what_is_not_of_the_type_is_refused() {
        for value in [json!("NaN"), json!("1e7"), json!([1]), json!({}), json!(true)] {
            let params = json!({ "width": value });
            assert!(judged("Browser.setContentsSize", &params).is_err(), "{params}");
        }
        for value in [json!(-1), json!(1e7), json!(2_147_483_648_u64), json!(9e15), json!(1e308)] {
            let params = json!({ "width": value });
            assert!(judged("Browser.setContentsSize", &params).is_err(), "{params}");
        }
        assert!(judged("Browser.setContentsSize", &json!({ "width": null })).is_ok());
    }
}
