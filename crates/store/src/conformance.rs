//! What every [`crate::Store`] must do, as a suite that each implementation runs.
