//! What is done, and what is seen of it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chromiumoxide::cdp::browser_protocol::browser::{
    EventDownloadProgress, PermissionDescriptor, PermissionSetting, SetDownloadBehaviorBehavior,
    SetDownloadBehaviorParams, SetPermissionParams,
};
use chromiumoxide::cdp::browser_protocol::dom::SetFileInputFilesParams;
use chromiumoxide::cdp::browser_protocol::emulation::{
    MediaFeature, SetDeviceMetricsOverrideParams, SetGeolocationOverrideParams,
    SetLocaleOverrideParams, SetTimezoneOverrideParams,
};
use chromiumoxide::cdp::browser_protocol::fetch::{
    EnableParams, EventRequestPaused, FulfillRequestParams, RequestPattern,
};
use chromiumoxide::cdp::browser_protocol::network::CookieParam;
use chromiumoxide::cdp::browser_protocol::page::{
    CaptureScreenshotFormat, EventJavascriptDialogOpening, HandleJavaScriptDialogParams,
    PrintToPdfParams,
};
use chromiumoxide::cdp::js_protocol::runtime::{EventConsoleApiCalled, EventExceptionThrown};
use chromiumoxide::page::ScreenshotParams;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::run::{Failure, Outcome, Run, until, value};

type Step = for<'a> fn(&'a Run) -> BoxFuture<'a, Outcome>;

macro_rules! steps {
    ($($step:ident)+) => {
        &[$((stringify!($step), (|run| $step(run).boxed()) as Step)),+]
    };
}

/// Every step, in order.
pub(crate) const STEPS: &[(&str, Step)] = steps! {
    first_page version default_context redirect contexts_are_isolated cookies marks evaluate set_content init_script
    reload form keyboard popups frames dialogs console exception interception device user_agent
    places geolocation screenshots pdf download upload
};

async fn version(run: &Run) -> Outcome {
    let version = run.browser.version().await?;
    Ok(json!([version.product, version.protocol_version, version.user_agent]))
}

/// Before any other step has opened or closed a page. The client tells of pages some time after
/// they come and go.
async fn first_page(run: &Run) -> Outcome {
    let count = async |wanted: usize| -> Result<usize, Failure> {
        for _ in 0..100 {
            if run.browser.pages().await?.len() == wanted {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(run.browser.pages().await?.len())
    };
    let begun = count(1).await?;
    let first = run.browser.pages().await?.into_iter().next().ok_or("there is no page")?;
    let url = first.url().await?;
    first.goto(run.at("/title.html")).await?;
    let title = first.get_title().await?;
    let second = run.browser.new_page("about:blank").await?;
    let both = count(2).await?;
    first.close().await?;
    let left = count(1).await?;
    second.close().await?;
    Ok(json!([begun, url, title, both, left, count(0).await?]))
}

async fn default_context(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    let found = json!([page.get_title().await?, page.url().await?, page.content().await?]);
    page.close().await?;
    Ok(found)
}

/// What it finds of others, and whether it finds its own after a reload.
async fn marks(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    let leave = "(() => {
        const found = document.cookie + JSON.stringify(localStorage);
        document.cookie = 'mark=mine; Path=/';
        localStorage.mark = 'mine';
        return found;
    })()";
    let found = value(&page, leave).await?;
    page.reload().await?;
    let kept = value(&page, "[document.cookie, localStorage.mark]").await?;
    page.close().await?;
    Ok(json!({ "found": found, "kept": kept }))
}

async fn redirect(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    page.goto(run.at("/redirect?n=2")).await?;
    let url = page.url().await?;
    page.close().await?;
    Ok(json!(url))
}

async fn contexts_are_isolated(run: &Run) -> Outcome {
    let mut contexts = Vec::new();
    let mut found = Value::Null;
    for turn in ["write('one')", "read()"] {
        let context = run.browser.create_browser_context(Default::default()).await?;
        let page = run.page_in(&context, "/storage.html").await?;
        found = page.evaluate(turn).await?.into_value().unwrap_or_default();
        contexts.push(context);
    }
    for context in contexts {
        run.browser.dispose_browser_context(context).await?;
    }
    if let Value::Object(found) = &mut found {
        found.remove("overrides");
    }
    Ok(found)
}

async fn cookies(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    page.set_cookie(CookieParam::new("plain", "1")).await?;
    let seen = value(&page, "document.cookie").await?;
    let cookies = page.get_cookies().await?;
    let of_page: Vec<_> = cookies.iter().map(|cookie| (&cookie.name, &cookie.value)).collect();
    let of_browser = run.browser.get_cookies().await?.len();
    run.browser.clear_cookies().await?;
    let left = page.get_cookies().await?.len();
    page.close().await?;
    Ok(json!({ "seen": seen, "page": of_page, "browser": of_browser, "left": left }))
}

async fn evaluate(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    let called = page.evaluate_function("async () => [1, 2].map((n) => n * 3)").await?;
    let thrown = page.evaluate("missing()").await.err().map(|error| error.to_string());
    let title = value(&page, "document.title").await?;
    page.close().await?;
    Ok(json!([title, called.into_value::<Value>()?, thrown.is_some()]))
}

async fn set_content(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    page.set_content("<h1>Mine</h1><p class=x>a</p><p class=x>b</p>").await?;
    let texts = page.find_elements("p.x").await?;
    let heading = page.find_element("h1").await?.inner_text().await?;
    let found = json!([heading, texts.len()]);
    page.close().await?;
    Ok(found)
}

async fn init_script(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    page.evaluate_on_new_document("window.early = 7").await?;
    page.goto(run.at("/form.html")).await?;
    let early = value(&page, "window.early").await?;
    page.close().await?;
    Ok(early)
}

async fn reload(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    value(&page, "document.title = 'changed'").await?;
    page.reload().await?;
    let title = page.get_title().await?;
    page.close().await?;
    Ok(json!(title))
}

async fn form(run: &Run) -> Outcome {
    let page = run.page("/form.html").await?;
    page.find_element("#name").await?.click().await?.type_str("Ada").await?;
    page.find_element("#agree").await?.click().await?;
    page.find_element("#send").await?.click().await?;
    let sent = until(&page, "document.getElementById('sent').textContent || null").await?;
    page.close().await?;
    Ok(sent)
}

async fn keyboard(run: &Run) -> Outcome {
    let page = run.page("/form.html").await?;
    let notes = page.find_element("#notes").await?;
    notes.click().await?.type_str("Hi").await?.press_key("Enter").await?;
    let value = notes.property("value").await?;
    page.close().await?;
    Ok(json!(value))
}

async fn popups(run: &Run) -> Outcome {
    let page = run.page("/popups.html").await?;
    let mut titles = Vec::new();
    for name in ["opener", "noopener"] {
        page.find_element(format!("#{name}")).await?.click().await?;
        let popup = loop {
            let mut found = None;
            for page in run.browser.pages().await? {
                let url = page.url().await?.unwrap_or_default();
                if url.ends_with(&format!("/popup.html?{name}")) {
                    found = Some(page);
                }
            }
            match found {
                Some(popup) => break popup,
                None => sleep(Duration::from_millis(20)).await,
            }
        };
        let title = until(&popup, "document.readyState == 'complete' && document.title").await?;
        titles.push(json!([title, value(&popup, "!!window.opener").await?]));
        popup.close().await?;
    }
    page.close().await?;
    Ok(json!(titles))
}

async fn frames(run: &Run) -> Outcome {
    let page = run.page("/frames.html").await?;
    let count = until(&page, "document.documentElement.dataset.frames || null").await?;
    let same = loop {
        let mut urls = Vec::new();
        for frame in page.frames().await? {
            urls.extend(page.frame_url(frame).await?);
        }
        match urls.into_iter().find(|url| url.contains("?same")) {
            Some(url) => break url,
            None => sleep(Duration::from_millis(20)).await,
        }
    };
    page.close().await?;
    Ok(json!([count, same]))
}

async fn dialogs(run: &Run) -> Outcome {
    let page = run.page("/dialogs.html").await?;
    let mut opened = page.event_listener::<EventJavascriptDialogOpening>().await?;
    let mut seen = Vec::new();
    for name in ["alert", "confirm", "prompt"] {
        // A click is only over when its dialog is.
        let button = page.find_element(format!("#{name}")).await?;
        let click = async { button.click().await.map(drop) };
        let answer = async {
            let dialog = opened.next().await.ok_or("the page is gone")?;
            let answer = HandleJavaScriptDialogParams::builder().accept(true).prompt_text("Ada");
            page.execute(answer.build()?).await?;
            Ok::<_, Failure>(json!([dialog.r#type, dialog.message]))
        };
        let (clicked, answered) = tokio::join!(click, answer);
        clicked?;
        seen.push(json!([answered?, value(&page, "result").await?]));
    }
    page.close().await?;
    Ok(json!(seen))
}

async fn console(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    let mut calls = page.event_listener::<EventConsoleApiCalled>().await?;
    page.goto(run.at("/console.html")).await?;
    let mut lines = Vec::new();
    while lines.len() < 3 {
        let call = calls.next().await.ok_or("the page is gone")?;
        lines.push(json!([call.r#type, call.args.first().and_then(|first| first.value.clone())]));
    }
    page.close().await?;
    Ok(json!(lines))
}

async fn exception(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    let mut thrown = page.event_listener::<EventExceptionThrown>().await?;
    page.goto(run.at("/console.html")).await?;
    let thrown = thrown.next().await.ok_or("the page is gone")?;
    let text = thrown.exception_details.text.clone();
    page.close().await?;
    Ok(json!(text))
}

async fn interception(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    let mut paused = page.event_listener::<EventRequestPaused>().await?;
    let data = RequestPattern::builder().url_pattern("*/visit/1/data.json").build();
    page.execute(EnableParams::builder().pattern(data).build()).await?;
    let answer = async {
        let request = paused.next().await.ok_or("the page is gone")?;
        let body = STANDARD.encode(json!({ "text": "from the client" }).to_string());
        let id = request.request_id.clone();
        let answer = FulfillRequestParams::builder().request_id(id).response_code(200);
        page.execute(answer.body(body).build()?).await?;
        Ok::<_, Failure>(request.request.method.clone())
    };
    let visit = async {
        page.goto(run.at("/visit/1")).await?;
        until(&page, "document.querySelector('#fetched')?.textContent || null").await
    };
    let (method, fetched) = tokio::join!(answer, visit);
    let found = json!([method?, fetched?]);
    page.close().await?;
    Ok(found)
}

async fn device(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    let phone = SetDeviceMetricsOverrideParams::new(390, 844, 3.0, true);
    page.execute(phone).await?;
    page.emulate_media_features(vec![MediaFeature::new("prefers-color-scheme", "dark")]).await?;
    let seen = value(
        &page,
        "[screen.width, devicePixelRatio, matchMedia('(prefers-color-scheme: dark)').matches]",
    )
    .await?;
    page.close().await?;
    Ok(seen)
}

async fn user_agent(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    page.set_user_agent("Conformance/1.0").await?;
    page.goto(run.at("/title.html")).await?;
    let seen = value(&page, "navigator.userAgent").await?;
    page.close().await?;
    Ok(seen)
}

async fn places(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    page.emulate_timezone(SetTimezoneOverrideParams::new("Asia/Tokyo")).await?;
    page.emulate_locale(SetLocaleOverrideParams::builder().locale("de-DE").build()).await?;
    let seen =
        value(&page, "[Intl.DateTimeFormat().resolvedOptions().timeZone, (1.5).toLocaleString()]")
            .await?;
    page.close().await?;
    Ok(seen)
}

async fn geolocation(run: &Run) -> Outcome {
    let page = run.page("/title.html").await?;
    let allowed = SetPermissionParams::builder()
        .permission(PermissionDescriptor::new("geolocation"))
        .setting(PermissionSetting::Granted)
        .origin(run.site.clone());
    run.browser.execute(allowed.build()?).await?;
    let here = SetGeolocationOverrideParams::builder().latitude(52.5).longitude(13.4).accuracy(1.0);
    page.emulate_geolocation(here.build()).await?;
    let seen = value(
        &page,
        "new Promise((done, failed) => navigator.geolocation.getCurrentPosition(
            ({ coords }) => done([coords.latitude, coords.longitude]), failed))",
    )
    .await?;
    page.close().await?;
    Ok(seen)
}

async fn screenshots(run: &Run) -> Outcome {
    let page = run.page("/tall.html").await?;
    let viewport = page.screenshot(ScreenshotParams::default()).await?;
    let whole = page.screenshot(ScreenshotParams::builder().full_page(true).build()).await?;
    let element = page.find_element("#box").await?;
    let element = element.screenshot(CaptureScreenshotFormat::Png).await?;
    page.close().await?;
    Ok(json!([size(&viewport), size(&whole), size(&element)]))
}

/// Width and height of a PNG.
fn size(png: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(png.get(at..at + 4)?.try_into().ok()?));
    Some((number(16)?, number(20)?))
}

async fn pdf(run: &Run) -> Outcome {
    let page = run.page("/tall.html").await?;
    let pdf = page.pdf(PrintToPdfParams::default()).await?;
    page.close().await?;
    let pages = pdf.windows(12).filter(|window| *window == b"/Type /Page\n").count();
    Ok(json!([String::from_utf8_lossy(&pdf[..5]), pages]))
}

async fn download(run: &Run) -> Outcome {
    let mut progress = run.browser.event_listener::<EventDownloadProgress>().await?;
    let folder = run.folder.to_str().ok_or("the folder's name is no text")?;
    let keep = SetDownloadBehaviorParams::builder()
        .behavior(SetDownloadBehaviorBehavior::Allow)
        .download_path(folder)
        .events_enabled(true);
    run.browser.execute(keep.build()?).await?;
    let page = run.page("/files.html").await?;
    page.find_element("#download").await?.click().await?;
    loop {
        let event = progress.next().await.ok_or("the browser is gone")?;
        if event.state.as_ref() == "completed" {
            break;
        }
    }
    page.close().await?;
    Ok(json!(run.folder.join("report.txt").metadata()?.len()))
}

async fn upload(run: &Run) -> Outcome {
    let file = run.folder.join("one.txt");
    std::fs::write(&file, "one")?;
    let page = run.page("/files.html").await?;
    let input = page.find_element("#file").await?;
    let files = SetFileInputFilesParams::builder()
        .file(file.to_str().ok_or("the folder's name is no text")?)
        .backend_node_id(input.backend_node_id);
    page.execute(files.build()?).await?;
    page.find_element("#send").await?.click().await?;
    let answered = "location.pathname == '/upload' && document.readyState == 'complete'
        && document.body.textContent";
    let answer = until(&page, answered).await?;
    page.close().await?;
    let answer: Value = serde_json::from_str(answer.as_str().ok_or("no text")?)?;
    Ok(answer["files"].clone())
}
