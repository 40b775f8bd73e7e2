//! Plots as SVG: lines over an axis, and bars. Colours are classes, so that the page around them decides about light
//! and dark.

use std::fmt::Write as _;

use super::axis::Axis;
use super::text::escaped;

/// How the horizontal axis is laid out.
#[derive(Clone, Debug, PartialEq)]
pub enum Horizontal {
    /// Each distinct value has its place, evenly spaced, in rising order.
    Steps,
    /// Percentiles: every further nine takes as much room as the one before.
    Nines,
}

/// A point of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Horizontal value.
    pub x: f64,
    /// Vertical value.
    pub y: f64,
    /// The interval around it.
    pub interval: Option<(f64, f64)>,
    /// Whether it is not to be quoted: drawn hollow.
    pub doubtful: bool,
    /// What is said where the pointer rests on it.
    pub title: String,
}

/// A line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its colour, from 0.
    pub colour: usize,
    /// Its points, in rising order.
    pub points: Vec<Point>,
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// The horizontal axis's name.
    pub x_name: String,
    /// The vertical axis's name with its unit.
    pub y_name: String,
    /// How the horizontal axis is laid out.
    pub horizontal: Horizontal,
    /// Whether the vertical axis shows powers of ten.
    pub logarithmic: bool,
    /// How values of the vertical axis are written.
    pub y_text: fn(f64) -> String,
    /// How values of the horizontal axis are written.
    pub x_text: fn(f64) -> String,
    /// The lines.
    pub series: Vec<Series>,
}

/// Distinct colours of series.
pub const COLOURS: usize = 6;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;

/// The axes of a plot in pixels.
struct Frame<'p> {
    plot: &'p Plot,
    vertical: Axis,
    /// Distinct horizontal values of [`Horizontal::Steps`].
    steps: Vec<f64>,
    /// Nines that [`Horizontal::Nines`] shows.
    nines: f64,
}

impl Plot {
    /// The plot as an `svg` element.
    pub fn svg(&self) -> String {
        let frame = Frame::new(self);
        let mut svg = format!(
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escaped(&self.title)
        );
        frame.axes(&mut svg);
        for series in &self.series {
            frame.series(&mut svg, series);
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The legend as HTML; empty for one series, whose name the title tells.
    pub fn legend(&self) -> String {
        let mut html = String::from("<ul class=\"legend\">");
        for series in &self.series {
            let _ = write!(
                html,
                "<li><span class=\"key c{}\"></span>{}</li>",
                series.colour % COLOURS,
                escaped(&series.name)
            );
        }
        html.push_str("</ul>\n");
        html
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        self.series.iter().flat_map(|series| &series.points)
    }
}

impl<'p> Frame<'p> {
    fn new(plot: &'p Plot) -> Self {
        let values = plot
            .points()
            .flat_map(|point| [Some(point.y), point.interval.map(|(_, high)| high)])
            .flatten();
        let vertical = if plot.logarithmic {
            Axis::powers(values)
        } else {
            Axis::from_zero(values)
        };
        let mut steps: Vec<f64> = plot.points().map(|point| point.x).collect();
        steps.sort_by(f64::total_cmp);
        steps.dedup();
        let nines = plot
            .points()
            .map(|point| nines(point.x))
            .filter(|n| n.is_finite());
        Self {
            plot,
            vertical,
            steps,
            nines: nines.fold(2.0, f64::max).ceil(),
        }
    }

    fn x(&self, value: f64) -> f64 {
        let share = match self.plot.horizontal {
            Horizontal::Steps if self.steps.len() < 2 => 0.5,
            Horizontal::Steps => {
                let place = self
                    .steps
                    .iter()
                    .position(|step| *step >= value)
                    .unwrap_or(0);
                let margin = 0.04;
                margin + place as f64 / (self.steps.len() - 1) as f64 * (1.0 - 2.0 * margin)
            }
            // A little room, so that the last label is whole.
            Horizontal::Nines => (nines(value) / (self.nines + 0.4)).min(1.0),
        };
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.vertical.at(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn axes(&self, svg: &mut String) {
        for tick in self.vertical.ticks() {
            let y = self.y(tick);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                escaped(&(self.plot.y_text)(tick))
            );
        }
        for (value, text) in self.labels() {
            let _ = writeln!(
                svg,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                self.x(value),
                HEIGHT - BOTTOM + 18.0,
                escaped(&text)
            );
        }
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM,
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 8.0,
            escaped(&self.plot.x_name)
        );
        let middle = f64::midpoint(TOP, HEIGHT - BOTTOM);
        let _ = writeln!(
            svg,
            "<text class=\"name\" x=\"13\" y=\"{middle:.1}\" text-anchor=\"middle\" \
             transform=\"rotate(-90 13 {middle:.1})\">{}</text>",
            escaped(&self.plot.y_name)
        );
    }

    /// Values of the horizontal axis and what is written under them.
    fn labels(&self) -> Vec<(f64, String)> {
        match self.plot.horizontal {
            Horizontal::Steps => {
                let named = self
                    .steps
                    .iter()
                    .map(|&step| (step, (self.plot.x_text)(step)));
                named.collect()
            }
            Horizontal::Nines => {
                let mut labels = vec![(0.0, "0 %".to_owned())];
                for count in 1..=self.nines as i32 {
                    let percentile = 100.0 - 100.0 * 10_f64.powi(-count);
                    labels.push((
                        percentile,
                        format!("{percentile:.*} %", (count - 2).max(0) as usize),
                    ));
                }
                labels
            }
        }
    }

    fn series(&self, svg: &mut String, series: &Series) {
        let colour = series.colour % COLOURS;
        let mut path = String::new();
        for (index, point) in series.points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let _ = write!(
                path,
                "{command}{:.1} {:.1}",
                self.x(point.x),
                self.y(point.y)
            );
        }
        let _ = writeln!(svg, "<path class=\"line c{colour}\" d=\"{path}\"/>");
        // A distribution has too many points to mark each.
        let marks = self.plot.horizontal == Horizontal::Steps;
        for point in &series.points {
            let (x, y) = (self.x(point.x), self.y(point.y));
            if let Some((low, high)) = point.interval {
                let _ = writeln!(
                    svg,
                    "<line class=\"interval c{colour}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                    self.y(low),
                    self.y(high)
                );
            }
            let doubtful = if point.doubtful { " doubtful" } else { "" };
            let radius = if marks { 4.5 } else { 3.0 };
            let hidden = if marks { "" } else { " quiet" };
            let _ = writeln!(
                svg,
                "<circle class=\"dot c{colour}{doubtful}{hidden}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\">\
                 <title>{}</title></circle>",
                escaped(&point.title)
            );
        }
    }
}

/// How many nines a percentile has: 2 for 99 %.
fn nines(percentile: f64) -> f64 {
    -(1.0 - (percentile / 100.0).min(1.0 - 1e-9)).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(horizontal: Horizontal) -> Plot {
        let point = |x: f64, y| Point {
            x,
            y,
            interval: Some((y * 0.9, y * 1.1)),
            doubtful: x > 1000.0,
            title: format!("<{x}>"),
        };
        Plot {
            title: "A & B".into(),
            x_name: "frame".into(),
            y_name: "Mpps".into(),
            horizontal,
            logarithmic: false,
            y_text: |y| format!("{y:.1}"),
            x_text: |x| format!("{x:.0}"),
            series: vec![Series {
                name: "\"one\"".into(),
                colour: 7,
                points: vec![point(64.0, 10.0), point(1518.0, 2.0)],
            }],
        }
    }

    #[test]
    fn names_are_escaped_and_points_stay_inside() {
        for horizontal in [Horizontal::Steps, Horizontal::Nines] {
            let plot = plot(horizontal);
            let svg = plot.svg();
            assert!(svg.contains("A &amp; B") && svg.contains("&lt;64&gt;"));
            assert!(plot.legend().contains("&quot;one&quot;"));
            for part in svg.split("cx=\"").skip(1) {
                let x: f64 = part.split('"').next().unwrap().parse().unwrap();
                assert!((LEFT..=WIDTH - RIGHT + 0.1).contains(&x), "{x}");
            }
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn nines_are_counted() {
        assert!((nines(99.9) - 3.0).abs() < 1e-9 && nines(0.0).abs() < 1e-9);
        assert!(nines(100.0) > 8.0);
    }
}
