//! Links, routes and neighbours of the director, over netlink.

mod link;
mod reach;

pub use link::LinkInfo;
pub use reach::{NextHop, Reach};
