use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::load::LoadEnd;
use super::page::{Paused, odd};
use super::{Page, Trouble};

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
