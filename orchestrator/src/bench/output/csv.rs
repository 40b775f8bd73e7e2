//! Results as CSV (RFC 4180): a line for each figure, so that any table tool can pivot it.

use std::fmt::Write as _;

use super::latency::Latency;
use super::record::{Case, Outcome, Results, Soak};

/// The columns.
const HEADER: &str = "case,target,chain_length,frame_bytes,flows,new_flows,directions,measure,value,unit,\
low,high,spoiled,generator_limited,unfinished\r\n";

/// A figure: what, how much, in which unit, and its interval.
type Row = (String, f64, &'static str, Option<(f64, f64)>);

/// All results.
pub fn csv(results: &Results) -> String {
    let mut out = HEADER.to_owned();
    for case in &results.cases {
        for outcome in &case.results {
            for row in rows(outcome) {
                line(&mut out, case, outcome, &row);
            }
        }
    }
    for comparison in &results.comparisons {
        if let Some(ratio) = &comparison.ratio {
            let name = field(&format!("{} / {}", comparison.a, comparison.b));
            let interval = ratio.low.zip(ratio.high);
            let traffic = &comparison.traffic;
            let _ = write!(
                out,
                "{},{name},,{},{},{},{},{} ratio,{},1,{},{},{},{}\r\n",
                field(&comparison.name),
                traffic.frame_bytes,
                traffic.flows,
                traffic.new_flows,
                traffic.directions,
                comparison.measure,
                ratio.mean,
                interval.map_or(",".into(), |(low, high)| format!("{low},{high}")),
                comparison.quality.spoiled,
                comparison.quality.generator_limited,
                comparison.quality.unfinished,
            );
        }
    }
    out
}

fn line(out: &mut String, case: &Case, outcome: &Outcome, (measure, value, unit, interval): &Row) {
    let quality = outcome.quality();
    let length = case
        .target
        .chain_length
        .map_or(String::new(), |length| length.to_string());
    let (low, high) = interval.map_or((String::new(), String::new()), |(low, high)| {
        (low.to_string(), high.to_string())
    });
    let _ = write!(
        out,
        "{},{},{length},{},{},{},{},{measure},{value},{unit},{low},{high},{},{},{}\r\n",
        field(&case.name),
        field(&case.target.name),
        case.traffic.frame_bytes,
        case.traffic.flows,
        case.traffic.new_flows,
        case.traffic.directions,
        quality.spoiled,
        quality.generator_limited,
        quality.unfinished,
    );
}

/// A field, quoted where it must be. One that a spreadsheet would take for a formula gets an apostrophe.
fn field(text: &str) -> String {
    let text = match text.chars().next() {
        Some('=' | '+' | '-' | '@') => format!("'{text}"),
        _ => text.to_owned(),
    };
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

fn rows(outcome: &Outcome) -> Vec<Row> {
    if let Some(figure) = outcome.figure() {
        if figure.rate == 0.0 {
            return Vec::new();
        }
        let mut rows: Vec<Row> = vec![(figure.name, figure.rate, "pps", figure.interval)];
        if let Some(cycles) = figure.cycles {
            rows.push((
                format!("{}-cycles", rows[0].0),
                cycles,
                "cycles/packet",
                None,
            ));
        }
        return rows;
    }
    match outcome {
        Outcome::FrameLoss(found) => {
            let row = |p: &super::record::LossPoint| {
                (format!("loss@{:.0}pps", p.offered), p.loss_ratio, "1", None)
            };
            found.points.iter().map(row).collect()
        }
        Outcome::BackToBack(found) => vec![
            (
                "back-to-back".into(),
                found.burst.mean,
                "frames",
                found.burst.low.zip(found.burst.high),
            ),
            ("buffer".into(), found.corrected_s, "s", None),
        ],
        Outcome::Recovery(found) => {
            let time = &found.time_s;
            vec![("recovery".into(), time.mean, "s", time.low.zip(time.high))]
        }
        Outcome::Latency(found) => {
            let points = found.points.iter().flat_map(|point| {
                let load = point.offered;
                let named = point.latency.percentiles();
                named.map(|(name, _, ns)| {
                    (
                        format!("latency-{name}@{load:.0}pps"),
                        ns as f64,
                        "ns",
                        None,
                    )
                })
            });
            points.collect()
        }
        Outcome::Soak(found) => soak(found),
        Outcome::Connections(found) => vec![(
            found.method.clone(),
            found.value,
            "1/s or connections",
            None,
        )],
        Outcome::Mrr(_) | Outcome::Goal(_) | Outcome::Throughput(_) => Vec::new(),
    }
}

fn soak(found: &Soak) -> Vec<Row> {
    let mut rows: Vec<Row> = vec![
        ("soak-offered".into(), found.offered, "pps", None),
        ("soak-loss".into(), found.loss_ratio, "1", None),
    ];
    let named = found.latency.iter().flat_map(Latency::percentiles);
    rows.extend(named.map(|(name, _, ns)| (format!("soak-latency-{name}"), ns as f64, "ns", None)));
    let jumps = found.noise.jumps.named();
    rows.extend(jumps.map(|(length, count)| {
        let length = length.replace(" µ", "u").replace(' ', "");
        let name = format!("soak-jumps-over-{length}");
        (name, count as f64, "jumps", None)
    }));
    let noise = &found.noise;
    let longest = noise.longest_gap_ns as f64;
    rows.push(("soak-longest-jump".into(), longest, "ns", None));
    rows.push(("soak-steal".into(), noise.steal_ns as f64, "ns", None));
    rows
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(field("plain"), "plain");
        assert_eq!(field("a, \"b\""), "\"a, \"\"b\"\"\"");
        assert_eq!(field("=1+1"), "'=1+1");
    }
}
