//! What the benchmark tells the wrappers around the program.

/// One element, written by user space between runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Bench {
    /// Bytes of the frame.
    pub len: u32,
    /// 0: always the same client; 1: a random one of `clients`; 2: another one each time; 3: the next of the events.
    pub mode: u32,
    /// How many.
    pub clients: u32,
    /// 1: the client is the destination.
    pub reverse: u32,
    /// Clients that were new; events that are over.
    pub count: u64,
    /// The frame's first bytes.
    pub template: [u64; 10],
}

const _: () = assert!(size_of::<Bench>() == 104);

/// A packet of a client: its number in the low half, TCP flags above.
#[must_use]
pub const fn event(client: u32, flags: u8) -> u64 {
    client as u64 | (flags as u64) << 32
}
