//! Results as lines on a terminal, at most 80 columns wide; and text made safe for HTML.

use std::fmt::Write as _;

use super::record::{
    BackToBack, Case, Comparison, Connections, FrameLoss, LatencyOutcome, Outcome, Quality,
    Recovery, Results, Soak,
};
use super::soak;
use crate::bench::units::{self, nanoseconds, percent, pps};
use crate::diagnostic::printable;

/// Columns of a terminal.
const WIDTH: usize = 80;

/// `text` with what HTML takes for markup replaced.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() && c != '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// All results.
pub fn results(results: &Results) -> String {
    let mut out = String::new();
    for case in &results.cases {
        out.push_str(&self::case(case));
        out.push('\n');
    }
    for comparison in &results.comparisons {
        out.push_str(&self::comparison(comparison));
        out.push('\n');
    }
    out.push_str(remarks(results));
    out
}

/// What is to be said of results that are not what they should be.
pub fn remarks(results: &Results) -> &'static str {
    match (results.host.build == "debug", results.partial) {
        (false, false) => "",
        (true, false) => {
            "Measured with a debug build: these figures say nothing about a release.\n"
        }
        (false, true) => "Stopped or failed before its end: this report is partial.\n",
        (true, true) => {
            "Measured with a debug build: these figures say nothing about a release.\n\
             Stopped or failed before its end: this report is partial.\n"
        }
    }
}

/// A case in lines.
pub fn case(case: &Case) -> String {
    let mut out = String::new();
    line(&mut out, &case.name);
    if !case.target.description.is_empty() {
        line(&mut out, &format!("  {}", case.target.description));
    }
    line(&mut out, &format!("  {}", case.traffic.description));
    for outcome in &case.results {
        outcome_lines(&mut out, case, outcome);
    }
    if let Some(error) = &case.error {
        line(&mut out, &format!("  ended early: {error}"));
    }
    out
}

/// Adds a line, without anything that could drive a terminal, broken where it is too long.
pub fn line(out: &mut String, text: &str) {
    let text = printable(text);
    let indent = text.len() - text.trim_start().len();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > indent && column + 1 + length > WIDTH {
            let _ = write!(out, "\n{:1$}", "", indent + 2);
            column = indent + 2;
        } else if column == 0 {
            let _ = write!(out, "{:indent$}", "");
            column = indent;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

/// A figure's line: name, value, what is around it.
fn row(out: &mut String, name: &str, value: &str, more: &str, quality: &Quality) {
    let marks = quality.marks();
    let more = match (more.is_empty(), marks.is_empty()) {
        (_, true) => more.to_owned(),
        (true, false) => format!("[{marks}]"),
        (false, false) => format!("{more} [{marks}]"),
    };
    let start = format!("  {name:<12} {value:>12}  ");
    if start.chars().count() + more.chars().count() <= WIDTH {
        let _ = writeln!(out, "{}", printable(&(start + &more)).trim_end());
    } else {
        let _ = writeln!(out, "{}", printable(start.trim_end()));
        line(out, &format!("    {more}"));
    }
    for remark in &quality.remarks {
        line(out, &format!("    {remark}"));
    }
}

fn outcome_lines(out: &mut String, case: &Case, outcome: &Outcome) {
    if let Some(figure) = outcome.figure() {
        let mut more = match figure.rate {
            0.0 => String::new(),
            rate => units::scaled(case.bits(rate), "bit/s"),
        };
        if let Some((low, high)) = figure.interval {
            if !more.is_empty() {
                more.push_str(", ");
            }
            more.push_str(&units::pps_range(low, high));
        }
        if let Some(cycles) = figure.cycles {
            let _ = write!(more, ", {cycles:.0} cycles");
        }
        let name = match figure.name.as_str() {
            short @ ("mrr" | "ndr" | "pdr") => short.to_uppercase(),
            long => long.to_owned(),
        };
        return row(out, &name, &figure.text(), &more, &figure.quality);
    }
    match outcome {
        Outcome::FrameLoss(found) => frame_loss(out, found),
        Outcome::BackToBack(found) => back_to_back(out, found),
        Outcome::Recovery(found) => recovery(out, found),
        Outcome::Latency(found) => latency(out, found),
        Outcome::Soak(found) => soak(out, found),
        Outcome::Connections(found) => connections(out, found),
        Outcome::Mrr(_) | Outcome::Goal(_) | Outcome::Throughput(_) => {}
    }
}

fn frame_loss(out: &mut String, found: &FrameLoss) {
    row(out, "frame loss", "", "offered, lost", &found.quality);
    for point in &found.points {
        let spoiled = if point.spoiled {
            "  [spoiled by noise]"
        } else {
            ""
        };
        line(
            out,
            &format!(
                "      {:>12}  {}{spoiled}",
                pps(point.offered),
                percent(point.loss_ratio)
            ),
        );
    }
}

fn back_to_back(out: &mut String, found: &BackToBack) {
    let sign = if found.at_limit { "≥ " } else { "" };
    let more = format!(
        "frames at {}; buffer {} implied, {} corrected",
        pps(found.burst_load),
        nanoseconds((found.implied_s * 1e9) as u64),
        nanoseconds((found.corrected_s * 1e9) as u64)
    );
    let value = format!("{sign}{:.0}", found.burst.mean);
    row(out, "back-to-back", &value, &more, &found.quality);
}

fn recovery(out: &mut String, found: &Recovery) {
    let more = format!("after {} in each direction", pps(found.overload_load));
    let value = nanoseconds((found.time_s.mean * 1e9) as u64);
    row(out, "recovery", &value, &more, &found.quality);
}

fn latency(out: &mut String, found: &LatencyOutcome) {
    line(out, &format!("  latency, {}", reference(found)));
    let _ = writeln!(
        out,
        "    {:>12} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "load", "p50", "p90", "p99", "p99.9", "p99.99", "max"
    );
    for point in &found.points {
        let mut text = format!("    {:>12}", pps(point.offered));
        for (_, share, ns) in point.latency.percentiles() {
            // The slowest packets may be the host's doing.
            let mark = if 1.0 - share < point.doubtful_share {
                "~"
            } else {
                ""
            };
            let value = format!("{mark}{}", nanoseconds(ns).replace(' ', ""));
            let _ = write!(text, " {value:>8}");
        }
        let _ = writeln!(out, "{text}");
        let marks = point.quality.marks();
        if point.loss_ratio > 0.0 || !marks.is_empty() {
            let mut said = format!("      {} lost", percent(point.loss_ratio));
            if !marks.is_empty() {
                let _ = write!(said, " [{marks}]");
            }
            line(out, &said);
        }
    }
    if found.points.iter().any(|point| point.doubtful_share > 0.0) {
        line(out, DOUBTFUL);
    }
}

/// What `~` before a latency means.
const DOUBTFUL: &str = "      ~ may be the host's doing: so much of the time was lost to it";

/// What the loads of latencies are shares of.
fn reference(found: &LatencyOutcome) -> String {
    let shares: Vec<String> = found.points.iter().map(|p| percent(p.share)).collect();
    format!(
        "at {} of the {}",
        shares.join(", "),
        found.named_reference()
    )
}

fn soak(out: &mut String, found: &Soak) {
    let mut more = found
        .named_share()
        .map_or_else(String::new, |share| format!("{share}, "));
    let _ = write!(
        more,
        "{} lost in {} slices",
        percent(found.loss_ratio),
        found.slices.len()
    );
    row(out, "soak", &pps(found.offered), &more, &found.quality);
    if let Some(latency) = &found.latency {
        let _ = write!(out, "   ");
        for (name, ..) in latency.percentiles() {
            let _ = write!(out, " {name:>10}");
        }
        let _ = write!(out, "\n   ");
        for value in soak::percentiles(found) {
            let _ = write!(out, " {value:>10}");
        }
        out.push('\n');
    }
    let noise = &found.noise;
    let jumps = noise.jumps.named();
    let jumps = jumps.map(|(length, count)| format!("{count} above {length}"));
    line(
        out,
        &format!(
            "    jumps of the clock: {}; longest {}; steal {}",
            jumps.join(", "),
            nanoseconds(noise.longest_gap_ns),
            nanoseconds(noise.steal_ns)
        ),
    );
    if found.doubtful_share > 0.0 {
        line(out, DOUBTFUL);
    }
}

fn connections(out: &mut String, found: &Connections) {
    let sign = if found.at_limit && found.method != "transactions" {
        "≥ "
    } else {
        ""
    };
    let unit = if found.method == "concurrent-connections" {
        ""
    } else {
        "/s"
    };
    let value = format!("{sign}{}{unit}", units::scaled(found.value, ""));
    let name = match found.method.as_str() {
        "connections-per-second" => "connections",
        "concurrent-connections" => "open at a time",
        other => other,
    };
    let mut more = units::scaled(found.goodput_bytes * 8.0, "bit/s");
    if let Some(connect) = &found.connect {
        let _ = write!(
            more,
            ", connect p50 {} p99 {}",
            nanoseconds(connect.p50),
            nanoseconds(connect.p99)
        );
    }
    row(out, name, &value, &more, &found.quality);
}

/// A comparison in lines.
pub fn comparison(comparison: &Comparison) -> String {
    let mut out = String::new();
    line(
        &mut out,
        &format!("{}: {} / {}", comparison.name, comparison.a, comparison.b),
    );
    line(&mut out, &format!("  {}", comparison.traffic.description));
    let measure = comparison.measure.to_uppercase();
    for (name, of) in [(&comparison.a, 0), (&comparison.b, 1)] {
        let rates = comparison
            .rounds
            .iter()
            .map(|r| if of == 0 { r.0 } else { r.1 });
        let (low, high) = rates.fold((f64::MAX, 0.0), |(l, h): (f64, f64), r| {
            (l.min(r), h.max(r))
        });
        if high > 0.0 {
            line(
                &mut out,
                &format!("  {measure} of {name}: {}", units::pps_range(low, high)),
            );
        }
    }
    match &comparison.ratio {
        None => line(&mut out, "  no ratio: too few rounds gave both rates"),
        Some(ratio) => {
            let interval = match ratio.low.zip(ratio.high) {
                Some((low, high)) => format!("95 % interval {low:.3} to {high:.3}, "),
                None => String::new(),
            };
            let marks = comparison.quality.marks();
            let marks = if marks.is_empty() {
                marks
            } else {
                format!(" [{marks}]")
            };
            line(
                &mut out,
                &format!(
                    "  ratio {:.3}, {interval}{} rounds{marks}",
                    ratio.mean, ratio.count
                ),
            );
        }
    }
    for remark in &comparison.quality.remarks {
        line(&mut out, &format!("    {remark}"));
    }
    if let (Some(least), Some(reached)) = (comparison.at_least, comparison.reached) {
        let word = if reached { "reached" } else { "NOT reached" };
        line(
            &mut out,
            &format!("  at least {least} with confidence: {word}"),
        );
    }
    out
}
