//! What a user does: unmodified clients against the real service.
//!
//! | module | what is shown |
//! |---|---|
//! | `clients` | a hundred sessions of every client, eight at a time on two browsers |
//! | `priorities` | who is served next when all wait |
//! | `tenants` | shares, a limit and what each sees, on real browsers |
//! | `regions` | a proxy with credentials, and what happens without it |
//! | `profiles` | a login that is kept, and for whom |
//! | `neighbours` | six clients in one Chromium, of which one closes and one is killed |
//! | `dashboard` | the page at the pool's address, in a real browser |
//! | `fleet` | several machines that are one pool |
//! | `travelling_profiles` | a login that goes from node to node of a fleet |
//! | `page_sockets` | pages found by HTTP, and sockets that are bound to one |
//! | `many_leases` | thousands of leases through one pool |
//! | `truth` | counters, log, API and `/proc` tell the same of many leases and crashes |
//! | `kills` | what is left when the pool or a Chromium is killed |

mod clients;
mod dashboard;
mod fleet;
mod kills;
mod many_leases;
mod neighbours;
mod page_sockets;
mod priorities;
mod profiles;
mod regions;
mod tenants;
mod travelling_profiles;
mod truth;
