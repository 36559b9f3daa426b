//! One-shot work: a page is loaded, and its HTML, a picture, a PDF or what stands in some of its
//! elements is taken of it, as browserless' REST routes do.
//!
//! An [`Order`] is what a request's body asks for, checked whole before anything is leased. It is
//! [carried out](Order::carry_out) on the page that a lease begins with, and gives a [`Product`].
//! Nothing here knows of HTTP: the routes are in the gateway.

mod members;
mod order;
mod product;

pub(crate) use members::BadOrder;
pub(crate) use order::Order;
pub(crate) use product::{Done, Product, WorkKind};
