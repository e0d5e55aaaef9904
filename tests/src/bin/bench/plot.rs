//! The plots: figures over what grows, each with the spread of its runs, the axis to the right by powers of ten.

use plotters::prelude::*;

use crate::figures::{Place, Row, median, thousands};

const SIZE: (u32, u32) = (560, 340);
const FONT: (&str, u32) = ("sans-serif", 13);
const TITLE: (&str, u32) = ("sans-serif", 16);
/// Of the lines, one after another.
const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 96, 20), RGBColor(44, 140, 60), RGBColor(120, 70, 170)];
/// What is left free above the highest point for the lines' names, as a part of its height.
const HEADROOM: f64 = 0.35;
/// Powers of ten that an axis shows at most, from 1 to 10,000,000, and nothing before them.
const MAX_X_LABELS: usize = 10;

/// A row that is drawn, with where.
type Point<'a> = (&'a Place, &'a Row);

/// All plots of these rows as SVG, in the order in which their first points come.
pub(crate) fn all(rows: &[Row]) -> anyhow::Result<Vec<String>> {
    let mut plots: Vec<Vec<Point<'_>>> = Vec::new();
    for row in rows {
        let Some(place) = &row.place else { continue };
        match plots.iter_mut().find(|points| points[0].0.plot == place.plot) {
            Some(points) => points.push((place, row)),
            None => plots.push(vec![(place, row)]),
        }
    }
    plots.iter().map(|points| draw(points)).collect()
}

/// The x-axis: by powers of ten, with nothing at all one step before the smallest of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Axis {
    first: f64,
    last: f64,
    /// Where nothing at all stands, if it does.
    zero: Option<f64>,
}

impl Axis {
    fn of(values: impl Iterator<Item = usize> + Clone) -> Self {
        let powers = values.clone().filter(|value| *value > 0).map(|value| (value as f64).log10());
        let least = powers.clone().reduce(f64::min).unwrap_or_default();
        let last = powers.reduce(f64::max).unwrap_or_default();
        let zero = values.into_iter().any(|value| value == 0).then(|| (least - 1.0).floor());
        Self { first: zero.unwrap_or(least), last, zero }
    }

    fn position(&self, value: usize) -> f64 {
        if value == 0 { self.first } else { (value as f64).log10() }
    }

    /// What stands below a position: a number at whole powers, nothing elsewhere.
    fn label(&self, position: f64) -> String {
        if self.zero.is_some_and(|zero| (position - zero).abs() < 1e-6) {
            return "0".to_owned();
        }
        let is_whole = (position - position.round()).abs() < 1e-6;
        if is_whole && position > -0.5 {
            thousands(10_usize.pow(position.round() as u32))
        } else {
            String::new()
        }
    }
}

fn draw(points: &[Point<'_>]) -> anyhow::Result<String> {
    let (first, row) = points[0];
    let axis = Axis::of(points.iter().map(|(place, _)| place.x));
    let highest = points.iter().map(|(_, row)| row.spread().1).fold(0.0, f64::max);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&first.plot, TITLE)
            .margin(10)
            .margin_right(30)
            .x_label_area_size(45)
            .y_label_area_size(60)
            .build_cartesian_2d(axis.first - 0.2..axis.last + 0.2, 0.0..highest * (1.0 + HEADROOM))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(1)
            .x_labels(MAX_X_LABELS)
            .x_label_formatter(&|position| axis.label(*position))
            .x_desc(first.axis)
            .y_desc(row.unit)
            .label_style(FONT)
            .draw()?;
        for (line, colour) in lines(points).into_iter().zip(COLOURS.into_iter().cycle()) {
            let of_line = || points.iter().filter(|(place, _)| place.line == line);
            let at = |(place, row): &Point<'_>| (axis.position(place.x), median(&row.values));
            chart
                .draw_series(LineSeries::new(of_line().map(at), colour.stroke_width(2)))?
                .label(line)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            chart.draw_series(of_line().map(|point| Circle::new(at(point), 3, colour.filled())))?;
            chart.draw_series(of_line().map(|(place, row)| {
                let (x, (low, high)) = (axis.position(place.x), row.spread());
                PathElement::new([(x, low), (x, high)], colour.stroke_width(1))
            }))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .label_font(FONT)
            .draw()?;
        area.present()?;
    }
    Ok(svg)
}

/// The lines' names, in the order in which they come.
fn lines<'a>(points: &[Point<'a>]) -> Vec<&'a str> {
    let mut lines = Vec::new();
    for (place, _) in points {
        if !lines.contains(&place.line) {
            lines.push(place.line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_goes_by_powers_of_ten_and_has_room_for_nothing() {
        let axis = Axis::of([0, 10_000, 1_000_000].into_iter());
        assert_eq!([0, 10_000, 1_000_000].map(|value| axis.position(value)), [3.0, 4.0, 6.0]);
        assert_eq!([3.0, 4.0, 4.5].map(|at| axis.label(at)), ["0", "10,000", ""]);
        let axis = Axis::of([1, 100].into_iter());
        assert_eq!((axis.first, axis.last, axis.label(0.0)), (0.0, 2.0, "1".to_owned()));
    }

    #[test]
    fn what_has_the_same_title_is_one_plot_with_its_lines_and_nothing_else_is_drawn() {
        let row = |plot: &str, line, x| {
            let place = Place { plot: plot.to_owned(), axis: "things", x, line };
            Row::new("a", "ms", vec![1.0, 2.0, 3.0]).at(place)
        };
        let rows = [
            row("times", "first", 0),
            row("sizes", "first", 1),
            row("times", "second", 0),
            row("times", "first", 100),
            Row::new("undrawn", "s", vec![1.0]),
        ];
        let plots = all(&rows).unwrap();
        assert_eq!(plots.len(), 2);
        for (plot, circles) in plots.iter().zip([3, 1]) {
            assert_eq!(plot.matches("<circle").count(), circles, "{plot}");
        }
        assert!(plots[0].contains("times") && plots[0].contains("second") && plots[0].contains("things"));
    }
}
