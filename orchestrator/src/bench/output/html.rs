//! The report as one HTML page: no script, nothing to load, readable in light and dark and on paper.

use std::fmt::Write as _;

use super::charts;
use super::figures::Figure;
use super::method_text;
use super::record::{Case, Comparison, LatencyOutcome, Outcome, Results};
use super::soak;
use super::text::{self, escaped};
use crate::bench::units::{self, nanoseconds, percent, pps};

const STYLE: &str = include_str!("style.css");

/// Tiles at the top at most.
const TILES: usize = 8;

/// The page.
pub fn page(results: &Results) -> String {
    let mut html = String::new();
    head(&mut html, results);
    tiles(&mut html, results);
    comparisons(&mut html, &results.comparisons);
    plots(&mut html, results);
    rates(&mut html, results);
    latencies(&mut html, results);
    soaks(&mut html, results);
    others(&mut html, results);
    method_text::section(&mut html, results);
    host(&mut html, results);
    trials(&mut html, results);
    html.push_str("</body>\n</html>\n");
    html
}

fn head(html: &mut String, results: &Results) {
    let title = match results.cases.first() {
        Some(case) if results.cases.len() == 1 => format!("Benchmark of {}", case.target.name),
        _ => "Benchmark of service chains".to_owned(),
    };
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{0}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{0}</h1>\n\
         <p class=\"faint\">{1}{4} · {2} · chainplane {3}</p>\n",
        escaped(&title),
        escaped(&results.started.replace('T', " ").replace('Z', " UTC")),
        escaped(&results.host.cpu),
        escaped(&results.host.chainplane),
        results.in_runs(),
    );
    if results.partial {
        html.push_str(
            "<p class=\"banner\">The run was stopped, or failed in parts: this report is partial.</p>\n",
        );
    }
    if results.host.build == "debug" {
        html.push_str(
            "<p class=\"banner\">Measured with a debug build: these figures say nothing about a release.</p>\n",
        );
    }
    for case in &results.cases {
        if let Some(error) = &case.error {
            let _ = writeln!(
                html,
                "<p class=\"banner\">{} ended early: {}</p>",
                escaped(&case.name),
                escaped(error)
            );
        }
    }
}

/// The figure that stands for a case: the strictest that can be quoted.
fn headline(case: &Case) -> Option<Figure> {
    let mut figures: Vec<Figure> = case.figures().collect();
    let rank = |figure: &Figure| {
        let order = ["ndr", "throughput", "pdr", "mrr"];
        order.iter().position(|name| *name == figure.name)
    };
    figures.sort_by_key(|figure| (!figure.is_quotable(), rank(figure)));
    figures.into_iter().next()
}

fn tiles(html: &mut String, results: &Results) {
    html.push_str("<div class=\"tiles\">\n");
    for comparison in results.comparisons.iter().take(TILES) {
        if let Some(ratio) = &comparison.ratio {
            tile(
                html,
                &format!(
                    "{}{:.2} ×",
                    if comparison.quality.spoiled { "~" } else { "" },
                    ratio.mean
                ),
                &format!("{} / {}", comparison.a, comparison.b),
                &comparison.measure.to_uppercase(),
            );
        }
    }
    let left = TILES.saturating_sub(results.comparisons.len());
    for case in results.cases.iter().take(left) {
        if let Some(figure) = headline(case) {
            let kind = format!(
                "{}, {}",
                figure.name.to_uppercase(),
                units::scaled(case.bits(figure.rate), "bit/s")
            );
            tile(html, &figure.text(), &case.name, &kind);
        }
    }
    html.push_str("</div>\n");
}

fn tile(html: &mut String, value: &str, name: &str, kind: &str) {
    let _ = writeln!(
        html,
        "<div class=\"tile\"><b>{}</b><span>{}</span><span>{}</span></div>",
        escaped(value),
        escaped(name),
        escaped(kind)
    );
}

fn comparisons(html: &mut String, comparisons: &[Comparison]) {
    if comparisons.is_empty() {
        return;
    }
    html.push_str(
        "<h2>Comparisons</h2>\n<div class=\"scroll\"><table>\n<tr><th>case</th><th class=\"left\">first / second</th>\
         <th>measure</th><th>first, median</th><th>second, median</th><th>ratio</th><th>95 % interval</th><th>rounds</th>\
         <th class=\"left\">marks</th></tr>\n",
    );
    for comparison in comparisons {
        let median = |of: fn(&(f64, f64)) -> f64| {
            let mut rates: Vec<f64> = comparison.rounds.iter().map(of).collect();
            rates.sort_by(f64::total_cmp);
            rates
                .get(rates.len() / 2)
                .map_or_else(String::new, |rate| pps(*rate))
        };
        let ratio = comparison.ratio.as_ref();
        let interval = ratio.and_then(|ratio| ratio.low.zip(ratio.high));
        let reached = match (comparison.at_least, comparison.reached) {
            (Some(least), Some(true)) => format!("at least {least}: reached "),
            (Some(least), Some(false)) => format!("at least {least}: not reached "),
            _ => String::new(),
        };
        cells(
            html,
            &[
                &comparison.name,
                &format!("{} / {}", comparison.a, comparison.b),
                &comparison.measure.to_uppercase(),
                &median(|round| round.0),
                &median(|round| round.1),
                &ratio.map_or("–".into(), |ratio| format!("{:.3}", ratio.mean)),
                &interval.map_or("–".into(), |(low, high)| format!("{low:.3} to {high:.3}")),
                &ratio.map_or("0".into(), |ratio| ratio.count.to_string()),
                &format!("{reached}{}", comparison.quality.marks()),
            ],
            &[1, 8],
        );
    }
    html.push_str("</table></div>\n");
}

/// A row of a table; the cells of `left` are text.
fn cells(html: &mut String, cells: &[&str], left: &[usize]) {
    html.push_str("<tr>");
    for (index, cell) in cells.iter().enumerate() {
        let class = if left.contains(&index) {
            " class=\"left\""
        } else {
            ""
        };
        let _ = write!(html, "<td{class}>{}</td>", escaped(cell));
    }
    html.push_str("</tr>\n");
}

fn plots(html: &mut String, results: &Results) {
    let plots = charts::plots(results);
    if plots.is_empty() {
        return;
    }
    html.push_str(
        "<h2>Plots</h2>\n<p class=\"faint\">A hollow point is not to be quoted, or the generator was its limit. Bars show \
         the 95 % interval, or the bounds of a single search. Rest the pointer on a point to read it.</p>\n\
         <div class=\"plots\">\n",
    );
    for plot in plots {
        let _ = write!(
            html,
            "<figure>\n<h3>{}</h3>\n{}{}</figure>\n",
            escaped(&plot.title),
            plot.legend(),
            plot.svg()
        );
    }
    html.push_str("</div>\n");
}

fn rates(html: &mut String, results: &Results) {
    let cases = results
        .cases
        .iter()
        .filter(|case| case.figures().next().is_some());
    let mut rows = String::new();
    for case in cases {
        for (index, figure) in case.figures().enumerate() {
            let name = if index == 0 { case.name.as_str() } else { "" };
            let interval = figure
                .interval
                .map_or_else(String::new, |(low, high)| units::pps_range(low, high));
            let mut marks = figure.quality.marks();
            for remark in &figure.quality.remarks {
                let _ = write!(
                    marks,
                    "{}{remark}",
                    if marks.is_empty() { "" } else { "; " }
                );
            }
            cells(
                &mut rows,
                &[
                    name,
                    &figure.name.to_uppercase(),
                    &figure.text(),
                    &interval,
                    &units::scaled(case.bits(figure.rate), "bit/s"),
                    &units::scaled(case.wire_bits(figure.rate), "bit/s"),
                    &figure
                        .cycles
                        .map_or_else(String::new, |cycles| format!("{cycles:.0}")),
                    &marks,
                ],
                &[7],
            );
        }
    }
    if !rows.is_empty() {
        let _ = write!(
            html,
            "<h2>Rates</h2>\n<p class=\"faint\">All directions together. On a wire, a frame would take 24 bytes more \
             (check sequence, preamble, gap).</p>\n<div class=\"scroll\"><table>\n<tr><th>case</th><th>measure</th>\
             <th>rate</th><th>interval or bounds</th><th>frames</th><th>as on a wire</th><th>cycles a packet</th>\
             <th class=\"left\">marks</th></tr>\n{rows}</table></div>\n"
        );
    }
}

fn latencies(html: &mut String, results: &Results) {
    let measured = results
        .cases
        .iter()
        .filter_map(|case| Some((case, case.latency()?)));
    let mut rows = String::new();
    for (case, outcome) in measured {
        latency_rows(&mut rows, case, outcome);
    }
    if !rows.is_empty() {
        let _ = write!(
            html,
            "<h2>Latency</h2>\n<p class=\"faint\">From when a packet was due to when it was found at the other end. \
             ~ may be the host's doing.</p>\n<div class=\"scroll\"><table>\n<tr><th>case</th><th>load</th>\
             <th>of</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th><th>lost</th>\
             <th class=\"left\">marks</th></tr>\n{rows}</table></div>\n"
        );
    }
}

fn latency_rows(rows: &mut String, case: &Case, outcome: &LatencyOutcome) {
    for (index, point) in outcome.points.iter().enumerate() {
        let name = if index == 0 { case.name.as_str() } else { "" };
        let mut texts = vec![
            name.to_owned(),
            pps(point.offered),
            format!("{} of {}", percent(point.share), outcome.named_reference()),
        ];
        for (_, share, ns) in point.latency.percentiles() {
            let mark = if 1.0 - share < point.doubtful_share {
                "~"
            } else {
                ""
            };
            texts.push(format!("{mark}{}", nanoseconds(ns)));
        }
        texts.push(percent(point.loss_ratio));
        texts.push(point.quality.marks());
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        cells(rows, &texts, &[10]);
    }
}

fn soaks(html: &mut String, results: &Results) {
    let rows = soak::rows(&results.cases);
    if rows.is_empty() {
        return;
    }
    html.push_str(
        "<h2>Long runs</h2>\n<p class=\"faint\">Latency from when a packet was due, over the whole run. ~ may be the host's \
         doing. Jumps of the generator's clock are the machine's: time in which nothing polled on its core.</p>\n\
         <div class=\"scroll\"><table>\n<tr>",
    );
    for name in soak::COLUMNS {
        let _ = write!(html, "<th>{}</th>", escaped(name));
    }
    html.push_str("</tr>\n");
    for row in &rows {
        cells(html, &row.each_ref().map(String::as_str), &[row.len() - 1]);
    }
    html.push_str("</table></div>\n");
}

/// What has no plot or table of its own is told as on a terminal.
fn others(html: &mut String, results: &Results) {
    let told = |outcome: &&Outcome| {
        matches!(
            outcome,
            Outcome::FrameLoss(_)
                | Outcome::BackToBack(_)
                | Outcome::Recovery(_)
                | Outcome::Connections(_)
        )
    };
    let mut text = String::new();
    for case in &results.cases {
        let mut rest = case.clone();
        rest.results = case.results.iter().filter(told).cloned().collect();
        if !rest.results.is_empty() {
            text.push_str(&text::case(&rest));
        }
    }
    if !text.is_empty() {
        let _ = write!(
            html,
            "<h2>Further methods</h2>\n<pre>{}</pre>\n",
            escaped(&text)
        );
    }
}

fn list(html: &mut String, lines: impl IntoIterator<Item = (String, String)>) {
    html.push_str("<dl>");
    for (name, value) in lines {
        let _ = write!(
            html,
            "<dt>{}</dt><dd>{}</dd>",
            escaped(&name),
            escaped(&value)
        );
    }
    html.push_str("</dl>\n");
}

fn host(html: &mut String, results: &Results) {
    html.push_str("<h2>Machine</h2>\n");
    let lines = results.host.lines();
    list(
        html,
        lines
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    );
    let _ = write!(
        html,
        "<h3>Command</h3>\n<pre>{}</pre>\n<h2>Targets and traffic</h2>\n",
        escaped(&results.command.join(" "))
    );
    for case in &results.cases {
        let _ = writeln!(html, "<details><summary>{}</summary>", escaped(&case.name));
        let target = &case.target;
        let mut lines = vec![
            ("target".to_owned(), target.description.clone()),
            ("attached to".to_owned(), target.endpoints.join(", ")),
        ];
        lines.extend(target.settings.iter().map(|(k, v)| (k.clone(), v.clone())));
        lines.push(("traffic".to_owned(), case.traffic.description.clone()));
        lines.extend(
            case.traffic
                .settings
                .iter()
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        lines.push(("seed".to_owned(), case.traffic.seed.to_string()));
        list(html, lines);
        html.push_str("</details>\n");
    }
}

/// Every trial, folded away.
fn trials(html: &mut String, results: &Results) {
    html.push_str("<h2>Trials</h2>\n");
    for case in &results.cases {
        let _ = write!(
            html,
            "<details><summary>{}: {} trials</summary>\n<div class=\"scroll\"><table>\n<tr><th>method</th><th>load each way</th>\
             <th>seconds</th><th>received</th><th>lost</th><th>reordered</th><th>duplicated</th><th>corrupted</th>\
             <th>wrong addresses</th><th>host took</th><th>generator idle</th></tr>\n",
            escaped(&case.name),
            case.trials.len()
        );
        for trial in &case.trials {
            let sum = |of: fn(&super::record::Counts) -> u64| {
                trial.directions.iter().map(of).sum::<u64>().to_string()
            };
            cells(
                html,
                &[
                    &trial.method,
                    &trial.load.map_or("all that goes".into(), pps),
                    &format!("{:.2}", trial.elapsed_s),
                    &pps(trial.rate),
                    &percent(trial.loss_ratio),
                    &sum(|c| c.reordered),
                    &sum(|c| c.duplicated),
                    &sum(|c| c.corrupted),
                    &sum(|c| c.mistranslated),
                    &percent(trial.noise.share),
                    &percent(trial.generator_idle),
                ],
                &[],
            );
        }
        html.push_str("</table></div></details>\n");
    }
}
