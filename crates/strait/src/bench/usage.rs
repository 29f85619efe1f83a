//! What processes cost, as Linux tells it in /proc. Elsewhere nothing is known.

use std::time::Duration;

/// `/proc` counts CPU time in hundredths of a second (USER_HZ), on every architecture
/// that this program is built for.
const TICKS: u64 = 100;

/// What one process has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// CPU time so far, user and system.
    pub(crate) cpu: Duration,
    /// Resident memory now, in bytes.
    pub(crate) rss: u64,
}

/// What process `pid` has used; `None` when that cannot be known.
pub(crate) fn of(pid: u32) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Beside statm, this one needs no page size to be understood.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage { cpu: cpu(&stat)?, rss: rss(&status)? })
}

/// CPU time that the whole machine has spent, stolen time included.
pub(crate) fn machine() -> Option<Duration> {
    busy(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// `pid` and all that it has started, as far as that can be known: servers share their work
/// among processes.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        // A child belongs to the thread that started it.
        let threads = std::fs::read_dir(format!("/proc/{parent}/task"));
        for thread in threads.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(thread.path().join("children"));
            let children = children.unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        }
    }
    found
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(1000 / TICKS))
}

fn cpu(stat: &str) -> Option<Duration> {
    // The name in brackets may hold anything, spaces and brackets too.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let user: u64 = fields.get(11)?.parse().ok()?;
    let system: u64 = fields.get(12)?.parse().ok()?;
    Some(ticks(user + system))
}

fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn busy(stat: &str) -> Option<Duration> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // user nice system (idle iowait) irq softirq steal; guests are in user already.
    let [user, nice, system, _idle, _wait, irq, soft, steal, ..] = fields[..] else { return None };
    Some(ticks(user + nice + system + irq + soft + steal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 100 0 0 0 250 50 7 8 20 0 4 0 12345 1 2";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(rss("Name:\tx\nVmHWM:\t  900 kB\nVmRSS:\t   512 kB\n"), Some(512 * 1024));
        let machine = "cpu  100 10 50 9000 500 20 10 10 5 5\ncpu0 1 2 3\n";
        assert_eq!(busy(machine), Some(Duration::from_secs(2)));
        assert_eq!(cpu("nonsense"), None);
        assert_eq!(rss("Name:\tx\n"), None);
        assert_eq!(busy("cpu  1 2 3\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_something() {
        let usage = of(std::process::id()).unwrap();
        assert!(usage.rss > 100_000);
        assert!(machine().unwrap() >= usage.cpu);
        assert_eq!(of(u32::MAX), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_family_has_its_children() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let family = family(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(family[0], std::process::id());
        assert!(family.contains(&child.id()), "{family:?}");
    }
}
