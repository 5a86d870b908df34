//! The rate over time while the limit changes.
//!
//! Invariant: every sample is drawn.

use super::Sample;
use plotters::prelude::*;

const SIZE: (u32, u32) = (900, 320);
const RATE: RGBColor = RGBColor(0, 90, 181);
const LIMIT: RGBColor = RGBColor(200, 90, 40);

pub(super) fn draw(samples: &[Sample]) -> Result<String, String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        plot(&root, samples).map_err(|error| error.to_string())?;
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

type Area<'b> = DrawingArea<SVGBackend<'b>, plotters::coord::Shift>;

fn plot(area: &Area<'_>, samples: &[Sample]) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    area.fill(&WHITE)?;
    let end = samples.last().map_or(1.0, |sample| sample.seconds);
    let top = samples.iter().map(|sample| sample.mbit.max(f64::from(sample.limit_mbit))).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("one peer, 4 connections, its limit changed while it reads", ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..end, 0.0..top * 1.1)?;
    chart.configure_mesh().x_desc("seconds").y_desc("Mbit/s in 50 ms").draw()?;
    let limit = samples.iter().map(|sample| (sample.seconds, f64::from(sample.limit_mbit)));
    chart.draw_series([PathElement::new(limit.collect::<Vec<_>>(), LIMIT.stroke_width(1))])?;
    let rate = samples.iter().map(|sample| (sample.seconds, sample.mbit));
    chart.draw_series([PathElement::new(rate.collect::<Vec<_>>(), RATE.stroke_width(2))])?;
    Ok(())
}
