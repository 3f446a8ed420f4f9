//! What changes around the director.

use super::{LinkInfo, Reach};
use std::net::IpAddr;

/// A change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// How a target is reached.
    Reach {
        /// The target.
        address: IpAddr,
        /// How.
        reach: Reach,
    },
    /// An interface came, changed or went.
    Link(LinkInfo),
    /// Routes or neighbours that cached replies may depend on changed.
    NextHopsChanged,
}
