//! One job of the crate `headless_chrome`: sessions that are not flattened, and a thread that reads.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use headless_chrome::Browser;
use headless_chrome::protocol::cdp::Page::CaptureScreenshotFormatOption;
use serde_json::{Value, json};

const MARK: &str = "(() => {
  const found = document.cookie + (localStorage.getItem('mark') ?? '');
  document.cookie = 'mark=JOB; Max-Age=3600';
  localStorage.setItem('mark', 'JOB');
  return found;
})()";

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let (site, job) = (env::var("SITE")?, env::var("JOB")?);
    let browser = Browser::connect(env::var("CDP_WS")?)?;
    let tab = browser.new_tab()?;
    let evaluate = |expression: &str| -> Result<Value, Box<dyn Error + Send + Sync>> {
        Ok(tab.evaluate(expression, false)?.value.unwrap_or_default())
    };

    tab.navigate_to(&format!("{site}/form.html?job={job}"))?.wait_until_navigated()?;
    let marks = evaluate(&MARK.replace("JOB", &job))?;
    tab.wait_for_element("#name")?.click()?.type_into(&format!("job {job}"))?;
    tab.wait_for_element("#send")?.click()?;
    let sent = evaluate("document.getElementById('sent').textContent")?;
    let picture = tab.capture_screenshot(CaptureScreenshotFormatOption::Png, None, None, true)?;

    let report = json!({
        "title": tab.get_title()?,
        "sent": sent,
        "marks": marks,
        "picture": size(&picture).ok_or("not a PNG")?,
    });
    let folder = PathBuf::from(env::var("FOLDER")?);
    fs::write(folder.join("report.json"), report.to_string())?;
    Ok(())
}

/// Returns width and height of a PNG, which its header has.
fn size(picture: &[u8]) -> Option<String> {
    let number = |at: usize| Some(u32::from_be_bytes(picture.get(at..at + 4)?.try_into().ok()?));
    let is_png = picture.get(1..4) == Some(b"PNG");
    is_png.then(|| Some(format!("{}x{}", number(16)?, number(20)?)))?
}
