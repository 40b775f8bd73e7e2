//! The router's counters and drop reasons.

use chainplane_dataplane::function::Descriptor;
use chainplane_dataplane::indices;

indices! {
    /// Its counters.
    pub enum Counter {
        /// Packets forwarded from one interface to another, or back by the same.
        Forwarded = "forwarded",
        /// Echo requests to the router's own addresses that were answered.
        EchoReplies = "echo-replies",
        /// ICMP errors sent.
        IcmpErrors = "icmp-errors",
        /// ICMP errors not sent because there were too many.
        IcmpLimited = "icmp-errors-limited",
        /// ARP requests sent.
        ArpRequests = "arp-requests",
        /// ARP replies sent.
        ArpReplies = "arp-replies",
        /// Neighbour solicitations sent.
        Solicitations = "neighbour-solicitations",
        /// Neighbour advertisements sent.
        Advertisements = "neighbour-advertisements",
        /// Neighbours whose link-layer address became known.
        Learnt = "neighbours-learnt",
        /// Neighbours whose link-layer address became another one.
        Changed = "neighbours-changed",
        /// Neighbours given up because they did not answer.
        Lost = "neighbours-lost",
        /// Neighbours not learnt because the table was full.
        NotLearnt = "neighbours-not-learnt",
        /// Messages of others that use one of the router's own addresses.
        Conflicts = "address-conflicts",
        /// Packets of its own not sent because the packet pool was empty or the poll's list full.
        NoBuffer = "no-buffer",
    }
}

indices! {
    /// Why it drops packets.
    pub enum Drop {
        /// The frame has a VLAN tag.
        Tagged = "vlan-tagged",
        /// The frame is for another station.
        OtherStation = "other-station",
        /// Neither ARP nor IP.
        UnknownProtocol = "unknown-protocol",
        /// The interface has no address of the packet's IP version.
        FamilyOff = "ip-version-off",
        /// The source can't be a host's: a group, broadcast, loopback, reserved, or the router's own address.
        MartianSource = "martian-source",
        /// The destination can't be a host's: loopback, unspecified, reserved.
        MartianDestination = "martian-destination",
        /// To a multicast group.
        Multicast = "multicast",
        /// To everyone on a subnet.
        Broadcast = "broadcast",
        /// To one address, in a frame to many stations.
        LinkBroadcast = "unicast-in-broadcast",
        /// From or to a link-local address that is not to leave its link.
        LinkLocal = "link-local",
        /// No route to the destination.
        NoRoute = "no-route",
        /// TTL or hop limit used up.
        TtlExceeded = "ttl-exceeded",
        /// Longer than the next link's MTU.
        TooLong = "too-long",
        /// The neighbour did not answer, or too many packets waited for it.
        Unresolved = "unresolved",
        /// Too many neighbours are being looked for.
        NeighboursFull = "neighbours-full",
        /// An ARP message that is cut short or makes no sense.
        BadArp = "bad-arp",
        /// A neighbour discovery message that RFC 4861 has ignored.
        BadDiscovery = "bad-neighbour-discovery",
        /// ARP or neighbour discovery between others.
        NotAsked = "not-asked",
        /// To the router itself, which does not serve it.
        NotServed = "not-served",
    }
}

/// What the router tells of itself.
pub static DESCRIPTOR: Descriptor = Descriptor {
    kind: "router",
    counters: Counter::INFO,
    drops: Drop::INFO,
};
