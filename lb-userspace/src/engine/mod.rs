//! The engine: the maps, and what the daemon does with them.
