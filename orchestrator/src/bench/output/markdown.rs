//! Results as tables for a Markdown page.

use std::fmt::Write as _;

use super::record::{Case, Results};
use super::soak;
use crate::bench::units::{nanoseconds, percent, pps, pps_range};
use crate::diagnostic::printable;

/// The tables: rates, latencies, comparisons; the machine above them.
pub fn tables(results: &Results) -> String {
    let host = &results.host;
    let place = if host.virtual_machine {
        ", virtual machine"
    } else {
        ""
    };
    let mut out = format!(
        "{}{}: {}, {} processors{place}, {}, kernel {}, chainplane {} ({} build).\n",
        results.started.split('T').next().unwrap_or_default(),
        results.in_runs(),
        host.cpu,
        host.cpus,
        host.system,
        host.kernel,
        host.chainplane,
        host.build
    );
    if results.partial {
        out.push_str("\nThe run was stopped or failed in parts: this is not everything.\n");
    }
    rates(&mut out, &results.cases);
    latencies(&mut out, &results.cases);
    soaks(&mut out, &results.cases);
    comparisons(&mut out, results);
    out
}

/// A table's row.
fn row(out: &mut String, cells: &[String]) {
    out.push('|');
    for cell in cells {
        let _ = write!(out, " {} |", printable(cell).replace('|', "\\|"));
    }
    out.push('\n');
}

fn head(out: &mut String, names: &[&str]) {
    out.push('\n');
    row(
        out,
        &names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    );
    row(out, &vec!["---".to_owned(); names.len()]);
}

/// A column for each measure that some case has.
fn rates(out: &mut String, cases: &[Case]) {
    let measures: Vec<&str> = ["mrr", "pdr", "ndr", "throughput"]
        .into_iter()
        .filter(|name| cases.iter().any(|case| case.figure(name).is_some()))
        .collect();
    if measures.is_empty() {
        return;
    }
    let mut names = vec!["case".to_owned()];
    for measure in &measures {
        names.push(measure.to_uppercase());
        names.push("interval or bounds".to_owned());
    }
    names.push("cycles a packet".to_owned());
    names.push("marks".to_owned());
    head(out, &names.iter().map(String::as_str).collect::<Vec<_>>());
    for case in cases {
        let mut cells = vec![case.name.clone()];
        let mut marks: Vec<String> = Vec::new();
        for measure in &measures {
            let figure = case.figure(measure);
            cells.push(
                figure
                    .as_ref()
                    .map_or_else(|| "–".into(), super::Figure::text),
            );
            let interval = figure.as_ref().and_then(|figure| figure.interval);
            cells.push(interval.map_or_else(String::new, |(low, high)| pps_range(low, high)));
            let mark = figure
                .map(|figure| figure.quality.marks())
                .unwrap_or_default();
            if !mark.is_empty() {
                marks.push(format!("{}: {mark}", measure.to_uppercase()));
            }
        }
        cells.push(
            case.cycles()
                .map_or_else(String::new, |cycles| format!("{cycles:.0}")),
        );
        marks.extend(
            case.error
                .as_ref()
                .map(|error| format!("ended early: {error}")),
        );
        cells.push(marks.join("; "));
        row(out, &cells);
    }
}

fn latencies(out: &mut String, cases: &[Case]) {
    let mut begun = false;
    for case in cases {
        let Some(outcome) = case.latency() else {
            continue;
        };
        if !begun {
            head(
                out,
                &[
                    "latency", "load", "p50", "p90", "p99", "p99.9", "p99.99", "max", "lost",
                    "marks",
                ],
            );
            begun = true;
        }
        for point in &outcome.points {
            let share = format!(
                "{} ({} of {})",
                pps(point.offered),
                percent(point.share),
                outcome.named_reference()
            );
            let mut cells = vec![case.name.clone(), share];
            for (_, share, ns) in point.latency.percentiles() {
                let mark = if 1.0 - share < point.doubtful_share {
                    "~"
                } else {
                    ""
                };
                cells.push(format!("{mark}{}", nanoseconds(ns)));
            }
            cells.push(percent(point.loss_ratio));
            cells.push(point.quality.marks());
            row(out, &cells);
        }
    }
}

fn soaks(out: &mut String, cases: &[Case]) {
    let rows = soak::rows(cases);
    if !rows.is_empty() {
        head(out, &soak::COLUMNS);
    }
    for cells in &rows {
        row(out, cells);
    }
}

fn comparisons(out: &mut String, results: &Results) {
    if results.comparisons.is_empty() {
        return;
    }
    head(
        out,
        &[
            "compared",
            "first / second",
            "measure",
            "ratio",
            "95 % interval",
            "rounds",
            "marks",
        ],
    );
    for comparison in &results.comparisons {
        let ratio = comparison.ratio.as_ref();
        let interval = ratio.and_then(|ratio| ratio.low.zip(ratio.high));
        row(
            out,
            &[
                comparison.name.clone(),
                format!("{} / {}", comparison.a, comparison.b),
                comparison.measure.to_uppercase(),
                ratio.map_or_else(|| "–".into(), |ratio| format!("**{:.2}**", ratio.mean)),
                interval.map_or_else(String::new, |(low, high)| format!("{low:.2} to {high:.2}")),
                ratio.map_or_else(|| "0".into(), |ratio| ratio.count.to_string()),
                comparison.quality.marks(),
            ],
        );
    }
}
