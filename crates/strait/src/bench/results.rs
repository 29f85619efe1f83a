//! What the isolation bench found: for each contestant, run by run; shown as medians.

use serde_json::{Value, json};

use super::contest::{DIRECT, STRAIT};
use super::latency::Latencies;
use super::pace::Outcome;
use super::phase::Phase;
use super::report::{self, SHARES, at, cells, mebibytes, number};
use super::spread::Spread;

/// Both phases of one contestant.
pub(crate) struct Run {
    pub(crate) alone: Phase,
    pub(crate) loaded: Phase,
}

/// All runs of one contestant.
pub(crate) struct Of {
    pub(crate) name: String,
    pub(crate) runs: Vec<Run>,
}

/// All runs of all, Strait first.
pub(crate) struct Results(pub(crate) Vec<Of>);

/// Takes one of the two phases of a run.
type Which = fn(&Run) -> &Phase;
const ALONE: Which = |run| &run.alone;
const LOADED: Which = |run| &run.loaded;
/// The share by which contestants are compared.
const P99: f64 = 0.99;

impl Of {
    fn spread(&self, figure: impl FnMut(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs.iter().map(figure))
    }

    fn median(&self, figure: impl FnMut(&Run) -> Option<f64>) -> Option<f64> {
        self.spread(figure).map(|spread| spread.median)
    }

    /// Milliseconds that `share` of the requests of a phase did not exceed.
    fn millis(&self, which: Which, share: f64) -> Option<Spread> {
        self.spread(|run| millis(&which(run).outcome.latencies, share))
    }

    /// All latencies of a phase, of all runs.
    pub(crate) fn latencies(&self, loaded: bool) -> Latencies {
        let mut sum = Latencies::default();
        for run in &self.runs {
            sum.add(&if loaded { LOADED(run) } else { ALONE(run) }.outcome.latencies);
        }
        sum
    }

    /// How many times as long as alone it takes under load.
    fn ratio(&self, share: f64) -> Option<Spread> {
        self.spread(|run| {
            let before = millis(&run.alone.outcome.latencies, share)?;
            Some(millis(&run.loaded.outcome.latencies, share)? / before.max(1e-6))
        })
    }

    /// How many times as long it takes under load as `other`, run by run.
    fn against(&self, other: &Of, share: f64) -> Option<Spread> {
        let of = |run: &Run| millis(&run.loaded.outcome.latencies, share);
        let pairs = self.runs.iter().zip(&other.runs);
        Spread::of(pairs.map(|(mine, theirs)| Some(of(mine)? / of(theirs)?.max(1e-6))))
    }

    /// Bytes per second of all downloads together.
    fn bulk(&self) -> Option<Spread> {
        self.spread(|run| Some(run.loaded.bulk as f64 / run.loaded.costs.wall.as_secs_f64()))
    }

    /// Bytes by which its memory grew beyond that of the first phase of all.
    fn grown(&self) -> Option<Spread> {
        let before = self.runs.first()?.alone.costs.known_rss()? as f64;
        self.spread(|run| Some(run.loaded.costs.known_rss()? as f64 - before))
    }

    fn cut(&self) -> u64 {
        self.runs.iter().map(|run| run.loaded.cut).sum()
    }

    fn rows(&self, several: bool, rows: &mut Vec<Vec<String>>) {
        for (which, when) in [(ALONE, "alone"), (LOADED, "under load")] {
            let found = SHARES.map(|(_, share)| self.millis(which, share));
            let shown = found.map(|spread| report::millis_of(spread.map(|spread| spread.median)));
            rows.push([vec![format!("{}, {when}", self.name)], shown.to_vec()].concat());
            if several {
                let ends = |spread: Option<Spread>| {
                    spread.map_or("-".to_owned(), |s| format!("{:.2}-{:.2}", s.least, s.most))
                };
                rows.push([cells(&["  least-most"]), found.map(ends).to_vec()].concat());
            }
        }
        let ratios = SHARES.map(|(_, share)| self.ratio(share).map(|ratio| ratio.median));
        let ratios = ratios.map(|ratio| number(ratio, 1, "x")).to_vec();
        rows.push([cells(&["  ratio"]), ratios].concat());
    }

    fn costs(&self, rows: &mut Vec<Vec<String>>) {
        let Some(first) = self.runs.first() else { return };
        for (i, part) in first.alone.costs.parts.iter().enumerate() {
            let rss = |which: Which| {
                let found = self.median(|run| Some(which(run).costs.parts.get(i)?.rss? as f64));
                mebibytes(found.map(|bytes| bytes as u64))
            };
            let cpu = |which: Which| number(self.median(|run| which(run).costs.cores_of(i)), 2, "");
            rows.push(vec![part.name.clone(), rss(ALONE), rss(LOADED), cpu(ALONE), cpu(LOADED)]);
        }
    }

    fn json(&self) -> Value {
        let phase = |which: Which| {
            let mut object = serde_json::Map::new();
            for (name, share) in SHARES {
                let found = self.millis(which, share).map(|spread| spread.json());
                object.insert(format!("{name}_ms"), json!(found));
            }
            let others = self.spread(|run| which(run).costs.others_cores());
            let cpu = self.spread(|run| which(run).costs.known_cores());
            let rss = self.spread(|run| Some(which(run).costs.known_rss()? as f64));
            object.insert("cores".to_owned(), json!(cpu.map(|s| s.json())));
            object.insert("rss_bytes".to_owned(), json!(rss.map(|s| s.json())));
            object.insert("others_cores".to_owned(), json!(others.map(|s| s.json())));
            let failed: u64 = self.runs.iter().map(|run| which(run).outcome.failed).sum();
            object.insert("failed".to_owned(), json!(failed));
            Value::Object(object)
        };
        json!({
            "name": self.name,
            "alone": phase(ALONE),
            "under_load": phase(LOADED),
            "p99_ratio": self.ratio(P99).map(|s| s.json()),
            "bulk_bytes_per_second": self.bulk().map(|s| s.json()),
            "grown_bytes": self.grown().map(|s| s.json()),
            "downloads_cut": self.cut(),
        })
    }
}

fn millis(latencies: &Latencies, share: f64) -> Option<f64> {
    at(latencies, share).map(|time| time.as_secs_f64() * 1e3)
}

impl Results {
    /// Of contestants with these names, without any run.
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Results {
        Results(names.into_iter().map(|name| Of { name, runs: Vec::new() }).collect())
    }

    /// Adds what one run of contestant `who` showed.
    pub(crate) fn add(&mut self, who: usize, run: Run) {
        self.0[who].runs.push(run);
    }

    /// Whether most requests of each phase were answered.
    pub(crate) fn are_some(&self) -> bool {
        self.phases().all(|phase| phase.outcome.answered() > phase.outcome.failed)
    }

    fn phases(&self) -> impl Iterator<Item = &Phase> {
        self.0.iter().flat_map(|of| &of.runs).flat_map(|run| [&run.alone, &run.loaded])
    }

    fn named(&self, name: &str) -> Option<&Of> {
        self.0.iter().find(|of| of.name == name)
    }

    /// The tables, for people; ratios first.
    pub(crate) fn text(&self) -> String {
        let several = self.0.iter().any(|of| of.runs.len() > 1);
        let mut text = String::new();
        if self.0.len() > 1 {
            text = report::table(&self.compared()) + "\n";
        }
        let names = SHARES.map(|(name, _)| name);
        let mut rows = vec![cells(&[&["small requests"], &names[..]].concat())];
        self.0.iter().for_each(|of| of.rows(several, &mut rows));
        text.push_str(&report::table(&rows));
        let heads = ["", "memory alone", "under load", "cores alone", "under load"];
        let mut rows = vec![cells(&heads)];
        self.0.iter().for_each(|of| of.costs(&mut rows));
        let others = |which: Which| {
            let all = self.0.iter().flat_map(|of| &of.runs);
            number(
                Spread::of(all.map(|run| which(run).costs.others_cores())).map(|s| s.most),
                2,
                "",
            )
        };
        rows.push(
            [cells(&["others, at most", "", ""]), vec![others(ALONE), others(LOADED)]].concat(),
        );
        text = text + "\n" + &report::table(&rows);
        if let [only] = &self.0[..] {
            let bulk = number(only.bulk().map(|spread| spread.median / 1e6), 1, " MB/s");
            text.push_str(&format!("all downloads: {bulk}\n"));
        }
        text.push_str(&report::failures(self.phases().map(|phase| &phase.outcome)));
        text.push_str(&report::disturbed(self.phases().map(|phase| &phase.costs)));
        for of in self.0.iter().filter(|of| of.cut() > 0) {
            text.push_str(&format!("{} downloads through {} were CUT\n", of.cut(), of.name));
        }
        text
    }

    /// One row for each: under load, and against the others of the same runs.
    fn compared(&self) -> Vec<Vec<String>> {
        let (strait, direct) = (self.named(STRAIT), self.named(DIRECT));
        let mut heads = vec!["under load", "p50", "p99", "p99/alone"];
        heads.extend(direct.map(|_| "/direct"));
        heads.extend(["/strait", "bulk MB/s", "grown"]);
        let mut rows = vec![cells(&heads)];
        for of in &self.0 {
            let time = |share| report::millis_of(of.millis(LOADED, share).map(|s| s.median));
            let times = |ratio: Option<Spread>| number(ratio.map(|ratio| ratio.median), 2, "x");
            let mut row = vec![of.name.clone(), time(0.5), time(P99), times(of.ratio(P99))];
            row.extend(direct.map(|other| times(of.against(other, P99))));
            row.push(strait.map_or("-".to_owned(), |other| times(of.against(other, P99))));
            row.push(number(of.bulk().map(|bulk| bulk.median / 1e6), 0, ""));
            row.push(number(of.grown().map(|grown| grown.most / f64::from(1 << 20)), 1, " MiB"));
            rows.push(row);
        }
        rows
    }

    /// All of it, for programs. What stands beside the contestants is of Strait alone:
    /// both phases of all its runs together.
    pub(crate) fn json(&self) -> Value {
        let all: Vec<Value> = self.0.iter().map(Of::json).collect();
        let outcome = |name, which: Which| {
            let mut sum = Outcome::default();
            self.named(name)?.runs.iter().for_each(|run| sum.add(&which(run).outcome));
            Some(report::outcome_json(&sum))
        };
        let strait = self.named(STRAIT);
        let costs = |which: Which| Some(which(strait?.runs.last()?).costs.json());
        let phase = |which: Which| {
            json!({
                "tunnel": outcome(STRAIT, which),
                "direct": outcome(DIRECT, which),
                "costs": costs(which),
            })
        };
        let ratio = |share| Some(strait?.ratio(share)?.median);
        let ratios: serde_json::Map<String, Value> =
            SHARES.iter().map(|(name, share)| ((*name).to_owned(), json!(ratio(*share)))).collect();
        json!({
            "alone": phase(ALONE),
            "under_load": phase(LOADED),
            "ratio": ratios,
            "bulk_bytes_per_second": strait.and_then(|of| Some(of.bulk()?.median)),
            "downloads_cut": strait.map(Of::cut),
            "contestants": all,
        })
    }
}
