//! Configurations, good and bad.

use super::fixture::{CONFIG, config};
use crate::config::{Kind, PathStep, Shape};

/// What `check` says, each with the way there.
fn errors(text: &str) -> Vec<String> {
    let path = |steps: &[PathStep]| {
        let step = |step: &PathStep| match step {
            PathStep::Key(key) => key.clone(),
            PathStep::Index(index) => index.to_string(),
        };
        steps.iter().map(step).collect::<Vec<_>>().join("/")
    };
    let errors = config(text).check();
    errors
        .iter()
        .map(|error| format!("{}: {}", path(&error.path), error.message))
        .collect()
}

/// The errors of a router with interface `lan` (10.0.1.1/24, `fd00:1::1/64`) changed and extended.
fn lan(extra: &str, routes: &str) -> Vec<String> {
    errors(&format!(
        r#"{{ "interfaces": {{ "lan": {{ "address": ["10.0.1.1/24", "fd00:1::1/64"] {extra} }} }}, "routes": [{routes}] }}"#
    ))
}

#[test]
fn the_example_is_right() {
    assert_eq!(errors(CONFIG), Vec::<String>::new());
    assert_eq!(lan("", ""), Vec::<String>::new());
    let Shape::Junction {
        interfaces,
        decrements_ttl,
    } = config(CONFIG).shape("core")
    else {
        panic!("a router is a junction")
    };
    assert!(decrements_ttl);
    assert_eq!(
        interfaces
            .iter()
            .map(|interface| &*interface.name)
            .collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
}

#[test]
fn interfaces_are_checked() {
    assert_eq!(
        errors(r#"{ "interfaces": {} }"#),
        ["interfaces: a router needs an interface"]
    );
    assert_eq!(
        errors(
            r#"{ "interfaces": { "a.b": { "address": "10.0.1.1/24" }, "": { "address": [] } } }"#
        ),
        [
            "interfaces/: not a name for an interface",
            "interfaces//address: an interface needs an address",
            "interfaces/a.b: not a name for an interface",
        ]
    );
    let mtu = |mtu: u16| lan(&format!(r#", "mtu": {mtu}"#), "");
    assert_eq!(
        mtu(1279),
        ["interfaces/lan/mtu: an MTU of 1279 is too small: IPv6 needs at least 1280"]
    );
    assert!(mtu(1280).is_empty() && mtu(65535).is_empty());
    assert_eq!(
        errors(r#"{ "interfaces": { "lan": { "address": "10.0.1.1/24", "mtu": 575 } } }"#),
        ["interfaces/lan/mtu: an MTU of 575 is too small: IPv4 needs at least 576"]
    );
    for mac in [
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "01:00:5e:00:00:01",
    ] {
        let expected = format!("interfaces/lan/mac: {mac} is no address of a single station");
        assert_eq!(lan(&format!(r#", "mac": "{mac}""#), ""), [expected]);
    }
}

#[test]
fn addresses_are_those_of_hosts() {
    for (address, message) in [
        (
            "10.0.1.0/24",
            "10.0.1.0 is the network's address of 10.0.1.0/24",
        ),
        (
            "10.0.1.255/24",
            "10.0.1.255 is the broadcast address of 10.0.1.0/24",
        ),
        (
            "fd00:1::/64",
            "fd00:1:: is the subnet-router anycast address of fd00:1::/64",
        ),
        ("fe80::1/64", "fe80::1 is a link-local address"),
        ("127.0.0.1/8", "127.0.0.1 is no address for a host"),
        ("0.0.0.0/0", "0.0.0.0 is no address for a host"),
        ("224.0.0.1/24", "224.0.0.1 is no address for a host"),
        ("250.0.0.1/24", "250.0.0.1 is no address for a host"),
        ("::1/128", "::1 is no address for a host"),
        ("ff02::1/64", "ff02::1 is no address for a host"),
    ] {
        let text = format!(r#"{{ "interfaces": {{ "lan": {{ "address": "{address}" }} }} }}"#);
        assert_eq!(
            errors(&text),
            [format!("interfaces/lan/address/0: {message}")]
        );
    }
    for address in [
        "10.0.1.0/31",
        "10.0.1.1/31",
        "10.0.1.0/32",
        "fd00::/127",
        "fd00::/128",
    ] {
        let text = format!(r#"{{ "interfaces": {{ "lan": {{ "address": "{address}" }} }} }}"#);
        assert!(errors(&text).is_empty(), "{address}");
    }
}

#[test]
fn subnets_do_not_overlap() {
    let two = |a: &str, b: &str| {
        errors(&format!(
            r#"{{ "interfaces": {{ "a": {{ "address": {a} }}, "b": {{ "address": {b} }} }} }}"#
        ))
    };
    assert_eq!(
        two(r#""10.0.0.1/16""#, r#""10.0.1.1/24""#),
        [
            "interfaces/b/address/0: the subnet 10.0.1.0/24 overlaps with 10.0.0.0/16 of interface `a`"
        ]
    );
    assert_eq!(
        two(r#""10.0.1.1/24""#, r#""10.0.1.1/24""#),
        ["interfaces/b/address/0: 10.0.1.1 is an address of interface `a` too"]
    );
    assert_eq!(
        two(r#"["10.0.1.1/24", "10.0.1.2/24"]"#, r#""10.0.2.1/24""#),
        Vec::<String>::new()
    );
    assert_eq!(
        two(r#"["10.0.1.1/24", "10.0.1.129/25"]"#, r#""10.0.2.1/24""#),
        [
            "interfaces/a/address/1: the subnet 10.0.1.128/25 overlaps with 10.0.1.0/24 of interface `a`"
        ]
    );
}

#[test]
fn neighbours_are_in_the_subnet() {
    let with = |address: &str, mac: &str| {
        lan(
            &format!(r#", "neighbours": {{ "{address}": "{mac}" }}"#),
            "",
        )
    };
    let mac = "02:00:00:00:00:09";
    assert!(
        with("10.0.1.9", mac).is_empty()
            && with("fd00:1::9", mac).is_empty()
            && with("fe80::9", mac).is_empty()
    );
    for (address, message) in [
        ("10.0.2.9", "10.0.2.9 is in none of the interface's subnets"),
        ("10.0.1.1", "10.0.1.1 is the interface's own address"),
        ("10.0.1.255", "10.0.1.255 is no single host of 10.0.1.0/24"),
        ("fd00:1::", "fd00:1:: is no single host of fd00:1::/64"),
    ] {
        assert_eq!(
            with(address, mac),
            [format!("interfaces/lan/neighbours/{address}: {message}")]
        );
    }
    assert_eq!(
        with("10.0.1.9", "ff:ff:ff:ff:ff:ff"),
        ["interfaces/lan/neighbours/10.0.1.9: ff:ff:ff:ff:ff:ff is no address of a single station"]
    );
}

#[test]
fn routes_lead_to_neighbours() {
    let one = |to: &str, via: &str| lan("", &format!(r#"{{ "to": "{to}", "via": "{via}" }}"#));
    for to in [
        "0.0.0.0/0",
        "0.0.0.0/1",
        "128.0.0.0/1",
        "10.9.0.0/16",
        "10.0.1.128/25",
        "10.0.1.9",
    ] {
        assert_eq!(one(to, "10.0.1.2"), Vec::<String>::new(), "{to}");
    }
    for to in ["::/0", "2000::/3", "fd00:2::/64"] {
        assert_eq!(one(to, "fd00:1::2"), Vec::<String>::new(), "{to}");
    }
    for (to, via, message) in [
        (
            "10.9.0.0/16",
            "10.0.2.2",
            "via: the next hop 10.0.2.2 is in no interface's subnet",
        ),
        (
            "10.9.0.0/16",
            "10.0.1.1",
            "via: 10.0.1.1 is the interface's own address",
        ),
        (
            "10.9.0.0/16",
            "10.0.1.255",
            "via: 10.0.1.255 is no single host of 10.0.1.0/24",
        ),
        (
            "10.9.0.0/16",
            "fd00:1::2",
            "via: fd00:1::2 is not of the IP version of 10.9.0.0/16",
        ),
        (
            "::/0",
            "fe80::1",
            "via: the link-local address fe80::1 does not say by which interface",
        ),
        (
            "10.0.1.0/24",
            "10.0.1.2",
            "to: 10.0.1.0/24 is the subnet of interface `lan`",
        ),
        (
            "10.0.1.1",
            "10.0.1.2",
            "to: 10.0.1.1 is the address of interface `lan`",
        ),
        (
            "127.0.0.0/8",
            "10.0.1.2",
            "to: 127.0.0.0/8 can't be routed to: no host beyond a link may have such an address",
        ),
        (
            "239.0.0.0/8",
            "10.0.1.2",
            "to: 239.0.0.0/8 can't be routed to: no host beyond a link may have such an address",
        ),
        (
            "fe80::/64",
            "fd00:1::2",
            "to: fe80::/64 can't be routed to: no host beyond a link may have such an address",
        ),
    ] {
        assert_eq!(one(to, via), [format!("routes/0/{message}")]);
    }
    let twice =
        r#"{ "to": "10.9.0.0/16", "via": "10.0.1.2" }, { "to": "10.9.0.0/16", "via": "10.0.1.3" }"#;
    assert_eq!(
        lan("", twice),
        ["routes/1/to: 10.9.0.0/16 has a route already, number 1"]
    );
}
