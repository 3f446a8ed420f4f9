//! The engine: the maps, and what the daemon does with them.

mod dests;
mod filter;
mod hops;
mod mapped;
mod maps;
mod memory;
mod picks;
mod plan;
mod ports;
mod services;
mod slots;
mod stats;

pub use maps::{Maps, MapsError, Sizes};
