//! `lvxd`: configuration, attachment, the control socket, life and death.

pub mod args;
pub mod bpffs;
pub mod config;
pub mod lock;
pub mod settings;
pub mod attach;
pub mod kernel;
pub mod load;
pub mod core;
pub mod interfaces;
pub mod state;
pub mod sweep;
