//! What happened to a packet: every packet ends in exactly one of these, is counted once, and shows under this name in
//! statistics.

macro_rules! verdicts {
    ($($name:ident = $text:literal, $doc:literal;)*) => {
        /// The verdict on a packet.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Verdict { $(#[doc = $doc] $name,)* }

        /// Names and meanings, in the order of the numbers.
        pub const NAMES: &[(&str, &str)] = &[$(($text, $doc),)*];

        /// How many there are.
        pub const VERDICTS: usize = NAMES.len();

        /// All of them, in order.
        pub const ALL: [Verdict; VERDICTS] = [$(Verdict::$name,)*];
    };
}

verdicts! {
    ForwardedNat = "forwarded_nat", "Sent to a real server by masquerading.";
    ForwardedNatReply = "forwarded_nat_reply", "A real server's answer, sent to the client.";
    ForwardedDr = "forwarded_dr", "Sent to a real server by direct routing.";
    ForwardedTun = "forwarded_tun", "Sent to a real server through a tunnel.";
    ForwardedLocal = "forwarded_local", "Given to the director's own stack, which is the real server.";
    RepliedNoServer = "replied_no_server", "No usable real server: answered with ICMP port unreachable.";
    RepliedTtl = "replied_ttl", "TTL used up: answered with ICMP time exceeded.";
    RepliedTooBig = "replied_too_big", "Too large for the way to the server: answered with ICMP packet too big.";
    PassedOther = "passed_other", "Neither IPv4 nor IPv6 (ARP, VLAN-tagged and others): left to the kernel.";
    PassedProtocol = "passed_protocol", "Neither TCP nor UDP: left to the kernel.";
    PassedFragment = "passed_fragment", "An IP fragment: left to the kernel.";
    PassedMalformed = "passed_malformed", "Headers truncated or lengths wrong: left to the kernel, which drops it.";
    PassedNoService = "passed_no_service", "For no virtual service: left to the kernel.";
    PassedNoConnection = "passed_no_connection", "TCP for a service, no SYN and no connection: left to the kernel, which resets it.";
    PassedUnresolved = "passed_unresolved", "Rewritten, but the server's next hop is unknown: the kernel forwards it.";
    PassedReply = "passed_reply", "An answer rewritten, but the client's next hop is unknown: the kernel forwards it.";
    PassedTtl = "passed_ttl", "An answer with its TTL used up: left to the kernel, which reports it.";
    PassedTooBig = "passed_too_big", "An answer too large for the way to the client: left to the kernel, which reports it.";
    DroppedServerGone = "dropped_server_gone", "Its real server was removed.";
    DroppedUnresolved = "dropped_unresolved", "The server's next hop is unknown, and the kernel could not forward it.";
    DroppedNoServer = "dropped_no_server", "No usable real server, and no more ICMP errors this second.";
    DroppedTtl = "dropped_ttl", "TTL used up, and no more ICMP errors this second.";
    DroppedTooBig = "dropped_too_big", "Too large for the way to the server, and no ICMP error could be sent.";
    DroppedTableFull = "dropped_table_full", "A new connection, and no record was free or evictable.";
    DroppedIndexFull = "dropped_index_full", "A new connection, and all buckets of the index that it may be in were full.";
    DroppedTableBusy = "dropped_table_busy", "A new connection, and its bucket stayed locked by another CPU.";
    DroppedConflict = "dropped_conflict", "A new connection whose answers could not be told from another's.";
    DroppedInternal = "dropped_internal", "A map element that must exist did not.";
}

impl Verdict {
    /// The name in statistics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        NAMES[self as usize].0
    }

    /// What it means, a sentence.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        NAMES[self as usize].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_in_order() {
        for (i, v) in ALL.iter().enumerate() {
            assert_eq!(*v as usize, i);
            assert!(NAMES.iter().filter(|n| n.0 == v.name()).count() == 1);
        }
    }
}
