//! A clock for timeouts of seconds, which is read several times for each request: a tenth of
//! what the exact one costs.

/// Milliseconds since a moment before the first call, some ten late at most.
#[cfg(target_os = "linux")]
pub(crate) fn millis() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    // Neither is negative on this clock.
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Milliseconds since the first call.
#[cfg(not(target_os = "linux"))]
pub(crate) fn millis() -> u64 {
    static START: std::sync::LazyLock<std::time::Instant> =
        std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed().as_millis() as u64
}
