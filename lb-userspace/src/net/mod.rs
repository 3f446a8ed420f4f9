//! Links, routes and neighbours of the director, over netlink.

mod event;
mod link;
mod reach;

pub use event::Event;
pub use link::LinkInfo;
pub use reach::{NextHop, Reach};
