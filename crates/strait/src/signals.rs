//! What the system tells a running program.

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Whatever can tell the program to stop.
pub(crate) trait Interrupt {
    /// Resolves when it is told the next time.
    async fn next(&mut self);
}

/// SIGINT and SIGTERM.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
}

impl Signals {
    #[cfg(unix)]
    pub(crate) fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    #[cfg(not(unix))]
    pub(crate) fn new() -> std::io::Result<Signals> {
        Ok(Signals {})
    }
}

impl Interrupt for Signals {
    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// SIGHUP, for a program that has a file to read again. One that has none is ended by it, as
/// when its terminal is closed.
pub(crate) struct Hangups {
    #[cfg(unix)]
    signal: Option<Signal>,
}

impl Hangups {
    #[cfg(unix)]
    pub(crate) fn new(watch: bool) -> std::io::Result<Hangups> {
        let signal = watch.then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Hangups { signal })
    }

    #[cfg(not(unix))]
    pub(crate) fn new(_: bool) -> std::io::Result<Hangups> {
        Ok(Hangups {})
    }

    /// Resolves when there is another.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}
