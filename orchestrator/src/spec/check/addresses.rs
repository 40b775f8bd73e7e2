//! Addresses that two functions, or the two ends of a link, can't both have.

use std::net::IpAddr;

use chainplane_nf::config::{ClaimRole, Prefix};

use super::Checker;
use super::chains::{Chain, End};
use crate::diagnostic::{Diagnostic, Place, YamlPath};
use crate::spec::file::Port;
use crate::yaml_path;

/// Most addresses, subnets and pools of a file: each is compared with each.
const MOST: usize = 8192;

/// Checks every two holders of addresses, and every chain's two ends.
pub fn check(checker: &mut Checker<'_>, chains: &[Chain]) {
    let held = all(checker);
    if held.len() > MOST {
        let message = format!("{} addresses and pools; {MOST} is the most", held.len());
        checker.report(Diagnostic::at_key(yaml_path!["functions"], message));
        return;
    }
    for (at, this) in held.iter().enumerate() {
        for earlier in &held[..at] {
            if clash(checker, this, earlier) {
                overlap(checker, this, earlier);
            }
        }
    }
    for chain in chains {
        link(checker, chain);
    }
}

/// Who holds addresses: indices of the specification.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Function(usize),
    Guest(usize),
}

/// Addresses that someone holds.
struct Held {
    owner: Owner,
    /// What for; `None` for a guest's own.
    role: Option<ClaimRole>,
    prefix: Prefix,
    path: YamlPath,
}

impl Held {
    fn words(&self) -> &'static str {
        match self.role {
            None => "guest address",
            Some(ClaimRole::Interface) => "interface address",
            Some(ClaimRole::Subnet) => "subnet",
            Some(ClaimRole::Pool) => "pool",
            Some(ClaimRole::Virtual) => "virtual address",
        }
    }
}

fn all(checker: &Checker<'_>) -> Vec<Held> {
    let mut held = Vec::new();
    for (index, facts) in checker.facts.iter().enumerate() {
        held.extend(facts.claims.iter().map(|(claim, path)| Held {
            owner: Owner::Function(index),
            role: Some(claim.role),
            prefix: claim.prefix,
            path: path.clone(),
        }));
    }
    for index in 0..checker.spec.ports.len() {
        let addresses = at_end(checker, End::Port(index)).into_iter();
        held.extend(addresses.map(|(address, path)| Held {
            owner: Owner::Guest(index),
            role: None,
            prefix: Prefix::host(address),
            path,
        }));
    }
    held
}

/// Whether two can't both hold what they share.
fn clash(checker: &Checker<'_>, this: &Held, other: &Held) -> bool {
    use ClaimRole::{Interface, Subnet, Virtual};
    if !this.prefix.overlaps(&other.prefix) {
        return false;
    }
    let same_owner = this.owner == other.owner;
    match (this.role, other.role) {
        // Two routers may have the same subnets: tenants do. (One router checks its own.)
        // Pools and virtual addresses may lie in a subnet, and are then answered for on the link.
        // Whether two hosts' addresses meet depends on the chains: see `link`.
        (Some(Subnet), _)
        | (_, Some(Subnet))
        | (Some(Interface) | None, Some(Interface) | None) => false,
        (Some(Virtual), Some(Virtual)) => {
            let function = |owner| match owner {
                Owner::Function(index) => checker.spec.functions[index].1.as_ref(),
                Owner::Guest(_) => None,
            };
            let pair = function(this.owner).zip(function(other.owner));
            !same_owner && !pair.is_some_and(|(a, b)| a.serves_beside(b))
        }
        _ => !same_owner,
    }
}

fn overlap(checker: &mut Checker<'_>, this: &Held, earlier: &Held) {
    let (words, other) = (this.words(), earlier.words());
    let message = format!(
        "{words} {} overlaps {other} {}",
        this.prefix, earlier.prefix
    );
    checker.report(
        Diagnostic::at_value(this.path.clone(), message)
            .related(Place::Value(earlier.path.clone()), format!("the {other}")),
    );
}

/// The addresses at one end of a link, each with its place.
fn at_end(checker: &Checker<'_>, end: End) -> Vec<(IpAddr, YamlPath)> {
    match end {
        End::Port(index) => {
            let (name, port) = &checker.spec.ports[index];
            let Some(Port::EmbeddedGuest(guest)) = port else {
                return Vec::new();
            };
            let path = |i| yaml_path!["ports", name, "embedded-guest", "address", i];
            let addresses = guest.address.iter().enumerate();
            addresses.map(|(i, a)| (a.address, path(i))).collect()
        }
        End::Junction(index, interface) => {
            let (name, function) = &checker.spec.functions[index];
            let facts = &checker.facts[index];
            let (Some(function), Some(interface)) = (function, facts.interfaces().get(interface))
            else {
                return Vec::new();
            };
            let wanted = yaml_path!["functions", name, function.kind(), "interfaces", interface];
            let own = facts.claims.iter().filter(|(claim, path)| {
                claim.role == ClaimRole::Interface && path.starts_with(&wanted)
            });
            own.map(|(claim, path)| (claim.prefix.address(), path.clone()))
                .collect()
        }
    }
}

/// The two ends of a chain are on one link: no address stands at both.
fn link(checker: &mut Checker<'_>, chain: &Chain) {
    let left = at_end(checker, chain.left);
    for (address, path) in at_end(checker, chain.right) {
        if let Some((_, first)) = left.iter().find(|(other, _)| *other == address) {
            let message = format!(
                "both ends of chain `{}` have the address {address}",
                chain.name
            );
            checker.report(
                Diagnostic::at_value(path, message)
                    .related(Place::Value(first.clone()), "the left end"),
            );
        }
    }
}
