//! What may happen.

use strait_mux::Settings;

/// One step. `pick` chooses among the requests whose handles are held at that side, so
/// that every generated step means something.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Open {
        side: usize,
        protocol: u8,
        body: bool,
        /// The body waits until it is asked for.
        waits: bool,
        head: usize,
    },
    Respond {
        side: usize,
        pick: usize,
    },
    Push {
        side: usize,
        pick: usize,
        size: usize,
        shape: u8,
    },
    Finish {
        side: usize,
        pick: usize,
        trailers: bool,
    },
    Take {
        side: usize,
        pick: usize,
        parts: usize,
    },
    Reset {
        side: usize,
        pick: usize,
        retry_safe: bool,
    },
    DropReader {
        side: usize,
        pick: usize,
    },
    DropWriter {
        side: usize,
        pick: usize,
    },
    /// The reader never takes anything again.
    Stall {
        side: usize,
        pick: usize,
    },
    /// The transport of `side` has room for so many frames.
    Pull {
        side: usize,
        frames: usize,
    },
    /// So many frames of `side` arrive at the other.
    Deliver {
        side: usize,
        frames: usize,
    },
    Tick {
        millis: u64,
    },
    Drain {
        side: usize,
    },
    Goodbye {
        side: usize,
    },
    /// `side` loses its link; the other end hears what is still under way.
    Lose {
        side: usize,
    },
    /// Everything that can move moves, and every reader reads.
    Settle,
    /// Only to check the checks: the first frame under way from `side` vanishes.
    DropFrame {
        side: usize,
    },
}

/// How a case ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Finale {
    /// Everyone finishes, everything is delivered and read.
    Orderly,
    /// All handles are dropped where they are, then everything is delivered.
    Abandon,
    /// The link breaks, then all is read and dropped.
    Lost,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) settings: [Settings; 2],
    pub(crate) budgets: [usize; 2],
    /// Frames become bytes and frames again.
    pub(crate) codec: bool,
    pub(crate) ops: Vec<Op>,
    pub(crate) finale: Finale,
}

impl Plan {
    /// A plan of default settings.
    pub(crate) fn plain() -> Plan {
        Plan {
            settings: [Settings::default(), Settings::default()],
            budgets: [64 << 20; 2],
            codec: false,
            ops: Vec::new(),
            finale: Finale::Orderly,
        }
    }
}
