//! The engine: the maps, and what the daemon does with them.

mod filter;
mod mapped;
mod maps;
mod memory;
mod picks;
mod slots;

pub use maps::{Maps, MapsError, Sizes};
