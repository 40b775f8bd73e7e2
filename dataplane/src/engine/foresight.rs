//! What functions are told of packets before they come, and that it is told of those without a record only.

use std::cell::RefCell;
use std::rc::Rc;

use etherparse::PacketBuilder;

use super::Hop;
use crate::function::{
    Context, Descriptor, Function, Glimpse, INSIDE, Interface, OUTSIDE, Verdict,
};
use crate::objects::Objects;
use crate::packet::{Packet, protocol};
use crate::sim::Sim;

/// What a function was told, and by which interface.
type Told = Rc<RefCell<Vec<(Interface, Vec<Glimpse>)>>>;

/// Lets everything pass that may be replayed, and foresees that it goes to this port.
struct Seer(Told, u16);

impl Function for Seer {
    fn descriptor(&self) -> &'static Descriptor {
        const {
            &Descriptor {
                kind: "seer",
                counters: &[],
                drops: &[],
            }
        }
    }

    fn process(&mut self, cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict {
        cx.replayable();
        Verdict::Leave(from.opposite(), packet)
    }

    fn foresee(
        &self,
        coming: &mut [Glimpse],
        from: Interface,
        _objects: &Objects,
    ) -> Option<Interface> {
        self.0.borrow_mut().push((from, coming.to_vec()));
        for at in coming {
            at.dst.1 = self.1;
        }
        Some(from.opposite())
    }
}

fn frame(from: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
        .udp(from, 53)
        .write(&mut frame, b"x")
        .unwrap();
    frame
}

/// Two functions in a row, and what they were told.
fn row(flows: Option<usize>) -> (Sim, [Told; 2]) {
    let mut sim = Sim::new(flows, &[], 0);
    let told = [Told::default(), Told::default()];
    let links = [
        [Hop::Port(0), Hop::Function(1, INSIDE)],
        [Hop::Function(0, OUTSIDE), Hop::Port(1)],
    ];
    for ((told, port), links) in told.iter().zip([700, 800]).zip(links) {
        let names = ["inside", "outside"].map(str::to_owned);
        let links = names.into_iter().zip(links).collect();
        sim.engine()
            .add_function("seer", Box::new(Seer(Rc::clone(told), port)), links);
    }
    sim.add_port("in", Hop::Function(0, INSIDE));
    sim.add_port("out", Hop::Function(1, OUTSIDE));
    (sim, told)
}

#[test]
fn each_function_is_told_of_strangers_what_those_before_it_foresaw() {
    for flows in [None, Some(64)] {
        let (mut sim, told) = row(flows);
        let mut refused = frame(9);
        refused.truncate(30);
        sim.inject(0, &refused);
        let mut ping = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
            .icmpv4_echo_request(7, 1)
            .write(&mut ping, b"x")
            .unwrap();
        sim.inject(0, &ping);
        (1..=8).for_each(|from| sim.inject(0, &frame(from)));
        sim.run();
        assert_eq!(sim.sent(1).len(), 9);
        for (told, port) in told.iter().zip([53, 700]) {
            let told = told.borrow();
            assert_eq!(told.len(), 1);
            let (from, coming) = &told[0];
            assert_eq!(*from, INSIDE);
            let expected = (1..=8).map(|from| Glimpse {
                vlan: 0,
                protocol: protocol::UDP,
                src: ([10, 0, 0, 1].into(), from),
                dst: ([10, 0, 0, 2].into(), port),
            });
            assert_eq!(*coming, expected.collect::<Vec<_>>());
        }
        // Their records are there now; two new ones are too few.
        (1..=10).for_each(|from| sim.inject(0, &frame(from)));
        sim.run();
        assert_eq!(sim.sent(1).len(), 10);
        let again = usize::from(flows.is_none());
        assert_eq!(told[0].borrow().len(), 1 + again);
    }
}
