//! Names of hosts in a static binary.
//!
//! The trap: glibc looks hosts up through modules that `/etc/nsswitch.conf` names and that it loads at run time, also from a static
//! binary, where a module of another glibc than the one linked in may crash it. Files and DNS are built in (since glibc 2.34): a
//! static binary is told to use those alone, whatever is configured.

/// Keeps a static binary from loading modules. Before the first look-up, and before there are threads.
pub(super) fn built_in_only() {
    #[cfg(target_env = "gnu")]
    {
        use std::ffi::{c_char, c_int};
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
        }
        for (database, services) in [(c"hosts", c"files dns"), (c"services", c"files"), (c"protocols", c"files")] {
            // SAFETY: both strings live for ever, which glibc relies on; nobody looks anything up at the same time.
            unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
        }
    }
}
