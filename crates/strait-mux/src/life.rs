//! The life of one half of a request, as a table.
//!
//! Each request has two halves that end independently: what the opener sends and what it
//! is answered. Sender and receiver of a half follow the same table.

use std::fmt::{self, Write as _};

/// Where a half is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its head has not come.
    Idle,
    /// Its head has come; data may follow.
    Open,
    /// It ended properly.
    Ended,
    /// It was cut.
    Reset,
}

/// What can happen to a half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// Its head.
    Head,
    /// A piece of data.
    Data,
    /// Its proper end, with or without trailers.
    End,
    /// A reset, from either side.
    Reset,
}

/// A step that the table does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Data or an end before the head.
    BeforeHead,
    /// A second head.
    SecondHead,
    /// Anything after the proper end.
    AfterEnd,
}

impl Violation {
    /// What the peer did, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Violation::BeforeHead => "a chunk before the first one",
            Violation::SecondHead => "a second first chunk",
            Violation::AfterEnd => "a chunk after the last one",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const STATES: [State; 4] = [State::Idle, State::Open, State::Ended, State::Reset];
const HAPPENINGS: [Happening; 4] =
    [Happening::Head, Happening::Data, Happening::End, Happening::Reset];

/// One row for each state, one column for each happening, both in the order above.
const TABLE: [[Result<State, Violation>; 4]; 4] = {
    use State::{Ended, Idle, Open, Reset};
    use Violation::{AfterEnd, BeforeHead, SecondHead};
    let _ = Idle;
    [
        // Head           Data             End              Reset
        [Ok(Open), Err(BeforeHead), Err(BeforeHead), Ok(Reset)], // Idle
        [Err(SecondHead), Ok(Open), Ok(Ended), Ok(Reset)],       // Open
        [Err(AfterEnd), Err(AfterEnd), Err(AfterEnd), Ok(Ended)], // Ended
        // What was on its way when the reset crossed it is ignored, not punished.
        [Ok(Reset), Ok(Reset), Ok(Reset), Ok(Reset)], // Reset
    ]
};

impl State {
    /// The state after `happening`.
    ///
    /// # Errors
    /// The violation, when the table has no such step.
    pub fn after(self, happening: Happening) -> Result<State, Violation> {
        TABLE[self as usize][happening as usize]
    }

    /// Whether nothing more can come.
    pub fn is_over(self) -> bool {
        matches!(self, State::Ended | State::Reset)
    }
}

/// The table as a Mermaid state diagram, for docs/protocol.md.
pub fn diagram() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> Idle\n");
    for state in STATES {
        for happening in HAPPENINGS {
            if let Ok(next) = state.after(happening)
                && (next != state || happening == Happening::Data && state == State::Open)
            {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "    {state:?} --> {next:?}: {happening:?}");
            }
        }
    }
    text.push_str("    Ended --> [*]\n    Reset --> [*]\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proper_life() {
        let mut state = State::Idle;
        for (happening, next) in [
            (Happening::Head, State::Open),
            (Happening::Data, State::Open),
            (Happening::End, State::Ended),
            (Happening::Reset, State::Ended),
        ] {
            state = state.after(happening).expect("a step of the table");
            assert_eq!(state, next);
        }
    }

    #[test]
    fn illegal_steps_have_names() {
        assert_eq!(State::Idle.after(Happening::Data), Err(Violation::BeforeHead));
        assert_eq!(State::Open.after(Happening::Head), Err(Violation::SecondHead));
        assert_eq!(State::Ended.after(Happening::Data), Err(Violation::AfterEnd));
        assert_eq!(State::Reset.after(Happening::Data), Ok(State::Reset));
    }

    #[test]
    fn the_diagram_shows_every_state() {
        let text = diagram();
        for state in STATES {
            assert!(text.contains(&format!("{state:?}")), "{text}");
        }
    }
}
