//! The log of the node itself, on standard error.

use std::io::{self, IsTerminal, Write};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, reload};

use super::queue::Queue;
use super::time::utc;
use crate::config::{LogConfig, LogFormat};

/// Writes the rest of the log when it is dropped.
pub struct LogGuard {
    queue: Queue<Vec<u8>>,
    level: LevelSwitch,
}

impl LogGuard {
    /// Changes the level of the log.
    pub fn level(&self) -> LevelSwitch {
        self.level.clone()
    }
}

/// Changes the level of a log that was started.
#[derive(Clone)]
pub struct LevelSwitch(reload::Handle<Targets, Registry>);

impl LevelSwitch {
    /// Logs at `level`, in the words of [`LogConfig::level`], from now on.
    pub fn set(&self, level: &str) {
        // It fails when the log is gone, and nobody is told then.
        let _ = self.0.reload(filter(level));
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        // A terminal that is stopped must not keep the process alive.
        self.queue.finish(Duration::from_secs(1));
    }
}

/// Starts the log of this process. Keep the guard until the end.
///
/// # Errors
/// When a log was started before, or no thread can be started.
pub fn install(config: &LogConfig) -> Result<LogGuard, String> {
    let format = Box::new(|line: &Vec<u8>, out: &mut Vec<u8>| out.extend_from_slice(line));
    let queue = Queue::start("strait-log", Box::new(io::stderr()), format)
        .map_err(|error| format!("cannot start the log: {error}"))?;
    let lines = Lines { queue: queue.clone(), one_line: config.format == LogFormat::Text };
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let layer = tracing_subscriber::fmt::layer().with_timer(Utc).with_writer(lines);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Text => layer.with_target(false).with_ansi(colour).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_ansi(false).boxed(),
    };
    let (filter, handle) = reload::Layer::new(filter(&config.level));
    let subscriber = Registry::default().with(layer.with_filter(filter));
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|_| "a log was started before".to_owned())?;
    Ok(LogGuard { queue, level: LevelSwitch(handle) })
}

/// A bare level is ours; libraries speak from `warn` on unless they are named.
fn filter(level: &str) -> Targets {
    let mut targets = Targets::new().with_default(Level::WARN);
    for item in level.split(',') {
        match item.split_once('=') {
            Some((target, level)) => {
                let level = LevelFilter::from_str(level).unwrap_or(LevelFilter::INFO);
                targets = targets.with_target(target, level);
            }
            None => {
                let level = LevelFilter::from_str(item).unwrap_or(LevelFilter::INFO);
                targets =
                    targets.with_target("strait", level).with_default(level.min(LevelFilter::WARN));
            }
        }
    }
    targets
}

struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        w.write_str(&utc(SystemTime::now()))
    }
}

/// Hands each event's line to the queue.
struct Lines {
    queue: Queue<Vec<u8>>,
    one_line: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

impl Write for &Lines {
    /// The formatter writes each event at once.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = if self.one_line { on_one_line(event) } else { event.to_vec() };
        self.queue.push(line);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A field's text may come from a peer: it must not pass for a line of its own.
fn on_one_line(event: &[u8]) -> Vec<u8> {
    let body = event.strip_suffix(b"\n").unwrap_or(event);
    let mut line = Vec::with_capacity(event.len());
    for byte in body {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            _ => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(on_one_line(b"a\nb\r\n"), b"a\\nb\\r\n");
        assert_eq!(on_one_line(b"a\n"), b"a\n");
    }

    #[test]
    fn a_bare_level_is_for_us_and_libraries_only_warn() {
        let check = |level: &str, target: &str, at: Level| filter(level).would_enable(target, &at);
        assert!(check("debug", "strait_node::x", Level::DEBUG));
        assert!(!check("debug", "hyper::x", Level::INFO));
        assert!(check("debug", "hyper::x", Level::WARN));
        assert!(!check("error", "hyper::x", Level::WARN));
        assert!(!check("off", "strait", Level::ERROR));
        assert!(check("info,hyper=trace", "hyper::x", Level::TRACE));
        assert!(check("info,strait_node=debug", "strait_node::x", Level::DEBUG));
        assert!(!check("info,strait_node=debug", "strait_edge::x", Level::DEBUG));
    }
}
