//! What the tests, the demo and the benchmark stand on: a director without a daemon for single packets ([`director`], [`packet`]).

pub mod director;
pub mod history;
pub mod lab;
pub mod packet;
pub mod qemu;
pub mod scene;
pub mod table;
