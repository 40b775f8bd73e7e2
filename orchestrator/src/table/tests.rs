//! The table on fixed counters.

use std::time::Duration;

use super::*;

fn port(name: &str, scale: u64) -> PortTotals {
    PortTotals {
        name: name.to_owned(),
        rx_packets: 1000 * scale,
        rx_bytes: 1_500_000 * scale,
        tx_packets: 500 * scale,
        tx_bytes: 30_000 * scale,
        drops: scale / 10,
    }
}

fn function(name: &str, kind: &'static str, packets: u64) -> FunctionTotals {
    FunctionTotals {
        name: name.to_owned(),
        kind,
        packets,
        sessions: 12,
        drops: 7,
    }
}

fn drops(place: &str, reason: &'static str, packets: u64) -> Drops {
    Drops {
        place: place.to_owned(),
        reason,
        packets,
    }
}

fn totals(scale: u64) -> Totals {
    Totals {
        ports: vec![
            port("web1", scale),
            port("a-port-with-a-long-name", 2 * scale),
        ],
        functions: vec![
            function("core", "router", 3000 * scale),
            function("frontend", "load-balancer", 1),
        ],
        drops: vec![
            drops("core", "no-route", 2),
            drops("edge", "denied", 70_000),
        ],
    }
}

fn table() -> Table {
    let mut table = Table {
        title: "demo".into(),
        ..Table::default()
    };
    table.update(totals(10), Duration::ZERO);
    table.update(totals(12), Duration::from_millis(500));
    table
}

#[test]
fn rates_and_counters_stand_in_columns() {
    let expected = "\
demo
port                in/s     out/s  in bit/s out bit/s       in      out  drops
web1                4000      2000     48.0M      960k    12.0k     6000      1
a-port-with-a…      8000      4000     96.0M     1.92M    24.0k    12.0k      2

function       kind                packets/s        packets   sessions    drops
core           router                  12.0k          36.0k         12        7
frontend       load-balancer               0              1         12        7

dropped by     reason                               packets
edge           denied                                 70.0k
core           no-route                                   2";
    assert_eq!(table().lines(Size::default()).join("\n"), expected);
}

#[test]
fn a_line_says_it_short() {
    assert_eq!(
        table().line(),
        "demo: 36.0k packets in, 12.0k/s, 70.0k dropped"
    );
    assert_eq!(Table::default().line(), ": 0 packets in, 0/s, none dropped");
}

#[test]
fn large_tables_fit_small_terminals() {
    let mut table = table();
    let mut many = totals(1);
    many.ports = (0..100)
        .map(|n| port(&format!("port-{n}"), u64::MAX >> 24))
        .collect();
    many.functions = (0..9)
        .map(|n| function(&format!("f{n}"), "router", u64::MAX))
        .collect();
    table.update(many, Duration::from_secs(1));
    for (columns, rows) in [(80, 24), (20, 5), (1, 1), (200, 60), (80, 500)] {
        let lines = table.lines(Size { columns, rows });
        assert!(
            lines.len() < usize::from(rows).max(4),
            "{rows} rows: {}",
            lines.len()
        );
        assert!(
            lines
                .iter()
                .all(|l| l.chars().count() <= usize::from(columns))
        );
    }
    let lines = table.lines(Size::default());
    assert!(lines.contains(&"and 82 more".to_owned()), "{lines:#?}");
}

#[test]
fn a_port_on_two_workers_is_one_line() {
    use chainplane_dataplane::counters::Info;
    use chainplane_dataplane::stats::{PortSnapshot, Snapshot};
    let info = Info {
        name: "rx-packets",
        help: "",
    };
    let full = Info {
        name: "full",
        help: "",
    };
    let snapshot = |packets, dropped| Snapshot {
        functions: Vec::new(),
        ports: vec![PortSnapshot {
            name: "web".into(),
            counters: vec![(info, packets)],
            drops: vec![(full, dropped)],
        }],
        engine: Vec::new(),
    };
    let totals = Totals::of(&[snapshot(5, 0), snapshot(7, 2)]);
    assert_eq!(totals.ports.len(), 1);
    assert_eq!((totals.received(), totals.ports[0].drops), (12, 2));
    assert_eq!(totals.drops, [drops("web", "full", 2)]);
}

#[test]
fn a_redraw_covers_the_table_before() {
    let mut screen = Screen::default();
    let lines = |n: usize| (0..n).map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(
        screen.frame(&[], &lines(2)),
        "\r0\x1b[K\r\n1\x1b[K\r\n\x1b[J"
    );
    let told = ["done".to_owned()];
    assert_eq!(
        screen.frame(&told, &lines(1)),
        "\x1b[2A\rdone\x1b[K\r\n0\x1b[K\r\n\x1b[J"
    );
    assert!(screen.frame(&[], &[]).starts_with("\x1b[1A"));
}
