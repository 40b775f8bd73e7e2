//! Addresses that two functions, or the two ends of a link, can't both have.

use std::net::IpAddr;

use super::Checker;
use super::chains::{Chain, End};
use crate::diagnostic::{Diagnostic, Place, YamlPath};
use crate::spec::file::Port;
use crate::spec::function::{Claim, Holding};
use crate::yaml_path;

/// Checks every two functions, and every chain's two ends.
pub fn check(checker: &mut Checker<'_>, chains: &[Chain]) {
    let claims = claims(checker);
    for (at, (owner, claim)) in claims.iter().enumerate() {
        for (other, earlier) in &claims[..at] {
            if owner != other && claim.clashes(earlier) {
                overlap(checker, claim, earlier);
            }
        }
    }
    for chain in chains {
        link(checker, chain);
    }
}

fn claims(checker: &Checker<'_>) -> Vec<(usize, Claim)> {
    let mut claims = Vec::new();
    for (index, (name, function)) in checker.spec.functions.iter().enumerate() {
        if let Some(function) = function {
            claims.extend(function.claims(name).into_iter().map(|claim| (index, claim)));
        }
    }
    claims
}

fn overlap(checker: &mut Checker<'_>, claim: &Claim, earlier: &Claim) {
    let (this, other) = (claim.holding.words(), earlier.holding.words());
    checker.report(
        Diagnostic::at_value(
            claim.path.clone(),
            format!("{this} {claim} overlaps {other} {earlier}"),
        )
        .related(Place::Value(earlier.path.clone()), other)
        .help("each address belongs to one function"),
    );
}

/// The addresses at one end of a link, each with its place.
fn held(checker: &Checker<'_>, end: End) -> Vec<(IpAddr, YamlPath)> {
    match end {
        End::Port(index) => {
            let (name, port) = &checker.spec.ports[index];
            let Some(Port::EmbeddedGuest(guest)) = port else {
                return Vec::new();
            };
            let addresses = guest.address.iter().enumerate();
            addresses
                .map(|(i, a)| {
                    let path = yaml_path!["ports", name, "embedded-guest", "address", i];
                    (a.address(), path)
                })
                .collect()
        }
        End::Junction(index, interface) => {
            let (name, function) = &checker.spec.functions[index];
            let Some(function) = function else {
                return Vec::new();
            };
            function.interface_addresses(name, interface)
        }
    }
}

/// The two ends of a chain are on one link: no address stands at both.
fn link(checker: &mut Checker<'_>, chain: &Chain) {
    let left = held(checker, chain.left);
    let right = held(checker, chain.right);
    for (address, path) in right {
        if let Some((_, first)) = left.iter().find(|(other, _)| *other == address) {
            checker.report(
                Diagnostic::at_value(
                    path,
                    format!("both ends of chain `{}` have the address {address}", chain.name),
                )
                .related(Place::Value(first.clone()), "the left end"),
            );
        }
    }
}

impl Claim {
    /// Whether two functions can't both hold these.
    fn clashes(&self, other: &Self) -> bool {
        let overlap = self.first.is_ipv4() == other.first.is_ipv4()
            && self.first <= other.last
            && other.first <= self.last;
        let legal = match (&self.holding, &other.holding) {
            // Tenants may use the same addresses behind routers of their own.
            (Holding::Interface, Holding::Interface) => true,
            // One address may offer several services.
            (Holding::Service(a), Holding::Service(b)) => a != b,
            _ => false,
        };
        overlap && !legal
    }
}
