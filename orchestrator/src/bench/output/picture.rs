//! A picture for a README: the cases' rates as bars, in one SVG that knows light and dark.

use std::fmt::Write as _;

use super::axis::Axis;
use super::record::Results;
use super::text::escaped;

const STYLE: &str = "text{font:14px system-ui,-apple-system,\"Segoe UI\",sans-serif;fill:#1b1f24}\
.faint{fill:#5c6670;font-size:12px}.bar{fill:#1f6feb}.doubtful{fill:none;stroke:#1f6feb;stroke-dasharray:4 3}\
.interval{stroke:#1b1f24;stroke-width:1.5}.grid{stroke:#dfe3e8}\
@media(prefers-color-scheme:dark){text{fill:#e4e8ec}.faint{fill:#98a2ad}.bar{fill:#6aa7ff}.doubtful{stroke:#6aa7ff}\
.interval{stroke:#e4e8ec}.grid{stroke:#2c343c}}";

/// Bars at most.
const MOST: usize = 16;
const WIDTH: f64 = 760.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 110.0;
const ROW: f64 = 30.0;
const TOP: f64 = 44.0;

/// The picture. It shows the measure that most cases have: PDR, else NDR, else MRR.
pub fn svg(results: &Results) -> String {
    let measures = ["pdr", "ndr", "mrr", "throughput"];
    let having = |name: &str| {
        results
            .cases
            .iter()
            .filter(|case| case.figure(name).is_some())
            .count()
    };
    let measure = measures
        .into_iter()
        .rev()
        .max_by_key(|name| having(name))
        .unwrap_or("mrr");
    let bars: Vec<_> = results
        .cases
        .iter()
        .filter_map(|case| Some((case.name.as_str(), case.figure(measure)?)))
        .take(MOST)
        .collect();
    let height = TOP + ROW * bars.len() as f64 + 34.0;
    let axis = Axis::from_zero(bars.iter().map(|(_, figure)| figure.rate / 1e6));
    let x = |mpps: f64| LEFT + axis.at(mpps) * (WIDTH - LEFT - RIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\">\n<title>{0} by case</title>\n<style>{STYLE}</style>\n\
         <text x=\"8\" y=\"22\">{0}, Mpps, all directions</text>\n",
        measure.to_uppercase()
    );
    for tick in axis.ticks() {
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1}\" y2=\"{2}\"/>\
             <text class=\"faint\" x=\"{0:.1}\" y=\"{3}\" text-anchor=\"middle\">{tick}</text>",
            x(tick),
            TOP - 8.0,
            height - 28.0,
            height - 12.0
        );
    }
    for (index, (name, figure)) in bars.iter().enumerate() {
        let y = TOP + ROW * index as f64;
        let mpps = figure.rate / 1e6;
        let class = if figure.is_quotable() {
            "bar"
        } else {
            "doubtful"
        };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"18\" rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 10.0,
            y + 14.0,
            escaped(&shortened(name)),
            (x(mpps) - LEFT).max(1.0),
            x(mpps) + 10.0,
            y + 14.0,
            escaped(&figure.text())
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"faint\" x=\"8\" y=\"{:.1}\">{}</text>\n</svg>",
        height - 12.0,
        escaped(results.started.split('T').next().unwrap_or_default())
    );
    svg
}

/// A name that fits beside its bar.
fn shortened(name: &str) -> String {
    const LONGEST: usize = 34;
    if name.chars().count() <= LONGEST {
        return name.to_owned();
    }
    name.chars().take(LONGEST - 1).chain(['…']).collect()
}
