//! Pages: how they are prepared and loaded, and what is taken from them.
//!
//! A [`Page`] is furnished with everything that must be in place before its first request, loads as
//! far as its [`Load`] requires, and is looked after whatever it does: dialogs are answered,
//! downloads denied, and a page that navigates elsewhere is followed. Each problem is a
//! [`Trouble`]. `visit` and the routes of one-shot work use this for loading, and nothing else.

mod capture;
mod furniture;
mod load;
mod notes;
mod page;
mod trace;
mod trouble;
mod wipe;

pub(crate) use capture::{
    Encoding, Pdf, PdfOptions, Picture, PictureFormat, PictureOptions, Resource,
};
pub(crate) use furniture::{
    Cookie, Credentials, Filter, Furniture, Interceptor, ResourceType, UserAgent, Viewport,
};
pub(crate) use load::{Answer, Load, Wait};
pub(crate) use page::Page;
pub(crate) use trouble::{Blame, NoBrowser, Outlook, Trouble};
pub(crate) use wipe::{Wiped, blank_path};
