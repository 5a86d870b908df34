//! The grid as a picture: ratios to nginx as bars, one panel for throughput and one for CPU per network.
//!
//! Invariant: what is drawn is in the report; bars beyond the scale are cut, with their value written on them.

use super::{Cell, EngineReport, Medians};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

const WIDTH: u32 = 1500;
const PANEL_HEIGHT: u32 = 300;
/// Largest ratio that still has its true height.
const SCALE_END: f64 = 3.0;
/// Room below zero for the names of the cells.
const SCALE_BEGIN: f64 = -0.45;
const ENGINES: [(&str, RGBColor); 3] = [
    ("io_uring", RGBColor(0, 90, 181)),
    ("portable", RGBColor(102, 166, 30)),
    ("naive", RGBColor(200, 90, 40)),
];
/// Part of a cell's width that its bars take.
const FILL: f64 = 0.84;

type Panel<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// What a panel shows of a cell.
struct Measure {
    title: &'static str,
    of: fn(&Medians) -> f64,
}

const MEASURES: [Measure; 2] = [
    Measure { title: "throughput by nginx's (more is better)", of: |medians| medians.wall },
    Measure { title: "server CPU per GB by nginx's (less is better)", of: |medians| medians.cpu },
];

pub(super) fn draw(report: &EngineReport) -> Result<String, String> {
    let mut networks: Vec<&str> = report.cells.iter().map(|cell| cell.network.as_str()).collect();
    networks.dedup();
    let rows = networks.len() * MEASURES.len();
    let height = PANEL_HEIGHT * u32::try_from(rows.max(1)).unwrap_or(1);
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(|error| error.to_string())?;
        let panels = root.split_evenly((rows.max(1), 1));
        let shown =
            networks.iter().flat_map(|network| MEASURES.iter().map(move |measure| (*network, measure)));
        for (area, (network, measure)) in panels.iter().zip(shown) {
            let cells: Vec<&Cell> = report.cells.iter().filter(|cell| cell.network == network).collect();
            let title = format!("{network}, {}: {}", report.conditions.congestion, measure.title);
            panel(area, &title, &cells, measure).map_err(|error| error.to_string())?;
        }
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

type Area<'b> = DrawingArea<SVGBackend<'b>, plotters::coord::Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn panel(area: &Area<'_>, title: &str, cells: &[&Cell], measure: &Measure) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .y_label_area_size(40)
        .build_cartesian_2d(0.0..float(cells.len()), SCALE_BEGIN..SCALE_END)?;
    let label = |ratio: &f64| if *ratio < 0.0 { String::new() } else { format!("{ratio:.1}") };
    chart.configure_mesh().disable_x_mesh().x_labels(0).y_label_formatter(&label).draw()?;
    let even = [(0.0, 1.0), (float(cells.len()), 1.0)];
    chart.draw_series(std::iter::once(PathElement::new(even.to_vec(), BLACK.stroke_width(1))))?;
    for (index, cell) in cells.iter().enumerate() {
        bars(&mut chart, float(index), cell, measure)?;
    }
    for (number, (name, colour)) in ENGINES.into_iter().enumerate() {
        let at = (60 + 90 * i32::try_from(number).unwrap_or(0), 12);
        area.draw(&Rectangle::new([at, (at.0 + 10, at.1 + 10)], colour.filled()))?;
        area.draw(&Text::new(name, (at.0 + 14, at.1), ("sans-serif", 12)))?;
    }
    Ok(())
}

fn bars(chart: &mut Panel<'_, '_>, left: f64, cell: &Cell, measure: &Measure) -> Drawn {
    let small = ("sans-serif", 10);
    let width = FILL / float(ENGINES.len());
    for (number, (engine, colour)) in ENGINES.into_iter().enumerate() {
        let Some(medians) = cell.medians(engine) else { continue };
        let (ratio, start) = ((measure.of)(&medians), left + (1.0 - FILL) / 2.0 + width * float(number));
        let bar = Rectangle::new([(start, 0.0), (start + width, ratio.min(SCALE_END))], colour.filled());
        chart.draw_series(std::iter::once(bar))?;
        if ratio > SCALE_END {
            let written = Text::new(format!("{ratio:.1}"), (start - width, SCALE_END - 0.03), small);
            chart.draw_series(std::iter::once(written))?;
        }
    }
    let names = [(format!("{} conn", cell.connections), -0.04), (size(cell.piece_bytes), -0.22)];
    chart.draw_series(names.into_iter().map(|(name, y)| Text::new(name, (left + 0.08, y), small)))?;
    Ok(())
}

fn size(bytes: u64) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn float(count: usize) -> f64 {
    count as f64
}
