//! Requests for many people at once, in which one person cannot spoil the answer for the others.

use crate::matrix::MatrixError;

/// The requests still to be made. There is one at first; a request whose answer is unusable because
/// of one person is repeated in halves, until only the people who spoil it are left out.
pub(super) struct SplitRequest<T>(Vec<Vec<T>>);

/// Returns whether one of the people in a request may have caused an error: their keys do not fit
/// into an answer, or are no keys.
pub(super) fn may_be_spoiled_by_one(error: &MatrixError) -> bool {
    matches!(
        error,
        MatrixError::TooLong { .. } | MatrixError::Unexpected(_)
    )
}

impl<T> SplitRequest<T> {
    pub(super) fn of(all: Vec<T>) -> Self {
        Self(if all.is_empty() {
            Vec::new()
        } else {
            vec![all]
        })
    }

    /// Returns the people of the next request.
    pub(super) fn next(&mut self) -> Option<Vec<T>> {
        self.0.pop()
    }

    /// Repeats a spoiled request in halves. Returns the person who spoils it if nobody else is left
    /// in it.
    pub(super) fn halve(&mut self, mut part: Vec<T>) -> Option<T> {
        if part.len() < 2 {
            return part.pop();
        }
        let second = part.split_off(part.len() / 2);
        self.0.push(second);
        self.0.push(part);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_spoil_an_answer_are_found_with_few_requests() {
        let spoil = [3, 4, 77];
        let mut parts = SplitRequest::of((0..100).collect());
        let (mut asked, mut found, mut answered) = (0, Vec::new(), Vec::new());
        while let Some(part) = parts.next() {
            asked += 1;
            if part.iter().any(|who| spoil.contains(who)) {
                found.extend(parts.halve(part));
            } else {
                answered.extend(part);
            }
        }
        assert_eq!(found, spoil);
        assert_eq!(answered.len(), 97);
        assert!(asked <= 2 * 3 * 7 + 1, "{asked}");
    }

    #[test]
    fn nobody_is_asked_for_nothing() {
        assert_eq!(SplitRequest::<u8>::of(Vec::new()).next(), None);
    }
}
