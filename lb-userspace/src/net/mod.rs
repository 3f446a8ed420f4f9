//! Links, routes and neighbours of the director, over netlink.
//!
//! [`Watcher`] keeps the next hop of every real server's address resolved and says so when it changes. The XDP program sends
//! packets without the kernel's stack, so nothing else makes the kernel ask for a neighbour's MAC or ask again before it forgets
//! it: the watcher does that too.

mod link;
mod neighbour;
mod reach;
mod route;
mod watcher;

pub use link::LinkInfo;
pub use reach::{NextHop, Reach};
pub use watcher::{Event, Watcher};
