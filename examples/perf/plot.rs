//! Line charts over message sizes, as SVG.
//!
//! The few things that such a chart needs (two axes, ticks at round numbers, lines with their names) are drawn here: the
//! crates that draw charts bring fonts, bitmaps and many more kinds of them.

use std::fmt::Write as _;

/// One chart.
pub(crate) struct Chart {
    pub(crate) y_label: String,
    pub(crate) scale: Scale,
    pub(crate) series: Vec<Series>,
}

/// How the vertical axis is divided. The horizontal one is always logarithmic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    Logarithmic,
}

/// One line of a chart.
pub(crate) struct Series {
    /// What stands beside it, if it needs a name.
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 380.0;
const TITLE: f64 = 58.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 84.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 56.0;

/// Colours that are told from each other also by those who do not see all of them.
const COLOURS: [&str; 6] = ["#0072b2", "#009e73", "#e69f00", "#cc79a7", "#d55e00", "#555555"];

/// The part of an axis that is shown, and the places of its ticks.
struct Axis {
    first: f64,
    last: f64,
    is_logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// Message sizes, at powers of two.
    fn of_sizes(values: &[f64]) -> Axis {
        let (least, most) = bounds(values);
        let (mut first, mut last) = (least.log2().floor(), most.log2().ceil());
        if first == last {
            (first, last) = (first - 1.0, last + 1.0);
        }
        // As many as there is room for.
        let step = ((last - first) / 12.0).ceil().max(1.0);
        let ticks = (0..).map(|n| first + step * f64::from(n)).take_while(|&tick| tick <= last);
        let ticks = ticks.map(f64::exp2).collect();
        Axis { first: first.exp2(), last: last.exp2(), is_logarithmic: true, ticks }
    }

    /// From zero to beyond the greatest value.
    fn linear(values: &[f64]) -> Axis {
        let (_, most) = bounds(values);
        let power = 10_f64.powf((most / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = step.into_iter().find(|step| most / step <= 5.0).unwrap_or(power);
        let count = (most / step).ceil().max(1.0) as u32;
        let ticks = (0..=count).map(|n| step * f64::from(n)).collect();
        Axis { first: 0.0, last: step * f64::from(count), is_logarithmic: false, ticks }
    }

    /// At 1, 2 and 5 times powers of ten; over many of those, at the powers alone.
    fn logarithmic(values: &[f64]) -> Axis {
        let (least, most) = bounds(values);
        let (from, to) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        let factors: &[f64] = if to - from > 3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all: Vec<f64> = (from..=to.max(from + 1))
            .flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)))
            .collect();
        // One below the least value, and one above the greatest.
        let first = all.iter().rposition(|&tick| tick <= least).unwrap_or(0);
        let last = all.iter().position(|&tick| tick >= most && tick > all[first]);
        let ticks = all[first..=last.unwrap_or(all.len() - 1)].to_vec();
        Axis { first: ticks[0], last: ticks[ticks.len() - 1], is_logarithmic: true, ticks }
    }

    /// Where a value is: 0 at the beginning of the axis, and 1 at its end.
    fn place(&self, value: f64) -> f64 {
        let map = |value: f64| if self.is_logarithmic { value.ln() } else { value };
        (map(value) - map(self.first)) / (map(self.last) - map(self.first))
    }
}

/// The least and the greatest of some values; those of nothing are those of 1.
fn bounds(values: &[f64]) -> (f64, f64) {
    let is_drawn = |value: &f64| value.is_finite() && *value > 0.0;
    let mut drawn = values.iter().copied().filter(is_drawn);
    let first = drawn.next().unwrap_or(1.0);
    drawn.fold((first, first), |(least, most), value| (least.min(value), most.max(value)))
}

/// Draws charts, one below the other.
pub(crate) fn draw([title, subtitle]: [&str; 2], x_label: &str, charts: &[Chart]) -> String {
    let height = TITLE + HEIGHT * charts.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let middle = WIDTH / 2.0;
    text(&mut svg, middle, 26.0, "middle\" font-size=\"15", title);
    text(&mut svg, middle, 46.0, "middle\" fill=\"#555", subtitle);
    for (place, chart) in charts.iter().enumerate() {
        chart.draw(&mut svg, TITLE + HEIGHT * place as f64, x_label);
    }
    svg.push_str("</svg>\n");
    svg
}

impl Chart {
    fn draw(&self, svg: &mut String, top: f64, x_label: &str) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let (sizes, values): (Vec<f64>, Vec<f64>) = points().copied().unzip();
        let x_axis = Axis::of_sizes(&sizes);
        let y_axis = match self.scale {
            Scale::Linear => Axis::linear(&values),
            Scale::Logarithmic => Axis::logarithmic(&values),
        };
        let (right, upper, lower) = (WIDTH - RIGHT, top + TOP, top + HEIGHT - BOTTOM);
        let x = |value| LEFT + (right - LEFT) * x_axis.place(value);
        let y = |value| lower - (lower - upper) * y_axis.place(value);

        for &tick in &x_axis.ticks {
            line(svg, (x(tick), upper), (x(tick), lower));
            text(svg, x(tick), lower + 18.0, "middle", &size_label(tick));
        }
        for &tick in &y_axis.ticks {
            line(svg, (LEFT, y(tick)), (right, y(tick)));
            text(svg, LEFT - 8.0, y(tick) + 4.0, "end", &number_label(tick));
        }
        let (width, height) = (right - LEFT, lower - upper);
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{upper}\" width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"#333\"/>"
        );
        text(svg, (LEFT + right) / 2.0, lower + 42.0, "middle", x_label);
        let middle = (upper + lower) / 2.0;
        let turned = format!("middle\" transform=\"rotate(-90 20 {middle:.1})");
        text(svg, 20.0, middle, &turned, &self.y_label);

        let ends: Vec<f64> =
            self.series.iter().map(|series| series.end().map_or(upper, y)).collect();
        let places = spread(&ends, lower);
        for ((series, place), colour) in self.series.iter().zip(places).zip(COLOURS.iter().cycle())
        {
            let drawn = || {
                series
                    .points
                    .iter()
                    .filter(|(_, value)| value.is_finite() && *value >= y_axis.first)
            };
            let path: Vec<String> =
                drawn().map(|&(size, value)| format!("{:.1},{:.1}", x(size), y(value))).collect();
            let path = path.join(" ");
            let _ = writeln!(
                svg,
                "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
            );
            for &(size, value) in drawn() {
                let (x, y) = (x(size), y(value));
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
                );
            }
            let style = format!("start\" font-weight=\"bold\" fill=\"{colour}");
            if !series.name.is_empty() {
                text(svg, right + 10.0, place + 4.0, &style, &series.name);
            }
        }
    }
}

impl Series {
    /// The value at its right end.
    fn end(&self) -> Option<f64> {
        self.points
            .last()
            .map(|&(_, value)| value)
            .filter(|value| value.is_finite() && *value > 0.0)
    }
}

/// Places for names beside the ends of lines, so far from each other that they can be read, and not below `lowest`.
fn spread(ends: &[f64], lowest: f64) -> Vec<f64> {
    const LINE: f64 = 16.0;
    let mut order: Vec<usize> = (0..ends.len()).collect();
    // From the lowest one upwards, which has the greatest coordinate.
    order.sort_by(|&a, &b| ends[b].total_cmp(&ends[a]).then(a.cmp(&b)));
    let mut places = vec![0.0; ends.len()];
    let mut next = lowest;
    for index in order {
        places[index] = ends[index].min(next);
        next = places[index] - LINE;
    }
    places
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>"
    );
}

/// Writes a text at a place; `anchor` is which end of it that is, and may be followed by further attributes.
fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

/// A power of two, short.
fn size_label(size: f64) -> String {
    const KIB: f64 = 1024.0;
    let units = [("G", KIB * KIB * KIB), ("M", KIB * KIB), ("K", KIB)];
    match units.into_iter().find(|&(_, unit)| size >= unit) {
        Some((name, unit)) => format!("{}{name}", size / unit),
        None => size.to_string(),
    }
}

/// A round number, with no more digits than it needs.
fn number_label(number: f64) -> String {
    let digits = if number == 0.0 { 0.0 } else { (-number.abs().log10().floor()).clamp(0.0, 9.0) };
    let text = format!("{number:.*}", digits as usize + 1);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_ticks_at_powers_of_two() {
        assert_eq!(Axis::of_sizes(&[2.0, 16.0]).ticks, [2.0, 4.0, 8.0, 16.0]);
        assert_eq!(Axis::of_sizes(&[8.0]).ticks, [4.0, 8.0, 16.0]);
        assert_eq!(Axis::of_sizes(&[100.0, 1000.0]).ticks, [64.0, 128.0, 256.0, 512.0, 1024.0]);
        // Many are thinned out.
        let axis = Axis::of_sizes(&[1.0, 2_f64.powi(31)]);
        assert_eq!(axis.ticks[..3], [1.0, 8.0, 64.0]);
        assert_eq!(axis.last, 2_f64.powi(31));
    }

    #[test]
    fn a_linear_axis_begins_with_zero_and_has_round_steps() {
        assert_eq!(Axis::linear(&[37.0, 12.0]).ticks, [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(Axis::linear(&[0.25]).ticks.len(), 6);
        assert_eq!(Axis::linear(&[1e9]).last, 1e9);
        assert_eq!(Axis::linear(&[]).first, 0.0);
    }

    #[test]
    fn a_logarithmic_axis_encloses_its_values() {
        assert_eq!(Axis::logarithmic(&[3.0, 11.0]).ticks, [2.0, 5.0, 10.0, 20.0]);
        assert_eq!(Axis::logarithmic(&[1.5, 90_000.0]).ticks, [1.0, 10.0, 100.0, 1e3, 1e4, 1e5]);
        for value in [1.0, 7.0, 10.0, 0.003, 99.9] {
            let axis = Axis::logarithmic(&[value]);
            assert!(axis.first <= value && value <= axis.last && axis.first < axis.last, "{value}");
        }
        assert!(Axis::logarithmic(&[]).first < Axis::logarithmic(&[]).last);
    }

    #[test]
    fn values_have_their_places() {
        let sizes = Axis::of_sizes(&[1.0, 16.0]);
        assert_eq!([1.0, 4.0, 16.0].map(|size| sizes.place(size)), [0.0, 0.5, 1.0]);
        assert_eq!(Axis::linear(&[4.0]).place(2.0), 0.5);
    }

    #[test]
    fn names_do_not_lie_on_each_other() {
        assert_eq!(spread(&[100.0, 98.0, 20.0, 99.0], 300.0), [100.0, 68.0, 20.0, 84.0]);
        assert_eq!(spread(&[310.0, 310.0], 300.0), [300.0, 284.0]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [1.0, 512.0, 1024.0, 65536.0, 2_f64.powi(20)].map(size_label),
            ["1", "512", "1K", "64K", "1M"]
        );
        assert_eq!(
            [0.0, 0.5, 20.0, 1000.0, 0.002].map(number_label),
            ["0", "0.5", "20", "1000", "0.002"]
        );
    }

    /// All numbers that stand before a quote: coordinates, but for the texts.
    fn is_well_formed(svg: &str) -> bool {
        let (open, closed) =
            (svg.matches('<').count(), svg.matches("/>").count() + 2 * svg.matches("</").count());
        open == closed && !svg.contains("NaN") && !svg.contains("inf")
    }

    #[test]
    fn each_series_is_drawn_as_far_as_it_has_values() {
        let series =
            |name: &str, points: &[(f64, f64)]| Series { name: name.into(), points: points.into() };
        let charts = [
            Chart {
                y_label: "µs".into(),
                scale: Scale::Logarithmic,
                series: vec![
                    series("p50", &[(2.0, 1.0), (4.0, 2.0)]),
                    series("max", &[(2.0, 0.0), (4.0, f64::NAN)]),
                ],
            },
            Chart {
                y_label: "MB/s".into(),
                scale: Scale::Linear,
                series: vec![series("", &[(2.0, 1.0), (4.0, 2.0)])],
            },
        ];
        let svg = draw(["a < b & c", "d"], "bytes", &charts);
        assert!(is_well_formed(&svg), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 3);
        assert_eq!(svg.matches("<circle").count(), 4);
        for text in [">a &lt; b &amp; c<", ">µs<", ">MB/s<", ">p50<", ">bytes<", ">2<"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert!(is_well_formed(&draw(
            ["", ""],
            "",
            &[Chart { y_label: String::new(), scale: Scale::Linear, series: vec![] }]
        )));
    }
}
