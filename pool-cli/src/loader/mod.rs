//! Pages: how they are made ready, loaded, and what is taken of them.
//!
//! A [`Page`] is furnished with what must hold before its first request, loads as far as its
//! [`Load`] waits for, and is looked after whatever it does: dialogs are answered, downloads denied,
//! and a page that goes elsewhere is followed. Each thing that goes wrong is a [`Trouble`]. `visit`
//! and the routes of one-shot work load by this, and by nothing else.

mod capture;
mod furniture;
mod load;
mod notes;
mod page;
mod resource;
mod trace;
mod trouble;
mod wipe;

pub(crate) use capture::{Encoding, Pdf, PdfOptions, Picture, PictureFormat, PictureOptions};
pub(crate) use furniture::{
    Cookie, Credentials, Filter, Furniture, Interceptor, ResourceType, UserAgent, Viewport,
};
pub(crate) use load::{Answer, Load, Wait};
pub(crate) use page::Page;
pub(crate) use resource::Resource;
pub(crate) use trouble::{Blame, NoBrowser, Outlook, Trouble};
pub(crate) use wipe::Wiped;
