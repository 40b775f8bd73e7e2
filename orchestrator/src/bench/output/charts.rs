//! Which plots the results of a run are worth.

use super::figures::Figure;
use super::plot::{Horizontal, Plot, Point, Series};
use super::record::{Case, Outcome, Results};
use crate::bench::units;

/// What the horizontal axis of a plot can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    FrameSize,
    ChainLength,
    Flows,
    NewFlows,
}

impl By {
    const ALL: [Self; 4] = [
        Self::FrameSize,
        Self::ChainLength,
        Self::Flows,
        Self::NewFlows,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::FrameSize => "frame size",
            Self::ChainLength => "chain length",
            Self::Flows => "flows",
            Self::NewFlows => "new flows",
        }
    }

    fn axis(self) -> &'static str {
        match self {
            Self::FrameSize => "frame size in bytes, without FCS",
            Self::ChainLength => "functions in the chain",
            Self::Flows => "flows at a time",
            Self::NewFlows => "new flows a second",
        }
    }

    fn value(self, case: &Case) -> Option<f64> {
        let traffic = &case.traffic;
        match self {
            Self::FrameSize => (!traffic.mixed_sizes).then_some(traffic.frame_bytes),
            Self::ChainLength => case.target.chain_length.map(f64::from),
            Self::Flows => Some(f64::from(traffic.flows)),
            Self::NewFlows => Some(traffic.new_flows),
        }
    }

    /// What must be equal for cases to be points of one line.
    fn line(self, case: &Case) -> String {
        let target = match self {
            Self::ChainLength => case.family(),
            _ => &case.target.name,
        };
        let mut line = target.to_owned();
        for other in Self::ALL {
            let part = match other.value(case) {
                _ if other == self => continue,
                Some(value) => units::scaled(value, ""),
                None if other == Self::FrameSize => "mixed sizes".into(),
                None => continue,
            };
            match other {
                Self::FrameSize if case.traffic.mixed_sizes => line = format!("{line}, {part}"),
                Self::FrameSize => line = format!("{line}, {part} B"),
                Self::Flows if case.traffic.flows > 1 => line = format!("{line}, {part} flows"),
                Self::NewFlows if case.traffic.new_flows > 0.0 => {
                    line = format!("{line}, {part} new/s");
                }
                Self::ChainLength | Self::Flows | Self::NewFlows => {}
            }
        }
        if case.traffic.directions == 1 {
            line.push_str(", one way");
        }
        line
    }
}

/// All plots, in the order of the page.
pub fn plots(results: &Results) -> Vec<Plot> {
    let cases = &results.cases;
    let mut plots: Vec<Plot> = Vec::new();
    for by in By::ALL {
        plots.extend(
            ["pdr", "ndr", "mrr"]
                .iter()
                .find_map(|name| rates(cases, by, name)),
        );
    }
    plots.extend(cycles(cases));
    plots.extend(cases.iter().filter_map(latency));
    plots.extend(cases.iter().filter_map(loss));
    plots
}

/// The lines over `by` that have at least two points.
fn lines(cases: &[Case], by: By, point: impl Fn(&Case, f64) -> Option<Point>) -> Vec<Series> {
    let mut series: Vec<Series> = Vec::new();
    for case in cases {
        let Some(point) = by.value(case).and_then(|x| point(case, x)) else {
            continue;
        };
        let name = by.line(case);
        if let Some(line) = series.iter_mut().find(|line| line.name == name) {
            line.points.push(point);
        } else {
            series.push(Series {
                name,
                colour: 0,
                points: vec![point],
            });
        }
    }
    for line in &mut series {
        line.points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    let distinct = |line: &Series| {
        line.points.first().map(|p| p.x.to_bits()) != line.points.last().map(|p| p.x.to_bits())
    };
    series.retain(distinct);
    for (colour, line) in series.iter_mut().enumerate() {
        line.colour = colour;
    }
    series
}

fn rates(cases: &[Case], by: By, name: &str) -> Option<Plot> {
    let series = lines(cases, by, |case, x| {
        let figure = case.figure(name).filter(|figure| figure.rate > 0.0)?;
        Some(rate_point(case, &figure, x))
    });
    (!series.is_empty()).then(|| Plot {
        title: format!("{} by {}", name.to_uppercase(), by.name()),
        x_name: by.axis().into(),
        y_name: "Mpps, all directions".into(),
        horizontal: Horizontal::Steps,
        logarithmic: false,
        y_text: short,
        x_text: units::count,
        series,
    })
}

fn rate_point(case: &Case, figure: &Figure, x: f64) -> Point {
    let mut title = format!(
        "{}: {} {}",
        case.name,
        figure.name.to_uppercase(),
        figure.text()
    );
    let marks = figure.quality.marks();
    if !marks.is_empty() {
        title = format!("{title} ({marks})");
    }
    Point {
        x,
        y: figure.rate / 1e6,
        interval: figure.interval.map(|(low, high)| (low / 1e6, high / 1e6)),
        doubtful: !figure.is_quotable() || figure.quality.generator_limited,
        title,
    }
}

fn cycles(cases: &[Case]) -> Option<Plot> {
    let series = lines(cases, By::ChainLength, |case, x| {
        let y = case.cycles()?;
        Some(Point {
            x,
            y,
            interval: None,
            doubtful: false,
            title: format!("{}: {y:.0} cycles a packet", case.name),
        })
    });
    (!series.is_empty()).then(|| Plot {
        title: "Cycles a packet by chain length".into(),
        x_name: By::ChainLength.axis().into(),
        y_name: "busy cycles a packet".into(),
        horizontal: Horizontal::Steps,
        logarithmic: false,
        y_text: short,
        x_text: short,
        series,
    })
}

fn latency(case: &Case) -> Option<Plot> {
    let outcome = case.latency()?;
    let series = outcome.points.iter().enumerate().map(|(colour, at)| {
        let points = at.latency.curve.iter().map(|&(percentile, ns)| Point {
            x: percentile,
            y: ns as f64 / 1e3,
            interval: None,
            doubtful: 1.0 - percentile / 100.0 < at.doubtful_share,
            title: format!("{percentile:.5} %: {}", units::nanoseconds(ns)),
        });
        Series {
            name: format!(
                "{} of {}: {}",
                units::percent(at.share),
                outcome.named_reference(),
                units::pps(at.offered)
            ),
            colour,
            // The longest has no place on an axis of nines.
            points: points.filter(|point| point.x < 100.0).collect(),
        }
    });
    let series: Vec<Series> = series.filter(|line| !line.points.is_empty()).collect();
    (!series.is_empty()).then(|| Plot {
        title: format!("Latency: {}", case.name),
        x_name: "share of the packets that are at most so late".into(),
        y_name: "µs".into(),
        horizontal: Horizontal::Nines,
        logarithmic: true,
        y_text: short,
        x_text: short,
        series,
    })
}

fn loss(case: &Case) -> Option<Plot> {
    let curve = case.results.iter().find_map(|outcome| match outcome {
        Outcome::FrameLoss(curve) => Some(curve),
        _ => None,
    })?;
    let mut points: Vec<Point> = curve
        .points
        .iter()
        .map(|at| Point {
            x: at.offered / 1e6,
            y: at.loss_ratio * 100.0,
            interval: None,
            doubtful: at.spoiled,
            title: format!(
                "{}: {} lost",
                units::pps(at.offered),
                units::percent(at.loss_ratio)
            ),
        })
        .collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    (points.len() > 1).then(|| Plot {
        title: format!("Frame loss: {}", case.name),
        x_name: "Mpps offered, all directions".into(),
        y_name: "% lost".into(),
        horizontal: Horizontal::Steps,
        logarithmic: false,
        y_text: short,
        x_text: |x| format!("{x:.2}"),
        series: vec![Series {
            name: case.name.clone(),
            colour: 0,
            points,
        }],
    })
}

/// A number on an axis: as few digits as it needs.
fn short(value: f64) -> String {
    if value >= 10_000.0 {
        return units::count(value);
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
