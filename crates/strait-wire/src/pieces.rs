//! Pieces in a line, of which there is most often one.

use std::collections::VecDeque;

use crate::Data;

/// Places of a line that are kept once it is empty, and the least by which it grows.
const SOME: usize = 16;

/// Pieces in their order. The first needs no memory beside the line itself, and most lines
/// never have a second.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    first: Option<Data>,
    /// What came while there was another.
    #[allow(clippy::box_collection, reason = "a line is handed on, most often without this")]
    rest: Option<Box<VecDeque<Data>>>,
}

impl Pieces {
    /// Adds a piece at the end.
    pub fn push_back(&mut self, data: Data) {
        if self.is_empty() {
            self.first = Some(data);
        } else {
            let rest = self.rest.get_or_insert_default();
            // A line that doubled would hold up to twice what its pieces are counted for.
            if rest.len() == rest.capacity() {
                rest.reserve_exact(SOME.max(rest.len() / 32));
            }
            rest.push_back(data);
        }
    }

    /// Takes the piece at the front.
    pub fn pop_front(&mut self) -> Option<Data> {
        self.first.take().or_else(|| {
            let rest = self.rest.as_mut()?;
            let data = rest.pop_front();
            if rest.is_empty() && rest.capacity() > SOME {
                self.rest = None;
            }
            data
        })
    }

    /// The piece at the front.
    pub fn front(&self) -> Option<&Data> {
        self.first.as_ref().or_else(|| self.rest.as_ref()?.front())
    }

    /// The piece at the front, to be cut.
    pub fn front_mut(&mut self) -> Option<&mut Data> {
        self.first.as_mut().or_else(|| self.rest.as_mut()?.front_mut())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.front().is_none()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Data> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }
}

impl From<Data> for Pieces {
    fn from(data: Data) -> Pieces {
        Pieces { first: Some(data), rest: None }
    }
}

impl FromIterator<Data> for Pieces {
    fn from_iter<I: IntoIterator<Item = Data>>(all: I) -> Pieces {
        let mut pieces = Pieces::default();
        all.into_iter().for_each(|data| pieces.push_back(data));
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_few_places_more_than_pieces_and_gives_them_back() {
        let mut pieces = Pieces::default();
        let places = |pieces: &Pieces| pieces.rest.as_ref().map_or(0, |rest| rest.capacity());
        for count in 1..10_000 {
            pieces.push_back(Data::default());
            let most = count + SOME.max(count / 32);
            assert!(places(&pieces) <= most, "{} places for {count}", places(&pieces));
        }
        while pieces.pop_front().is_some() {}
        assert_eq!(places(&pieces), 0);
    }

    #[test]
    fn a_line_keeps_its_order_however_it_is_used() {
        let piece = |byte: u8| Data::plain(vec![byte].into());
        let (mut pieces, mut model) = (Pieces::default(), VecDeque::new());
        // Every way to add (1) and to take (0), ten steps long.
        for steps in 0..1 << 10 {
            for step in 0..10 {
                if steps >> step & 1 == 1 {
                    pieces.push_back(piece(step));
                    model.push_back(piece(step));
                } else {
                    assert_eq!(pieces.pop_front(), model.pop_front());
                }
                assert_eq!(pieces.front(), model.front());
                assert_eq!(pieces.front_mut(), model.front_mut());
                assert_eq!(pieces.len(), model.len());
                assert_eq!(pieces.is_empty(), model.is_empty());
                assert!(pieces.iter().eq(&model), "{pieces:?}, {model:?}");
            }
        }
    }
}
