//! The chart: one panel a shape, one bar a contestant, all to one scale.

use std::fmt::Write as _;

use crate::contestants::Contestant;
use crate::report::Medians;
use crate::shapes::Shape;

/// Who is shown, and in which colour.
const SHOWN: [(Contestant, &str, &str); 5] = [
    (Contestant::EndToEnd, "stock-verifier, Kafka to Kafka", "#0b6e4f"),
    (Contestant::RedisEverysec, "Redis + Lua, fsync each second", "#c9a227"),
    (Contestant::RedisAlways, "Redis + Lua, fsync always", "#d9822b"),
    (Contestant::Procedure, "batched stored procedure", "#7a8fa6"),
    (Contestant::Sql, "SQL, one transaction an order", "#a44a3f"),
];
const WIDTH: f64 = 880.0;
const LEFT: f64 = 24.0;
/// Where bars begin: right of the names.
const BARS: f64 = 260.0;
/// Room for the number right of the longest bar.
const NUMBERS: f64 = 90.0;
const BAR: f64 = 16.0;
const GAP: f64 = 4.0;
const TITLE: f64 = 30.0;
const TOP: f64 = 50.0;

/// The SVG text.
pub fn draw(medians: &Medians, shapes: &[Shape]) -> String {
    let most = medians
        .iter()
        .filter(|((contestant, _), _)| SHOWN.iter().any(|(shown, ..)| shown == contestant))
        .map(|(_, rate)| *rate)
        .fold(1.0, f64::max);
    let mut body = String::new();
    let mut y = TOP;
    // Writing to a string does not fail.
    for shape in shapes {
        y += TITLE;
        let _ =
            writeln!(body, r#"<text x="{LEFT}" y="{}" font-weight="600">{}</text>"#, y - 8.0, shape.title());
        for (contestant, name, colour) in SHOWN {
            let Some(rate) = medians.get(&(contestant, *shape)) else { continue };
            let width = (WIDTH - BARS - NUMBERS) * rate / most;
            let base = y + BAR - 4.0;
            let _ = writeln!(body, r#"<text x="{}" y="{base}" text-anchor="end">{name}</text>"#, BARS - 8.0);
            let _ = writeln!(
                body,
                r#"<rect x="{BARS}" y="{y}" width="{width:.1}" height="{BAR}" rx="2" fill="{colour}"/>"#
            );
            let _ = writeln!(
                body,
                r#"<text x="{:.1}" y="{base}">{}</text>"#,
                BARS + width + 6.0,
                thousands(*rate)
            );
            y += BAR + GAP;
        }
    }
    let height = y + 16.0;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"
     font-family="system-ui, sans-serif" font-size="12" fill="#222" role="img"
     aria-label="Orders per second of each contestant on each shape of orders">
<rect width="{WIDTH}" height="{height}" fill="#fff"/>
<text x="{LEFT}" y="28" font-size="16" font-weight="600">Orders decided per second (median; longer is better)</text>
{body}</svg>
"##
    )
}

/// A whole number with commas.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
