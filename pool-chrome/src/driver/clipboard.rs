use serde_json::json;

use super::scratch::ScratchPage;
use crate::cdp::CdpError;
use crate::mux::Multiplexer;

/// Puts nothing in the place of whatever a lease has left in the clipboard, which belongs to the
/// whole Chromium.
///
/// The protocol has no command for it. A page may write to the clipboard when the user copies, so
/// a page of ours answers a copy with an empty text. It shows as well that pages can be made.
pub(super) async fn wipe(mux: &Multiplexer) -> Result<(), CdpError> {
    const ANSWER: &str = "document.addEventListener('copy', event => {\
        event.preventDefault(); event.clipboardData.setData('text/plain', ''); wiped = true })";
    let page = ScratchPage::open(mux, None).await?;
    page.evaluate(ANSWER).await?;
    let copy = json!({ "type": "keyDown", "key": "c", "code": "KeyC", "commands": ["copy"] });
    page.call("Input.dispatchKeyEvent", &copy).await?;
    let wiped = page.evaluate("globalThis.wiped === true").await?;
    page.close().await?;
    if wiped == json!(true) { Ok(()) } else { Err(CdpError::Leftover("the clipboard".to_owned())) }
}
