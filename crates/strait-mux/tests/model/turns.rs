//! Fairness, in bytes: while one request waits for its turn, no other gets more than its turns
//! as an old and as a new one for each round that the first needs, and the frame that crosses
//! their end.

use std::collections::HashMap;

use strait_mux::Line;
use strait_wire::{Data, PIECE_WEIGHT, StreamFrame, StreamNo};

/// For every request that could be served at one end: what each other got meanwhile, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Turns(HashMap<StreamNo, HashMap<StreamNo, usize>>);

impl Turns {
    /// `frame` went out when `lines` could all have been served.
    pub(crate) fn served(&mut self, frame: &StreamFrame, lines: &[Line]) -> Result<(), String> {
        self.0.retain(|no, _| *no != frame.no && lines.iter().any(|line| line.no == *no));
        let Some(own) = lines.iter().find(|line| line.no == frame.no) else {
            return Err(format!("request {} was served and could send nothing", frame.no));
        };
        let payload: usize = frame.data.iter().map(Data::weight).sum();
        for line in lines.iter().filter(|line| line.no != frame.no) {
            let got = self.0.entry(line.no).or_default().entry(frame.no).or_default();
            // As the schedule counts: a frame is never free, nor more than a usual piece.
            *got += payload.min(own.piece) + PIECE_WEIGHT;
            // A share smaller than a frame pays for one in several rounds.
            let largest = own.piece + PIECE_WEIGHT;
            let rounds = 1 + largest.div_ceil(line.quantum);
            // In each of them it may have been in line once as an old one, run empty, and come
            // back as a new one, which forgives it the frame that crossed its end.
            let most = rounds * (2 * own.quantum + largest);
            if *got > most {
                return Err(format!(
                    "request {} got {got} bytes, over {most}, while {} waited",
                    frame.no, line.no
                ));
            }
        }
        Ok(())
    }
}
