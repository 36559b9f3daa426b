//! The policies at work in real pools, over a driver that keeps what they give it.

mod allocations;
mod geo_proxy;
mod priority;
mod profile_directories;
mod profile_templates;
mod profiles;
mod sizing;
mod stacks;
mod support;
mod tenants;
mod warming;
