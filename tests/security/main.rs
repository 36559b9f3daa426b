//! What somebody tries who means harm, or means well and sends anything. A test is named after its
//! row of the list of threats: `s02_take_over_by_the_debug_port`.

mod attacks;
mod dashboard;
mod directories;
mod egress;
mod exposure;
mod floods;
mod metrics;
mod parameters;
mod secrets;
mod web_pages;
