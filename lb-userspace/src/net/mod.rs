//! Links, routes and neighbours of the director, over netlink.

mod reach;

pub use reach::{NextHop, Reach};
