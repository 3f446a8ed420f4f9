//! The connection states and the TCP transition tables of the kernel's IPVS (`ip_vs_proto_tcp.c`), as data.
//!
//! Three tables: packets from the server (`Output`, NAT only), packets from the client under NAT (`Input`), and packets
//! from the client where the answers are never seen (`InputOnly`, DR and TUN).

/// State of a connection. Numbers are part of the ABI; those up to [`SYNACK`] are the kernel's.
pub type State = u8;
/// Made, no state yet.
pub const NONE: State = 0;
/// Handshake done.
pub const ESTABLISHED: State = 1;
/// The server sent the first SYN.
pub const SYN_SENT: State = 2;
/// The client sent a SYN.
pub const SYN_RECV: State = 3;
/// One side is done sending.
pub const FIN_WAIT: State = 4;
/// Both sides are done.
pub const TIME_WAIT: State = 5;
/// Reset, or closed without a handshake seen.
pub const CLOSE: State = 6;
/// The client is done, the server is not.
pub const CLOSE_WAIT: State = 7;
/// Waiting for the last acknowledgement.
pub const LAST_ACK: State = 8;
/// Passive open; unused by the tables but for completeness.
pub const LISTEN: State = 9;
/// Under SYN defence.
pub const SYNACK: State = 10;
/// A UDP flow.
pub const UDP: State = 11;
/// A persistence template in use.
pub const TEMPLATE: State = 12;
/// How many states there are.
pub const STATES: usize = 13;

/// Default timeouts in seconds, by state (the kernel's; a template's is its service's).
pub const DEFAULT_TIMEOUTS_S: [u32; STATES] = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120, 300, 360];

/// Names as `ipvsadm -L -c` prints them.
pub const STATE_NAMES: [&str; STATES] = [
    "NONE",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "SYNACK",
    "UDP",
    "ASSURED",
];

/// Whether a connection in this state counts as active (`tcp_state_active_table`); all others, and UDP, are inactive.
#[inline(always)]
#[must_use]
pub const fn is_active(state: State) -> bool {
    const ACTIVE: u32 = 1 << ESTABLISHED | 1 << SYN_SENT | 1 << SYN_RECV | 1 << SYNACK;
    (ACTIVE >> (state & 31)) & 1 != 0
}

/// Whether a connection in this state has shown no sign of a working handshake: it gives way first when the table is full.
#[inline(always)]
#[must_use]
pub const fn is_embryonic(state: State) -> bool {
    const EMBRYONIC: u32 = 1 << NONE | 1 << SYN_SENT | 1 << SYN_RECV | 1 << SYNACK;
    (EMBRYONIC >> (state & 31)) & 1 != 0
}

/// Whether both sides are done, so that nothing but a repetition can still come. Half-closed connections, which carry data one way,
/// are not among these.
#[inline(always)]
#[must_use]
pub const fn is_closing(state: State) -> bool {
    const CLOSING: u32 = 1 << TIME_WAIT | 1 << CLOSE | 1 << LAST_ACK;
    (CLOSING >> (state & 31)) & 1 != 0
}

/// Whether one side is done. Where answers are not seen, finished connections are among these too.
#[inline(always)]
#[must_use]
pub const fn is_half_closed(state: State) -> bool {
    const HALF_CLOSED: u32 = 1 << FIN_WAIT | 1 << CLOSE_WAIT;
    (HALF_CLOSED >> (state & 31)) & 1 != 0
}

/// Which table applies to a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Direction {
    /// From the client, under NAT.
    Input = 0,
    /// From the server, under NAT.
    Output = 1,
    /// From the client, under DR and TUN.
    InputOnly = 2,
}

/// What a segment does to the state, by its flags. RST wins over SYN, SYN over FIN, FIN over ACK, as in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Event {
    /// SYN set.
    Syn = 0,
    /// FIN set.
    Fin = 1,
    /// ACK set.
    Ack = 2,
    /// RST set.
    Rst = 3,
}

/// TCP flag bits in byte 13 of the header.
pub const FLAG_FIN: u8 = 0x01;
/// SYN.
pub const FLAG_SYN: u8 = 0x02;
/// RST.
pub const FLAG_RST: u8 = 0x04;
/// ACK.
pub const FLAG_ACK: u8 = 0x10;

/// The event of a segment's flags; `None` when none of the four bits is set (the kernel closes the connection then).
#[inline(always)]
#[must_use]
pub const fn event(flags: u8) -> Option<Event> {
    if flags & FLAG_RST != 0 {
        Some(Event::Rst)
    } else if flags & FLAG_SYN != 0 {
        Some(Event::Syn)
    } else if flags & FLAG_FIN != 0 {
        Some(Event::Fin)
    } else if flags & FLAG_ACK != 0 {
        Some(Event::Ack)
    } else {
        None
    }
}

const NO: State = NONE;
const ES: State = ESTABLISHED;
const SS: State = SYN_SENT;
const SR: State = SYN_RECV;
const FW: State = FIN_WAIT;
const TW: State = TIME_WAIT;
const CL: State = CLOSE;
const CW: State = CLOSE_WAIT;
const LA: State = LAST_ACK;
const LI: State = LISTEN;
#[cfg(test)]
const SA: State = SYNACK;

/// Next state by direction, event, and state (row of 16, of which the first 11 are meaningful).
pub static TRANSITIONS: [[[State; 16]; 4]; 3] = [
    // Input:  NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR, NO, NO, NO, NO, NO],
        [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW, NO, NO, NO, NO, NO],
        [CL, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES, NO, NO, NO, NO, NO],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR, NO, NO, NO, NO, NO],
    ],
    // Output
    [
        [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR, NO, NO, NO, NO, NO],
        [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW, NO, NO, NO, NO, NO],
        [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES, NO, NO, NO, NO, NO],
        [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL, NO, NO, NO, NO, NO],
    ],
    // Input only
    [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR, NO, NO, NO, NO, NO],
        [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW, NO, NO, NO, NO, NO],
        [CL, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES, NO, NO, NO, NO, NO],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL, NO, NO, NO, NO, NO],
    ],
];

/// The state after a segment with `flags` in `direction`.
#[inline(always)]
#[must_use]
pub fn next(state: State, direction: Direction, flags: u8) -> State {
    // The overwhelming case: data and acknowledgements of an established connection.
    if state == ESTABLISHED && flags & (FLAG_SYN | FLAG_FIN | FLAG_RST | FLAG_ACK) == FLAG_ACK {
        return ESTABLISHED;
    }
    match event(flags) {
        Some(e) => TRANSITIONS[direction as usize][e as usize & 3][(state & 15) as usize],
        None => CLOSE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// The tables once more, in the words of the reference, so that a slip in either shows.
    #[test]
    fn the_tables_row_by_row() {
        let code = |s: &str| match s {
            "NO" => NO,
            "ES" => ES,
            "SS" => SS,
            "SR" => SR,
            "FW" => FW,
            "TW" => TW,
            "CL" => CL,
            "CW" => CW,
            "LA" => LA,
            "LI" => LI,
            "SA" => SA,
            other => panic!("{other}"),
        };
        let rows = [
            (Direction::InputOnly, FLAG_SYN, "SR ES ES SR SR SR SR SR SR SR SR"),
            (Direction::InputOnly, FLAG_FIN, "CL FW SS TW FW TW CL CW LA LI TW"),
            (Direction::InputOnly, FLAG_ACK, "CL ES SS ES FW TW CL CW CL LI ES"),
            (Direction::InputOnly, FLAG_RST, "CL CL CL SR CL CL CL CL LA LI CL"),
            (Direction::Input, FLAG_SYN, "SR ES ES SR SR SR SR SR SR SR SR"),
            (Direction::Input, FLAG_FIN, "CL CW SS TW TW TW CL CW LA LI TW"),
            (Direction::Input, FLAG_ACK, "CL ES SS ES FW TW CL CW CL LI ES"),
            (Direction::Input, FLAG_RST, "CL CL CL SR CL CL CL CL LA LI SR"),
            (Direction::Output, FLAG_SYN, "SS ES SS SR SS SS SS SS SS LI SR"),
            (Direction::Output, FLAG_FIN, "TW FW SS TW FW TW CL TW LA LI TW"),
            (Direction::Output, FLAG_ACK, "ES ES SS ES FW TW CL CW LA ES ES"),
            (Direction::Output, FLAG_RST, "CL CL SS CL CL TW CL CL CL CL CL"),
        ];
        for (direction, flags, row) in rows {
            let want: Vec<State> = row.split(' ').map(code).collect();
            assert_eq!(want.len(), 11);
            for (state, want) in want.into_iter().enumerate() {
                assert_eq!(next(state as State, direction, flags), want, "{direction:?} {flags:#x} {}", STATE_NAMES[state]);
            }
        }
    }

    #[test]
    fn flags_in_the_kernels_order_of_precedence() {
        assert_eq!(event(FLAG_RST | FLAG_SYN | FLAG_ACK), Some(Event::Rst));
        assert_eq!(event(FLAG_SYN | FLAG_FIN), Some(Event::Syn));
        assert_eq!(event(FLAG_FIN | FLAG_ACK), Some(Event::Fin));
        assert_eq!(event(0x08), None);
        assert_eq!(next(ESTABLISHED, Direction::Input, 0x08), CLOSE);
    }

    #[test]
    fn active_and_embryonic_states() {
        let active: Vec<State> = (0..STATES as State).filter(|&s| is_active(s)).collect();
        assert_eq!(active, [ESTABLISHED, SYN_SENT, SYN_RECV, SYNACK]);
        let embryonic: Vec<State> = (0..STATES as State).filter(|&s| is_embryonic(s)).collect();
        assert_eq!(embryonic, [NONE, SYN_SENT, SYN_RECV, SYNACK]);
        let closing: Vec<State> = (0..STATES as State).filter(|&s| is_closing(s)).collect();
        assert_eq!(closing, [TIME_WAIT, CLOSE, LAST_ACK]);
    }
}
