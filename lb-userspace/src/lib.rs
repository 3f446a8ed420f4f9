//! LVX in user space: the daemon `lvxd` and the command line tool `lvxadm`. The binaries are thin; everything is here.

pub mod api;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod engine;
pub mod model;
pub mod net;
pub mod object;
pub mod sched;
