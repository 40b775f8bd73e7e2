//! The measuring generator against back ends of others.

use std::path::Path;
use std::time::Duration;

use chainplane::bench::endpoint::{EndpointSpec, VhostOptions};
use chainplane::bench::traffic::{IpVersions, Sizes, Traffic, Transports};
use chainplane::bench::trial::{
    Attached, GeneratorOptions, Load, Pace, Rate, Silent, StatefulLoad, StatefulTarget, Target,
};
use chainplane_tests::{Error, Need, Netns, Result, Testpmd, Workspace};

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "bench::testpmd_is_measured",
        needs: &[Need::Program("dpdk-testpmd")],
        run: testpmd_is_measured,
    },
    Test {
        name: "bench::interfaces_are_measured",
        needs: &[Need::NetworkNamespaces],
        run: interfaces_are_measured,
    },
];

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` takes")]
fn failed(error: chainplane::bench::trial::BenchError) -> Error {
    let hint = error.hint().unwrap_or_default().to_owned();
    Error::new(format!("{error}: {hint}"))
}

/// Attaches politely: a small machine runs both sides.
fn attach(ends: [EndpointSpec; 2]) -> Result<Attached> {
    let options = GeneratorOptions {
        core: None,
        polite: true,
    };
    Attached::new("test", ends, options, &Silent).map_err(failed)
}

/// Sends 2000 packets each way and expects all, or nearly all, back intact.
fn measure(target: &mut Attached, traffic: &Traffic, may_lose: u64) -> Result<()> {
    target.set_traffic(traffic).map_err(failed)?;
    let load = Load {
        rate: Rate::PacketsPerSecond(4000.0),
        duration: Duration::from_millis(500),
        burst: None,
    };
    let result = target.trial(&load, &Silent).map_err(failed)?;
    for direction in &result.directions {
        let wrong = direction.corrupted
            + direction.mistranslated
            + direction.duplicated
            + direction.reordered;
        if direction.received + may_lose < 2000 || wrong > 0 {
            return Err(Error::new(format!("{direction:?}")));
        }
    }
    Ok(())
}

fn vhost(path: &Path, packed: bool, mergeable: bool) -> EndpointSpec {
    let options = VhostOptions {
        ring: 256,
        packed,
        mergeable,
        ..VhostOptions::default()
    };
    EndpointSpec::Vhost(path.to_owned(), options)
}

fn testpmd_is_measured() -> Result<()> {
    let files = Workspace::new()?;
    let sockets = [files.path("a.sock"), files.path("b.sock")];
    let _dpdk = Testpmd::back_end(&[&sockets[0], &sockets[1]])?;
    let mixed = Traffic {
        sizes: Sizes::Mix(vec![(94, 7), (594, 4), (1500, 1)]),
        ip: IpVersions::Mixed,
        transport: Transports::Mixed,
        flows: 100,
        ..Traffic::default()
    };
    for (packed, mergeable) in [(false, true), (false, false), (true, true), (true, false)] {
        let ends = [0, 1].map(|end| vhost(&sockets[end], packed, mergeable));
        let mut target = attach(ends)?;
        measure(&mut target, &Traffic::default(), 0)?;
        measure(&mut target, &mixed, 0)?;
        let load = StatefulLoad {
            pace: Pace::Concurrent(20),
            duration: Duration::from_millis(300),
            transactions: 1,
            request: 100,
            response: 10_000,
        };
        let result = target.stateful(&load, &Silent).map_err(failed)?;
        if result.completed < 20 || result.failed > 0 {
            return Err(Error::new(format!("{result:?}")));
        }
    }
    Ok(())
}

/// Packet sockets on the two ends of a veth pair, and taps on a bridge.
fn interfaces_are_measured() -> Result<()> {
    let netns = Netns::new("bench")?;
    netns.ok(
        "ip link add left type veth peer name right && ip link set left up && ip link set right up && \
         ip link add br0 type bridge && ip link set br0 up && \
         for t in t0 t1; do ip tuntap add $t mode tap && ip link set $t master br0 && ip link set $t up; done",
    )?;
    netns.enter(|| {
        let veth = ["left", "right"].map(|name| EndpointSpec::AfPacket(name.into()));
        measure(&mut attach(veth)?, &Traffic::default(), 0)?;
        let taps = ["t0", "t1"].map(|name| EndpointSpec::Tap(name.into()));
        measure(&mut attach(taps)?, &Traffic::default(), 0)
    })
}
