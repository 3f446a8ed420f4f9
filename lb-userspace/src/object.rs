//! The compiled eBPF programs.
