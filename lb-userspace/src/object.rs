//! The compiled XDP programs (ELF, BTF included).

macro_rules! object {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        pub static $name: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/", $file));
    };
}

object!(
    /// The load balancer: program [`PROGRAM`] and its maps.
    LVX,
    "lvx"
);
object!(
    /// Another program of the same name over the same maps, for tests of upgrades.
    NEXT,
    "lvx-next"
);
object!(
    /// The decapsulator: program [`DECAP_PROGRAM`].
    DECAP,
    "lvx-decap"
);
object!(
    /// The balancer within benchmark wrappers, with its maps.
    BENCH,
    "lvx-bench"
);

/// Name of the program in [`LVX`].
pub const PROGRAM: &str = "lvx";
/// Name of the program in [`DECAP`].
pub const DECAP_PROGRAM: &str = "lvx_decap";
