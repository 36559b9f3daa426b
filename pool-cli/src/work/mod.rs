//! One-shot work: a page is loaded, and its HTML, a picture, a PDF or the contents of some of its
//! elements are taken from it, as browserless' REST routes do.
//!
//! An [`Order`] is the request in a body, checked completely before anything is leased. It is
//! [carried out](Order::carry_out) on the page that a lease begins with, and yields a [`Product`].
//! Nothing here knows about HTTP: the routes are in the gateway.

mod members;
mod order;
mod product;

pub(crate) use members::BadOrder;
pub(crate) use order::Order;
pub(crate) use product::{Done, Product, WorkKind};
