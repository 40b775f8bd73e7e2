//! The NAT against a naive one: a list of sessions, each with what its endpoints look like from either end. Which
//! outside port a mapping gets is the NAT's choice; that it is nobody else's, and stays the same, is checked.

use core::time::Duration;

use chainplane_dataplane::packet::tcp_flag::{ACK, FIN, RST, SYN};
use proptest::prelude::*;

use super::tests::{IN, OUT, config, send, sim};
use crate::track::Endpoint;
use crate::track::testing::{at, echo, endpoints, tcp, udp};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

#[derive(Clone, Debug)]
enum Op {
    /// A host sends to someone outside.
    Out(u8, Endpoint, Endpoint, u8),
    /// The other end of a session answers.
    Answer(usize, u8),
    /// Somebody outside sends to the outer end of a session that is not theirs.
    Stray(usize, Endpoint),
    /// A client opens the forward.
    Forwarded(Endpoint),
    /// A host sends to where another session's opener appears.
    Hairpin(usize, Endpoint, u8),
    Wait(u16),
}

fn op() -> impl Strategy<Value = Op> {
    let host = prop_oneof![
        Just(at("10.0.0.1:7")),
        Just(at("10.0.0.2:7")),
        Just(at("10.0.0.2:2222")),
        Just(at("10.0.0.5:22")),
        Just(at("10.0.0.9:7000")),
    ];
    let peer = prop_oneof![
        Just(at("192.0.2.1:80")),
        Just(at("192.0.2.1:81")),
        Just(at("192.0.2.2:80"))
    ];
    let protocol = prop_oneof![Just(TCP), Just(UDP), Just(ICMP)];
    let flags = prop_oneof![4 => Just(SYN), 3 => Just(ACK), 1 => Just(FIN | ACK), 1 => Just(RST)];
    let answer =
        prop_oneof![3 => Just(SYN | ACK), 3 => Just(ACK), 1 => Just(FIN | ACK), 1 => Just(RST)];
    prop_oneof![
        8 => (protocol, host.clone(), peer.clone(), flags.clone()).prop_map(|(p, h, o, f)| Op::Out(p, h, o, f)),
        8 => (any::<usize>(), answer).prop_map(|(index, flags)| Op::Answer(index, flags)),
        2 => (any::<usize>(), peer.clone()).prop_map(|(index, peer)| Op::Stray(index, peer)),
        2 => peer.prop_map(Op::Forwarded),
        3 => (any::<usize>(), host, flags).prop_map(|(index, host, flags)| Op::Hairpin(index, host, flags)),
        1 => prop_oneof![Just(30), Just(70), Just(250), Just(310), Just(8000)].prop_map(Op::Wait),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Opening,
    Open,
    Closing,
}

/// A session: source and destination as the opener sees them, and as the other end does.
#[derive(Clone, Copy, Debug)]
struct Known {
    protocol: u8,
    near: (Endpoint, Endpoint),
    far: (Endpoint, Endpoint),
    /// The ports by which the opener and the other end are reached.
    ports: [usize; 2],
    stage: Stage,
    idle: u64,
}

impl Known {
    fn limit(&self) -> u64 {
        match (self.protocol, self.stage) {
            (TCP, Stage::Open) => 7440,
            (TCP, _) => 240,
            (UDP, _) => 300,
            _ => 60,
        }
    }

    fn saw(&mut self, flags: u8, forward: bool) {
        self.idle = 0;
        if self.protocol == TCP {
            self.stage = match self.stage {
                _ if flags & (FIN | RST) != 0 => Stage::Closing,
                Stage::Opening if flags & SYN != 0 && !forward => Stage::Open,
                Stage::Closing if flags == SYN && forward => Stage::Opening,
                stage => stage,
            };
        }
    }

    /// The inside endpoint and how it appears, of which there is one for each host's port.
    fn mapped(&self) -> Option<(Endpoint, Endpoint)> {
        (self.ports[0] == IN).then_some((self.near.0, self.far.0))
    }
}

fn frame(protocol: u8, src: Endpoint, dst: Endpoint, flags: u8) -> Vec<u8> {
    match protocol {
        TCP => tcp(src, dst, flags),
        UDP => udp(src, dst),
        _ => echo(src, dst),
    }
}

/// Both ways of running the stages, which have to agree.
struct Pair {
    sims: [chainplane_dataplane::sim::Sim; 2],
    known: Vec<Known>,
}

impl Pair {
    fn send(&mut self, port: usize, frame: &[u8]) -> Option<(usize, (Endpoint, Endpoint))> {
        let [staged, replayed] = &mut self.sims;
        let out = send(staged, port, frame);
        assert_eq!(out, send(replayed, port, frame));
        out.map(|(port, frame)| (port, endpoints(&frame)))
    }

    /// A packet from inside, to outside or to the pool.
    fn out(&mut self, protocol: u8, src: Endpoint, dst: Endpoint, flags: u8) {
        let dst = if protocol == ICMP {
            Endpoint { port: 0, ..dst }
        } else {
            dst
        };
        let came = self.send(IN, &frame(protocol, src, dst, flags));
        let of_session = |known: &&mut Known| {
            known.protocol == protocol && known.near == (src, dst) && known.ports[0] == IN
        };
        if let Some(known) = self.known.iter_mut().find(of_session) {
            known.saw(flags, true);
            assert_eq!(came, Some((known.ports[1], known.far)));
            return;
        }
        // It may also be the answer to a session that came in by a forward or another host's hairpin.
        let answers = |known: &&mut Known| {
            known.protocol == protocol
                && (known.far.1, known.far.0) == (src, dst)
                && known.ports[1] == IN
        };
        if let Some(known) = self.known.iter_mut().find(answers) {
            known.saw(flags, false);
            assert_eq!(came, Some((known.ports[0], (known.near.1, known.near.0))));
            return;
        }
        if protocol == TCP && flags != SYN {
            assert_eq!(came, None);
            return;
        }
        let Some((port, far)) = came else {
            panic!("a host's first packet was dropped: {protocol} {src} > {dst}");
        };
        if port == OUT {
            assert_eq!(far.1, dst);
        }
        assert_eq!(far.0.address, at("203.0.113.2:0").address);
        for known in self.known.iter().filter(|known| known.protocol == protocol) {
            if let Some((inner, outer)) = known.mapped() {
                assert_eq!(inner == src, outer == far.0, "one port for one host's port");
            }
        }
        let forwarded = (protocol, src) == (TCP, at("10.0.0.5:22"));
        assert_eq!(
            forwarded,
            (protocol, far.0) == (TCP, at("203.0.113.2:2222"))
        );
        self.known.push(Known {
            protocol,
            near: (src, dst),
            far,
            ports: [IN, port],
            stage: Stage::Opening,
            idle: 0,
        });
    }

    fn answer(&mut self, index: usize, flags: u8) {
        if self.known.is_empty() {
            return;
        }
        let index = index % self.known.len();
        let known = self.known[index];
        let came = self.send(
            known.ports[1],
            &frame(known.protocol, known.far.1, known.far.0, flags),
        );
        assert_eq!(came, Some((known.ports[0], (known.near.1, known.near.0))));
        // A host that speaks to itself by its own outside port answers with what looks like its question.
        let question = (known.far.1, known.far.0) == known.near;
        self.known[index].saw(flags, question);
    }

    fn stray(&mut self, index: usize, peer: Endpoint) {
        let Some(known) = self.known.get(index % self.known.len().max(1)).copied() else {
            return;
        };
        let theirs = |other: &&Known| {
            other.protocol == known.protocol
                && other.far == (known.far.0, peer)
                && other.ports == [IN, OUT]
        };
        if known.protocol != ICMP
            && known.ports == [IN, OUT]
            && self.known.iter().find(theirs).is_none()
        {
            let packet = frame(known.protocol, peer, known.far.0, ACK);
            let in_use = |other: &Known| other.near == (peer, known.far.0) && other.ports[0] == OUT;
            if !self.known.iter().any(in_use) {
                assert_eq!(self.send(OUT, &packet), None);
            }
        }
    }

    fn forwarded(&mut self, client: Endpoint) {
        let (outer, inner) = (at("203.0.113.2:2222"), at("10.0.0.5:22"));
        let came = self.send(OUT, &tcp(client, outer, SYN));
        assert_eq!(came, Some((IN, (client, inner))));
        let mut known = self.known.iter_mut().filter(|known| known.protocol == TCP);
        if let Some(known) = known.find(|known| known.ports[0] == OUT && known.near.0 == client) {
            return known.saw(SYN, true);
        }
        let mut known = self.known.iter_mut().filter(|known| known.protocol == TCP);
        if let Some(known) =
            known.find(|known| known.far == (outer, client) && known.ports[1] == OUT)
        {
            return known.saw(SYN, false);
        }
        self.known.push(Known {
            protocol: TCP,
            near: (client, outer),
            far: (client, inner),
            ports: [OUT, IN],
            stage: Stage::Opening,
            idle: 0,
        });
    }

    fn hairpin(&mut self, index: usize, host: Endpoint, flags: u8) {
        let Some(known) = self.known.get(index % self.known.len().max(1)).copied() else {
            return;
        };
        if let (Some((inner, outer)), true) = (known.mapped(), known.protocol != ICMP) {
            let before = self.known.len();
            self.out(known.protocol, host, outer, flags);
            if let Some(made) = self.known.get(before) {
                assert_eq!((made.far.1, made.ports), (inner, [IN, IN]));
            }
        }
    }

    fn wait(&mut self, seconds: u16) {
        for sim in &mut self.sims {
            sim.advance(Duration::from_secs(seconds.into()));
        }
        for known in &mut self.known {
            known.idle += u64::from(seconds);
        }
        self.known.retain(|known| known.idle <= known.limit());
    }
}

proptest! {
    #[test]
    fn translates_as_a_naive_nat(ops in proptest::collection::vec(op(), 1..80)) {
        let config = config();
        let mut pair = Pair { sims: [sim(&config, None), sim(&config, Some(16))], known: Vec::new() };
        for op in ops {
            match op {
                Op::Out(protocol, src, dst, flags) => pair.out(protocol, src, dst, flags),
                Op::Answer(index, flags) => pair.answer(index, flags),
                Op::Stray(index, peer) => pair.stray(index, peer),
                Op::Forwarded(client) => pair.forwarded(client),
                Op::Hairpin(index, host, flags) => pair.hairpin(index, host, flags),
                Op::Wait(seconds) => pair.wait(seconds),
            }
        }
        let [mut staged, mut replayed] = pair.sims;
        prop_assert_eq!(staged.snapshot().functions, replayed.snapshot().functions);
    }
}
