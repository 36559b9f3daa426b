use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::loader::{Answer, Pdf, Picture};

/// A call that was carried out.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) product: Product,
    /// What the page's server answered.
    pub(crate) answer: Option<Answer>,
}

/// Data taken of a page.
#[derive(Debug)]
pub(crate) enum Product {
    Html(String),
    Picture(Picture),
    /// A picture as text.
    Base64(String),
    /// Still in the browser.
    Pdf(Box<Pdf>),
    Json(Value),
}

impl Product {
    pub(super) fn base64(picture: &Picture) -> Self {
        Self::Base64(BASE64_STANDARD.encode(&picture.bytes))
    }

    /// Its content type.
    pub(crate) fn mime(&self) -> &'static str {
        match self {
            Self::Html(_) => "text/html; charset=utf-8",
            Self::Picture(picture) => picture.format.mime(),
            Self::Base64(_) => "text/plain; charset=utf-8",
            Self::Pdf(_) => "application/pdf",
            Self::Json(_) => "application/json",
        }
    }
}
