//! Undo is born with the resource.
//!
//! Each step of a script that makes something adds the step that removes it. When the script fails,
//! dropping the list takes everything back in reverse order; when it succeeds, the list is disarmed.
//! A step that fails is a warning, because the error that matters is already on its way, and the
//! journal still lets `delete` try again.

use crate::error::Result;

/// A step that takes something back, and its name.
type Step<'a> = (&'static str, Box<dyn FnOnce() -> Result<()> + 'a>);

/// What to take back, newest last.
#[derive(Default)]
pub struct Undo<'a> {
    steps: Vec<Step<'a>>,
}

impl std::fmt::Debug for Undo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.steps.iter().map(|(what, _)| what)).finish()
    }
}

impl<'a> Undo<'a> {
    /// Nothing to take back yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step, named for the warning when it fails.
    pub fn push(&mut self, what: &'static str, step: impl FnOnce() -> Result<()> + 'a) {
        self.steps.push((what, Box::new(step)));
    }

    /// Everything stays.
    pub fn disarm(&mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some((what, step)) = self.steps.pop() {
            if let Err(error) = step() {
                tracing::warn!("undo: {what}: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn undoes_in_reverse_order_unless_disarmed() {
        let seen = RefCell::new(Vec::new());
        let mut undo = Undo::new();
        for number in 0..3 {
            let seen = &seen;
            undo.push("a step", move || {
                seen.borrow_mut().push(number);
                Ok(())
            });
        }
        drop(undo);
        assert_eq!(*seen.borrow(), [2, 1, 0]);

        let mut kept = Undo::new();
        kept.push("a step", || panic!("must not run"));
        kept.disarm();
    }
}
