//! A network interface.

/// What the engine needs to know of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkInfo {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MAC; zero where there is none.
    pub mac: [u8; 6],
    /// MTU.
    pub mtu: u32,
    /// Up, and with a carrier.
    pub up: bool,
    /// False once it is gone.
    pub present: bool,
}
