//! Links, routes and neighbours of the director, over netlink.

mod event;
mod link;
mod reach;
mod watcher;

pub use event::Event;
pub use link::LinkInfo;
pub use reach::{NextHop, Reach};
pub use watcher::Watcher;
