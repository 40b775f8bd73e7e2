//! Configurations of a world's functions, as they would stand in YAML.

use std::net::IpAddr;

use serde_json::{Map as Object, Value, json};

use super::dice::Dice;
use super::map::{
    Chain, End, Inline, Map, gateway, router_address, router_mac, taken, towards, v4, v6,
};
use crate::frame::MacBytes;
use crate::host::Host;

/// Destination ports of the flows, which rules, forwards and virtual addresses are about.
pub const PORTS: [u16; 5] = [22, 53, 80, 443, 2222];
/// A network beyond the gateways.
pub const FAR: [&str; 2] = ["192.0.2.0/24", "2001:db8::/32"];

pub fn text(mac: MacBytes) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Somewhere that a function takes packets for, or leads them to.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    pub address: IpAddr,
    pub port: u16,
    pub tcp: bool,
    pub chain: usize,
    /// The station that takes them.
    pub mac: MacBytes,
    /// Whether the configuration says what becomes of them.
    pub fixed: bool,
}

/// Draws configurations.
pub struct Draw<'a> {
    pub dice: Dice,
    pub map: &'a Map,
    pub hosts: &'a [Host],
    pub services: Vec<Service>,
    /// Every timeout in seconds that there is.
    pub timeouts: Vec<u64>,
}

impl Draw<'_> {
    pub fn router(&mut self, router: usize) -> Value {
        let mut interfaces = Object::new();
        for (chain, plan) in self.map.of_router(router) {
            let side = plan.side_of(End::Router(router));
            let mut addresses = vec![format!("{}/24", router_address(chain, side, false))];
            if side == 1 {
                addresses.push(format!("{}/24", taken(chain, 1)));
            }
            if plan.ipv6 {
                addresses.push(format!("{}/64", router_address(chain, side, true)));
            }
            let least = if plan.ipv6 { 1280 } else { 576 };
            let mtu = self.dice.pick(&[1500, 1500, 1400, least, 9000]);
            let mut fixed = Object::new();
            let known = self
                .hosts
                .iter()
                .filter(|host| plan.ends.contains(&End::Port(host.port)));
            for host in known.filter(|_| self.dice.chance(20)) {
                fixed.insert(host.addresses[0].to_string(), text(host.mac).into());
            }
            interfaces.insert(
                format!("i{chain:02}"),
                json!({ "address": addresses, "mtu": mtu, "neighbours": fixed, "mac": text(router_mac(router, chain)) }),
            );
        }
        json!({ "router": { "interfaces": interfaces, "routes": self.routes(router) } })
    }

    fn routes(&self, router: usize) -> Vec<Value> {
        let mut routes = Vec::new();
        let mut add =
            |to: String, via: IpAddr| routes.push(json!({ "to": to, "via": via.to_string() }));
        for (chain, plan) in self.map.chains.iter().enumerate() {
            let side = plan.side_of(End::Router(router));
            if plan.ends.contains(&End::Router(router)) {
                // What stands at the outside of NATs and load balancers meets them on its link.
                if side == 0 {
                    let via = match plan.ends[1] {
                        End::Router(_) => router_address(chain, 1, false),
                        End::Port(_) => gateway(chain, 1, false),
                    };
                    add(format!("{}/24", taken(chain, 0)), via);
                }
                continue;
            }
            let (next, other) = self.next(router, nearest(plan, router) > router);
            add(
                format!("{}/24", v4(chain, 0)),
                router_address(next, other, false),
            );
            add(
                format!("{}/24", taken(chain, 0)),
                router_address(next, other, false),
            );
            if plan.ipv6 && self.map.chains[next].ipv6 {
                add(
                    format!("{}/64", v6(chain, 0)),
                    router_address(next, other, true),
                );
            }
        }
        // Everything else is behind the last port.
        let last = self.map.chains.len() - 1;
        let plan = &self.map.chains[last];
        let (chain, family6, via): (_, _, fn(usize, usize, bool) -> IpAddr) =
            if plan.ends.contains(&End::Router(router)) {
                (last, plan.ipv6, gateway)
            } else {
                let next = towards(router, true);
                (next, self.map.chains[next].ipv6, router_address)
            };
        let far = 1 - self.map.chains[chain].side_of(End::Router(router));
        add("0.0.0.0/0".into(), via(chain, far, false));
        if family6 {
            add("::/0".into(), via(chain, far, true));
        }
        routes
    }

    /// The chain to the next router in the row, and at which side of it that is.
    fn next(&self, router: usize, up: bool) -> (usize, usize) {
        let chain = towards(router, up);
        (
            chain,
            1 - self.map.chains[chain].side_of(End::Router(router)),
        )
    }

    /// The configuration of the function at one place of a chain.
    pub fn inline(&mut self, chain: usize, place: usize, mac: MacBytes) -> Value {
        match self.map.chains[chain].inline[place] {
            Inline::Firewall => self.firewall(),
            Inline::Nat => self.nat(chain, place, mac),
            Inline::Balancer => self.balancer(chain, place, mac),
        }
    }

    fn sessions(&mut self) -> usize {
        self.dice.pick(&[1, 4, 16, 64, 64, 256, 256, 256])
    }

    fn seconds(&mut self) -> u64 {
        let seconds = self.dice.pick(&[1, 2, 3, 5, 8, 30, 300]);
        self.timeouts.push(seconds);
        seconds
    }

    fn timeouts(&mut self) -> Value {
        json!({ "tcp-established": self.seconds(), "tcp-transitory": self.seconds(), "udp": self.seconds(), "icmp": self.seconds() })
    }

    fn prefix(&mut self, ipv6: bool) -> String {
        let chain = self.dice.below(self.map.chains.len());
        match (ipv6, self.dice.below(4)) {
            (false, 0) => "10.0.0.0/8".into(),
            (false, 1) => format!("{}/24", taken(chain, 0)),
            (false, 2) => v4(chain, self.dice.pick(&[1, 2, 11, 12, 21, 22])).to_string(),
            (false, _) => format!("{}/24", v4(chain, 0)),
            (true, 0) => FAR[1].into(),
            (true, 1) => v6(chain, self.dice.pick(&[1, 2, 11, 12, 21, 22])).to_string(),
            (true, _) => format!("{}/64", v6(chain, 0)),
        }
    }

    fn rule(&mut self) -> Value {
        let mut rule = Object::new();
        let protocol = self.dice.pick(&["tcp", "udp", "icmp", "any"]);
        let action = if self.dice.chance(70) {
            "allow"
        } else {
            "drop"
        };
        rule.insert(action.into(), protocol.into());
        match self.dice.below(3) {
            0 => drop(rule.insert("direction".into(), "inbound".into())),
            1 => drop(rule.insert("direction".into(), "outbound".into())),
            _ => {}
        }
        let ipv6 = self.dice.chance(30);
        for key in ["from", "to"] {
            if self.dice.chance(30) {
                rule.insert(key.into(), self.prefix(ipv6).into());
            }
        }
        if matches!(protocol, "tcp" | "udp") && self.dice.chance(70) {
            rule.insert("ports".into(), self.dice.pick(&PORTS).into());
        }
        if protocol == "icmp" && self.dice.chance(50) {
            rule.insert(
                "icmp-types".into(),
                self.dice.pick(&[0, 8, 128, 129]).into(),
            );
        }
        rule.into()
    }

    fn firewall(&mut self) -> Value {
        let mut default = |allow| {
            if self.dice.chance(allow) {
                "allow"
            } else {
                "drop"
            }
        };
        let default = json!({ "outbound": default(80), "inbound": default(65) });
        let rules: Vec<_> = (0..self.dice.between(0, 5)).map(|_| self.rule()).collect();
        json!({ "firewall": {
            "default": default, "rules": rules, "sessions": self.sessions(), "timeouts": self.timeouts(),
        } })
    }

    /// Hosts behind the inner end of a chain, or anywhere but behind its outer end.
    fn inside_of(&self, chain: usize, ipv6: bool) -> Vec<&Host> {
        let ends = self.map.chains[chain].ends;
        let behind = |host: &&Host| match ends[0] {
            End::Port(port) => host.port == port,
            End::Router(_) => ends[1] != End::Port(host.port),
        };
        let speaks = |host: &&Host| host.addresses.iter().any(|own| own.is_ipv6() == ipv6);
        self.hosts.iter().filter(behind).filter(speaks).collect()
    }

    fn nat(&mut self, chain: usize, place: usize, mac: MacBytes) -> Value {
        let first = 8 + 4 * place as u8;
        let wide = self.dice.chance(40);
        let pool = format!("{}/{}", taken(chain, first), if wide { 31 } else { 32 });
        let mut dice = self.dice.clone();
        let hosts = self.inside_of(chain, false);
        let gateway = hosts.first().map(|host| host.mac);
        let host = hosts
            .get(dice.below(hosts.len()))
            .map(|host| host.addresses[0]);
        self.dice = dice;
        let mut forwards = Vec::new();
        for tcp in [true, false] {
            let Some(host) = host.filter(|_| self.dice.chance(50)) else {
                continue;
            };
            let port = self.dice.pick(&PORTS);
            let to = format!("{host}:{}", self.dice.pick(&PORTS));
            forwards.push(
                json!({ "protocol": if tcp { "tcp" } else { "udp" }, "port": port, "to": to }),
            );
            let address = taken(chain, first);
            self.services.push(Service {
                address,
                port,
                tcp,
                chain,
                mac,
                fixed: true,
            });
        }
        let address = taken(chain, first);
        let port = self.dice.pick(&PORTS);
        self.services.push(Service {
            address,
            port,
            tcp: self.dice.chance(50),
            chain,
            mac,
            fixed: false,
        });
        let mut nat = json!({
            "pool": pool, "forwards": forwards, "sessions": self.sessions(), "timeouts": self.timeouts(), "mac": text(mac),
        });
        if self.dice.chance(60) {
            nat["inside"] = "10.0.0.0/8".into();
        }
        if let (End::Port(_), Some(gateway)) = (self.map.chains[chain].ends[0], gateway) {
            nat["inside-mac"] = text(gateway).into();
        }
        json!({ "nat": nat })
    }

    fn balancer(&mut self, chain: usize, place: usize, mac: MacBytes) -> Value {
        let ipv6 = self.dice.chance(30) && !self.inside_of(chain, true).is_empty();
        let last = 128 + place as u8;
        let address = if ipv6 {
            v6(chain, last)
        } else {
            taken(chain, last)
        };
        let (tcp, port) = (self.dice.chance(65), self.dice.pick(&PORTS));
        let mut dice = self.dice.clone();
        let mut backends = Vec::new();
        for host in self.inside_of(chain, ipv6) {
            let own = host.addresses.iter().find(|own| own.is_ipv6() == ipv6);
            let mut backend =
                json!({ "address": own.map(IpAddr::to_string), "weight": dice.between(1, 3) });
            if dice.chance(30) {
                backend["port"] = dice.pick(&PORTS).into();
            }
            if matches!(self.map.chains[chain].ends[0], End::Port(_)) {
                backend["mac"] = text(host.mac).into();
            }
            backends.push(backend);
        }
        self.dice = dice;
        backends.truncate(4);
        let timeouts = json!({
            "opening": self.seconds(), "established": self.seconds(), "closing": self.seconds(), "udp": self.seconds(),
        });
        self.services.push(Service {
            address,
            port,
            tcp,
            chain,
            mac,
            fixed: true,
        });
        let socket = std::net::SocketAddr::new(address, port);
        json!({ "load-balancer": {
            "address": format!("{socket}/{}", if tcp { "tcp" } else { "udp" }), "backends": backends, "mac": text(mac),
            "sessions": self.sessions(), "timeouts": timeouts,
        } })
    }
}

/// The router at an end of the chain that is nearest to this one.
fn nearest(chain: &Chain, router: usize) -> usize {
    let routers = chain.ends.iter().filter_map(|end| match end {
        End::Router(other) => Some(*other),
        End::Port(_) => None,
    });
    routers
        .min_by_key(|other| other.abs_diff(router))
        .unwrap_or(router)
}
