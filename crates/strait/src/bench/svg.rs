//! A picture of latencies for a page: which share of requests took how long, alone
//! (dashed) and under load, each contestant in a colour of its own.

use std::fmt::Write;

use super::latency::Latencies;
use super::results::Results;

/// Where the curves lie, in pixels.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 400.0;
const LEGEND: f64 = 20.0;

/// Told apart by people who do not see all colours too (Okabe and Ito).
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666"];
/// Marks of the axis below: shares, with their names.
const MARKS: [(f64, &str); 5] =
    [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %")];

/// The latencies of all contestants in SVG, readable on light and dark grounds.
pub(crate) fn picture(results: &Results) -> String {
    let curves: Vec<[Latencies; 2]> =
        results.0.iter().map(|of| [of.latencies(false), of.latencies(true)]).collect();
    let scale = Scale::of(curves.iter().flatten());
    let height = BOTTOM + 60.0 + LEGEND * results.0.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 740 {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"740\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"16\">Latency of small requests: alone (dashed), \
         under load (solid)</text>\n"
    );
    // Writing to a String cannot fail.
    let _ = grid(&mut svg, &scale);
    for (i, (of, curves)) in results.0.iter().zip(&curves).enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        for (latencies, dash) in curves.iter().zip([" stroke-dasharray=\"5 4\"", ""]) {
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" \
                 stroke-width=\"2\"{dash}/>",
                scale.points(latencies)
            );
        }
        let y = BOTTOM + 60.0 + LEGEND * i as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{}\" width=\"24\" height=\"4\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{y}\">{}</text>",
            y - 6.0,
            LEFT + 34.0,
            escaped(&of.name)
        );
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn grid(svg: &mut String, scale: &Scale) -> std::fmt::Result {
    for (share, name) in MARKS {
        let x = scale.x(share);
        line(svg, [x, TOP, x, BOTTOM])?;
        let y = BOTTOM + 20.0;
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{name}</text>")?;
    }
    let mut decade = scale.least;
    while decade <= scale.most {
        let y = scale.y(decade);
        line(svg, [LEFT, y, RIGHT, y])?;
        let (x, y) = (LEFT - 8.0, y + 4.0);
        writeln!(svg, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{decade} ms</text>")?;
        decade *= 10.0;
    }
    Ok(())
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4]) -> std::fmt::Result {
    writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>"
    )
}

/// From latencies to pixels, by decades on both axes: what is rare is what matters.
struct Scale {
    /// Milliseconds, powers of ten.
    least: f64,
    most: f64,
}

impl Scale {
    fn of<'a>(all: impl Iterator<Item = &'a Latencies>) -> Scale {
        let (mut least, mut most) = (f64::MAX, 0.0_f64);
        for latencies in all {
            let millis = |share| latencies.percentile(share).map(|time| time.as_secs_f64() * 1e3);
            least = millis(0.0).map_or(least, |found| least.min(found));
            most = millis(1.0).map_or(most, |found| most.max(found));
        }
        if least > most {
            return Scale { least: 0.1, most: 1.0 };
        }
        let least = 10_f64.powf(least.max(0.001).log10().floor());
        Scale { least, most: 10_f64.powf(most.log10().ceil()).max(least * 10.0) }
    }

    fn x(&self, share: f64) -> f64 {
        // 0 is at the left, 99.9 % at the right.
        LEFT + (RIGHT - LEFT) * (-(1.0 - share).max(0.001).log10() / 3.0)
    }

    fn y(&self, millis: f64) -> f64 {
        let part = (millis.max(self.least) / self.least).log10() / (self.most / self.least).log10();
        BOTTOM - (BOTTOM - TOP) * part
    }

    fn points(&self, latencies: &Latencies) -> String {
        let shares = (0..=90).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 30.0));
        let points = shares.filter_map(|share| {
            let millis = latencies.percentile(share)?.as_secs_f64() * 1e3;
            Some(format!("{:.1},{:.1}", self.x(share), self.y(millis)))
        });
        points.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn slower_is_higher_and_rarer_is_further_right() {
        let mut latencies = Latencies::default();
        (1..=1000).for_each(|n| latencies.record(Duration::from_micros(n * 30)));
        let scale = Scale::of([&latencies].into_iter());
        assert_eq!((scale.least.log10().round(), scale.most.log10().round()), (-2.0, 2.0));
        assert!(scale.y(10.0) < scale.y(1.0) && scale.x(0.5) < scale.x(0.99));
        assert!((scale.x(0.999) - RIGHT).abs() < 0.01);
        assert_eq!(scale.points(&latencies).split(' ').count(), 91);
        assert_eq!(scale.points(&Latencies::default()), "");
    }

    #[test]
    fn names_cannot_break_the_picture() {
        let svg = picture(&Results::new(["<b>&".to_owned()]));
        assert!(svg.contains("&lt;b&gt;&amp;") && svg.ends_with("</svg>\n"), "{svg}");
    }
}
