//! The tables of the page on performance, and the plot.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;

use crate::contestants::{Contestant, Dialect, Kind, Reached};
use crate::measure::{ANSWER, BOUND, CALLERS, CALLS, Cached, Crowd, Herd, OTHERS, ROUNDS};
use crate::request::Error;

const LOCK: &str = include_str!("../Cargo.lock");
const COMMAND: &str = "cargo run --release --manifest-path benches/peers/Cargo.toml";

pub struct Row {
    name: &'static str,
    package: Option<&'static str>,
    kind: Kind,
    dialect: Dialect,
    reached: Reached,
    crowd: Crowd,
}

impl Row {
    pub fn new<C: Contestant>(crowd: Crowd) -> Self {
        Self {
            name: C::NAME,
            package: C::PACKAGE,
            kind: C::KIND,
            dialect: C::DIALECT,
            reached: C::REACHED,
            crowd,
        }
    }

    fn version(&self) -> &'static str {
        let Some(package) = self.package else {
            return "";
        };
        // Where there are several versions, our own entry tells which one is meant.
        let own = LOCK
            .split_once("name = \"peers\"")
            .map_or("", |(_, own)| own);
        let own = own.split("[[package]]").next().unwrap_or("");
        let (lock, key) = match own.contains(&format!("\"{package} ")) {
            true => (own, format!("\"{package} ")),
            false => (LOCK, format!("name = \"{package}\"\nversion = \"")),
        };
        let version = lock
            .split_once(&key)
            .and_then(|(_, rest)| rest.split_once('"'));
        version.map_or("", |(version, _)| version)
    }

    fn plain_name(&self) -> String {
        self.name.replace(['`', '*'], "")
    }
}

/// One line of the tables.
struct Line {
    row: Row,
    cached: Cached,
    /// What the contestant adds to a bare request of its dialect.
    nanos: f64,
    allocations: f64,
    bytes: f64,
}

/// The bare requests first, and then the cheapest first.
pub struct Report {
    lines: Vec<Line>,
}

impl Report {
    pub fn new(rows: Vec<(Row, Cached)>) -> Result<Self, Error> {
        let bare: Vec<_> = rows
            .iter()
            .filter(|(row, _)| row.kind == Kind::Bare)
            .map(|(row, cached)| (row.dialect, *cached))
            .collect();
        let mut lines = Vec::new();
        for (row, cached) in rows {
            let bare = bare.iter().find(|(dialect, _)| *dialect == row.dialect);
            let (_, bare) = bare.ok_or("a dialect without a bare request")?;
            lines.push(Line {
                nanos: cached.nanos - bare.nanos,
                allocations: cached.allocations - bare.allocations,
                bytes: cached.bytes - bare.bytes,
                row,
                cached,
            });
        }
        let has_token = |line: &Line| line.row.kind != Kind::Bare;
        lines.sort_by(|one, other| {
            (has_token(one).cmp(&has_token(other))).then(one.nanos.total_cmp(&other.nanos))
        });
        Ok(Self { lines })
    }

    pub fn run(&self) -> Result<String, Error> {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown CPU", |(_, model)| model);
        let cores = available_parallelism()?;
        let rustc = Command::new("rustc").arg("--version").output()?.stdout;
        let rustc = String::from_utf8(rustc)?;
        let rustc = rustc.split(" (").next().unwrap_or_default().trim();
        let date = jiff::Zoned::now().date();
        Ok(format!(
            "Measured on {date} by `{COMMAND}`: {model}, {cores} cores, {rustc}.\n"
        ))
    }

    pub fn cached(&self) -> String {
        let mut table = format!(
            "The lower quartile of {ROUNDS} short rounds, in which the contestants take turns; \
             for two threads, of those rounds in which both ran all the time.\n\n\
             | per cached request | version | ns | ns above no layer | allocations above \
             | bytes above | ns, two threads at once | throughput of each, of one alone |\n\
             |---|---|--:|--:|--:|--:|--:|--:|\n"
        );
        for line in &self.lines {
            let Cached {
                nanos,
                nanos_of_two,
                allocations,
                bytes,
            } = line.cached;
            let above = match line.row.kind {
                Kind::Bare => format!("– | ({allocations:.0}) | ({bytes:.0})"),
                // Adding zero makes a rounded -0 a 0.
                _ => format!(
                    "{:.0} | {:.0} | {:.0}",
                    line.nanos,
                    line.allocations.round() + 0.0,
                    line.bytes.round() + 0.0
                ),
            };
            let _ = writeln!(
                table,
                "| {} | {} | {nanos:.0} | {above} | {nanos_of_two:.0} | {:.2} |",
                line.row.name,
                line.row.version(),
                nanos / nanos_of_two
            );
        }
        table
    }

    pub fn crowds(&self) -> String {
        let answer = ANSWER.as_millis();
        let bound = BOUND.as_secs();
        let all = OTHERS + 1;
        let mut table = format!(
            "The endpoint answers after {answer} ms, and at once where calls come one by one. \
             Each cell is cut off after {bound} s.\n\n\
             | contestant | endpoint | {} cold callers: token requests, last one done \
             | the same, endpoint failing | {} calls one by one after a failure \
             | first of {all} callers dropped |\n\
             |---|---|--:|--:|--:|--:|\n",
            grouped(CALLERS as u64),
            grouped(CALLS),
        );
        for Line { row, .. } in &self.lines {
            let cells = match &row.crowd {
                Crowd::None => continue,
                Crowd::Eager { healthy, failing } => format!(
                    "{healthy} before the first call | {failing}, then no client | no client | –"
                ),
                Crowd::Lazy {
                    healthy,
                    failing,
                    after_failure,
                    dropped,
                } => {
                    let calls = match after_failure.calls {
                        CALLS => String::new(),
                        1 => format!(" (1 call done in {bound} s)"),
                        calls => format!(" ({calls} calls done in {bound} s)"),
                    };
                    format!(
                        "{}, {:.0} ms | {} | {}{calls} | {} of {OTHERS} served, {} token request{}",
                        herd(healthy),
                        healthy.took.as_secs_f64() * 1e3,
                        herd(failing),
                        grouped(after_failure.requests),
                        dropped.served,
                        dropped.requests,
                        if dropped.requests == 1 { "" } else { "s" },
                    )
                }
            };
            let reached = match row.reached {
                Reached::InProcess => "in process",
                Reached::Loopback => "loopback",
            };
            let _ = writeln!(table, "| {} | {reached} | {cells} |", row.name);
        }
        table
    }

    pub fn plot(&self) -> String {
        let mut cost = Vec::new();
        let mut asked = Vec::new();
        for Line { row, nanos, .. } in &self.lines {
            if row.kind != Kind::Bare {
                cost.push((row, nanos.max(1.0), format!("{nanos:.0} ns")));
            }
            if let Crowd::Lazy { failing, .. } = &row.crowd {
                let more = match failing.waiting {
                    0 => "",
                    _ => " and going on",
                };
                let label = format!("{}{more}", grouped(failing.requests));
                asked.push((row, failing.requests as f64, label));
            }
        }
        let mut y = 20.0;
        let cost = panel(
            "Time that a cached token adds to a request (log scale)",
            &cost,
            10_000.0,
            &mut y,
        );
        let asked = panel(
            "Token requests until 10,000 cold callers have an answer, \
             endpoint failing, at most 3 s (log scale)",
            &asked,
            10_000.0,
            &mut y,
        );
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" \
             viewBox=\"0 0 {WIDTH} {y}\" \
             font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{cost}{asked}</svg>\n"
        )
    }

    /// Replaces what stands between the markers `<!-- peers:NAME -->` and `<!-- /peers:NAME -->`.
    pub fn write(&self, page: &Path, plot: &Path) -> Result<(), Error> {
        let mut text = fs::read_to_string(page)?;
        for (name, part) in [
            ("run", self.run()?),
            ("cached", self.cached()),
            ("crowds", self.crowds()),
        ] {
            let (begin, end) = (
                format!("<!-- peers:{name} -->"),
                format!("<!-- /peers:{name} -->"),
            );
            let (before, rest) = text.split_once(&begin).ok_or("a marker is missing")?;
            let (_, after) = rest.split_once(&end).ok_or("a marker is missing")?;
            text = format!("{before}{begin}\n\n{part}\n{end}{after}");
        }
        fs::write(page, text)?;
        fs::write(plot, self.plot())?;
        Ok(())
    }
}

fn herd(herd: &Herd) -> String {
    let requests = grouped(herd.requests);
    if herd.waiting == 0 {
        return requests;
    }
    format!(
        "{requests} in {} s, {} callers still waiting",
        BOUND.as_secs(),
        grouped(herd.waiting as u64)
    )
}

fn grouped(number: u64) -> String {
    match number {
        1_000.. => format!("{},{:03}", grouped(number / 1_000), number % 1_000),
        _ => number.to_string(),
    }
}

const WIDTH: f64 = 940.0;
const LEFT: f64 = 370.0;
const RIGHT: f64 = 770.0;
const BAR: f64 = 18.0;
const STEP: f64 = 26.0;

fn panel(title: &str, bars: &[(&Row, f64, String)], most: f64, y: &mut f64) -> String {
    let x = |value: f64| LEFT + (RIGHT - LEFT) * value.log10() / most.log10();
    let top = *y + 14.0;
    let bottom = top + bars.len() as f64 * STEP;
    let mut svg = format!("<text x=\"16\" y=\"{y}\" font-weight=\"bold\">{title}</text>\n");
    let mut tick = 1.0;
    while tick <= most {
        let _ = writeln!(
            svg,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{0:.1}\" y=\"{1}\" text-anchor=\"middle\" fill=\"#666\">{2}</text>",
            x(tick),
            bottom + 16.0,
            grouped(tick as u64)
        );
        tick *= 10.0;
    }
    for (at, (row, value, label)) in bars.iter().enumerate() {
        let line = top + at as f64 * STEP + 4.0;
        let colour = match row.name {
            "**tower-oauth**" => "#c2410c",
            _ => "#64748b",
        };
        // A count of one is a bar that can still be seen.
        let width = (x(*value) - LEFT).max(3.0);
        let text = line + 14.0;
        let name = row.plain_name().replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{LEFT}\" y=\"{line}\" width=\"{width:.1}\" \
             height=\"{BAR}\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{text}\">{label}</text>",
            LEFT - 8.0,
            LEFT + width + 6.0
        );
    }
    *y = bottom + 56.0;
    svg
}
