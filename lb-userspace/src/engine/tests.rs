//! What the engine does to maps, seen from outside, on maps in memory.
